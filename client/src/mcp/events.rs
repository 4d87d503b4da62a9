//! What the features of a running session do about the broker's events. The list is [`crate::features::EVENTS`].

use std::sync::Arc;

use claudemesh_protocol::call::ServerBody;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::hub::{Bound, Hub};
use crate::connection::Heard;

/// What a feature does about the events of one type.
pub trait OnEvent: 'static {
    /// The type.
    type Event: ServerBody + Send + 'static;

    /// Called for each event in order, and when some were missed. It decides and does not wait: what takes time goes into a
    /// task of its own. What the session shall read of it is told with [`Hub::tell`].
    fn on_event(session: &Arc<Hub>, bound: &Bound, heard: Heard<Self::Event>);
}

/// An entry of the list: a feature that listens in every mesh of the session.
pub struct Listener(fn(&Arc<Hub>, &Bound) -> BoxFuture<'static, ()>);

impl Listener {
    /// The entry for a feature.
    pub const fn of<F: OnEvent>() -> Self {
        Self(follow::<F>)
    }
}

/// Listens from now on; the future passes on what is heard, until the connection is closed for good.
fn follow<F: OnEvent>(session: &Arc<Hub>, bound: &Bound) -> BoxFuture<'static, ()> {
    let mut events = bound.connection.events::<F::Event>();
    let (session, bound) = (Arc::clone(session), bound.clone());
    async move {
        while let Some(heard) = events.next().await {
            F::on_event(&session, &bound, heard);
        }
    }
    .boxed()
}

/// Lets all features hear the events of one mesh until the session ends.
pub(super) fn follow_all(session: &Arc<Hub>, bound: &Bound) -> impl Future<Output = ()> + Send + 'static {
    let following: Vec<_> = crate::features::EVENTS.iter().map(|Listener(follow)| follow(session, bound)).collect();
    let stop = session.stopped();
    async move {
        tokio::select! {
            () = stop.cancelled() => {}
            _ = join_all(following) => {}
        }
    }
}
