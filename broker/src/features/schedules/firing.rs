//! Sends what is due.
//!
//! Storage has every entry with its next time. Memory has a page of those that are due within seconds ([`Queue::armed`]) and the
//! time of the next one behind them. An entry that was sent stays due in storage until its message is there, or was received; then
//! one transaction for the whole page takes them to their next times. A broker that is killed in between sends the message again,
//! and it is the same message: its id follows from entry and time. So no time is left out, and none counts twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use claudemesh_protocol::features::schedules::{ScheduleClock, ScheduledAck};
use claudemesh_protocol::id::MemberId;

use super::plan::{Plan, is_late, plan};
use super::sending::{Came, Page, Waits, came, gone_on, send, tell_older, words};
use super::store::{self, LeftOut, Row};
use super::{Schedules, is_active};
use crate::db::DbError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::refusal::Refusal;

/// Entries that are read before they are due, and for how long. Reading a page takes some milliseconds.
const PAGE: usize = 1_024;
const AHEAD_MS: i64 = 2_000;
/// Bytes of the messages of a page.
const PAGE_BYTES: usize = 8 << 20;
/// Messages of one step, and of the last entry in it: a thousand in one would hold up the others of the mesh.
const STEP: usize = 128;
/// Entries that are sent and not stored yet; more wait.
const MAX_SENDING: usize = 4_096;
/// Pause after what could not be stored or read.
const RETRY_MS: i64 = 1_000;
/// Begins the key of the wake that lets members go on.
const RELEASE: &str = "release ";
/// Longest sleep before the wall clock is looked at again.
const MAX_SLEEP_MS: i64 = 30_000;
/// A mesh with an entry that is due within this time stays in memory: longer than the broker takes to wake one.
const AWAKE_MS: i64 = 30_000;

/// What a mesh in memory knows of its schedules.
#[derive(Default)]
pub struct SchedulesMemory {
    wall: Queue,
    mesh: Queue,
    /// What the mesh's clock shows, in Unix milliseconds. `None`: the mesh has no clock.
    sim_ms: Option<i64>,
    /// The clock has said so since the mesh was loaded.
    heard: bool,
    /// How often entries were armed again because the clock was new or set back.
    turns: u64,
    /// Pages that were sent, to name the lanes.
    pages: u64,
}

/// What follows one clock.
#[derive(Default)]
struct Queue {
    /// By time and id.
    armed: BTreeMap<(i64, String), Armed>,
    /// When the next is due behind those.
    next_ms: Option<i64>,
    /// Storage is being read.
    reading: bool,
    /// Something was changed since the reading began.
    stale: bool,
    /// Ids that are sent and not stored as such.
    sending: HashSet<String>,
    /// Monotonic time before which nothing is tried.
    held_mono_ms: i64,
    /// Members whose budget of messages is used up, and the monotonic time when there may be more: their entries stay due in
    /// storage, and those of others go on.
    held_members: HashMap<String, i64>,
}

/// An entry with what there is to send.
struct Armed {
    row: Row,
    /// Set for one that was late when it was read.
    late: Option<Plan>,
}

impl SchedulesMemory {
    fn queue(&mut self, clock: ScheduleClock) -> &mut Queue {
        match clock {
            ScheduleClock::Wall => &mut self.wall,
            ScheduleClock::Mesh => &mut self.mesh,
        }
    }

    /// The mesh is loaded.
    pub(super) fn begin(&mut self, cx: &mut MeshContext<'_>) {
        self.wall.next_ms = Some(cx.now_ms());
        cx.wake_at(ScheduleClock::Wall.as_str(), cx.mono_ms());
    }

    /// What the mesh's clock shows.
    pub(super) fn sim_ms(&self) -> Option<i64> {
        self.sim_ms
    }

    fn now_ms(&self, cx: &MeshContext<'_>, clock: ScheduleClock) -> Option<i64> {
        match clock {
            ScheduleClock::Wall => Some(cx.now_ms()),
            ScheduleClock::Mesh => self.sim_ms,
        }
    }

    /// The mesh's clock shows another time, or was stopped.
    pub(super) fn simulated(&mut self, cx: &mut MeshContext<'_>, sim_ms: Option<i64>) {
        let before = std::mem::replace(&mut self.sim_ms, sim_ms);
        let first = !std::mem::replace(&mut self.heard, true);
        let Some(now_ms) = sim_ms else {
            self.mesh.armed.clear();
            return;
        };
        if first {
            return self.look(cx, ScheduleClock::Mesh);
        }
        // A clock that is new or was set back: what recurs comes at the next time that it will show.
        if before.is_none_or(|before| now_ms < before) {
            return self.rearm(cx, now_ms, before.is_none());
        }
        self.turn(cx, ScheduleClock::Mesh);
    }

    fn rearm(&mut self, cx: &mut MeshContext<'_>, now_ms: i64, is_new: bool) {
        let storage = cx.storage();
        self.turns += 1;
        // Until then nothing is read: it would come at times that the clock has not shown.
        self.mesh.reading = true;
        self.mesh.armed.clear();
        let slow = async move { store::rearm(&storage, now_ms, is_new).await };
        let work = Schedules::work_or_failure(Lane::of::<Schedules>("rearm"), slow, |memory, cx, done| {
            if let Err(refusal) = done {
                tracing::warn!(mesh.id = %cx.mesh_id(), error = %refusal, "schedules could not follow the clock");
            }
            memory.mesh.reading = false;
            memory.look(cx, ScheduleClock::Mesh);
            Ok(Outcome::<ScheduledAck>::Silent)
        });
        spawn(cx, work);
    }

    /// Goes with a change, so that [`Self::changed`] sees whether the clock was set while it was stored.
    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    /// A member changed an entry; storage has it already. Its time is by the clock as it was at so many turns.
    pub(super) fn changed(&mut self, cx: &mut MeshContext<'_>, row: &Row, turns: u64) {
        if turns != self.turns
            && row.clock() == ScheduleClock::Mesh
            && let Some(now_ms) = self.sim_ms
        {
            // What was armed again meanwhile may not have had this entry among it.
            return self.rearm(cx, now_ms, true);
        }
        for clock in [ScheduleClock::Wall, ScheduleClock::Mesh] {
            let queue = self.queue(clock);
            queue.armed.retain(|(_, id), _| *id != row.id);
            queue.stale |= queue.reading;
            let due_ms = row.due_ms.filter(|_| row.clock() == clock && is_active(row));
            if let Some(due_ms) = due_ms {
                self.expect(cx, clock, due_ms);
            }
        }
    }

    /// Storage has an entry that comes at this time.
    fn expect(&mut self, cx: &mut MeshContext<'_>, clock: ScheduleClock, due_ms: i64) {
        let now_ms = self.now_ms(cx, clock);
        let queue = self.queue(clock);
        queue.stale |= queue.reading;
        queue.next_ms = Some(queue.next_ms.map_or(due_ms, |next| next.min(due_ms)));
        let soon = now_ms.is_some_and(|now_ms| due_ms <= now_ms + ahead_ms(clock));
        // What is behind it in memory would be sent first.
        let among_them = queue.armed.last_key_value().is_some_and(|((last, _), _)| due_ms <= *last);
        if soon || among_them { self.look(cx, clock) } else { self.arm(cx, clock) }
    }

    pub(super) fn woken(&mut self, cx: &mut MeshContext<'_>, key: &str) {
        let released = key.strip_prefix(RELEASE);
        let of_mesh = released.unwrap_or(key) == ScheduleClock::Mesh.as_str();
        let clock = if of_mesh { ScheduleClock::Mesh } else { ScheduleClock::Wall };
        if released.is_none() {
            return self.turn(cx, clock);
        }
        let mono_ms = cx.mono_ms();
        let queue = self.queue(clock);
        queue.held_members.retain(|_, until| *until > mono_ms);
        if let Some(next) = queue.held_members.values().min().copied() {
            cx.wake_at(key, next);
        }
        self.look(cx, clock);
    }

    /// Sends what is due, or reads it, or sleeps until then.
    pub(super) fn turn(&mut self, cx: &mut MeshContext<'_>, clock: ScheduleClock) {
        let Some(now_ms) = self.now_ms(cx, clock) else { return };
        let mono_ms = cx.mono_ms();
        let queue = self.queue(clock);
        if queue.reading || queue.held_mono_ms > mono_ms || queue.sending.len() >= MAX_SENDING {
            return;
        }
        match queue.armed.first_key_value() {
            Some(((due_ms, _), _)) if *due_ms <= now_ms => self.send_due(cx, clock, now_ms),
            None if queue.next_ms.is_some_and(|next| next <= now_ms + ahead_ms(clock)) => self.look(cx, clock),
            _ => self.arm(cx, clock),
        }
    }

    /// Wakes at the next time. The mesh's clock says itself when it has come.
    fn arm(&mut self, cx: &mut MeshContext<'_>, clock: ScheduleClock) {
        if clock == ScheduleClock::Mesh {
            return;
        }
        let (now_ms, mono_ms) = (cx.now_ms(), cx.mono_ms());
        let first = self.wall.armed.first_key_value().map(|((due_ms, _), _)| *due_ms);
        let Some(at_ms) = first.or(self.wall.next_ms.map(|next| next.saturating_sub(AHEAD_MS))) else { return };
        let wait_ms = at_ms.saturating_sub(now_ms).clamp(0, MAX_SLEEP_MS);
        cx.wake_at(clock.as_str(), mono_ms.saturating_add(wait_ms).max(self.wall.held_mono_ms));
    }

    /// Reads the next page.
    pub(super) fn look(&mut self, cx: &mut MeshContext<'_>, clock: ScheduleClock) {
        let Some(now_ms) = self.now_ms(cx, clock) else { return };
        let mono_ms = cx.mono_ms();
        let queue = self.queue(clock);
        if queue.reading {
            queue.stale = true;
            return;
        }
        if queue.held_mono_ms > mono_ms || queue.sending.len() >= MAX_SENDING {
            // The end of the pause, or of what is being sent, looks again.
            queue.next_ms = Some(now_ms);
            return;
        }
        (queue.reading, queue.stale) = (true, false);
        queue.held_members.retain(|_, until| *until > mono_ms);
        let members: Vec<String> = queue.held_members.keys().cloned().collect();
        let (storage, left_out) = (cx.storage(), LeftOut { ids: queue.sending.clone(), members });
        let until_ms = now_ms.saturating_add(ahead_ms(clock));
        let slow = async move {
            let (rows, next_ms) = store::due(&storage, clock, until_ms, &left_out, PAGE, PAGE_BYTES).await?;
            let armed = rows.into_iter().filter_map(|row| {
                let due_ms = row.due_ms?;
                let late = is_late(&row, due_ms, now_ms).then(|| plan(&row, due_ms, now_ms));
                Some(((due_ms, row.id.clone()), Armed { row, late }))
            });
            Ok::<_, DbError>((armed.collect::<BTreeMap<_, _>>(), next_ms))
        };
        let lane = Lane::of::<Schedules>(format_args!("look {}", clock.as_str()));
        let work = Schedules::work_or_failure(lane, slow, move |memory, cx, read| {
            let queue = memory.queue(clock);
            queue.reading = false;
            match read {
                Ok((mut armed, next_ms)) => {
                    armed.retain(|(_, id), one| {
                        !queue.sending.contains(id) && !queue.held_members.contains_key(&one.row.member_id)
                    });
                    (queue.armed, queue.next_ms) = (armed, next_ms);
                    if queue.stale { memory.look(cx, clock) } else { memory.turn(cx, clock) }
                }
                Err(refusal) => {
                    tracing::warn!(mesh.id = %cx.mesh_id(), error = %refusal, "schedules could not be read");
                    memory.hold(cx, clock);
                }
            }
            Ok(Outcome::<ScheduledAck>::Silent)
        });
        spawn(cx, work);
    }

    /// Storage failed: waits for a moment, then reads again.
    fn hold(&mut self, cx: &mut MeshContext<'_>, clock: ScheduleClock) {
        let until = cx.mono_ms().saturating_add(RETRY_MS);
        let now_ms = self.now_ms(cx, clock);
        let queue = self.queue(clock);
        queue.held_mono_ms = until;
        queue.armed.clear();
        queue.next_ms = now_ms;
        cx.wake_at(clock.as_str(), until);
    }

    /// Nothing more is sent for these members until their budgets have room again.
    fn hold_members(&mut self, cx: &mut MeshContext<'_>, clock: ScheduleClock, held: Vec<(String, i64)>) {
        let mono_ms = cx.mono_ms();
        let queue = self.queue(clock);
        for (member, wait_ms) in held {
            let until = mono_ms.saturating_add(wait_ms.max(RETRY_MS));
            queue.armed.retain(|_, one| one.row.member_id != member);
            queue.held_members.insert(member, until);
            // A key of its own: what is due for others is not later for it.
            cx.wake_at(&format!("{RELEASE}{}", clock.as_str()), until);
        }
    }

    /// Sends the first entries whose time has come.
    fn send_due(&mut self, cx: &mut MeshContext<'_>, clock: ScheduleClock, now_ms: i64) {
        let (mut sent, mut messages) = (Vec::new(), 0);
        let queue = self.queue(clock);
        let mut grown_late = false;
        while messages < STEP && queue.sending.len() < MAX_SENDING {
            let Some(first) = queue.armed.first_entry().filter(|first| first.key().0 <= now_ms) else { break };
            // The time jumped since it was read: what it missed is to be found out.
            grown_late = first.get().late.is_none() && is_late(&first.get().row, first.key().0, now_ms);
            if grown_late {
                break;
            }
            let ((due_ms, id), Armed { row, late }) = first.remove_entry();
            queue.sending.insert(id);
            let plan = late.unwrap_or_else(|| Plan::on_time(due_ms));
            // One whose times are all left out is work as well.
            messages += plan.times.len().max(1);
            let waits = send(cx, &row, &plan.times);
            sent.push((row, plan, waits));
        }
        if !sent.is_empty() {
            self.store_sent(cx, clock, sent);
        }
        let queue = self.queue(clock);
        let more = queue.armed.first_key_value().is_some_and(|((due_ms, _), _)| *due_ms <= now_ms);
        if grown_late || queue.armed.is_empty() {
            self.look(cx, clock);
        } else if more && queue.sending.len() >= MAX_SENDING {
            // The end of what is being sent goes on.
        } else if more {
            // In a step of its own, behind what came meanwhile.
            let soon = std::future::ready(Ok::<_, Refusal>(()));
            let work = Schedules::work(format_args!("go on {}", clock.as_str()), soon, move |memory, cx, ()| {
                memory.turn(cx, clock);
                Ok(Outcome::<ScheduledAck>::Silent)
            });
            spawn(cx, work);
        } else {
            self.arm(cx, clock);
        }
    }

    /// Waits for the messages, and takes their entries on.
    fn store_sent(
        &mut self,
        cx: &mut MeshContext<'_>,
        clock: ScheduleClock,
        sent: Vec<(Row, Plan, Result<Waits, Refusal>)>,
    ) {
        self.pages += 1;
        let lane = Lane::of::<Schedules>(format_args!("sent {}", self.pages));
        let ids: Vec<String> = sent.iter().map(|(row, ..)| row.id.clone()).collect();
        let (storage, wall_ms) = (cx.storage(), cx.now_ms());
        let slow = async move {
            let (mut all, mut page) = (Vec::with_capacity(sent.len()), Page::default());
            for (row, plan, waits) in sent {
                let came = match waits {
                    Ok(waits) => came(waits, &row, &mut page.acks).await,
                    Err(refusal) => Came::Sent(0, Some(words(&refusal))),
                };
                match came {
                    Came::Open => page.open += 1,
                    Came::Held(wait_ms) => page.held.push((row.member_id, wait_ms)),
                    Came::Sent(fired, error) => all.push(gone_on(row, &plan, (fired, error), wall_ms)),
                }
            }
            page.next_ms = all.iter().filter_map(|one| one.next_ms).min();
            store::advance(&storage, all).await?;
            Ok::<_, DbError>(page)
        };
        let work = Schedules::work_or_failure(lane, slow, move |memory, cx, stored| {
            let queue = memory.queue(clock);
            queue.sending.retain(|id| !ids.contains(id));
            match stored {
                Ok(page) => {
                    page.acks.iter().for_each(|(member, ack)| tell_older(cx, member, ack));
                    memory.hold_members(cx, clock, page.held);
                    match page.next_ms {
                        _ if page.open > 0 => memory.hold(cx, clock),
                        Some(next_ms) => memory.expect(cx, clock, next_ms),
                        None => {}
                    }
                    memory.turn(cx, clock);
                }
                Err(refusal) => {
                    tracing::warn!(mesh.id = %cx.mesh_id(), error = %refusal, "what was sent on time could not be noted");
                    memory.hold(cx, clock);
                }
            }
            Ok(Outcome::<ScheduledAck>::Silent)
        });
        spawn(cx, work);
    }

    /// Whether the mesh may leave memory: nothing is under way, and nothing is due soon.
    pub(super) fn is_settled(&self, cx: &MeshContext<'_>) -> bool {
        let quiet = |queue: &Queue| !queue.reading && queue.sending.is_empty();
        let soon = cx.now_ms().saturating_add(AWAKE_MS);
        let waits = self.wall.armed.is_empty() && self.wall.next_ms.is_none_or(|next| next > soon);
        quiet(&self.wall) && quiet(&self.mesh) && waits
    }
}

/// How long before its time an entry is read.
fn ahead_ms(clock: ScheduleClock) -> i64 {
    match clock {
        ScheduleClock::Wall => AHEAD_MS,
        // Its time comes by the minute.
        ScheduleClock::Mesh => 0,
    }
}

fn spawn(cx: &mut MeshContext<'_>, work: Outcome<ScheduledAck>) {
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}

/// A member is gone: nothing more is sent in its name.
pub(super) fn end_all(cx: &mut MeshContext<'_>, member: &MemberId) {
    let (storage, member, now_ms) = (cx.storage(), member.clone(), cx.now_ms());
    let slow = async move { store::end_all(&storage, &member, now_ms).await };
    let work = Schedules::work_or_failure(Lane::of::<Schedules>("end"), slow, |memory, cx, ended| {
        if let Err(refusal) = ended {
            // None of them will be sent all the same: their member is gone.
            tracing::warn!(mesh.id = %cx.mesh_id(), error = %refusal, "schedules of a member who left could not be ended");
        }
        memory.look(cx, ScheduleClock::Wall);
        memory.look(cx, ScheduleClock::Mesh);
        Ok(Outcome::<ScheduledAck>::Silent)
    });
    spawn(cx, work);
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
