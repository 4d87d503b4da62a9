//! The simulated clock.
//!
//! The promise: the clock goes on over a kill as if there had been none, neither slower nor faster; a change that was confirmed holds;
//! a tick is told to no one twice, and their numbers only grow.

use anyhow::{Result, ensure};
use claudemesh_protocol::features::clock::{ClockStatus, Tick};
use claudemesh_protocol::time::{iso, parse_iso};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::asked::{Asked, Book, Fate, Team};
use super::cast::{Cast, Quiet};
use super::{Ground, Subject};
use crate::clock::now_ms;
use crate::identity::Session;

/// A tick is a simulated minute: in simulated microseconds. A real millisecond has as many as the clock has thousandths of real time.
const TICK_US: i64 = 60_000_000;
/// What the clock shows at its start.
pub(super) const START: &str = "2030-01-01T00:00:00.000Z";
/// How long the broker may take to store a tick that is due, in real milliseconds: two busy cores.
const LATE_MS: i64 = 3_000;

/// How a clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// Thousandths of real time.
    speed: i64,
    paused: bool,
}

impl Pace {
    fn rate(self) -> i64 {
        if self.paused { 0 } else { self.speed }
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Get,
    Set(i64),
    Pause,
    Resume,
}

impl Act {
    fn changes(self, pace: Pace) -> Pace {
        match self {
            Self::Get => pace,
            Self::Set(speed) => Pace { speed, ..pace },
            Self::Pause => Pace { paused: true, ..pace },
            Self::Resume => Pace { paused: false, ..pace },
        }
    }
}

/// How much simulated time has passed: at least and at most, because no one knows at which moment a change was made.
#[derive(Clone, Debug)]
struct Model {
    least_us: i64,
    most_us: i64,
    /// Unix milliseconds up to which it has been counted.
    at_ms: i64,
    /// How it runs. Two, while a change has no answer.
    paces: Vec<Pace>,
}

impl Model {
    fn go_on(&mut self, to_ms: i64) {
        let (passed, rates) = ((to_ms - self.at_ms).max(0), self.paces.iter().map(|pace| pace.rate()));
        self.least_us += passed * rates.clone().min().unwrap_or_default();
        self.most_us += passed * rates.max().unwrap_or_default();
        self.at_ms = self.at_ms.max(to_ms);
    }

    fn fastest(&self) -> i64 {
        self.paces.iter().map(|pace| pace.speed).max().unwrap_or_default()
    }

    /// A tick that someone is told of now is one that there is.
    fn has(&self, tick: u64, at_ms: i64) -> bool {
        let mut then = self.clone();
        then.go_on(at_ms + 1);
        i64::try_from(tick).is_ok_and(|tick| tick <= then.most_us / TICK_US)
    }

    /// A tick that the broker says is the last one at this moment is not too old.
    fn is_late(&self, tick: u64, at_ms: i64) -> bool {
        let mut then = self.clone();
        then.go_on(at_ms - 1);
        let least = then.least_us - LATE_MS * then.fastest();
        i64::try_from(tick).is_ok_and(|tick| tick < least / TICK_US)
    }
}

struct Log {
    /// When it was asked, in Unix ms.
    asked: Asked<(Act, i64)>,
    model: Option<Model>,
    /// Its start in reality, as the broker says.
    started_at: String,
    /// The last tick that was told, and the last that was shown.
    told: u64,
    shown: u64,
    ticks: u64,
}

/// The time that the clock shows with a tick.
fn time_of(tick: u64) -> String {
    let start = parse_iso(START).unwrap_or_default();
    iso(start + i64::try_from(tick).unwrap_or(i64::MAX / TICK_US) * (TICK_US / 1_000))
}

impl Log {
    fn new() -> Self {
        Self { asked: Asked::new(1), model: None, started_at: String::new(), told: 0, shown: 0, ticks: 0 }
    }

    /// A change whose answer is not known, or will never come.
    fn unresolved(&self) -> bool {
        self.model.as_ref().is_none_or(|model| model.paces.len() > 1)
    }

    fn begin(&mut self, act: Act, at_ms: i64) -> usize {
        if let Some(model) = &mut self.model
            && act != Act::Get
        {
            model.go_on(at_ms - 1);
            let now = act.changes(model.paces[0]);
            model.paces.push(now);
        }
        self.asked.begin(0, (act, at_ms))
    }

    /// The broker says how the clock is, at a moment between these two.
    fn status(&mut self, status: &ClockStatus, from_ms: i64, to_ms: i64) -> Result<(), String> {
        let pace = Pace { speed: status.speed.map_or(0, |speed| speed.thousandths()), paused: status.paused };
        let first =
            || Model { least_us: 0, most_us: (to_ms - from_ms + 2) * pace.speed, at_ms: to_ms, paces: vec![pace] };
        let model = self.model.get_or_insert_with(first);
        if self.started_at.is_empty() {
            self.started_at.clone_from(&status.started_at);
        }
        if !model.paces.contains(&pace) || status.auto_paused || status.started_at != self.started_at {
            return Err(format!("the clock is {status:?}, and it should be one of {:?}", model.paces));
        }
        if model.is_late(status.tick, from_ms) || !model.has(status.tick, to_ms) {
            return Err(format!("the clock shows tick {} at {to_ms}, and it should be {model:?}", status.tick));
        }
        if status.tick < self.told.max(self.shown) || status.sim_time != time_of(status.tick) {
            return Err(format!("the clock is {status:?}, after tick {} and {}", self.told, self.shown));
        }
        self.shown = status.tick;
        model.go_on(to_ms + 1);
        model.paces = vec![pace];
        Ok(())
    }

    /// A tick was told.
    fn tick(&mut self, tick: &Tick, at_ms: i64) -> Result<(), String> {
        if tick.tick <= self.told {
            return Err(format!("tick {} was told after {}", tick.tick, self.told));
        }
        if self.model.as_ref().is_some_and(|model| !model.has(tick.tick, at_ms)) || tick.sim_time != time_of(tick.tick)
        {
            return Err(format!("{tick:?} at {at_ms}, and it should be {:?}", self.model));
        }
        self.told = tick.tick;
        self.ticks += 1;
        Ok(())
    }
}

fn read_status(answer: &Value) -> Result<ClockStatus, String> {
    serde_json::from_value(answer.clone()).map_err(|error| format!("{error}: {answer}"))
}

impl Book for Log {
    const NAME: &'static str = "clock";

    fn ask(&mut self, _: usize, random: &mut StdRng) -> Option<(usize, Value)> {
        let act = match random.gen_range(0..10) {
            _ if self.model.is_none() => Act::Set(100_000),
            // Only once it is known how it runs.
            _ if self.unresolved() => Act::Get,
            0 => Act::Pause,
            1..=3 => Act::Resume,
            4 => Act::Set(60_000),
            5 => Act::Set(100_000),
            _ => Act::Get,
        };
        let frame = match act {
            Act::Get => json!({"type": "get_clock"}),
            Act::Set(_) if self.model.is_none() => json!({"type": "set_clock", "speed": 100, "sim_time": START}),
            Act::Set(speed) => json!({"type": "set_clock", "speed": speed / 1_000}),
            Act::Pause => json!({"type": "pause_clock"}),
            Act::Resume => json!({"type": "resume_clock"}),
        };
        Some((self.begin(act, now_ms()), frame))
    }

    fn answered(&mut self, _: usize, number: usize, answer: &Value) -> Result<(), String> {
        let (act, asked_ms) = self.asked.end(0, number, Fate::Confirmed)?;
        let status = read_status(answer)?;
        let wanted = self.model.as_ref().and_then(|model| model.paces.last().copied());
        self.status(&status, asked_ms, now_ms())?;
        // Confirmed, so it is the one after the change.
        let now = self.model.as_ref().map(|model| model.paces[0]);
        if act != Act::Get && wanted.is_some() && wanted != now {
            return Err(format!("{act:?} was confirmed, and the clock is {now:?}"));
        }
        Ok(())
    }

    fn told(&mut self, _: usize, frame: &[u8]) -> Result<(), String> {
        if memchr::memmem::find(frame, b"\"event\":\"tick\"").is_none() {
            return Ok(());
        }
        let push: Value = serde_json::from_slice(frame).map_err(|error| error.to_string())?;
        let tick = serde_json::from_value(push["eventData"].clone()).map_err(|error| format!("{error}: {push}"))?;
        self.tick(&tick, now_ms())
    }

    fn cut_off(&mut self) {
        self.asked.cut_off();
    }
}

/// The subject.
pub(super) struct Clock {
    team: Team<Log>,
    asking: Session,
}

impl Clock {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let team = Team::new(ground, "clock-setter", 1, Log::new())?;
        Ok(Self { team, asking: ground.mesh.creator.session("clock-asking") })
    }

    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.asking.hello(json!({}))).await?;
        let from_ms = now_ms();
        let answer = asking.call(json!({"type": "get_clock"}), "clock_status").await?;
        let status = read_status(&answer).map_err(anyhow::Error::msg)?;
        ensure!(status.speed.is_some(), "the mesh has no clock any more");
        self.team.book.borrow_mut().status(&status, from_ms, now_ms()).map_err(anyhow::Error::msg)?;
        Ok(())
    }
}

impl Subject for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn load(&mut self, cast: &mut Cast) {
        self.team.add(cast, 2, 1);
    }

    fn settle(&mut self, cast: &mut Cast) {
        self.team.add(cast, 1, 1);
    }

    fn settled(&self) -> bool {
        let log = self.team.book.borrow();
        log.asked.open() == 0 && !log.unresolved()
    }

    fn missing(&self) -> String {
        format!("how the clock runs: {:?}", self.team.book.borrow().model)
    }

    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        self.at_rest(quiet).boxed_local()
    }

    fn summary(&self) -> String {
        let log = self.team.book.borrow();
        format!("{}; tick {} without drift, {} told, none twice", log.asked.summary(), log.shown, log.ticks)
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::clock::Speed;

    use super::*;

    const AT: i64 = 1_900_000_000_000;

    fn status(tick: u64, speed: i64, paused: bool) -> ClockStatus {
        ClockStatus {
            speed: Some(Speed::of_thousandths(speed)),
            paused,
            tick,
            sim_time: time_of(tick),
            started_at: iso(AT),
            auto_paused: false,
        }
    }

    /// A clock that was set to a hundred at [`AT`].
    fn running() -> Log {
        let mut log = Log::new();
        log.status(&status(0, 100_000, false), AT, AT).unwrap();
        log
    }

    #[test]
    fn a_clock_that_drifts_is_found() {
        // A minute: a hundred ticks.
        running().status(&status(100, 100_000, false), AT + 60_000, AT + 60_000).unwrap();
        for tick in [101, 93, 0] {
            let shown = running().status(&status(tick, 100_000, false), AT + 60_000, AT + 60_000);
            assert!(shown.is_err(), "{tick}");
        }
    }

    #[test]
    fn a_lost_change_is_found_and_one_that_was_cut_off_may_be_either() {
        let mut log = running();
        let number = log.begin(Act::Pause, AT + 600);
        log.asked.end(0, number, Fate::Confirmed).unwrap();
        log.status(&status(1, 100_000, true), AT + 600, AT + 601).unwrap();
        assert!(log.status(&status(1, 100_000, false), AT + 700, AT + 700).is_err(), "it runs again");
        assert!(log.status(&status(90, 100_000, true), AT + 60_000, AT + 60_000).is_err(), "it ran on");
        log.status(&status(1, 100_000, true), AT + 60_000, AT + 60_000).unwrap();
        for (paused, tick, fine) in [(true, 1, true), (true, 90, true), (false, 100, true), (false, 150, false)] {
            let mut log = running();
            log.begin(Act::Pause, AT + 600);
            log.cut_off();
            assert!(log.unresolved());
            // A minute later it is one or the other.
            let shown = log.status(&status(tick, 100_000, paused), AT + 60_000, AT + 60_000);
            assert_eq!(shown.is_ok(), fine, "{paused} {tick}: {shown:?}");
        }
    }

    #[test]
    fn ticks_that_are_told_twice_or_too_early_are_found() {
        let tick = |tick: u64| Tick { tick, sim_time: time_of(tick), speed: Speed::MAX };
        let mut log = running();
        log.tick(&tick(1), AT + 601).unwrap();
        assert!(log.tick(&tick(1), AT + 602).is_err(), "twice");
        assert!(log.tick(&tick(3), AT + 1_300).is_err(), "before its time");
        log.tick(&tick(3), AT + 1_800).unwrap();
        assert!(log.tick(&tick(2), AT + 1_900).is_err(), "back");
        assert!(log.tick(&Tick { sim_time: time_of(9), ..tick(4) }, AT + 2_400).is_err(), "another time");
        assert!(log.status(&status(2, 100_000, false), AT + 1_800, AT + 1_800).is_err(), "back");
        let other = ClockStatus { started_at: iso(AT + 1), ..status(3, 100_000, false) };
        assert!(log.status(&other, AT + 1_800, AT + 1_800).is_err(), "another clock");
    }
}
