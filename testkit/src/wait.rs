//! Waiting for what another process does: its files, its screen and its end tell no one that they changed. Where there is an event, tests wait
//! for the event instead.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is an answer.
///
/// # Errors
/// Those of the look, and that there was no answer in this time.
pub async fn until<T>(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = look().await? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {patience:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_looks_until_there_is_an_answer_or_the_time_is_over() {
        let mut looks = 0;
        let answer = until("three", Duration::from_secs(9), async || {
            looks += 1;
            Ok((looks == 3).then_some("here"))
        });
        assert_eq!((answer.await.expect("an answer"), looks), ("here", 3));
        let late = until("nothing", Duration::ZERO, async || Ok(None::<()>)).await;
        assert!(late.expect_err("no answer").to_string().contains("nothing: not within"));
        let broken =
            until("a fault", Duration::from_secs(9), async || bail!("cannot look") as Result<Option<()>>).await;
        assert_eq!(broken.expect_err("a fault").to_string(), "cannot look");
    }
}
