//! The simulated clock of a mesh. Storage has it as it was at one moment; everything else follows from the time since.
//!
//! Every change and every tick is a write, and all writes of a mesh share a lane. A tick is told once it is stored, so that no
//! restart tells it again.

pub mod model;
mod schema;
pub mod store;

use std::future::ready;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::clock::{
    ClockStatus, GetClock, PauseClock, Request, ResumeClock, SetClock, StopClock, Tick,
};
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::time::{iso, parse_iso};

use self::model::{Act, NoClock, State};
use crate::db::{DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::quota::Quota;
use crate::refusal::Refusal;

/// Changes a minute.
const CHANGES_PER_MINUTE: Quota =
    Quota::new("clock.changes_per_minute", 120, "Changes of the simulated clock that one member makes in a minute.");
/// The sessions of a broker that was restarted come back within this time, or their lease is over.
const RETURN_MS: i64 = 90_000;
/// How long a tick waits that could not be stored.
const RETRY_MS: i64 = 500;

/// What a mesh in memory knows of its clock.
#[derive(Default)]
pub struct ClockMemory {
    /// As stored.
    clock: Option<State>,
    /// From monotonic time to the time that the clock counts in: the wall clock of when the mesh was loaded. A wall clock that
    /// is set afterwards moves no simulated one.
    offset_ms: i64,
    /// The tick that was told last.
    told: i64,
    /// Writes that the clock asked for by itself and that have not come back.
    under_way: u32,
}

/// The feature.
pub struct Clock;

impl Feature for Clock {
    const NAME: &'static str = "clock";
    const QUOTAS: &'static [&'static Quota] = &[&CHANGES_PER_MINUTE];
    type Request = Request;
    type Memory = ClockMemory;

    async fn load(storage: &MeshDb) -> Result<ClockMemory, DbError> {
        let clock = store::find(storage).await?;
        let told = clock.as_ref().map_or(0, |clock| clock.tick);
        Ok(ClockMemory { clock, told, ..ClockMemory::default() })
    }

    fn started(memory: &mut ClockMemory, cx: &mut MeshContext<'_>) {
        memory.offset_ms = cx.believed_ms().saturating_sub(cx.mono_ms());
        memory.show(cx);
        let Some(clock) = memory.clock.as_ref().filter(|clock| !clock.paused) else { return };
        // A short restart does not stop the simulation; after a long one everyone was away.
        if memory.now_ms(cx).saturating_sub(clock.saved_at_ms) > RETURN_MS {
            return memory.by_itself(cx, Act::Empty { seen: false });
        }
        cx.wake_at("empty", cx.mono_ms().saturating_add(RETURN_MS));
        memory.arm(cx);
    }

    fn handle(memory: &mut ClockMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::SetClock(request) => Self::answer::<SetClock>(set(memory, cx, &request)),
            Request::PauseClock(_) => Self::answer::<PauseClock>(change(memory, cx, Act::Pause)),
            Request::ResumeClock(_) => Self::answer::<ResumeClock>(change(memory, cx, Act::Resume)),
            Request::StopClock(_) => Self::answer::<StopClock>(change(memory, cx, Act::Stop)),
            Request::GetClock(_) => Self::answer::<GetClock>(Ok(get())),
        }
    }

    fn on_event(memory: &mut ClockMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        let Some(clock) = &memory.clock else { return };
        match event {
            MeshEvent::Attached { .. } if clock.auto_paused && !is_empty(cx) => memory.by_itself(cx, Act::Back),
            MeshEvent::Ended { .. } if !clock.paused && is_empty(cx) => {
                memory.by_itself(cx, Act::Empty { seen: true });
            }
            _ => {}
        }
    }

    fn on_wake(memory: &mut ClockMemory, cx: &mut MeshContext<'_>, key: &str) {
        match key {
            "tick" => memory.tick(cx),
            "tell" => memory.tell(cx),
            "empty" if memory.clock.as_ref().is_some_and(|clock| !clock.paused) && is_empty(cx) => {
                memory.by_itself(cx, Act::Empty { seen: false });
            }
            _ => {}
        }
    }

    fn describe(memory: &ClockMemory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        info.clock = memory.clock.as_ref().map(|clock| status(Some(clock), cx.now_ms()));
    }
}

impl ClockMemory {
    /// The time that clocks count in: Unix milliseconds.
    fn now_ms(&self, cx: &MeshContext<'_>) -> i64 {
        self.offset_ms.saturating_add(cx.mono_ms())
    }

    /// Takes over what is stored now: tells a tick, and waits for the next.
    fn put(&mut self, cx: &mut MeshContext<'_>, clock: Option<State>) {
        let before = self.clock.as_ref().map(|clock| clock.started_at_ms);
        if before != clock.as_ref().map(|clock| clock.started_at_ms) {
            self.told = 0;
        }
        self.clock = clock;
        self.show(cx);
        self.tell(cx);
        self.arm(cx);
        match &self.clock {
            // It was started or resumed for no one.
            Some(clock) if !clock.paused && self.under_way == 0 && is_empty(cx) => {
                cx.wake_at("empty", cx.mono_ms().saturating_add(RETURN_MS));
            }
            // Someone came while it was written that no one is here.
            Some(clock) if clock.auto_paused && !is_empty(cx) => self.by_itself(cx, Act::Back),
            _ => {}
        }
    }

    /// Says to the other features what it shows.
    fn show(&self, cx: &mut MeshContext<'_>) {
        cx.emit(MeshEvent::SimulatedTime { sim_ms: self.clock.as_ref().map(|clock| clock.sim_ms) });
    }

    fn arm(&self, cx: &mut MeshContext<'_>) {
        if let Some(due) = self.clock.as_ref().and_then(State::next_tick_ms) {
            cx.wake_at("tick", due.saturating_sub(self.offset_ms));
        }
    }

    fn tick(&mut self, cx: &mut MeshContext<'_>) {
        let now = self.now_ms(cx);
        match self.clock.as_ref().and_then(State::next_tick_ms) {
            // Paused, or made slower, since the timer was set.
            None => {}
            Some(due) if due > now => self.arm(cx),
            Some(_) if self.under_way > 0 => cx.wake_at("tick", cx.mono_ms().saturating_add(RETRY_MS)),
            Some(_) => self.by_itself(cx, Act::Tick),
        }
    }

    /// Tells the last tick to everyone, unless it was. One that finds no room waits; a later one takes its place.
    fn tell(&mut self, cx: &mut MeshContext<'_>) {
        let Some(clock) = self.clock.as_ref().filter(|clock| clock.tick > self.told) else { return };
        let tick =
            Tick { tick: u64::try_from(clock.tick).unwrap_or(0), sim_time: iso(clock.sim_ms), speed: clock.speed() };
        let event = cx.system_event("tick", serde_json::to_value(tick).unwrap_or_default());
        match cx.tell(&event, Capability::CanReadShared, |peer| !peer.ephemeral) {
            Some(_) => self.told = clock.tick,
            None => cx.wake_at("tell", cx.room_for_event_ms()),
        }
    }

    /// What no one asked for.
    fn by_itself(&mut self, cx: &mut MeshContext<'_>, act: Act) {
        let (storage, now) = (cx.storage(), self.now_ms(cx));
        self.under_way += 1;
        // Whatever comes of it, the mesh has to know.
        let slow = async move { Ok::<_, Refusal>(store::act(&storage, act, now, None).await) };
        let work = Clock::work("write", slow, |memory, cx, done| {
            memory.under_way = memory.under_way.saturating_sub(1);
            match done {
                Ok(clock) => memory.put(cx, clock),
                Err(error) => {
                    tracing::warn!(mesh.id = %cx.mesh_id(), error = ?error, "the clock could not be written");
                    cx.wake_at("tick", cx.mono_ms().saturating_add(RETRY_MS));
                }
            }
            Ok(Outcome::<ClockStatus>::Silent)
        });
        if let Outcome::Work(work) = work {
            cx.spawn(work);
        }
    }
}

/// Whether no one is here whose clock it could be: no session, not even one in its lease.
fn is_empty(cx: &MeshContext<'_>) -> bool {
    cx.roster().iter().all(|peer| peer.ephemeral)
}

fn set(
    memory: &mut ClockMemory,
    cx: &mut MeshContext<'_>,
    request: &SetClock,
) -> Result<Outcome<ClockStatus>, Refusal> {
    let read = |text: &String| {
        parse_iso(text).ok_or_else(|| {
            let message = "`sim_time`: expected a time such as 2026-04-08T10:00:00.000Z";
            Refusal::new(ErrorCode::InvalidArgs, message)
        })
    };
    let sim_ms = request.sim_time.as_ref().map(read).transpose()?;
    change(memory, cx, Act::Set { speed: request.speed, sim_ms })
}

fn change(memory: &mut ClockMemory, cx: &mut MeshContext<'_>, act: Act) -> Result<Outcome<ClockStatus>, Refusal> {
    let member: MemberId = cx.member()?.id.clone();
    cx.count_write(&CHANGES_PER_MINUTE, Some(&member))?;
    let (storage, now) = (cx.storage(), memory.now_ms(cx));
    let slow = async move { store::act(&storage, act, now, Some(member)).await };
    Ok(Clock::work("write", slow, |memory, cx, clock| {
        memory.put(cx, clock);
        Ok(Outcome::Answer(status(memory.clock.as_ref(), cx.now_ms())))
    }))
}

/// Answered behind the changes that were asked for before.
fn get() -> Outcome<ClockStatus> {
    Clock::work("write", ready(Ok::<_, Refusal>(())), |memory, cx, ()| {
        Ok(Outcome::Answer(status(memory.clock.as_ref(), cx.now_ms())))
    })
}

impl From<NoClock> for Refusal {
    fn from(_: NoClock) -> Self {
        Self::new(ErrorCode::NoClock, "No clock running for this mesh")
    }
}

fn status(clock: Option<&State>, now_ms: i64) -> ClockStatus {
    let Some(clock) = clock else {
        return ClockStatus {
            speed: None,
            paused: true,
            tick: 0,
            sim_time: iso(now_ms),
            started_at: iso(now_ms),
            auto_paused: false,
        };
    };
    ClockStatus {
        speed: Some(clock.speed()),
        paused: clock.paused,
        tick: u64::try_from(clock.tick).unwrap_or(0),
        sim_time: iso(clock.sim_ms),
        started_at: iso(clock.started_at_ms),
        auto_paused: clock.auto_paused,
    }
}
