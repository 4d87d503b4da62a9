//! The simulated clock of a mesh.

use claudemesh_protocol::features::clock::ClockStatus;

pub mod cli;
pub mod tools;

/// What a clock shows, in words.
fn described(clock: &ClockStatus) -> String {
    let Some(speed) = clock.speed else { return "no clock runs".into() };
    let how = match (clock.paused, clock.auto_paused) {
        (_, true) => "paused, goes on when a session comes",
        (true, false) => "paused",
        (false, false) => "running",
    };
    format!("{how}, x{speed}, simulated time {}, tick {}", clock.sim_time, clock.tick)
}
