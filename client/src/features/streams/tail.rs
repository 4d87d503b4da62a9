//! `stream tail`: prints the entries of a stream as they come, each once and without a hole that is not told.

use std::time::Duration;

use clap::Args;
use claudemesh_protocol::features::streams::{
    AckStream, PageEntry, Position, ReadStream, StreamData, StreamDeleted, Subscribe,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse_place;
use crate::connection::{Connection, Heard};
use crate::context::Context;
use crate::context::connect::{Purpose, block_on, connect};
use crate::error::CliError;
use crate::features::messaging::cli::follow::stop_signal;
use crate::features::state::shown;
use crate::output::{Style, clean, word};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// How long an entry that was printed may wait until the broker knows of it.
const ACK_AFTER: Duration = Duration::from_millis(500);
/// Entries that are read at once after a hole.
const PAGE: u32 = 500;
/// Characters of one entry where a model reads it.
const MODEL_CHARS: usize = 4_000;

/// Print every entry until Ctrl-C: with `--json` one object per line.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh stream tail builds\n  \
                        claudemesh stream tail builds --from start --count 10 --json\n  \
                        claudemesh stream tail builds --consumer ci\n\n\
                        With --consumer the broker keeps how far you have come, and the next call goes on there.\n\
                        After a lost connection it goes on where it was.")]
pub struct TailArgs {
    /// The stream; it need not exist yet.
    name: String,
    /// Where to begin: now, start, an offset, or a time such as 2026-04-08T09:53:03Z [default: now].
    #[arg(long, value_name = "PLACE", value_parser = parse_place)]
    from: Option<Position>,
    /// Go on where this consumer stopped; --from is where a new one begins. The stream must exist.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// End after this many entries.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// An entry that came, for scripts. Of a hole `gap` is its last offset, and there is no data.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Told {
    offset: u64,
    data: Value,
    published_by: Option<String>,
    gap: Option<u64>,
}

impl Verb for TailArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Told>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::lines::<InMesh<Told>>()]
    }

    /// Exit 4 when the connection cannot be opened again, 5 when the stream is deleted.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        block_on(async {
            let connection = connect(cx, &entry, Purpose::Watch).await?;
            let mut tail = Tail {
                cx,
                mesh: entry.slug.clone(),
                args: self,
                next: None,
                left: u64::MAX,
                open: true,
                unacked: None,
            };
            tail.left = tail.args.count.unwrap_or(u64::MAX);
            let stop = stop_signal()?;
            let ended = tokio::select! {
                ended = tail.run(&connection) => ended,
                stopped = stop => stopped,
            };
            // What was printed is done, however it ended.
            let acked = tail.acknowledge(&connection).await;
            connection.close().await;
            ended.and(acked)
        })
        .map(done)
    }
}

struct Tail<'a> {
    cx: &'a Context,
    mesh: String,
    args: TailArgs,
    /// Offset of the entry that is printed next.
    next: Option<u64>,
    /// Entries that are still wanted.
    left: u64,
    /// Whether anyone still reads what is printed.
    open: bool,
    /// The last entry that was printed and that the broker does not know to be done.
    unacked: Option<u64>,
}

impl Tail<'_> {
    async fn run(&mut self, connection: &Connection) -> Result<(), CliError> {
        let (mut data, mut deleted) = (connection.events::<StreamData>(), connection.events::<StreamDeleted>());
        self.subscribe(connection).await?;
        self.cx.out.remark("Listening; Ctrl-C ends it.");
        let mut ack = tokio::time::interval(ACK_AFTER);
        while self.open && self.left > 0 {
            tokio::select! {
                heard = data.next() => match heard {
                    Some(Heard::Event(data)) if data.stream == self.args.name => self.take(connection, &data).await?,
                    Some(Heard::Event(_)) => {}
                    Some(Heard::Lagged(_)) => self.catch_up(connection).await?,
                    Some(Heard::Away) => {
                        if let Err(error) = self.subscribe(connection).await
                            && connection.hello_ack().is_ok()
                        {
                            return Err(error);
                        }
                    }
                    None => break,
                },
                heard = deleted.next() => match heard {
                    Some(Heard::Event(deleted)) if deleted.stream == self.args.name => {
                        return Err(CliError::not_found("The stream was deleted."));
                    }
                    Some(_) => {}
                    None => break,
                },
                _ = ack.tick() => self.acknowledge(connection).await?,
            }
        }
        // The connection says why it ended; a reader that went away is no failure.
        if self.open && self.left > 0 { connection.hello_ack().map(drop).map_err(CliError::from) } else { Ok(()) }
    }

    async fn subscribe(&mut self, connection: &Connection) -> Result<(), CliError> {
        let from = self.next.map(Position::Offset).or(self.args.from).unwrap_or(Position::NOW);
        let consumer = self.args.consumer.clone();
        let subscribe =
            Subscribe { stream: self.args.name.clone(), from: Some(from), ack: consumer.is_some(), consumer };
        let subscribed = connection.request(subscribe).await?;
        self.next = self.next.or(subscribed.next);
        Ok(())
    }

    async fn take(&mut self, connection: &Connection, data: &StreamData) -> Result<(), CliError> {
        let Some(offset) = data.offset else { return Ok(()) };
        let next = *self.next.get_or_insert(offset);
        if offset > next {
            // Lost on the way here, or gone: the broker knows which.
            self.catch_up(connection).await?;
        }
        self.print(offset, &data.data, &data.published_by)
    }

    /// Reads what is missing; what is gone is told.
    async fn catch_up(&mut self, connection: &Connection) -> Result<(), CliError> {
        while let Some(next) = self.next.filter(|_| self.open && self.left > 0) {
            let read =
                ReadStream { stream: self.args.name.clone(), from: Some(Position::Offset(next)), limit: Some(PAGE) };
            let page = match connection.request(read).await {
                Ok(page) => page,
                // Lost again: it is subscribed to from here on when it is back.
                Err(error) if connection.hello_ack().is_err() => {
                    tracing::debug!(%error, "lost while catching up");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(gap) = page.gap {
                self.print_gap(gap.from, gap.to)?;
            }
            for PageEntry { offset, data, published_by, .. } in &page.entries {
                self.print(*offset, data, published_by)?;
            }
            if page.next >= page.end || page.entries.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn print_gap(&mut self, from: u64, to: u64) -> Result<(), CliError> {
        let told = Told { offset: from, data: Value::Null, published_by: None, gap: Some(to) };
        let text = self.cx.out.render_line(&InMesh::new(&self.mesh, &told), |out| {
            let words = format!("({from} to {to} are not kept any more)");
            format!("{}\n", out.paint(Style::Dim, &words))
        })?;
        self.next = Some(to + 1);
        self.open = self.cx.out.print(&text)?;
        Ok(())
    }

    fn print(&mut self, offset: u64, data: &Value, who: &str) -> Result<(), CliError> {
        if !self.open || self.left == 0 || self.next.is_some_and(|next| offset < next) {
            return Ok(());
        }
        let told = Told { offset, data: data.clone(), published_by: Some(who.to_owned()), gap: None };
        let text = self.cx.out.render_line(&InMesh::new(&self.mesh, &told), |out| {
            let data =
                if out.is_for_model() { shown(data, MODEL_CHARS) } else { clean(&data.to_string()).into_owned() };
            let (place, who) = (offset.to_string(), word(who, out));
            format!("{}  {data}  {}\n", out.paint(Style::Cyan, &place), out.paint(Style::Dim, &who))
        })?;
        self.open = self.cx.out.print(&text)?;
        if self.open {
            (self.next, self.left, self.unacked) = (Some(offset + 1), self.left - 1, Some(offset));
        }
        Ok(())
    }

    /// Tells the broker how far the consumer has come.
    async fn acknowledge(&mut self, connection: &Connection) -> Result<(), CliError> {
        let Some(consumer) = self.args.consumer.clone() else { return Ok(()) };
        let Some(offset) = self.unacked else { return Ok(()) };
        let ack = AckStream { stream: self.args.name.clone(), consumer, offset };
        match connection.write(ack).await {
            Ok(_) => self.unacked = None,
            // It is told when the connection is back, or with the next entry.
            Err(error) if connection.hello_ack().is_err() => tracing::debug!(%error, "lost while acknowledging"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
