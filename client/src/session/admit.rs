//! What stands between the inbox and every route into the session. The list is [`crate::features::INTERCEPTORS`].

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{JoinedMesh, Session};
use crate::inbox::{Admitted, InboxError};

/// A feature that looks at what has come before any route may show it: to take it out, to hold it back.
pub trait Intercept: 'static {
    /// Looks at everything that has come and that it has not looked at.
    ///
    /// # Errors
    /// Nothing may be shown now. A fault that holds nothing back is logged and is no error.
    fn intercept(session: &Session, bound: &JoinedMesh) -> impl Future<Output = Result<(), InboxError>> + Send;
}

type Run = for<'a> fn(&'a Session, &'a JoinedMesh) -> BoxFuture<'a, Result<(), InboxError>>;

/// An entry of the list.
pub struct Interceptor(Run);

impl Interceptor {
    /// The entry for a feature.
    pub const fn of<F: Intercept>() -> Self {
        Self(run::<F>)
    }
}

fn run<'a, F: Intercept>(session: &'a Session, bound: &'a JoinedMesh) -> BoxFuture<'a, Result<(), InboxError>> {
    F::intercept(session, bound).boxed()
}

impl Session {
    /// Lets all interceptors look, in order. Only what this answers can be read for the session.
    ///
    /// # Errors
    /// [`InboxError`]
    pub async fn admit<'a>(&self, bound: &'a JoinedMesh) -> Result<Admitted<'a>, InboxError> {
        for Interceptor(intercept) in crate::features::INTERCEPTORS {
            intercept(self, bound).await?;
        }
        Ok(Admitted::new(&bound.mailbox, bound.reader()))
    }
}
