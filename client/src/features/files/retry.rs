//! How a transfer goes on after the way to the broker was lost: it waits, a little longer each time, and gives up when nothing has
//! moved for a while.

use std::time::{Duration, Instant};

use super::http::Broken;
use super::progress::Stop;
use crate::connection::ConnectionError;
use crate::error::{CliError, ExitCode};

/// Time without a new byte after which a transfer is given up. What has arrived stays, so the same command goes on.
const PATIENCE: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest step of a pause, so that a transfer that is not wanted any more ends soon.
const STEP: Duration = Duration::from_millis(100);

/// The patience with one transfer.
pub(super) struct Patience {
    since: Instant,
    pause: Duration,
    at: u64,
    stop: Stop,
}

impl Patience {
    /// With a transfer that begins now.
    pub(super) fn new(stop: Stop) -> Self {
        Self { since: Instant::now(), pause: FIRST_PAUSE, at: 0, stop }
    }

    /// The transfer is at this byte.
    pub(super) fn moved(&mut self, at: u64) {
        if at > self.at {
            (self.since, self.pause, self.at) = (Instant::now(), FIRST_PAUSE, at);
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// What broke off, when it is of no use or was tried long enough.
    pub(super) fn wait(&mut self, broken: Broken) -> Result<(), CliError> {
        if self.stop.is_set() {
            return Err(CliError::cancelled("The transfer was given up."));
        }
        let retryable = match &broken {
            Broken::Network(_) | Broken::Stale => true,
            Broken::Refused { retryable, .. } => *retryable,
            Broken::Local(_) => false,
        };
        if !retryable || Instant::now().duration_since(self.since) > PATIENCE {
            return Err(error_of(broken));
        }
        let until = Instant::now() + self.pause;
        while Instant::now() < until && !self.stop.is_set() {
            std::thread::park_timeout(STEP.min(until.saturating_duration_since(Instant::now())));
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// Waits before the next try of a question to the broker.
    ///
    /// # Errors
    /// As [`Patience::wait`].
    pub(super) fn wait_for(&mut self, error: ConnectionError) -> Result<(), CliError> {
        match error.is_retryable() {
            true => self.wait(Broken::Network(error.to_string())),
            false => Err(CliError::from(error)),
        }
    }
}

/// What a transfer that broke off is to a command.
pub(super) fn error_of(broken: Broken) -> CliError {
    match broken {
        Broken::Network(reason) => CliError::network(format!("The transfer broke off: {reason}."))
            .hint("Run the same command again: it goes on where it was."),
        Broken::Stale => {
            CliError::network("The broker gave no place for the bytes.").hint("Run the same command again.")
        }
        Broken::Refused { code, message, .. } => {
            let known = claudemesh_protocol::error::ErrorCode::parse(&code);
            CliError::new(known.map_or(ExitCode::Network, ExitCode::of), code, crate::error::sentence(&message))
        }
        Broken::Local(error) => CliError::io(format!("The file cannot be read: {error}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, retryable: bool) -> Broken {
        Broken::Refused { code: code.into(), message: "no".into(), retryable }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_may_not_is_told() {
        let stop = Stop::default();
        let mut patience = Patience::new(stop.clone());
        assert!(patience.wait(Broken::Network("x".into())).is_ok() && patience.wait(refused("busy", true)).is_ok());
        let error = patience.wait(refused("forbidden", false)).unwrap_err();
        assert_eq!((error.exit, error.code.as_str()), (ExitCode::PermissionDenied, "forbidden"));
        assert_eq!(patience.wait(Broken::Local(std::io::Error::other("x"))).unwrap_err().exit, ExitCode::Io);
        assert!(patience.pause > FIRST_PAUSE);
        patience.moved(5);
        assert_eq!(patience.pause, FIRST_PAUSE, "a byte is worth a new patience");
        patience.since = Instant::now() - PATIENCE - Duration::from_secs(1);
        let error = patience.wait(Broken::Network("x".into())).unwrap_err();
        assert!(error.exit == ExitCode::Network && error.hint.is_some_and(|hint| hint.contains("goes on")));
        drop(stop.when_dropped());
        assert_eq!(patience.wait(Broken::Stale).unwrap_err().exit, ExitCode::Cancelled);
    }
}
