//! How long to wait before the next attempt: full jitter, so that clients of a restarted broker do not return as one.

use std::time::Duration;

use rand::Rng;

/// Upper bounds of the waits; the last one repeats.
const CAPS_MS: [u64; 6] = [1_000, 2_000, 4_000, 8_000, 16_000, 30_000];
/// The same for the mesh of this machine: another process takes over within a fraction of a second, and trying costs no network.
const LOCAL_CAPS_MS: [u64; 12] = [20, 40, 60, 80, 100, 100, 100, 100, 150, 250, 500, 1_000];

/// The attempts since the last success.
#[derive(Debug)]
pub(super) struct Backoff {
    caps_ms: &'static [u64],
    attempt: usize,
}

impl Backoff {
    /// For a broker on this machine's own store, or for any other.
    pub(super) fn new(local: bool) -> Self {
        Self { caps_ms: if local { &LOCAL_CAPS_MS } else { &CAPS_MS }, attempt: 0 }
    }

    /// A random wait between zero and the current bound; the bound grows.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let cap = self.caps_ms[self.attempt.min(self.caps_ms.len() - 1)];
        self.attempt += 1;
        Duration::from_millis(rng.gen_range(0..=cap))
    }

    /// Called after an accepted hello.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_within_their_bounds_and_spread() {
        let mut rng = rand::thread_rng();
        let mut backoff = Backoff::new(false);
        for cap in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert!(backoff.next(&mut rng) <= Duration::from_secs(cap));
        }
        backoff.reset();
        let first: Vec<_> = (0..50)
            .map(|_| {
                backoff.reset();
                backoff.next(&mut rng)
            })
            .collect();
        assert!(first.iter().all(|wait| *wait <= Duration::from_secs(1)));
        assert!(first.iter().collect::<std::collections::HashSet<_>>().len() > 10);
    }

    #[test]
    fn a_takeover_on_this_machine_is_not_slept_through() {
        let mut rng = rand::thread_rng();
        let mut backoff = Backoff::new(true);
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next(&mut rng)).collect();
        assert!(waits[..9].iter().sum::<Duration>() <= Duration::from_millis(750));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)));
    }
}
