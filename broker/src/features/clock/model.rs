//! How a clock goes on: whole numbers only, so that nothing is lost however often it is looked at.

use claudemesh_protocol::features::clock::Speed;
use diesel::prelude::*;

use super::schema::mesh_clocks;

/// A tick is a simulated minute: in milliseconds.
pub const TICK_MS: i64 = 60_000;
/// The same in microseconds. A millisecond of real time is `speed_thousandths` microseconds of simulated time.
const TICK_US: i64 = TICK_MS * 1_000;

/// A clock as it was at one moment.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = mesh_clocks, primary_key(mesh_id))]
pub struct State {
    /// Mesh.
    pub mesh_id: String,
    /// Thousandths of real time.
    pub speed_thousandths: i64,
    /// It stands still.
    pub paused: bool,
    /// It was paused because no one was left.
    pub auto_paused: bool,
    /// Simulated minutes since its start.
    pub tick: i64,
    /// Unix milliseconds of the last tick, in the simulation.
    pub sim_ms: i64,
    /// Simulated microseconds since the last tick, at `saved_at_ms`.
    pub phase_us: i64,
    /// Unix milliseconds of its start, in reality.
    pub started_at_ms: i64,
    /// Unix milliseconds of this moment, in reality.
    pub saved_at_ms: i64,
}

/// What happens to a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// Starts or changes it; `None`: as it is.
    Set {
        /// Speed.
        speed: Option<Speed>,
        /// Unix milliseconds in the simulation.
        sim_ms: Option<i64>,
    },
    /// Stands still until `Resume`.
    Pause,
    /// Goes on.
    Resume,
    /// Ends it.
    Stop,
    /// Time has passed.
    Tick,
    /// No one is left. The time since the last moment counts only when it was seen to pass.
    Empty {
        /// Whether it was.
        seen: bool,
    },
    /// Someone is there again.
    Back,
}

/// There is no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoClock;

impl State {
    /// The clock after an act at a moment (Unix milliseconds); `None`: the mesh has no clock then.
    ///
    /// # Errors
    /// [`NoClock`]: there is none to pause, resume or stop.
    pub fn after(before: Option<Self>, mesh: &str, act: Act, now_ms: i64) -> Result<Option<Self>, NoClock> {
        let Some(mut clock) = before else {
            return match act {
                Act::Set { speed, sim_ms } => Ok(Some(Self {
                    mesh_id: mesh.into(),
                    speed_thousandths: speed.unwrap_or(Speed::REAL).thousandths(),
                    paused: false,
                    auto_paused: false,
                    tick: 0,
                    sim_ms: sim_ms.unwrap_or(now_ms),
                    phase_us: 0,
                    started_at_ms: now_ms,
                    saved_at_ms: now_ms,
                })),
                Act::Pause | Act::Resume | Act::Stop => Err(NoClock),
                Act::Tick | Act::Empty { .. } | Act::Back => Ok(None),
            };
        };
        clock.go_on(now_ms, !matches!(act, Act::Empty { seen: false }));
        match act {
            Act::Set { speed, sim_ms } => {
                clock.speed_thousandths = speed.map_or(clock.speed_thousandths, Speed::thousandths);
                if let Some(sim_ms) = sim_ms {
                    (clock.sim_ms, clock.phase_us) = (sim_ms, 0);
                }
            }
            Act::Pause => (clock.paused, clock.auto_paused) = (true, false),
            Act::Resume => (clock.paused, clock.auto_paused) = (false, false),
            Act::Stop => return Ok(None),
            Act::Empty { .. } if !clock.paused => (clock.paused, clock.auto_paused) = (true, true),
            Act::Back if clock.auto_paused => (clock.paused, clock.auto_paused) = (false, false),
            Act::Tick | Act::Empty { .. } | Act::Back => {}
        }
        Ok(Some(clock))
    }

    /// Lets real time pass. A wall clock that went back counts nothing.
    fn go_on(&mut self, now_ms: i64, counts: bool) {
        let passed_ms = now_ms.saturating_sub(self.saved_at_ms).max(0);
        self.saved_at_ms = now_ms;
        if self.paused || !counts {
            return;
        }
        let passed_us = passed_ms.saturating_mul(self.speed_thousandths).saturating_add(self.phase_us);
        let ticks = passed_us / TICK_US;
        self.tick = self.tick.saturating_add(ticks);
        self.sim_ms = self.sim_ms.saturating_add(ticks.saturating_mul(TICK_MS));
        self.phase_us = passed_us % TICK_US;
    }

    /// Unix milliseconds, in reality, at which the next tick is due; `None` while it stands still.
    pub fn next_tick_ms(&self) -> Option<i64> {
        if self.paused {
            return None;
        }
        let speed = self.speed_thousandths.max(1);
        Some(self.saved_at_ms.saturating_add((TICK_US - self.phase_us + speed - 1) / speed))
    }

    /// Its speed.
    pub fn speed(&self) -> Speed {
        Speed::of_thousandths(self.speed_thousandths)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_775_000_000_000;

    fn started(speed: f64) -> State {
        let set = Act::Set { speed: Some(Speed::of(speed)), sim_ms: Some(0) };
        State::after(None, "m", set, START).unwrap().unwrap()
    }

    fn then(clock: State, act: Act, after_ms: i64) -> State {
        State::after(Some(clock), "m", act, START + after_ms).unwrap().unwrap()
    }

    #[test]
    fn a_minute_of_a_clock_takes_its_part_of_a_real_one() {
        for (speed, period_ms) in [(1.0, 60_000), (2.5, 24_000), (100.0, 600)] {
            let clock = started(speed);
            assert_eq!(clock.next_tick_ms(), Some(START + period_ms), "x{speed}");
            assert_eq!(then(clock.clone(), Act::Tick, period_ms - 1).tick, 0, "x{speed}");
            let ticked = then(clock, Act::Tick, period_ms);
            assert_eq!((ticked.tick, ticked.sim_ms, ticked.phase_us), (1, TICK_MS, 0), "x{speed}");
        }
    }

    #[test]
    fn a_pause_keeps_the_part_of_a_minute_that_has_passed() {
        let paused = then(started(1.0), Act::Pause, 45_000);
        assert_eq!(paused.next_tick_ms(), None);
        let on = then(paused, Act::Resume, 1_000_000);
        assert_eq!(on.next_tick_ms(), Some(START + 1_015_000));
        let faster = then(on, Act::Set { speed: Some(Speed::of(10.0)), sim_ms: None }, 1_005_000);
        assert_eq!(faster.next_tick_ms(), Some(START + 1_006_000), "10 simulated seconds are left");
    }

    #[test]
    fn only_a_clock_that_was_paused_for_want_of_peers_goes_on_with_them() {
        let by_hand = then(then(started(1.0), Act::Pause, 1), Act::Empty { seen: true }, 2);
        assert!(then(by_hand, Act::Back, 3).paused);
        let empty = then(started(1.0), Act::Empty { seen: true }, 30_000);
        assert!(empty.paused && empty.auto_paused);
        let back = then(empty.clone(), Act::Back, 500_000);
        assert_eq!(back.next_tick_ms(), Some(START + 530_000));
        assert!(then(then(empty, Act::Pause, 4), Act::Back, 5).paused, "it was paused by hand meanwhile");
        let unseen = then(started(1.0), Act::Empty { seen: false }, 3_600_000);
        assert_eq!((unseen.tick, unseen.phase_us), (0, 0));
    }

    #[test]
    fn a_wall_clock_that_goes_back_stops_nothing() {
        let clock = then(started(1.0), Act::Tick, -3_600_000);
        assert_eq!((clock.tick, clock.next_tick_ms()), (0, Some(START - 3_600_000 + 60_000)));
    }

    proptest! {
        #[test]
        fn however_often_it_is_looked_at_it_shows_the_same(
            speed in 1_000_i64..=100_000,
            looks in prop::collection::vec(0_i64..5_000_000, 1..40),
        ) {
            let speed = Speed::of_thousandths(speed);
            let set = Act::Set { speed: Some(speed), sim_ms: Some(0) };
            let mut clock = State::after(None, "m", set, START).unwrap().unwrap();
            let mut passed = 0;
            for look in looks {
                passed += look;
                clock = then(clock, Act::Tick, passed);
                let due = clock.next_tick_ms().unwrap();
                prop_assert!(due > START + passed);
                prop_assert_eq!(then(clock.clone(), Act::Tick, due - START - 1).tick, clock.tick);
                prop_assert_eq!(then(clock.clone(), Act::Tick, due - START).tick, clock.tick + 1);
            }
            let us = passed * speed.thousandths();
            prop_assert_eq!((clock.tick, clock.phase_us), (us / TICK_US, us % TICK_US));
        }
    }
}
