//! The only place that reads the operating system's clock.
//!
//! Two times: wall time ([`Clock::now_ms`], stored and sent) and monotonic time ([`Clock::mono_ms`], for leases, limits and
//! timers, so that a wrong or stepped wall clock neither expires everything nor freezes a timer). What deletes goes by
//! [`Clock::believed_ms`], which follows the wall clock but does not run ahead with it at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// A clock shared by every part of one broker.
pub type SharedClock = Arc<dyn Clock>;

/// Wall time, monotonic time, and sleeping on the latter.
pub trait Clock: Send + Sync + 'static {
    /// Unix milliseconds.
    fn now_ms(&self) -> i64;

    /// Milliseconds since an arbitrary start; never goes back.
    fn mono_ms(&self) -> i64;

    /// Unix milliseconds for decisions that cannot be taken back: expiring and deleting.
    ///
    /// The wall clock, unless it has run ahead of the monotonic one by more than five minutes since the last look: then the
    /// old time goes on, and the new one is believed after it has held for a day. A clock that is set right within
    /// that day has cost nothing. Every mesh in memory asks at least once a second.
    fn believed_ms(&self) -> i64;

    /// Resolves once [`Clock::mono_ms`] has reached `at_ms`. Safe to drop.
    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Wall and monotonic time drift apart by slewing, at most 0.05 %, and by the length of a look; more is a step.
const STEP_MS: i64 = 5 * 60_000;
/// How long a step has to hold before it is believed.
const DOUBT_MS: i64 = 24 * 3_600_000;

/// What is thought of the wall clock: see [`Clock::believed_ms`].
#[derive(Debug, Default)]
struct Belief(Mutex<Option<Look>>);

#[derive(Clone, Copy, Debug)]
struct Look {
    believed_ms: i64,
    mono_ms: i64,
    doubted_since_mono_ms: Option<i64>,
}

impl Belief {
    fn look(&self, wall_ms: i64, mono_ms: i64) -> i64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match *last {
            None => Look { believed_ms: wall_ms, mono_ms, doubted_since_mono_ms: None },
            Some(look) => look.next(wall_ms, mono_ms),
        };
        *last = Some(next);
        next.believed_ms
    }
}

impl Look {
    fn next(self, wall_ms: i64, mono_ms: i64) -> Self {
        let expected = self.believed_ms.saturating_add(mono_ms - self.mono_ms);
        let believe = Self { believed_ms: wall_ms, mono_ms, doubted_since_mono_ms: None };
        let ahead_ms = wall_ms.saturating_sub(expected);
        if ahead_ms <= STEP_MS {
            if self.doubted_since_mono_ms.is_some() {
                tracing::info!("the wall clock is back where it was expected");
            }
            return believe;
        }
        let since = self.doubted_since_mono_ms.unwrap_or_else(|| {
            tracing::warn!(ahead_ms, "the wall clock went ahead; nothing expires by it before it has held for a day");
            mono_ms
        });
        if mono_ms - since >= DOUBT_MS {
            tracing::warn!(ahead_ms, "the wall clock has held for a day and is believed");
            return believe;
        }
        Self { believed_ms: expected, mono_ms, doubted_since_mono_ms: Some(since) }
    }
}

/// The real clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    belief: Belief,
}

impl SystemClock {
    /// A shared real clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the OS clock")]
    pub fn shared() -> SharedClock {
        Arc::new(Self { start: Instant::now(), belief: Belief::default() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the OS clock")]
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn mono_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn believed_ms(&self) -> i64 {
        self.belief.look(self.now_ms(), self.mono_ms())
    }

    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let wait = u64::try_from(at_ms - self.mono_ms()).unwrap_or(0);
        Box::pin(tokio::time::sleep(Duration::from_millis(wait)))
    }
}

/// A clock that moves only when told to: for tests of leases, expiries and limits.
#[derive(Debug)]
pub struct ManualClock {
    base_ms: AtomicI64,
    elapsed: watch::Sender<i64>,
    belief: Belief,
}

impl ManualClock {
    /// Starts at a wall time; monotonic time starts at 0.
    pub fn at(wall_ms: i64) -> Arc<Self> {
        Arc::new(Self { base_ms: AtomicI64::new(wall_ms), elapsed: watch::Sender::new(0), belief: Belief::default() })
    }

    /// Moves both times forward and wakes what is due.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.elapsed.send_modify(|elapsed| *elapsed += by);
    }

    /// Sets the wall clock forward or back, as an operator or a time server does; monotonic time knows nothing of it.
    pub fn step_wall(&self, by_ms: i64) {
        self.base_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.base_ms.load(Ordering::Relaxed) + *self.elapsed.borrow()
    }

    fn mono_ms(&self) -> i64 {
        *self.elapsed.borrow()
    }

    fn believed_ms(&self) -> i64 {
        self.belief.look(self.now_ms(), self.mono_ms())
    }

    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut elapsed = self.elapsed.subscribe();
        Box::pin(async move {
            // The sender lives as long as the broker; when it is gone no one waits any more.
            let _ = elapsed.wait_for(|now| *now >= at_ms).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const MONTH_MS: i64 = 30 * 86_400_000;

    #[test]
    fn a_step_ahead_is_believed_after_a_day() {
        let clock = ManualClock::at(1_000_000);
        assert_eq!(clock.believed_ms(), 1_000_000);
        clock.step_wall(MONTH_MS);
        for hour in 0..24 {
            assert_eq!(clock.believed_ms(), 1_000_000 + hour * 3_600_000, "hour {hour}");
            clock.advance(HOUR);
        }
        assert_eq!(clock.believed_ms(), clock.now_ms());
    }

    #[test]
    fn a_clock_that_is_set_right_again_has_changed_nothing() {
        let clock = ManualClock::at(1_000_000);
        clock.believed_ms();
        clock.step_wall(MONTH_MS);
        clock.advance(HOUR);
        assert_eq!(clock.believed_ms(), 4_600_000);
        clock.step_wall(-MONTH_MS);
        assert_eq!(clock.believed_ms(), 4_600_000);
        // The next step is doubted for a whole day again.
        clock.advance(23 * HOUR);
        clock.step_wall(MONTH_MS);
        assert_eq!(clock.believed_ms(), clock.now_ms() - MONTH_MS);
        clock.advance(2 * HOUR);
        assert_eq!(clock.believed_ms(), clock.now_ms() - MONTH_MS);
    }

    #[test]
    fn slow_drift_and_steps_back_are_followed_at_once() {
        let clock = ManualClock::at(1_000_000);
        clock.believed_ms();
        for _ in 0..100 {
            clock.advance(Duration::from_secs(60));
            clock.step_wall(30);
            assert_eq!(clock.believed_ms(), clock.now_ms());
        }
        clock.step_wall(-MONTH_MS);
        assert_eq!(clock.believed_ms(), clock.now_ms());
    }
}
