//! All that is known of the schedules of a mesh. No two entries have the same time, so a list tells which request made which entry.

mod known;
mod recurring;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::features::messaging::Push;
use claudemesh_protocol::features::schedules::limits::MAX_PAGE;
use claudemesh_protocol::features::schedules::{ScheduleClock, ScheduleState, ScheduledEntry};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

pub(super) use self::known::is_on_its_way;
use self::known::{Known, There};
use self::recurring::Recurring;
use super::super::asked::{Asked, Book, Fate, mark_of};
use super::super::audit::Mark;
use crate::clock::now_ms;

/// Times from here on do not come while the torture runs: the year 2096. Entries of such a time are parked.
const FAR_MS: i64 = 4_000_000_000_000;
/// Others come within this time: some before the kill, some while there is no broker, some after it.
const SOON_MS: i64 = 900;

/// What a request is for. An entry is its mark, which is its text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Create {
        mark: String,
        at: i64,
    },
    /// One that comes every minute of a clock.
    Recur(ScheduleClock),
    /// A parked one is to come soon.
    Move {
        mark: String,
        at: i64,
    },
    /// A parked one is never to come.
    Cancel {
        mark: String,
    },
    /// What is there, after a kill: by page.
    List {
        cursor: Option<String>,
    },
}

pub(super) struct Log {
    pub(super) asked: Asked<Act>,
    /// Keys of the recipients.
    recipients: Vec<String>,
    /// By mark.
    known: BTreeMap<String, Known>,
    /// Id -> mark.
    marks: BTreeMap<String, String>,
    recurring: Vec<Recurring>,
    /// Times that were given to an entry.
    times: BTreeSet<i64>,
    /// Per scheduler: what is asked before anything else.
    first: Vec<VecDeque<Act>>,
    /// Per scheduler: the pages of its list so far.
    listed: Vec<Vec<ScheduledEntry>>,
    fresh: Vec<Mark>,
    changes: u64,
    /// Messages that came again.
    again: u64,
}

impl Log {
    pub(super) fn new(schedulers: usize, recipients: Vec<String>) -> Self {
        let mut first = vec![VecDeque::new(); schedulers];
        first[0].extend([ScheduleClock::Wall, ScheduleClock::Mesh].map(Act::Recur));
        Self {
            asked: Asked::new(schedulers),
            recipients,
            known: BTreeMap::new(),
            marks: BTreeMap::new(),
            recurring: Vec::new(),
            times: BTreeSet::new(),
            first,
            listed: vec![Vec::new(); schedulers],
            fresh: Vec::new(),
            changes: 0,
            again: 0,
        }
    }

    /// A time that no other entry has.
    fn time(&mut self, from: i64) -> i64 {
        let time = (from..).find(|time| !self.times.contains(time)).unwrap_or(from);
        self.times.insert(time);
        time
    }

    fn choose(&mut self, scheduler: usize, number: usize, random: &mut StdRng) -> Act {
        if let Some(act) = self.first[scheduler].pop_front() {
            return act;
        }
        let (what, soon) = (random.gen_range(0..10), now_ms() + random.gen_range(0..SOON_MS));
        let parked = self.known.iter().filter(|(_, known)| known.scheduler == scheduler && known.is_parked());
        let parked: Vec<&String> = parked.map(|(mark, _)| mark).collect();
        let mark = parked.get(random.gen_range(0..parked.len().max(1))).map(|mark| (*mark).clone());
        match mark {
            Some(mark) if what >= 9 => Act::Cancel { mark },
            Some(mark) if what >= 7 => Act::Move { mark, at: self.time(soon) },
            _ => Act::Create { mark: mark_of(scheduler, number), at: self.time(if what >= 5 { FAR_MS } else { soon }) },
        }
    }

    /// After a kill every scheduler asks for its list. Answers how many requests that takes at most.
    pub(super) fn look_again(&mut self) -> u32 {
        self.cut_off();
        let mut most = 0;
        for scheduler in 0..self.first.len() {
            self.listed[scheduler].clear();
            self.first[scheduler].push_back(Act::List { cursor: None });
            let own = self.known.values().filter(|known| known.scheduler == scheduler).count();
            let pages = u32::try_from(own).unwrap_or(u32::MAX) / MAX_PAGE + 1;
            most = most.max(pages + u32::try_from(self.first[scheduler].len()).unwrap_or(u32::MAX));
        }
        most
    }

    fn frame(&self, act: &Act) -> Value {
        let id = |mark: &String| self.known.get(mark).and_then(|known| known.id.clone());
        match act {
            Act::Create { mark, at } => {
                let to = self.known.get(mark).map(|known| &self.recipients[known.recipient]);
                json!({"type": "schedule", "to": to, "message": mark, "deliverAt": at})
            }
            Act::Recur(clock) => json!({
                "type": "schedule", "to": self.recipients[0], "message": clock.as_str(), "cron": "* * * * *",
                "tz": "UTC", "misfire": "all", "clock": clock.as_str(),
            }),
            Act::Move { mark, at } => json!({"type": "edit_scheduled", "scheduledId": id(mark), "deliverAt": at}),
            Act::Cancel { mark } => json!({"type": "cancel_scheduled", "scheduledId": id(mark)}),
            Act::List { cursor } => json!({"type": "list_scheduled", "ended": true, "cursor": cursor}),
        }
    }

    /// The mark of an entry, which has this id from now on.
    fn named(&mut self, mark: &str, id: &str) -> Result<(), String> {
        let known = self.known.get_mut(mark).ok_or_else(|| format!("no one scheduled {mark}"))?;
        if known.id.get_or_insert_with(|| id.to_owned()) != id {
            return Err(format!("{mark} is {known:?} and {id}"));
        }
        match self.marks.insert(id.to_owned(), mark.to_owned()) {
            Some(other) if other != mark => Err(format!("{id} is {other} and {mark}")),
            _ => Ok(()),
        }
    }

    /// A change was made: it has one entry in the audit log.
    fn changed(&mut self, event: &str, id: &str, at: i64) {
        self.changes += 1;
        self.fresh.push(Mark::new(event, [json!(id), json!(at)]));
    }

    fn created(&mut self, mark: &str, id: &str) -> Result<(), String> {
        self.named(mark, id)?;
        let known = self.known.get_mut(mark).ok_or("it has just been named")?;
        known.there = There::Yes;
        let at = known.at;
        self.changed("schedule_created", id, at);
        Ok(())
    }

    /// A change of an entry was made.
    fn settle_change(&mut self, mark: &str) -> Result<(), String> {
        let known = self.known.get_mut(mark).ok_or_else(|| format!("no one scheduled {mark}"))?;
        let id = known.id.clone().unwrap_or_default();
        match known.change.take() {
            Some(Act::Move { at, .. }) => {
                known.at = at;
                self.changed("schedule_edited", &id, at);
            }
            Some(Act::Cancel { .. }) => {
                known.there = There::Cancelled;
                let at = known.at;
                self.changed("schedule_cancelled", &id, at);
            }
            other => return Err(format!("{mark} was not to be changed, but {other:?}")),
        }
        Ok(())
    }

    fn confirmed(&mut self, scheduler: usize, act: &Act, answer: &Value) -> Result<(), String> {
        let wrong = || format!("{act:?} was answered with {answer}");
        match act {
            Act::Create { mark, at } => {
                let id = answer["scheduledId"].as_str().filter(|_| answer["deliverAt"] == *at);
                self.created(mark, id.ok_or_else(wrong)?)
            }
            Act::Recur(clock) => {
                let (id, at) = (answer["scheduledId"].as_str(), answer["deliverAt"].as_i64());
                let (id, at) = (id.ok_or_else(wrong)?, at.ok_or_else(wrong)?);
                self.recurring.push(Recurring::new(*clock, id));
                self.changed("schedule_created", id, at);
                Ok(())
            }
            Act::Move { mark, at } => {
                let entry = &answer["entry"];
                if entry["deliverAt"] != *at || entry["version"] != 2 {
                    return Err(wrong());
                }
                self.settle_change(mark)
            }
            Act::Cancel { mark } => {
                if answer["ok"] != true {
                    return Err(wrong());
                }
                self.settle_change(mark)
            }
            Act::List { .. } => {
                let rows = serde_json::from_value::<Vec<_>>(answer["messages"].clone());
                let rows = rows.map_err(|error| format!("{error}: {answer}"))?;
                self.listed[scheduler].extend(rows);
                if let Some(cursor) = answer["next"].as_str() {
                    self.first[scheduler].push_front(Act::List { cursor: Some(cursor.to_owned()) });
                    return Ok(());
                }
                self.resolve(scheduler)
            }
        }
    }

    /// The list of a scheduler is whole: it tells what became of that which has no answer.
    fn resolve(&mut self, scheduler: usize) -> Result<(), String> {
        let rows = std::mem::take(&mut self.listed[scheduler]);
        let rows: Vec<ScheduledEntry> = rows.into_iter().filter(|row| row.cron.is_none()).collect();
        let mut by_time = BTreeMap::new();
        for row in &rows {
            if let Some(twin) = by_time.insert(row.deliver_at, row) {
                return Err(format!("an entry is there twice: {row:?} and {twin:?}"));
            }
        }
        let open = self.known.iter().filter(|(_, known)| known.scheduler == scheduler && known.is_open());
        let open: Vec<(String, Known)> = open.map(|(mark, known)| (mark.clone(), known.clone())).collect();
        for (mark, known) in open {
            let row = match &known.id {
                Some(id) => rows.iter().find(|row| row.id.as_str() == id),
                None => by_time.get(&known.at).copied(),
            };
            let done = match (&known.change, row) {
                (None, Some(row)) => {
                    self.created(&mark, row.id.as_str())?;
                    continue;
                }
                (None, None) if known.got.is_empty() => {
                    self.known.entry(mark).and_modify(|known| known.there = There::No);
                    continue;
                }
                (_, None) => return Err(format!("{mark} is gone: {known:?}")),
                (Some(Act::Move { at, .. }), Some(row)) if row.deliver_at == *at => true,
                (Some(Act::Cancel { .. }), Some(row)) if row.state == ScheduleState::Cancelled => true,
                (Some(_), Some(row)) => {
                    if row.deliver_at != known.at || row.state != ScheduleState::Active {
                        return Err(format!("{mark} is {known:?}, and there is {row:?}"));
                    }
                    false
                }
            };
            if done {
                self.settle_change(&mark)?;
            } else if let Some(known) = self.known.get_mut(&mark) {
                known.change = None;
            }
        }
        Ok(())
    }

    /// A message came.
    pub(super) fn arrived(&mut self, recipient: usize, push: &Push, now_ms: i64) -> Result<(), String> {
        let key = push.client_message_id.as_deref().and_then(|key| key.strip_prefix("schedule:"));
        let place = key.and_then(|key| key.split_once(':')).and_then(|(id, at)| Some((id, at.parse::<i64>().ok()?)));
        let (id, at) = place.ok_or_else(|| format!("a message that names no entry and time: {push:?}"))?;
        if let Some(recurring) = self.recurring.iter_mut().find(|one| one.id == id) {
            return recurring.arrived(at, &push.message_id, now_ms);
        }
        let text = envelope::decode_public(&push.ciphertext).map_err(|error| error.to_string())?;
        let Some(known) = self.known.get_mut(&text) else { return Err(format!("no one scheduled {text}")) };
        let moved = matches!(known.change, Some(Act::Move { at: moved, .. }) if moved == at);
        let gone = matches!(known.there, There::No | There::Cancelled);
        if gone || recipient != known.recipient || !(moved || known.at == at) {
            return Err(format!("{text} is {known:?}, and it came to {recipient} for {at}"));
        }
        if now_ms < at {
            return Err(format!("{text} came at {now_ms}, before its time {at}"));
        }
        match known.got.insert(at, push.message_id.clone()) {
            Some(before) if before != push.message_id => {
                return Err(format!("{text} came as {before} and as {}", push.message_id));
            }
            Some(_) => self.again += 1,
            None if known.got.len() > 1 => return Err(format!("{text} was sent twice: {:?}", known.got)),
            None => {}
        }
        self.named(&text, id)
    }

    pub(super) fn settled(&self) -> bool {
        self.asked.open() == 0
            && self.first.iter().all(VecDeque::is_empty)
            && !self.known.values().any(|known| known.is_open() || known.is_awaited())
            && self.recurring.iter().all(Recurring::settled)
    }

    pub(super) fn missing(&self) -> String {
        let awaited: Vec<_> = self.known.iter().filter(|(_, known)| known.is_open() || known.is_awaited()).collect();
        let first: Vec<_> = awaited.iter().take(3).collect();
        let minutes: Vec<String> = self.recurring.iter().map(Recurring::missing).collect();
        format!(
            "{} requests without an answer; {} entries not there, such as {first:?}; {}",
            self.asked.open(),
            awaited.len(),
            minutes.join(", ")
        )
    }

    /// Compares all entries of a broker at rest with what is known.
    pub(super) fn judge(&mut self, rows: &[ScheduledEntry]) -> Result<(), String> {
        let mut by_id = BTreeMap::new();
        for row in rows {
            if by_id.insert(row.id.as_str(), row).is_some() {
                return Err(format!("{row:?} is in the list twice"));
            }
        }
        for (mark, known) in &self.known {
            let row = known.id.as_deref().and_then(|id| by_id.remove(id));
            known.judge(mark, row)?;
        }
        for recurring in &mut self.recurring {
            let row = by_id.remove(recurring.id.as_str());
            recurring.judge(row.ok_or_else(|| format!("{recurring:?} is gone"))?)?;
        }
        match by_id.first_key_value() {
            Some((_, row)) => Err(format!("no one scheduled {row:?}")),
            None => Ok(()),
        }
    }

    pub(super) fn take_confirmed(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.fresh)
    }

    /// All that was changed, confirmed or found in a list.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn summary(&self) -> String {
        let count = |there: There| self.known.values().filter(|known| known.there == there).count();
        let sent = self.known.values().filter(|known| !known.got.is_empty()).count();
        let minutes: usize = self.recurring.iter().map(Recurring::count).sum();
        format!(
            "{}; {sent} entries sent once each ({} came again), {} cancelled and never, {minutes} minutes of entries that recur",
            self.asked.summary(),
            self.again,
            count(There::Cancelled),
        )
    }
}

impl Book for Log {
    const NAME: &'static str = "schedules";

    fn ask(&mut self, scheduler: usize, random: &mut StdRng) -> Option<(usize, Value)> {
        let number = self.asked.of(scheduler).len();
        let act = self.choose(scheduler, number, random);
        match &act {
            Act::Create { mark, at } => {
                let recipient = number % self.recipients.len();
                self.known.insert(mark.clone(), Known::new(scheduler, recipient, *at));
            }
            Act::Move { mark, .. } | Act::Cancel { mark } => {
                self.known.entry(mark.clone()).and_modify(|known| known.change = Some(act.clone()));
            }
            Act::Recur(_) | Act::List { .. } => {}
        }
        let frame = self.frame(&act);
        Some((self.asked.begin(scheduler, act), frame))
    }

    fn answered(&mut self, scheduler: usize, number: usize, answer: &Value) -> Result<(), String> {
        let fate = if answer["type"] == "error" { Fate::Refused } else { Fate::Confirmed };
        let act = self.asked.end(scheduler, number, fate)?;
        if fate == Fate::Refused {
            return Err(format!("{act:?} was refused: {answer}"));
        }
        self.confirmed(scheduler, &act, answer)
    }

    fn cut_off(&mut self) {
        self.asked.cut_off();
    }
}

#[cfg(test)]
mod tests;
