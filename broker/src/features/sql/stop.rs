//! Ending requests that run: by time, by their caller, by what they take. A request is either ended or committed, never both.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use tokio::sync::Notify;

use super::limits::{MEMORY_PER_REQUEST, SECONDS_PER_REQUEST};
use crate::quota::Quotas;
use crate::refusal::Refusal;

/// How long a request that was ended may take to notice it. A single function over large texts cannot be interrupted; its
/// thread ends later, and what it wrote is undone.
const GRACE: Duration = Duration::from_secs(2);

/// Why a request ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    /// It took too long.
    Time = 1,
    /// Its caller gave up, or is gone.
    Caller = 2,
    /// It takes too much memory.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "a server bounds its own memory"))]
    Memory = 3,
}

const RUNNING: u8 = 0;
const COMMITTING: u8 = 9;

/// The switch of one request. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    state: AtomicU8,
    changed: Notify,
}

impl Stop {
    /// Ends the request; `false` when it is being committed or was ended before.
    pub(super) fn end(&self, reason: Reason) -> bool {
        self.0.state.compare_exchange(RUNNING, reason as u8, Ordering::AcqRel, Ordering::Acquire).is_ok() && {
            self.0.changed.notify_waiters();
            true
        }
    }

    /// From now on it cannot be ended; `false` when it was.
    pub(super) fn may_commit(&self) -> bool {
        self.0.state.compare_exchange(RUNNING, COMMITTING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Why it was ended, if it was.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self.0.state.load(Ordering::Acquire) {
            1 => Some(Reason::Time),
            2 => Some(Reason::Caller),
            3 => Some(Reason::Memory),
            _ => None,
        }
    }

    /// Waits until it is ended.
    pub(super) async fn ended(&self) {
        let changed = self.0.changed.notified();
        if self.reason().is_none() {
            changed.await;
        }
    }

    /// What its caller is told.
    pub(super) fn refusal(&self, quotas: &Quotas) -> Refusal {
        match self.reason() {
            Some(Reason::Caller) => Refusal::new(ErrorCode::Cancelled, "the statement was cancelled"),
            Some(Reason::Memory) => {
                let most = quotas.value(&MEMORY_PER_REQUEST);
                quotas.bound(&MEMORY_PER_REQUEST, most).into()
            }
            Some(Reason::Time) | None => {
                let bound = quotas.bound(&SECONDS_PER_REQUEST, quotas.value(&SECONDS_PER_REQUEST));
                let message = format!("the statement took more than {} seconds and was ended", bound.limit);
                Refusal { bound: Some(Box::new(bound)), ..Refusal::new(ErrorCode::Timeout, message) }
            }
        }
    }

    /// Waits for the end of a request, at most as long as it may take. One that is being committed is waited for to its end.
    ///
    /// # Errors
    /// Its own, or those of its end.
    pub(super) async fn within<T>(
        &self,
        quotas: &Quotas,
        request: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let limit = Duration::from_secs(quotas.value(&SECONDS_PER_REQUEST));
        self.until(limit, GRACE, request).await.unwrap_or_else(|| Err(self.refusal(quotas)))
    }

    /// As [`Stop::within`]; `None` when it was ended and has not noticed it in time.
    async fn until<T>(
        &self,
        limit: Duration,
        grace: Duration,
        request: impl Future<Output = Result<T, Refusal>>,
    ) -> Option<Result<T, Refusal>> {
        let guard = EndOnDrop(self);
        let mut request = std::pin::pin!(request);
        let done = tokio::select! {
            done = &mut request => Some(done),
            () = self.ended() => None,
            () = tokio::time::sleep(limit) => None,
        };
        let done = match done {
            Some(done) => Some(done),
            None if !self.end(Reason::Time) && self.reason().is_none() => Some(request.await),
            // It may have ended by itself just before.
            None => tokio::time::timeout(grace, request).await.ok(),
        };
        drop(guard);
        done
    }
}

/// No one waits for the answer any more: what still runs is of no use.
struct EndOnDrop<'a>(&'a Stop);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end(Reason::Caller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_ended_or_committed_and_never_both() {
        let ended = Stop::default();
        assert!(ended.end(Reason::Caller) && !ended.may_commit() && !ended.end(Reason::Time));
        assert_eq!(ended.refusal(&Quotas::default()).code, ErrorCode::Cancelled);
        let committed = Stop::default();
        assert!(committed.may_commit() && !committed.end(Reason::Time));
        assert_eq!(committed.reason(), None);
    }

    const NEVER: Duration = Duration::from_secs(3_600);

    fn for_ever() -> impl Future<Output = Result<u8, Refusal>> {
        std::future::pending()
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_ended_and_one_that_commits_is_waited_for() {
        let stop = Stop::default();
        assert_eq!(stop.until(Duration::ZERO, Duration::ZERO, for_ever()).await, None);
        assert_eq!((stop.reason(), stop.refusal(&Quotas::default()).code), (Some(Reason::Time), ErrorCode::Timeout));
        let stop = Stop::default();
        let notices = async {
            stop.ended().await;
            Err::<u8, _>(stop.refusal(&Quotas::default()))
        };
        let told = stop.until(Duration::ZERO, NEVER, notices).await.expect("it notices");
        assert_eq!(told.unwrap_err().code, ErrorCode::Timeout);
        let stop = Stop::default();
        assert!(stop.may_commit());
        let commits = async {
            tokio::task::yield_now().await;
            Ok(7)
        };
        assert_eq!(stop.until(Duration::ZERO, Duration::ZERO, commits).await, Some(Ok(7)));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_ends_its_request() {
        let stop = Stop::default();
        let both =
            async { tokio::join!(stop.until(NEVER, Duration::ZERO, for_ever()), async { stop.end(Reason::Caller) }) };
        assert_eq!(both.await, (None, true));
        assert_eq!(stop.refusal(&Quotas::default()).code, ErrorCode::Cancelled);
        let stop = Stop::default();
        let mut waits = Box::pin(stop.until(NEVER, NEVER, for_ever()));
        let mut looking = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut looking).is_pending());
        drop(waits);
        assert_eq!(stop.reason(), Some(Reason::Caller));
    }
}
