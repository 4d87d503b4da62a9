//! Events for many peers of a mesh: how many frames they may cost, and when the sockets are woken for them.
//!
//! A mesh that tells a hundred readers of five hundred changes a second has fifty thousand frames to hand over. A frame in a queue is
//! cheap; waking a socket and writing is not. So an event is put into the queues of all at once, and the sockets are woken a few at a
//! time: a message that comes in between never waits behind all of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use bytestring::ByteString;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::message::ServerMessage;

use super::actor::Mesh;
use super::context::{Core, MeshContext};
use super::peers::{Peer, PeerHandle, Roster};
use crate::metrics::METRICS;
use crate::session::queue::Queued;

/// Frames a second that one mesh may spend on events, those of all its features together.
///
/// A thousand peers that arrive together would otherwise cost a million frames.
const FRAMES_PER_SECOND: i64 = 60_000;
/// Frames that it may spend at once after a quiet time.
const BURST_FRAMES: i64 = FRAMES_PER_SECOND / 4;
/// Sockets that are woken for events before everything else of the thread has its turn.
const WAKE_AT_ONCE: usize = 20;
/// From one round through the sockets to the next: what comes in between costs a socket no write of its own.
const ROUND_EVERY: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug)]
pub struct FanOut {
    /// Frames that may be spent now; below zero after the telling of what was left out, which does not wait.
    frames: i64,
    /// Monotonic ms up to which frames were earned.
    earned_mono_ms: Option<i64>,
    /// Peers with events in their queues, in the order in which they are woken.
    to_wake: VecDeque<PeerHandle>,
    /// Events that were left out, by the event that tells of them, since it was told last.
    left_out: BTreeMap<&'static str, u64>,
    /// Events that had no room since the last tick and wait.
    turned_away: u64,
    /// What was left out has let those go first once.
    has_yielded: bool,
}

impl Default for FanOut {
    fn default() -> Self {
        Self {
            frames: BURST_FRAMES,
            earned_mono_ms: None,
            to_wake: VecDeque::new(),
            left_out: BTreeMap::new(),
            turned_away: 0,
            has_yielded: false,
        }
    }
}

impl FanOut {
    fn earn(&mut self, mono_ms: i64) {
        let since = self.earned_mono_ms.replace(mono_ms).unwrap_or(mono_ms);
        let earned = (mono_ms - since).max(0).saturating_mul(FRAMES_PER_SECOND / 1_000);
        self.frames = self.frames.saturating_add(earned).min(BURST_FRAMES);
    }

    /// What one event of a mesh of so many peers needs: one of more peers than a burst has it for itself.
    fn needed(peers: usize) -> i64 {
        i64::try_from(peers).unwrap_or(i64::MAX).min(BURST_FRAMES)
    }

    /// Puts an event into the queue of a peer.
    fn put(&mut self, peer: &Peer, frame: ByteString) -> bool {
        match peer.socket.as_ref().map_or(Queued::Full, |socket| socket.push_event(frame)) {
            Queued::Full => {
                METRICS.events_dropped.inc();
                return false;
            }
            Queued::Behind => {}
            Queued::First => self.to_wake.push_back(peer.handle),
        }
        true
    }

    /// Wakes the sockets of so many peers.
    fn wake(&mut self, roster: &Roster, most: usize) {
        for at in self.to_wake.drain(..most.min(self.to_wake.len())) {
            if let Some(socket) = roster.get(at).and_then(|peer| peer.socket.as_ref()) {
                socket.wake();
            }
        }
    }

    /// Nothing is left to spend.
    #[cfg(test)]
    pub fn spend_all(&mut self) {
        self.frames = 0;
    }

    /// A quiet time has passed.
    #[cfg(test)]
    pub fn earn_all(&mut self) {
        self.frames = BURST_FRAMES;
    }
}

impl MeshContext<'_> {
    /// Pushes an event to every online peer of an audience that has a capability (`None`: of the audience), and says who did not
    /// get it: those whose queue is full. One-shot commands are among the peers; an audience leaves them out by `ephemeral`.
    ///
    /// The one way to tell many, with one budget for all features of the mesh. `None`: the budget has no room, and no one got the
    /// event; tell it at [`MeshContext::room_for_event_ms`], or [`MeshContext::leave_out`].
    pub fn tell(
        &mut self,
        event: &ServerMessage,
        needed: impl Into<Option<Capability>>,
        audience: impl Fn(&Peer) -> bool,
    ) -> Option<Vec<PeerHandle>> {
        self.core.fan_out.earn(self.core.clock.mono_ms());
        if self.core.fan_out.frames < FanOut::needed(self.core.roster.len()) {
            self.core.fan_out.turned_away += 1;
            return None;
        }
        Some(tell(self.core, event, needed.into(), audience))
    }

    /// When there may be room for an event that had none, in monotonic ms.
    pub fn room_for_event_ms(&self) -> i64 {
        let missing = FanOut::needed(self.core.roster.len()) - self.core.fan_out.frames;
        self.mono_ms() + 1 + missing.max(0) / (FRAMES_PER_SECOND / 1_000)
    }

    /// Puts a frame of an event into the queue of one of many peers that are told of it: as [`MeshContext::tell`] for an audience
    /// that the feature bounds itself. `false` when its queue is full.
    pub fn tell_one(&mut self, at: PeerHandle, frame: ByteString) -> bool {
        let Core { roster, fan_out, .. } = &mut *self.core;
        roster.get(at).is_some_and(|peer| fan_out.put(peer, frame))
    }

    /// Leaves an event out that did not fit: within a second or two everyone gets one event of this name instead, which says how
    /// many were left out.
    pub fn leave_out(&mut self, told: &'static str) {
        METRICS.events_dropped.inc();
        let fan_out = &mut self.core.fan_out;
        // It does not wait.
        fan_out.turned_away = fan_out.turned_away.saturating_sub(1);
        *fan_out.left_out.entry(told).or_default() += 1;
    }
}

fn tell(
    core: &mut Core,
    event: &ServerMessage,
    needed: Option<Capability>,
    audience: impl Fn(&Peer) -> bool,
) -> Vec<PeerHandle> {
    let Core { roster, rights, fan_out, .. } = core;
    let (frame, mut missed) = (ByteString::from(event.write(None)), Vec::new());
    for peer in roster.iter().filter(|peer| peer.online()) {
        let may = |needed| {
            let member = roster.member(&peer.member);
            member.is_some_and(|member| rights.allows(&member.id, member.role, needed))
        };
        if audience(peer) && needed.is_none_or(may) {
            fan_out.frames = fan_out.frames.saturating_sub(1);
            if !fan_out.put(peer, frame.clone()) {
                missed.push(peer.handle);
            }
        }
    }
    missed
}

/// Tells of what was left out, once a second, also when that costs more frames than there are: the others then wait. In a mesh of so
/// many peers that a second has room for one event only, those that were turned away go first, once.
pub(super) fn tell_left_out(core: &mut Core) {
    core.fan_out.earn(core.clock.mono_ms());
    let large = core.roster.len() as i64 > FRAMES_PER_SECOND;
    let others_wait = std::mem::take(&mut core.fan_out.turned_away) > 0 && large;
    if others_wait && !std::mem::replace(&mut core.fan_out.has_yielded, true) {
        return;
    }
    core.fan_out.has_yielded = false;
    for (event, changes) in std::mem::take(&mut core.fan_out.left_out) {
        let cx = MeshContext::new(core, None);
        let message = cx.system_event(event, serde_json::json!({ "peers": cx.roster().len(), "changes": changes }));
        tell(core, &message, None, |peer| !peer.ephemeral);
    }
}

/// Wakes every socket that events wait for: what the actor does in rounds.
#[cfg(test)]
pub(super) fn wake_all(core: &mut Core) {
    core.fan_out.wake(&core.roster, usize::MAX);
}

impl Mesh {
    /// Begins a round through the sockets that events wait for, unless one is under way or began a moment ago.
    pub(super) fn arm_events(&mut self, ctx: &mut Context<Self>) {
        if self.events_armed || self.core.fan_out.to_wake.is_empty() {
            return;
        }
        self.events_armed = true;
        // Real time even under a manual clock: it is about the sockets, not about the mesh.
        let next = tokio::time::Instant::now() + ROUND_EVERY;
        self.wake_next(self.core.fan_out.to_wake.len(), next, ctx);
    }

    /// Wakes the next few of a round of so many; the round ends with the time at which another one may begin.
    fn wake_next(&mut self, most: usize, next_round: tokio::time::Instant, ctx: &mut Context<Self>) {
        self.core.fan_out.wake(&self.core.roster, most.min(WAKE_AT_ONCE));
        let rest = most.saturating_sub(WAKE_AT_ONCE);
        let pause = async move {
            if rest > 0 { tokio::task::yield_now().await } else { tokio::time::sleep_until(next_round).await }
        };
        let go_on = move |(), mesh: &mut Self, ctx: &mut Context<Self>| {
            if rest > 0 {
                return mesh.wake_next(rest, next_round, ctx);
            }
            mesh.events_armed = false;
            mesh.arm_events(ctx);
        };
        ctx.spawn(pause.into_actor(self).map(go_on));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::mesh::peers::Moment;
    use crate::mesh::testing::TestMesh;

    const ANYONE: Option<Capability> = None;

    #[actix_rt::test]
    async fn all_events_share_one_budget_of_frames() {
        let mut mesh = TestMesh::new().await;
        let alice = mesh.member("alice", 1).await;
        let (_, frames) = mesh.peer(&alice, "alice", Some(11));
        let left = mesh.step(None, |_, cx| {
            for number in 0..BURST_FRAMES + 10 {
                let event = cx.system_event("changed", json!({ "number": number }));
                if cx.tell(&event, ANYONE, |_| true).is_none() && number % 2 == 0 {
                    cx.leave_out("many_changed");
                }
            }
            cx.core.fan_out.left_out.clone()
        });
        mesh.settle_frames().await;
        let pushed = TestMesh::take(&frames, "push").len();
        assert!((1..=BURST_FRAMES as usize).contains(&pushed), "{pushed}");
        assert_eq!(mesh.core.fan_out.frames, 0);
        assert_eq!(left, [("many_changed", 5)].into(), "those that may be lost are not told of");
    }

    #[actix_rt::test]
    async fn a_mesh_of_more_peers_than_frames_is_told_too_and_by_turns() {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (_, frames) = mesh.peer(&alice, "alice", Some(11));
        let owner = mesh.core.roster.member(&bob).unwrap().clone();
        for _ in 0..FRAMES_PER_SECOND {
            let at = mesh.core.roster.next_ref();
            mesh.core.roster.insert(Peer::new(at, &owner, None, Moment::default()));
        }
        let event = mesh.step(None, |_, cx| cx.system_event("changed", json!({})));
        let tell = |mesh: &mut TestMesh| mesh.step(None, |_, cx| cx.tell(&event, ANYONE, |_| true).is_some());
        mesh.core.fan_out.earn_all();
        assert!(tell(&mut mesh), "one event of a second goes to everyone");
        // From now on one event waits in each second, and one is left out.
        for _ in 0..4 {
            assert!(!tell(&mut mesh));
            assert!(!tell(&mut mesh));
            mesh.step(None, |_, cx| cx.leave_out("roster_changed"));
            mesh.core.fan_out.earn_all();
            tell_left_out(&mut mesh.core);
            wake_all(&mut mesh.core);
            mesh.core.fan_out.frames = mesh.core.fan_out.frames.max(0);
            tell(&mut mesh);
        }
        mesh.settle_frames().await;
        let told: Vec<_> = TestMesh::take(&frames, "push").iter().map(|push| push["event"].clone()).collect();
        assert_eq!(told, ["changed", "changed", "roster_changed", "changed", "roster_changed"]);
    }

    #[actix_rt::test]
    async fn the_budget_grows_with_time_up_to_a_burst() {
        let mut mesh = TestMesh::new().await;
        let alice = mesh.member("alice", 1).await;
        let (_, frames) = mesh.peer(&alice, "alice", Some(11));
        mesh.core.fan_out.earn(mesh.core.clock.mono_ms());
        mesh.core.fan_out.spend_all();
        let event = mesh.step(None, |_, cx| cx.system_event("changed", json!({})));
        let room = mesh.step(None, |_, cx| (cx.tell(&event, ANYONE, |_| true), cx.room_for_event_ms()));
        assert_eq!(room, (None, mesh.core.clock.mono_ms() + 1));
        mesh.advance(Duration::from_millis(1));
        assert!(mesh.step(None, |_, cx| cx.tell(&event, ANYONE, |_| true)).is_some());
        assert_eq!(mesh.core.fan_out.frames, FRAMES_PER_SECOND / 1_000 - 1);
        mesh.advance(Duration::from_secs(60));
        mesh.step(None, |_, cx| cx.tell(&event, ANYONE, |_| true));
        assert_eq!(mesh.core.fan_out.frames, BURST_FRAMES - 1);
        mesh.settle_frames().await;
        assert_eq!(TestMesh::take(&frames, "push").len(), 2);
    }

    #[actix_rt::test]
    async fn events_wait_for_their_turn_in_order_with_what_is_pushed_later() {
        let mut mesh = TestMesh::new().await;
        let alice = mesh.member("alice", 1).await;
        let ((at, frames), (_, others)) = (mesh.peer(&alice, "alice", Some(11)), mesh.peer(&alice, "second", Some(12)));
        mesh.settle_frames().await;
        let named = |name: &'static str| {
            move |mesh: &TestMesh| super::super::context::system_event(&mesh.core.id, name, json!({}), 0)
        };
        let (first, second, third) = (named("first")(&mesh), named("second")(&mesh), named("third")(&mesh));
        let names =
            |frames| -> Vec<_> { TestMesh::take(frames, "push").iter().map(|push| push["event"].clone()).collect() };
        tell(&mut mesh.core, &first, None, |_| true);
        tell(&mut mesh.core, &second, None, |_| true);
        mesh.settle_frames().await;
        assert_eq!((names(&frames).len(), mesh.core.fan_out.to_wake.len()), (0, 2), "each peer is listed once");
        // What is for one peer takes its events along.
        assert!(MeshContext::new(&mut mesh.core, None).push(at, &third));
        mesh.settle_frames().await;
        assert_eq!(names(&frames), ["first", "second", "third"]);
        assert_eq!(names(&others).len(), 0);
        wake_all(&mut mesh.core);
        mesh.settle_frames().await;
        assert_eq!((names(&frames).len(), names(&others).len()), (0, 2));
        // Closing does, too.
        tell(&mut mesh.core, &first, None, |_| true);
        MeshContext::new(&mut mesh.core, None).close(at, crate::session::CloseReason::Disconnected);
        mesh.settle_frames().await;
        assert_eq!(names(&frames), ["first"]);
    }
}
