//! Rates of callers that have a secret but no signature.

use std::collections::HashMap;

use crate::session::bucket::Bucket;

/// Callers and processes whose rate is remembered; beyond it full buckets are forgotten.
const MAX_RATES: usize = 8_192;
const MINUTE_MS: i64 = 60_000;

/// Rates by the hash of a secret and a process.
#[derive(Default)]
pub struct Rates {
    buckets: HashMap<(String, u64), Bucket>,
}

impl Rates {
    /// Counts one call against `rate` a minute (0: no limit).
    ///
    /// # Errors
    /// Milliseconds to wait.
    pub fn take(&mut self, secret_hash: &str, pid: u64, rate: u32, now_ms: i64) -> Result<(), u64> {
        if rate == 0 {
            return Ok(());
        }
        if self.buckets.len() >= MAX_RATES {
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, MINUTE_MS, now_ms));
            if self.buckets.len() >= MAX_RATES {
                return Err(1_000);
            }
        }
        let key = (secret_hash.to_owned(), pid);
        self.buckets.entry(key).or_insert_with(|| Bucket::full(rate, now_ms)).take(rate, MINUTE_MS, rate, now_ms)
    }
}
