//! `topic tail`: prints the messages of a topic as they are stored, each once.

use std::collections::VecDeque;

use clap::Args;
use claudemesh_protocol::features::topics::{TopicFollow, TopicMessage, TopicPosted};

use super::history::{MessageRow, entry_text, message_row};
use crate::connection::{Connection, Heard};
use crate::context::Context;
use crate::context::connect::{Purpose, block_on, connect};
use crate::error::CliError;
use crate::features::messaging::cli::follow::stop_signal;
use crate::features::topics::{Entry, MAX_HISTORY};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Messages of a history that are printed first, unless another number is asked for.
const USUAL_TAIL: u32 = 10;
/// Ids of messages that were printed and may come again.
const REMEMBERED: usize = 2_000;

/// Print what is written in a topic until Ctrl-C: with `--json` one object per line.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh topic tail plans\n  \
                        claudemesh topic tail plans --forward-only --count 1 --json\n\n\
                        After a lost connection it goes on where it was. Reading so marks nothing as read.")]
pub struct TailArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
    /// Begin with this many earlier messages.
    #[arg(long, value_name = "N", default_value_t = USUAL_TAIL, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HISTORY)))]
    limit: u32,
    /// Begin with what is written from now on.
    #[arg(long, conflicts_with = "limit")]
    forward_only: bool,
    /// End after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Verb for TailArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<MessageRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::lines::<InMesh<MessageRow>>()]
    }

    /// Exit 4 when the connection cannot be opened again, 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        block_on(async {
            let connection = connect(cx, &entry, Purpose::Watch).await?;
            let left = self.count.unwrap_or(u64::MAX);
            let printed = VecDeque::new();
            let mut tail = Tail { cx, mesh: entry.slug.clone(), args: self, printed, left, open: true };
            let stop = stop_signal()?;
            let ended = tokio::select! {
                ended = tail.run(&connection) => ended,
                stopped = stop => stopped,
            };
            connection.close().await;
            ended
        })
        .map(done)
    }
}

struct Tail<'a> {
    cx: &'a Context,
    mesh: String,
    args: TailArgs,
    /// The last ones that were printed, newest last.
    printed: VecDeque<String>,
    /// Messages that are still wanted.
    left: u64,
    /// Whether anyone still reads what is printed.
    open: bool,
}

impl Tail<'_> {
    async fn run(&mut self, connection: &Connection) -> Result<(), CliError> {
        let mut posted = connection.events::<TopicPosted>();
        // First, so that nothing is between the history and what follows.
        let topic_id = self.follow(connection, None).await?;
        if !self.args.forward_only {
            for entry in connection.topic_history(&self.args.topic, self.args.limit, None).await? {
                self.print(entry)?;
            }
        }
        self.cx.out.remark("Listening; Ctrl-C ends it.");
        while self.open && self.left > 0 {
            match posted.next().await {
                Some(Heard::Event(event)) if event.topic_id == topic_id => self.print(Entry::of(event.message))?,
                Some(Heard::Event(_)) => {}
                Some(Heard::Lagged(_) | Heard::Away) => {
                    let last = self.printed.back().cloned();
                    if let Err(error) = self.follow(connection, last).await
                        && connection.hello_ack().is_ok()
                    {
                        return Err(error);
                    }
                }
                None => break,
            }
        }
        // The connection says why it ended; a reader that went away is no failure.
        if self.open && self.left > 0 { connection.hello_ack().map(drop).map_err(CliError::from) } else { Ok(()) }
    }

    async fn follow(
        &mut self,
        connection: &Connection,
        after_id: Option<String>,
    ) -> Result<claudemesh_protocol::id::TopicId, CliError> {
        let following = connection.request(TopicFollow { topic: self.args.topic.clone(), after_id }).await?;
        if !following.recovered {
            self.cx.out.remark("(some messages in between are not shown; `topic history` has them)");
        }
        for message in following.messages {
            self.print(Entry::of(message))?;
        }
        Ok(following.topic_id)
    }

    fn print(&mut self, entry: Entry) -> Result<(), CliError> {
        let message: &TopicMessage = &entry.message;
        if !self.open || self.left == 0 || self.printed.contains(&message.id) {
            return Ok(());
        }
        let row = message_row(&entry);
        let text = self.cx.out.render_line(&InMesh::new(&self.mesh, &row), |out| entry_text(&entry, out))?;
        self.open = self.cx.out.print(&text)?;
        if self.printed.len() == REMEMBERED {
            self.printed.pop_front();
        }
        self.printed.push_back(entry.message.id);
        self.left -= 1;
        Ok(())
    }
}
