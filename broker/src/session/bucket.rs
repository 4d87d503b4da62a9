//! A token bucket on monotonic milliseconds.

/// Allows `per_window` events per window on average, and that many at once.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Thousandths of a token.
    tokens: i64,
    updated_ms: i64,
}

impl Bucket {
    /// A full bucket.
    pub fn full(burst: u32, now_ms: i64) -> Self {
        Self { tokens: i64::from(burst) * 1_000, updated_ms: now_ms }
    }

    /// Takes one token, or says how many milliseconds are missing. A `rate` of 0 means no limit.
    ///
    /// `rate` tokens come back every `window_ms`; at most `burst` are kept.
    ///
    /// # Errors
    /// Milliseconds until the next token.
    pub fn take(&mut self, rate: u32, window_ms: i64, burst: u32, now_ms: i64) -> Result<(), u64> {
        if rate == 0 {
            return Ok(());
        }
        let rate = i64::from(rate);
        let elapsed = (now_ms - self.updated_ms).clamp(0, window_ms * 2);
        self.tokens = (self.tokens + elapsed * rate * 1_000 / window_ms).min(i64::from(burst) * 1_000);
        self.updated_ms = now_ms;
        if self.tokens >= 1_000 {
            self.tokens -= 1_000;
            return Ok(());
        }
        let missing = 1_000 - self.tokens;
        Err(u64::try_from((missing * window_ms).div_euclid(rate * 1_000) + 1).unwrap_or(1))
    }

    /// Whether it would be full by now: then it says no more than a new one.
    pub fn is_full(&self, rate: u32, window_ms: i64, now_ms: i64) -> bool {
        let back = (now_ms - self.updated_ms).clamp(0, window_ms * 2) * i64::from(rate) * 1_000 / window_ms;
        self.tokens + back >= i64::from(rate) * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut bucket = Bucket::full(3, 0);
        for _ in 0..3 {
            assert_eq!(bucket.take(60, 60_000, 3, 0), Ok(()));
        }
        assert_eq!(bucket.take(60, 60_000, 3, 0), Err(1_001));
        assert_eq!(bucket.take(60, 60_000, 3, 1_000), Ok(()));
        assert!(bucket.take(60, 60_000, 3, 1_000).is_err());
    }

    #[test]
    fn zero_means_no_limit_and_clocks_may_stand_still() {
        let mut bucket = Bucket::full(0, 5);
        for _ in 0..1_000 {
            assert_eq!(bucket.take(0, 60_000, 0, 5), Ok(()));
        }
    }
}
