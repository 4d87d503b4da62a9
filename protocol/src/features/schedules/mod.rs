//! Schedules: messages that are sent later, once or again and again.

use serde::{Deserialize, Serialize};

use crate::id::ScheduleId;
use crate::target::TargetField;

pub mod limits;

/// What happens to times that passed while the broker was stopped, the machine slept, or the clock was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// One message for all of them, late.
    #[default]
    FireOnce,
    /// None.
    Skip,
    /// A message for each of the first [`limits::MAX_MADE_UP`].
    All,
}

impl Misfire {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FireOnce, Self::Skip, Self::All];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FireOnce => "fire_once",
            Self::Skip => "skip",
            Self::All => "all",
        }
    }
}

/// Which clock an entry follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScheduleClock {
    /// The broker's.
    #[default]
    Wall,
    /// The simulated clock of the mesh. Without one, and while it stands still, the entry waits.
    Mesh,
}

impl ScheduleClock {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Mesh => "mesh",
        }
    }
}

/// How far an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScheduleState {
    /// It waits for its time.
    #[default]
    Active,
    /// It waits for `resume_scheduled`.
    Paused,
    /// It was sent, or its time was skipped.
    Done,
    /// It could not be sent: `lastError` says why.
    Failed,
    /// Someone cancelled it, or its member left.
    Cancelled,
}

impl ScheduleState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Active, Self::Paused, Self::Done, Self::Failed, Self::Cancelled];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it may still send something.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Paused)
    }
}

/// `schedule`: sends a message later. The member sends it, whether it has a connection then or not.
///
/// Shape: `{"type":"schedule","to":"Bob","message":"stand-up","deliverAt":0,"cron":"0 9 * * mon-fri","tz":"Europe/Berlin"}`.
/// Errors: `invalid_cron` with the reason, `invalid_args`, `unknown_target`, `ambiguous_target`, `payload_too_large`, `limit` with
/// `bound`, `rate_limited`, `forbidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// As `targetSpec` of `send`, at most [`limits::MAX_TARGETS`]. Who a name means is decided when the message is sent.
    pub to: TargetField,
    /// The text, for a message that the broker can read. Absent: `ciphertext` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Unix milliseconds of the clock that it follows; a time that has passed is sent at once. Not looked at with `cron`.
    #[serde(default, rename = "deliverAt", skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<i64>,
    /// `reminder`, for what the recipient is only to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
    /// Five fields as in POSIX, with names, steps and `@daily` and the like. At most [`limits::MAX_CRON_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Says no more than `cron` does; older clients send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurring: Option<bool>,
    /// IANA name of the time zone of `cron`, such as `Europe/Berlin`; absent: the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// Absent: `fire_once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misfire: Option<Misfire>,
    /// Absent: `wall`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ScheduleClock>,
    /// Of a text that is sealed with the member's key, which sends it: base64 of 24 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The sealed text, in base64. At most [`limits::MAX_BODY_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertext: Option<String>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            to: TargetField::One(String::new()),
            message: None,
            deliver_at: None,
            subtype: None,
            cron: None,
            recurring: None,
            tz: None,
            misfire: None,
            clock: None,
            nonce: None,
            ciphertext: None,
        }
    }
}

/// `scheduled_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ScheduledAck {
    /// The entry.
    pub scheduled_id: ScheduleId,
    /// Unix milliseconds at which it is sent, or first sent.
    pub deliver_at: i64,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Unix milliseconds of the first times of a recurring entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_times: Vec<i64>,
}

/// `list_scheduled`: the entries of the caller's member, in the order of their times.
///
/// Errors: `invalid_args`, `forbidden` with `everyone` and without `canModerate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListScheduled {
    /// Those that are over, too, which are kept for a week.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// Those of all members. What is sealed stays so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everyone: bool,
    /// At most [`limits::MAX_PAGE`], which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ScheduledEntry {
    /// Its id.
    pub id: ScheduleId,
    /// Who it is for.
    #[cfg_attr(feature = "schema", schemars(with = "Targets"))]
    pub to: TargetField,
    /// The text; empty when it is sealed.
    pub message: String,
    /// Unix milliseconds at which it is sent next; of one that is over, at which it was due last.
    pub deliver_at: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Of a recurring entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// How often it was sent; of a recurring entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_count: Option<u64>,
    /// Unix milliseconds of its next times, at most [`limits::NEXT_TIMES`]; of a recurring entry that is not paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_times: Vec<i64>,
    /// How far it is.
    #[serde(default)]
    pub state: ScheduleState,
    /// Time zone of `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// What happens to missed times.
    #[serde(default)]
    pub misfire: Misfire,
    /// Which clock it follows.
    #[serde(default)]
    pub clock: ScheduleClock,
    /// `reminder`, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
    /// Name of the member it belongs to.
    #[serde(default)]
    pub by: String,
    /// Of a sealed text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Of a sealed text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertext: Option<String>,
    /// Times that were missed and not made up for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed_count: u64,
    /// Unix milliseconds at which it was sent last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fired_at: Option<i64>,
    /// Why it could not be sent the last time: a code and words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Grows by one with each change that a member makes.
    #[serde(default)]
    pub version: u64,
}

/// One target or several, in schemas.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum Targets {
    One(String),
    Many(Vec<String>),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `scheduled_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduledList {
    /// Entries.
    pub messages: Vec<ScheduledEntry>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

macro_rules! about_one_entry {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The entry: its id, or at least its first 8 characters.
            pub scheduled_id: ScheduleId,
        }
    )*};
}

about_one_entry! {
    /// `cancel_scheduled`: it is sent no more. One that is cancelled already stays so. Others' entries need `canModerate`.
    ///
    /// Errors: `ambiguous_prefix`, `rate_limited`. An entry that is not there, over, or not the caller's is `ok:false`.
    CancelScheduled;
    /// `pause_scheduled`: it waits; what would have been sent meanwhile is not missed. Others' entries need `canModerate`.
    ///
    /// Errors: `not_found`, `ambiguous_prefix`, `conflict` when it is over, `rate_limited`.
    PauseScheduled;
    /// `resume_scheduled`: a recurring entry goes on with its next time; another one whose time has passed is missed.
    ///
    /// Errors: `not_found`, `ambiguous_prefix`, `conflict` when it is over, `invalid_cron`, `rate_limited`.
    ResumeScheduled;
}

/// `cancel_scheduled_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelScheduledAck {
    /// The whole id; as it was asked for when there is none.
    pub scheduled_id: ScheduleId,
    /// Whether it is cancelled now.
    pub ok: bool,
}

/// `edit_scheduled`: changes what is given; only the entry's own member may. A time in place of a cron expression makes it an entry
/// that is sent once, and the other way round.
///
/// Errors: those of `schedule`; `not_found`, `ambiguous_prefix`, `conflict` when it is over or has another version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EditScheduled {
    /// The entry: its id, or at least its first 8 characters.
    #[serde(rename = "scheduledId")]
    pub scheduled_id: ScheduleId,
    /// Other targets. A sealed text has to be given anew with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<TargetField>,
    /// Another text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Another time, in place of `cron`.
    #[serde(default, rename = "deliverAt", skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<i64>,
    /// Another expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Another time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// Another plan for missed times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misfire: Option<Misfire>,
    /// Another clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ScheduleClock>,
    /// Of another sealed text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Another sealed text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertext: Option<String>,
    /// Only when the entry has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

impl Default for ScheduleId {
    /// The id that no entry has.
    fn default() -> Self {
        "".into()
    }
}

/// `scheduled_result`: the entry as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduledResult {
    /// The entry.
    pub entry: ScheduledEntry,
}

crate::wire_feature! {
    requests {
        /// Sends a message later, once or again and again.
        Schedule = "schedule" => answers ScheduledAck, needs CanSchedule, once;
        /// What is scheduled.
        ListScheduled = "list_scheduled" => answers ScheduledList, needs nothing, repeatable;
        /// Ends an entry.
        CancelScheduled = "cancel_scheduled" => answers CancelScheduledAck, needs nothing, repeatable;
        /// Lets an entry wait.
        PauseScheduled = "pause_scheduled" => answers ScheduledResult, needs nothing, repeatable;
        /// Lets a paused entry go on.
        ResumeScheduled = "resume_scheduled" => answers ScheduledResult, needs CanSchedule, repeatable;
        /// Changes text, targets or times of an entry.
        EditScheduled = "edit_scheduled" => answers ScheduledResult, needs CanSchedule, once;
    }
    answers {
        ScheduledAck = "scheduled_ack",
        ScheduledList = "scheduled_list",
        CancelScheduledAck = "cancel_scheduled_ack",
        ScheduledResult = "scheduled_result",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
