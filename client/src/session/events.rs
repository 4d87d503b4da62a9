//! What the features of a running session do about the broker's events. The list is [`crate::features::EVENTS`].

use std::sync::Arc;

use claudemesh_protocol::call::ServerBody;
use claudemesh_protocol::session::HelloAck;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::{JoinedMesh, Session};
use crate::connection::{Heard, State};

/// What a feature does about the events of one type.
pub trait OnEvent: 'static {
    /// The type.
    type Event: ServerBody + Send + 'static;

    /// Called for each event in order, and when some were missed. It decides and does not wait: what takes time goes into a
    /// task of its own. What the session should read of it is told with [`Session::tell`].
    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<Self::Event>);
}

/// What a feature does each time the broker welcomes the session: at the start and after every reconnect.
pub trait OnWelcome: Default + Send + 'static {
    /// Called with the welcome; the next one waits for it.
    fn on_welcome(
        &mut self,
        session: &Arc<Session>,
        bound: &JoinedMesh,
        ack: &HelloAck,
    ) -> impl Future<Output = ()> + Send;
}

/// An entry of the list: a feature that listens in every mesh of the session.
pub struct Listener(fn(&Arc<Session>, &JoinedMesh) -> BoxFuture<'static, ()>);

impl Listener {
    /// The entry for a feature.
    pub const fn of<F: OnEvent>() -> Self {
        Self(follow::<F>)
    }

    /// The entry for a feature that wants to see every welcome.
    pub const fn of_welcomes<F: OnWelcome>() -> Self {
        Self(welcomed::<F>)
    }
}

fn welcomed<F: OnWelcome>(session: &Arc<Session>, bound: &JoinedMesh) -> BoxFuture<'static, ()> {
    let mut state = bound.connection.watch();
    let (session, bound) = (Arc::clone(session), bound.clone());
    async move {
        let mut feature = F::default();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Ready(ack) => feature.on_welcome(&session, &bound, &ack).await,
                State::Closed(_) => return,
                State::Connecting(_) => {}
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }
    .boxed()
}

/// Listens from now on; the future passes on what is heard, until the connection is closed for good.
fn follow<F: OnEvent>(session: &Arc<Session>, bound: &JoinedMesh) -> BoxFuture<'static, ()> {
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
pub(super) fn follow_all(session: &Arc<Session>, bound: &JoinedMesh) -> impl Future<Output = ()> + Send + 'static {
    let following: Vec<_> = crate::features::EVENTS.iter().map(|Listener(follow)| follow(session, bound)).collect();
    let stop = session.stopped();
    async move {
        tokio::select! {
            () = stop.cancelled() => {}
            _ = join_all(following) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use claudemesh_protocol::features::messaging::Push;
    use claudemesh_protocol::message::ServerMessage;

    use super::*;
    use crate::config::{ConfigStore, MessageMode};
    use crate::connection::tests::{FakeBroker, FakeSocket, PATIENCE, identity, system};
    use crate::connection::{Connection, open_mailbox};
    use crate::features::questions::wait::Waits;
    use crate::paths::Env;
    use crate::session::notes::{ChannelNote, MeshTag, Notes};

    /// An event of a feature that does not exist.
    struct Weather(String);

    impl ServerBody for Weather {
        const TAG: &'static str = Push::TAG;
        const EVENT: bool = true;

        fn into_message(self) -> ServerMessage {
            Push { event: Some(self.0), ..Push::default() }.into()
        }

        fn from_message(message: ServerMessage) -> Result<Self, Box<ServerMessage>> {
            let push = Push::from_message(message)?;
            match push.event.as_deref() {
                Some("rain" | "sun") => Ok(Self(push.event.unwrap_or_default())),
                _ => Err(Box::new(push.into())),
            }
        }
    }

    struct Umbrella;

    impl OnEvent for Umbrella {
        type Event = Weather;

        fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<Weather>) {
            let text = match heard {
                Heard::Event(Weather(event)) => event,
                Heard::Lagged(count) => format!("{count} were lost"),
                Heard::Away => "look out of the window".into(),
            };
            session.tell(bound, ChannelNote::of_mesh(&text, [("kind", "weather".to_owned())], &bound.tag));
        }
    }

    /// Waits until what the broker has sent was passed on: an answer to a request comes after it.
    async fn all_heard(bound: &JoinedMesh, socket: &mut FakeSocket) {
        bound.connection.ready(PATIENCE).await.unwrap();
        let connection = bound.connection.clone();
        let asked = tokio::spawn(async move { connection.list_peers().await });
        let id = socket.receive().await["_reqId"].clone();
        socket.send(serde_json::json!({"type": "peers_list", "peers": [], "_reqId": id})).await;
        asked.await.unwrap().unwrap();
        bound.connection.mail_stored().await;
    }

    /// What a session in this mode is told when it rains, the connection is lost, and the sun comes out.
    async fn told(mode: MessageMode) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let broker = FakeBroker::start().await;
        let who = identity(&broker.url());
        let session = Session::new(Env::of(&[]), ConfigStore::at(dir.path()), None, Some(mode));
        let mailbox = open_mailbox(dir.path(), &who).await.unwrap();
        let (notes, mut told) = Notes::new();
        let tag = MeshTag { slug: who.slug.clone(), id: who.mesh_id.to_string() };
        let connection = Connection::start(who, Some(mailbox.clone()));
        let bound = JoinedMesh {
            tag,
            connection,
            mailbox,
            pull_lock: Arc::default(),
            waits: Waits::default(),
            subscriptions: Default::default(),
            state_seen: Default::default(),
            hosting: Default::default(),
            notes,
        };
        let following = tokio::spawn(follow::<Umbrella>(&session, &bound));
        let (mut socket, _) = broker.greet().await;
        for event in ["rain", "peer_joined"] {
            socket.send(system(event)).await;
        }
        all_heard(&bound, &mut socket).await;
        drop(socket);
        let (mut socket, _) = broker.greet().await;
        socket.send(system("sun")).await;
        all_heard(&bound, &mut socket).await;
        bound.connection.close().await;
        // It ends with the connection.
        tokio::time::timeout(PATIENCE, following).await.unwrap().unwrap();
        drop(bound);
        let mut texts = vec![];
        while let Some(note) = tokio::time::timeout(Duration::from_secs(1), told.recv()).await.unwrap() {
            assert_eq!((note.meta("kind"), note.meta("mesh_slug")), (Some("weather"), Some("team")));
            texts.push(note.content().to_owned());
        }
        texts
    }

    #[tokio::test]
    async fn a_feature_hears_its_events_and_tells_the_session_by_its_mode() {
        assert_eq!(told(MessageMode::Push).await, ["rain", "look out of the window", "sun"]);
        assert_eq!(told(MessageMode::Off).await, Vec::<String>::new());
    }
}
