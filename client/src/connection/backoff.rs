//! How long to wait before the next attempt: full jitter, so that clients of a restarted broker do not return as one.

use std::time::Duration;

use rand::Rng;

/// Upper bounds of the waits, in seconds; the last one repeats.
const CAPS_S: [u64; 6] = [1, 2, 4, 8, 16, 30];

/// The attempts since the last success.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempt: usize,
}

impl Backoff {
    /// A random wait between zero and the current bound; the bound grows.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let cap = CAPS_S[self.attempt.min(CAPS_S.len() - 1)];
        self.attempt += 1;
        Duration::from_millis(rng.gen_range(0..=cap * 1000))
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
        let mut backoff = Backoff::default();
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
}
