//! How far a transfer is, for people who wait.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// What a transfer tells.
pub trait Progress: Send + Sync {
    /// It begins: how many bytes there are, when that is known.
    fn begin(&self, total: Option<u64>);
    /// So many bytes are done.
    fn at(&self, bytes: u64);
    /// It waits for the broker.
    fn waits(&self);
    /// It is over.
    fn end(&self);
}

/// Tells no one.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Option<u64>) {}

    fn at(&self, _: u64) {}

    fn waits(&self) {}

    fn end(&self) {}
}

/// A bar on stderr.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&self, total: Option<u64>) {
        self.0.set_message("");
        match total {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
    }

    fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    fn waits(&self) {
        self.0.set_message("waiting for the broker");
        self.0.tick();
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// A bar when a person looks at stderr, and nothing for scripts and models.
pub fn of(out: &Output, name: &str) -> Arc<dyn Progress> {
    if out.is_json() || out.is_quiet() || out.is_for_model() || !std::io::stderr().is_terminal() {
        return Arc::new(Silent);
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // A template that is not understood costs the looks of the bar.
    let template = "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(crate::output::clean(name).into_owned());
    Arc::new(Bar(bar))
}

/// Says that a transfer is not wanted any more.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether it is wanted no more.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it when the guard goes, for example with a call that is given up.
    pub fn when_dropped(&self) -> StopGuard {
        StopGuard(self.clone())
    }
}

/// See [`Stop::when_dropped`].
pub struct StopGuard(Stop);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
