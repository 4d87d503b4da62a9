//! Samples of every message of the clock.

use super::{ClockStatus, GetClock, PauseClock, Request, Response, ResumeClock, SetClock, Speed, StopClock};
use crate::testing::AT;

/// No field is written as `null`.
pub(crate) const NULLS: &[(&str, &str)] = &[];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let full = SetClock { speed: Some(Speed::of(2.5)), sim_time: Some(AT.into()) };
    vec![
        ("", SetClock::default().into()),
        ("speed", SetClock { speed: Some(Speed::of(10.0)), sim_time: None }.into()),
        ("full", full.into()),
        ("", PauseClock {}.into()),
        ("", ResumeClock {}.into()),
        ("", StopClock {}.into()),
        ("", GetClock {}.into()),
    ]
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let none = ClockStatus {
        speed: None,
        paused: true,
        tick: 0,
        sim_time: AT.into(),
        started_at: AT.into(),
        auto_paused: false,
    };
    let full = ClockStatus { speed: Some(Speed::of(2.5)), tick: 7, auto_paused: true, ..none.clone() };
    vec![("", none.into()), ("full", full.into())]
}
