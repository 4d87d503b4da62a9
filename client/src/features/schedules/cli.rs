//! `remind` and `schedule`: with a message, and `list`, `cancel`, `pause`, `resume`, `edit`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use claudemesh_protocol::features::schedules::{ListScheduled, Misfire, ScheduleClock, ScheduleState, ScheduledEntry};
use claudemesh_protocol::id::{PublicKey, ScheduleId};
use claudemesh_protocol::time::iso;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::when::{When, parse_at};
use super::{Changes, Order, short, target_words};
use crate::clock::shown;
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::connect::in_mesh;
use crate::error::CliError;
use crate::output::{Output, Style, word};
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

/// Characters of a text that a list shows.
const LISTED_CHARS: usize = 60;

/// Send a message later, once or again and again: to yourself unless --to says otherwise.
#[derive(Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  claudemesh remind \"look at the build\" --in 2h\n  \
                  claudemesh remind \"stand-up\" --to @frontend --cron \"30 9 * * mon-fri\" --tz Europe/Berlin\n  \
                  claudemesh remind --at 14:30 \"lunch is over\"\n  claudemesh remind list\n  claudemesh remind cancel 5c0d8f1e\n\n\
                  It is sent in your name, whether you are connected then or not. A text for yourself or for one peer is sealed\n\
                  with your key; the broker cannot read it."
)]
pub struct RemindArgs {
    /// What to do with what is scheduled.
    #[command(subcommand)]
    action: Option<RemindAction>,
    #[command(flatten)]
    new: NewArgs,
}

verbs! {
    /// What to do with what is scheduled.
    pub enum RemindAction {
        List => ListArgs,
        Cancel => CancelArgs,
        Pause => PauseArgs,
        Resume => ResumeArgs,
        Edit => EditArgs,
    }
}

verbs! {
    /// Messages that are sent later: make them, list them, change them. `remind` does the same.
    #[command(
        after_help = "Examples:\n  claudemesh schedule msg \"stand-up\" --to '*' --cron \"0 9 * * mon-fri\"\n  \
                      claudemesh schedule list\n  claudemesh schedule pause 5c0d8f1e"
    )]
    pub struct ScheduleArgs: enum ScheduleAction {
        Msg => MsgArgs,
        List => ListArgs,
        Cancel => CancelArgs,
        Pause => PauseArgs,
        Resume => ResumeArgs,
        Edit => EditArgs,
    }
}

/// What is to be sent.
#[derive(Args, Clone, Debug)]
pub struct NewArgs {
    /// The message.
    #[arg(allow_hyphen_values = true)]
    message: Option<String>,
    /// The recipient: a name, @group, #topic, *, a key, or self [default: self].
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    #[command(flatten)]
    when: WhenArgs,
}

/// When, and by which rules.
#[derive(Args, Clone, Debug)]
pub struct WhenArgs {
    /// After this time: a number with s, m, h or d (seconds without a unit).
    #[arg(long = "in", value_name = "TIME", value_parser = parse_duration, group = "time")]
    wait: Option<Duration>,
    /// At this time: 14:30 (its next time), 2026-11-28T09:00 or 2026-11-28T09:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_at, group = "time")]
    at: Option<i64>,
    /// Again and again: minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly.
    #[arg(long, value_name = "FIELDS", group = "time")]
    cron: Option<String>,
    /// Time zone of --cron, for example Europe/Berlin [default: this machine's].
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// What happens to times that pass while the broker is stopped: `fire_once` sends one message for all of them, `skip` none, `all` one for each [default: fire_once].
    #[arg(long, value_name = "PLAN")]
    misfire: Option<Plan>,
    /// Which clock counts: the broker's, or the simulated one of the mesh [default: wall].
    #[arg(long, value_name = "CLOCK")]
    clock: Option<Which>,
}

/// A plan for missed times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Plan {
    FireOnce,
    Skip,
    All,
}

impl From<Plan> for Misfire {
    fn from(plan: Plan) -> Self {
        match plan {
            Plan::FireOnce => Self::FireOnce,
            Plan::Skip => Self::Skip,
            Plan::All => Self::All,
        }
    }
}

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    Wall,
    Mesh,
}

impl From<Which> for ScheduleClock {
    fn from(which: Which) -> Self {
        match which {
            Which::Wall => Self::Wall,
            Which::Mesh => Self::Mesh,
        }
    }
}

impl WhenArgs {
    fn when(&self) -> Option<When> {
        match (self.wait, self.at, &self.cron) {
            (Some(wait), ..) => Some(When::In(wait)),
            (_, Some(at_ms), _) => Some(When::At(at_ms)),
            (.., Some(cron)) => Some(When::Cron(cron.clone())),
            (None, None, None) => None,
        }
    }
}

/// What was scheduled, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Told {
    scheduled_id: ScheduleId,
    /// Unix milliseconds.
    deliver_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    /// Unix milliseconds of the first times of a recurring message.
    next_times: Vec<i64>,
    /// Who it is for.
    to: String,
    message: String,
}

impl Verb for RemindArgs {
    fn effect(&self) -> Effect {
        self.action.as_ref().map_or(Effect::Changes, Verb::effect)
    }

    fn fields(&self) -> Vec<&'static str> {
        self.action.as_ref().map_or_else(shape::in_mesh::<Told>, Verb::fields)
    }

    fn shapes() -> Vec<Shape> {
        [vec![Shape::one::<InMesh<Told>>()], RemindAction::shapes()].concat()
    }

    /// Exit 3 for a time that cannot be, 5 for an unknown recipient, 7 when a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        match self.action {
            Some(action) => action.run(cx),
            None => create(cx, self.new),
        }
    }
}

/// Send a message later, once or again and again: to yourself unless --to says otherwise.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh schedule msg \"look at the build\" --in 2h\n  \
                  claudemesh schedule msg \"week report\" --to Bob --cron \"0 16 * * fri\" --misfire skip")]
pub struct MsgArgs {
    #[command(flatten)]
    new: NewArgs,
}

impl Verb for MsgArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Told>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Told>>()]
    }

    /// As `remind`.
    fn run(self, cx: &Context) -> Ran {
        create(cx, self.new)
    }
}

fn create(cx: &Context, new: NewArgs) -> Ran {
    let text = new.message.clone().filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| CliError::invalid_args("The message is missing."))?;
    let when = new.when.when().ok_or_else(|| {
        CliError::invalid_args("The time is missing.").hint("Give --in 2h, --at 14:30 or --cron \"0 9 * * mon-fri\".")
    })?;
    let order = Order {
        to: new.to,
        text: text.clone(),
        when,
        tz: new.when.tz,
        misfire: new.when.misfire.map(Into::into),
        clock: new.when.clock.map(Into::into),
    };
    let (mesh, scheduled) = in_mesh(cx, |connection| async move { connection.schedule(order).await })?;
    let ack = scheduled.ack;
    let told = Told {
        scheduled_id: ack.scheduled_id,
        deliver_at: ack.deliver_at,
        cron: ack.cron,
        next_times: ack.next_times,
        to: scheduled.to,
        message: text,
    };
    let text = |out: &Output| {
        let (id, to) = (short(&told.scheduled_id), word(&told.to, out));
        let when = match &told.cron {
            Some(cron) => format!("{}, next {}", word(cron, out), times(&told.next_times)),
            None => at(told.deliver_at),
        };
        format!("{} {} → {to} at {when}: {}\n", out.tick(), word(&id, out), word(&beginning(&told.message), out))
    };
    cx.out.answer(&InMesh::new(&mesh, &told), text).map(done)
}

/// List what is scheduled, in the order of the times.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh remind list\n  claudemesh schedule list --ended --json=id,state,lastError"
)]
pub struct ListArgs {
    /// Also what was sent, failed or was cancelled in the last seven days.
    #[arg(long)]
    ended: bool,
    /// What all members have scheduled; for moderators. Sealed texts stay sealed.
    #[arg(long)]
    everyone: bool,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ScheduledEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<ScheduledEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let filter = ListScheduled { ended: self.ended, everyone: self.everyone, ..ListScheduled::default() };
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let list = |connection: Connection| async move {
            let own = connection.identity().member.public();
            // One more shows that there are more.
            Ok((own, connection.scheduled(filter, most.saturating_add(1)).await?))
        };
        let (mesh, (own, mut entries)) = in_mesh(cx, list)?;
        let more = entries.len() > most;
        entries.truncate(most);
        cx.out
            .answer(&InMesh::all(&mesh, &entries), |out| {
                if entries.is_empty() {
                    return "nothing is scheduled; `claudemesh remind <message> --in 2h` does it\n".to_owned();
                }
                let more = if more { "(there are more; --limit shows them)\n" } else { "" };
                entries.iter().map(|entry| line(entry, &own, out)).collect::<String>() + more
            })
            .map(done)
    }
}

macro_rules! about_one_entry {
    ($($(#[$meta:meta])* $name:ident: $method:ident, $said:literal;)*) => {$(
        #[derive(Args, Clone, Debug)]
        $(#[$meta])*
        pub struct $name {
            /// Its id, or at least the first 8 characters of it.
            id: String,
        }

        impl Verb for $name {
            fn effect(&self) -> Effect {
                Effect::Changes
            }

            fn fields(&self) -> Vec<&'static str> {
                shape::in_mesh::<ScheduledEntry>()
            }

            fn shapes() -> Vec<Shape> {
                vec![Shape::one::<InMesh<ScheduledEntry>>()]
            }

            /// Exit 5 when there is none.
            fn run(self, cx: &Context) -> Ran {
                let id = self.id;
                changed(cx, $said, |connection| async move { connection.$method(&id).await })
            }
        }
    )*};
}

about_one_entry! {
    /// Let a scheduled message wait. What would have been sent meanwhile is not made up for.
    #[command(after_help = "Example:\n  claudemesh remind pause 5c0d8f1e")]
    PauseArgs: pause_scheduled, "paused";
    /// Let a paused message go on with its next time.
    #[command(after_help = "Example:\n  claudemesh remind resume 5c0d8f1e")]
    ResumeArgs: resume_scheduled, "resumed";
}

/// Take a scheduled message back.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh remind cancel 5c0d8f1e")]
pub struct CancelArgs {
    /// Its id, or at least the first 8 characters of it.
    id: String,
}

/// A message that was taken back, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Cancelled {
    scheduled_id: ScheduleId,
    cancelled: bool,
}

impl Verb for CancelArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Cancelled>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Cancelled>>()]
    }

    /// Exit 5 when nothing of yours waits under that ID.
    fn run(self, cx: &Context) -> Ran {
        let id = self.id;
        let (mesh, scheduled_id) = in_mesh(cx, |connection| async move { connection.cancel_scheduled(&id).await })?;
        let told = Cancelled { scheduled_id, cancelled: true };
        let text = |out: &Output| format!("{} cancelled {}\n", out.tick(), word(&short(&told.scheduled_id), out));
        cx.out.answer(&InMesh::new(&mesh, &told), text).map(done)
    }
}

/// Change text, recipient or times of a scheduled message.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh remind edit 5c0d8f1e --message \"stand-up, today in room 2\"\n  \
                  claudemesh remind edit 5c0d8f1e --cron \"0 10 * * mon-fri\" --tz Europe/Berlin")]
pub struct EditArgs {
    /// Its id, or at least the first 8 characters of it.
    id: String,
    /// Another text.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// Another recipient.
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    #[command(flatten)]
    when: WhenArgs,
}

impl Verb for EditArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ScheduledEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<ScheduledEntry>>()]
    }

    /// Exit 3 when nothing is given to change, 5 when there is no such message.
    fn run(self, cx: &Context) -> Ran {
        let changes = Changes {
            to: self.to,
            text: self.message,
            when: self.when.when(),
            tz: self.when.tz,
            misfire: self.when.misfire.map(Into::into),
            clock: self.when.clock.map(Into::into),
        };
        let nothing = changes.to.is_none() && changes.text.is_none() && changes.when.is_none();
        if nothing && changes.tz.is_none() && changes.misfire.is_none() && changes.clock.is_none() {
            return Err(
                CliError::invalid_args("It is not said what to change.").hint("See claudemesh remind edit --help.")
            );
        }
        let id = self.id;
        changed(cx, "changed", |connection| async move { connection.edit_scheduled(&id, changes).await })
    }
}

/// Makes a change and shows the entry.
fn changed<F: Future<Output = Result<ScheduledEntry, ConnectionError>>>(
    cx: &Context,
    said: &str,
    change: impl FnOnce(Connection) -> F,
) -> Ran {
    let work = |connection: Connection| async move {
        let own = connection.identity().member.public();
        Ok((own, change(connection).await?))
    };
    let (mesh, (own, entry)) = in_mesh(cx, work)?;
    let text = |out: &Output| format!("{} {said}: {}", out.tick(), line(&entry, &own, out));
    cx.out.answer(&InMesh::new(&mesh, &entry), text).map(done)
}

/// `[5c0d8f1e] → self at 2026-11-28 09:00: stand-up  0 9 * * mon-fri · Europe/Berlin · then 2026-11-29 09:00`
fn line(entry: &ScheduledEntry, own: &PublicKey, out: &Output) -> String {
    let mut facts = Vec::new();
    if entry.state != ScheduleState::Active {
        facts.push(entry.state.as_str().to_owned());
    }
    if let Some(cron) = &entry.cron {
        facts.push(word(cron, out));
        facts.extend(entry.tz.as_deref().map(|zone| word(zone, out)));
    }
    if entry.next_times.len() > 1 {
        facts.push(format!("then {}", times(&entry.next_times[1..])));
    }
    if entry.clock == ScheduleClock::Mesh {
        facts.push("by the mesh's clock".into());
    }
    if entry.misfire != Misfire::FireOnce {
        facts.push(format!("missed: {}", entry.misfire.as_str()));
    }
    facts.extend(entry.fired_count.filter(|count| *count > 0).map(|count| format!("sent {count} times")));
    facts.extend(entry.last_error.as_deref().map(|error| word(error, out)));
    let text = match entry.message.is_empty() {
        true if entry.ciphertext.is_some() => "(sealed)".to_owned(),
        true => "(the text is gone)".to_owned(),
        false => word(&beginning(&entry.message), out),
    };
    let facts = if facts.is_empty() { String::new() } else { format!("  {}", facts.join(" · ")) };
    format!(
        "[{}] → {} at {}: {text}{}\n",
        out.paint(Style::Cyan, &word(&short(&entry.id), out)),
        word(&target_words(entry, own), out),
        at(entry.deliver_at),
        out.paint(Style::Dim, &facts),
    )
}

fn at(ms: i64) -> String {
    shown(&iso(ms)).into_owned()
}

fn times(list: &[i64]) -> String {
    list.iter().map(|ms| at(*ms)).collect::<Vec<_>>().join(", ")
}

fn beginning(text: &str) -> String {
    if text.chars().count() <= LISTED_CHARS {
        return text.to_owned();
    }
    text.chars().take(LISTED_CHARS).chain(['…']).collect()
}
