//! `clock`, `clock set`, `pause`, `resume`, `stop`.

use clap::Args;
use claudemesh_protocol::call::Call;
use claudemesh_protocol::features::clock::{
    ClockStatus, GetClock, PauseClock, ResumeClock, SetClock, Speed, StopClock,
};

use super::described;
use crate::context::Context;
use crate::context::connect::ask;
use crate::output::Style;
use crate::verb::shape::{self, InMesh, Shape};
use crate::verb::{Effect, Ran, Verb, done, verbs};

/// Show or set the simulated clock of the mesh: it ticks for every session at once.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh clock\n  claudemesh clock set 60 --at 2030-01-01T09:00:00Z\n  \
                        claudemesh clock pause\n\nA tick is a simulated minute. Sessions are told of each tick.")]
pub struct ClockArgs {
    /// What to do; without it the clock is shown.
    #[command(subcommand)]
    action: Option<ClockAction>,
}

verbs! {
    /// What to do with the clock.
    pub enum ClockAction {
        Set => SetArgs,
        Pause => PauseArgs,
        Resume => ResumeArgs,
        Stop => StopArgs,
    }
}

impl Verb for ClockArgs {
    fn effect(&self) -> Effect {
        self.action.as_ref().map_or(Effect::Reads, Verb::effect)
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ClockStatus>()
    }

    fn shapes() -> Vec<Shape> {
        [vec![Shape::one::<InMesh<ClockStatus>>()], ClockAction::shapes()].concat()
    }

    fn run(self, cx: &Context) -> Ran {
        match self.action {
            Some(action) => action.run(cx),
            None => show(cx, GetClock {}, ""),
        }
    }
}

/// Start the clock, or change its speed or its time.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh clock set 10\n  claudemesh clock set 1.5 --at 2030-01-01T09:00:00Z")]
pub struct SetArgs {
    /// How many times faster than real time, from 1 to 100.
    #[arg(value_parser = speed)]
    speed: Speed,
    /// The simulated time, for example 2030-01-01T09:00:00Z [default: it goes on; a new clock starts at the present time].
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
}

fn speed(text: &str) -> Result<Speed, String> {
    let factor: f64 = text.parse().map_err(|_| "expected a number from 1 to 100".to_owned())?;
    if (1.0..=100.0).contains(&factor) { Ok(Speed::of(factor)) } else { Err("expected a number from 1 to 100".into()) }
}

impl Verb for SetArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ClockStatus>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<ClockStatus>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        show(cx, SetClock { speed: Some(self.speed), sim_time: self.at }, "clock set: ")
    }
}

/// Let the clock stand still.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh clock pause")]
pub struct PauseArgs {}

impl Verb for PauseArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ClockStatus>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<ClockStatus>>()]
    }

    /// Exit 5 when there is no clock.
    fn run(self, cx: &Context) -> Ran {
        show(cx, PauseClock {}, "clock paused: ")
    }
}

/// Let a paused clock go on.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh clock resume")]
pub struct ResumeArgs {}

impl Verb for ResumeArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ClockStatus>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<ClockStatus>>()]
    }

    /// Exit 5 when there is no clock.
    fn run(self, cx: &Context) -> Ran {
        show(cx, ResumeClock {}, "clock resumed: ")
    }
}

/// End the clock. The next `clock set` starts a new one.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh clock stop")]
pub struct StopArgs {}

impl Verb for StopArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ClockStatus>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<ClockStatus>>()]
    }

    /// Exit 5 when there is no clock.
    fn run(self, cx: &Context) -> Ran {
        show(cx, StopClock {}, "clock stopped: ")
    }
}

fn show<C: Call<Answer = ClockStatus>>(cx: &Context, request: C, what: &str) -> Ran {
    let entry = cx.mesh_entry()?;
    let clock: ClockStatus = ask(cx, &entry, |connection| async move { Ok(connection.request(request).await?) })?;
    cx.out
        .answer(&InMesh::new(&entry.slug, &clock), |out| {
            let hint = match clock.speed {
                None if what.is_empty() => "; `claudemesh clock set <speed>` starts one",
                // Without sessions it stands still a moment later, which looks like a failed command.
                Some(_) if !what.is_empty() && !clock.paused => "; it stands still while no session is here",
                _ => "",
            };
            let tick = if what.is_empty() { String::new() } else { format!("{} ", out.tick()) };
            format!("{tick}{what}{}{}\n", described(&clock), out.paint(Style::Dim, hint))
        })
        .map(done)
}
