//! The connection against a scripted broker on a loopback socket.

use std::time::Duration;

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::features::messaging::Push;
use claudemesh_protocol::features::presence::{self, ListPeers};
use claudemesh_protocol::limits;
use claudemesh_protocol::session::PeerDescription;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;
use crate::inbox::Inbox;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct FakeBroker {
    listener: TcpListener,
}

pub(crate) struct FakeSocket(WebSocketStream<TcpStream>);

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.listener.local_addr().unwrap())
    }

    async fn accept(&self) -> FakeSocket {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        FakeSocket(tokio_tungstenite::accept_async(stream).await.unwrap())
    }

    /// Accepts a socket and its hello.
    pub(crate) async fn greet(&self) -> (FakeSocket, Value) {
        let mut socket = self.accept().await;
        let hello = socket.receive().await;
        socket
            .send(json!({
                "type": "hello_ack", "presenceId": "p", "memberDisplayName": "me",
                "capabilities": claudemesh_protocol::version::BROKER_CAPABILITIES,
            }))
            .await;
        (socket, hello)
    }
}

impl FakeSocket {
    pub(crate) async fn receive(&mut self) -> Value {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap().unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(_) => panic!("closed"),
                _ => {}
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn close(mut self, code: u16, reason: &'static str) {
        self.0.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await.unwrap();
    }
}

pub(crate) fn identity(url: &str) -> Identity {
    Identity {
        mesh_id: "mesh1".into(),
        slug: "team".into(),
        member_id: "member1".into(),
        broker_url: url.into(),
        local: None,
        member: SecretKey::from_seed([1; 32]),
        session: Some(SecretKey::from_seed([2; 32])),
        session_id: "s1".into(),
        pid: 7,
        cwd: "/work".into(),
        description: PeerDescription::default(),
    }
}

fn list_peers() -> ClientMessage {
    presence::Request::from(ListPeers {}).into()
}

#[tokio::test]
async fn session_hello_is_signed_by_the_session_and_attested_by_the_member() {
    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let (mut socket, mut hello) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    // Not minted once: each connection brings a word and a proof of its own time.
    let first = hello.clone();
    while hello["timestamp"] == first["timestamp"] {
        drop(socket);
        (socket, hello) = broker.greet().await;
    }
    assert_ne!(hello["parentAttestation"]["expiresAt"], first["parentAttestation"]["expiresAt"]);
    assert_ne!(hello["signature"], first["signature"]);
    assert_eq!(hello["type"], "session_hello");
    let who = identity("");
    let (parent, session) = (who.member.public(), who.own_public());
    let text = claudemesh_protocol::crypto::signed::session_hello(
        &who.mesh_id,
        &parent.to_hex(),
        &session.to_hex(),
        &hello["timestamp"].to_string(),
    );
    let verify = claudemesh_protocol::crypto::keys::verify;
    verify(&session, text.as_bytes(), hello["signature"].as_str().unwrap()).unwrap();
    let word = &hello["parentAttestation"];
    let expires = word["expiresAt"].as_i64().unwrap();
    let now = crate::clock::now_ms();
    assert!(expires > now && expires <= now + limits::MAX_ATTESTATION_TTL_MS);
    let text =
        claudemesh_protocol::crypto::signed::attestation(&parent.to_hex(), &session.to_hex(), &expires.to_string());
    verify(&parent, text.as_bytes(), word["signature"].as_str().unwrap()).unwrap();
}

#[tokio::test]
async fn falls_back_to_hello_when_the_broker_does_not_know_sessions() {
    for code in ["no_hello", "unknown_message_type"] {
        let broker = FakeBroker::start().await;
        let connection = Connection::start(identity(&broker.url()), None);
        let mut socket = broker.accept().await;
        assert_eq!(socket.receive().await["type"], "session_hello");
        socket.send(json!({"type": "error", "code": code, "message": "?"})).await;
        let hello = socket.receive().await;
        assert_eq!(hello["type"], "hello");
        assert_eq!(hello["sessionPubkey"], identity("").own_public().to_hex());
        socket.send(json!({"type": "hello_ack", "presenceId": "p", "memberDisplayName": "me"})).await;
        connection.ready(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn answers_are_matched_by_id_only() {
    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let (mut socket, _) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    let first = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(list_peers(), PATIENCE).await }
    });
    let first_id = socket.receive().await["_reqId"].clone();
    let second = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(list_peers(), PATIENCE).await }
    });
    let second_id = socket.receive().await["_reqId"].clone();
    // Without an id, or with a strange one: no one is completed.
    socket.send(json!({"type": "error", "code": "internal", "message": "whose?"})).await;
    socket.send(json!({"type": "peers_list", "peers": []})).await;
    socket.send(json!({"type": "peers_list", "peers": [], "_reqId": "r999"})).await;
    socket.send(json!({"type": "error", "code": "forbidden", "message": "no", "_reqId": second_id})).await;
    socket.send(json!({"type": "peers_list", "peers": [], "_reqId": first_id})).await;
    assert!(matches!(first.await.unwrap().unwrap(), ServerMessage::Presence(_)));
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(claudemesh_protocol::error::ErrorCode::Forbidden));
}

#[tokio::test]
async fn requests_while_down_fail_at_once_and_work_after_the_reconnect() {
    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let (socket, _) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    let mut state = connection.watch();
    drop(socket);
    state.wait_for(|state| matches!(state, State::Connecting(Some(_)))).await.unwrap();
    let error = connection.call(list_peers(), PATIENCE).await.unwrap_err();
    assert!(error.to_string().starts_with("not connected (reconnecting)"), "{error}");
    let (mut socket, _) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(list_peers(), PATIENCE).await }
    });
    let id = socket.receive().await["_reqId"].clone();
    socket.send(json!({"type": "peers_list", "peers": [], "_reqId": id})).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_in_flight_learn_that_the_socket_is_gone() {
    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let (mut socket, _) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(list_peers(), PATIENCE).await }
    });
    socket.receive().await;
    drop(socket);
    let error = call.await.unwrap().unwrap_err();
    assert!(error.is_open(), "{error}");
}

#[tokio::test]
async fn clients_that_were_sent_away_stay_away() {
    let ends = [
        (4001, "kicked", Closed::Kicked),
        (4002, "banned", Closed::Banned),
        (4002, "an older word", Closed::Banned),
        (4002, "removed", Closed::Removed),
    ];
    for (code, told, closed) in ends {
        let broker = FakeBroker::start().await;
        let connection = Connection::start(identity(&broker.url()), None);
        let (socket, _) = broker.greet().await;
        connection.ready(PATIENCE).await.unwrap();
        socket.close(code, told).await;
        let mut state = connection.watch();
        let last = state.wait_for(|state| matches!(state, State::Closed(_))).await.unwrap().clone();
        let State::Closed(reason) = last else { unreachable!() };
        assert_eq!(reason, closed);
        assert_eq!(connection.call(list_peers(), PATIENCE).await, Err(ConnectionError::Closed(closed)));
    }
}

#[tokio::test]
async fn a_one_shot_connection_says_why_it_failed() {
    let broker = FakeBroker::start().await;
    let url = broker.url();
    let task = tokio::spawn(Connection::once(identity(&url), None));
    let mut socket = broker.accept().await;
    socket.receive().await;
    socket.send(json!({"type": "error", "code": "unauthorized", "message": "no such member"})).await;
    let Err(error) = task.await.unwrap() else { panic!("accepted") };
    assert_eq!(error.code(), Some(claudemesh_protocol::error::ErrorCode::Unauthorized));
    drop(broker);
    let Err(error) = Connection::once(identity(&url), None).await else { panic!("connected") };
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn messages_are_acknowledged_after_they_are_stored_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start().await;
    let who = identity(&broker.url());
    let mailbox = open_mailbox(dir.path(), &who).await.unwrap();
    let connection = Connection::start(who.clone(), Some(mailbox));
    let mut events = connection.events::<Push>();
    let (mut socket, _) = broker.greet().await;
    let sender = SecretKey::from_seed([9; 32]);
    for number in 0..20 {
        let body = envelope::seal_direct(&format!("text {number}"), &who.own_public(), &sender, &mut rand::rngs::OsRng);
        let body = body.unwrap();
        socket
            .send(json!({
                "type": "push", "messageId": format!("m{number}"), "meshId": "mesh1", "priority": "next",
                "senderPubkey": sender.public().to_hex(), "targetSpec": who.own_public().to_hex(),
                "nonce": body.nonce, "ciphertext": body.ciphertext, "createdAt": "2026-01-01T00:00:00.000Z",
            }))
            .await;
    }
    socket
        .send(json!({
            "type": "push", "messageId": "e1", "meshId": "mesh1", "priority": "low", "senderPubkey": "system",
            "nonce": "", "ciphertext": "", "createdAt": "2026-01-01T00:00:00.000Z", "subtype": "system",
            "event": "peer_joined", "eventData": {"name": "bob"},
        }))
        .await;
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 20 {
        let ack = socket.receive().await;
        assert_eq!(ack["type"], "client_ack");
        let ids: Vec<String> = serde_json::from_value(ack["messageIds"].clone()).unwrap();
        // A second process sees what was acknowledged: it is on disk already.
        let mut other = Inbox::open(dir.path(), &who.mesh_id).unwrap();
        for id in &ids {
            assert!(other.find(id).unwrap().is_some());
        }
        acknowledged.extend(ids);
    }
    assert_eq!(acknowledged, (0..20).map(|number| format!("m{number}")).collect::<Vec<_>>());
    let mut other = Inbox::open(dir.path(), &who.mesh_id).unwrap();
    let texts: Vec<String> = other.person().everything(100, 0).unwrap().iter().map(|one| one.message.text()).collect();
    assert_eq!(texts, (0..20).map(|number| format!("text {number}")).collect::<Vec<_>>());
    // Mail is not among the events.
    let Some(Heard::Event(event)) = events.next().await else { panic!("no event") };
    assert_eq!((event.event.as_deref(), event.event_data), (Some("peer_joined"), Some(json!({"name": "bob"}))));
    connection.close().await;
}

/// What the broker says of itself.
pub(crate) fn system(event: &str) -> Value {
    json!({
        "type": "push", "messageId": event, "meshId": "mesh1", "priority": "low", "senderPubkey": "system",
        "nonce": "", "ciphertext": "", "createdAt": "2026-01-01T00:00:00.000Z", "subtype": "system", "event": event,
    })
}

async fn next_event(events: &mut Events<Push>) -> Heard<Option<String>> {
    match tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap() {
        Heard::Event(push) => Heard::Event(push.event),
        Heard::Lagged(count) => Heard::Lagged(count),
        Heard::Away => Heard::Away,
    }
}

#[tokio::test]
async fn events_reach_who_listens_and_a_gap_is_told() {
    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let mut events = connection.events::<Push>();
    let (mut socket, _) = broker.greet().await;
    // Of a later time: no one knows it, no one asked for it.
    socket.send(json!({"type": "event_of_a_later_time", "value": 1})).await;
    socket.send(system("peer_joined")).await;
    assert_eq!(next_event(&mut events).await, Heard::Event(Some("peer_joined".into())));
    drop(socket);
    let (mut socket, _) = broker.greet().await;
    socket.send(system("peer_left")).await;
    assert_eq!(next_event(&mut events).await, Heard::Away);
    assert_eq!(next_event(&mut events).await, Heard::Event(Some("peer_left".into())));
    connection.close().await;
    assert_eq!(events.next().await, None);
}

/// The session's server, played on the other end of its socket.
#[cfg(unix)]
struct FakeServer(tokio::io::BufReader<tokio::net::UnixStream>);

#[cfg(unix)]
impl FakeServer {
    fn start() -> (Connection, Self) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (reader, writer) = ours.into_split();
        let ack = serde_json::from_value(json!({"presenceId": "p", "memberDisplayName": "me"})).unwrap();
        let connection = Connection::attached(identity(""), ack, tokio::io::BufReader::new(reader), writer);
        (connection, Self(tokio::io::BufReader::new(theirs)))
    }

    async fn receive(&mut self) -> crate::ipc::Request {
        let mut line = String::new();
        let reading = tokio::io::AsyncBufReadExt::read_line(&mut self.0, &mut line);
        tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn send(&mut self, reply: &crate::ipc::Reply) {
        let line = serde_json::to_string(reply).unwrap() + "\n";
        tokio::io::AsyncWriteExt::write_all(self.0.get_mut(), line.as_bytes()).await.unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_sessions_server_passes_events_on_and_says_what_was_lost() {
    use crate::ipc::{Reply, Request};

    let (connection, mut server) = FakeServer::start();
    let mut events = connection.events::<Push>();
    let asking = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(list_peers(), PATIENCE).await }
    });
    assert!(matches!(server.receive().await, Request::Listen { tag } if tag == "push"));
    assert!(matches!(server.receive().await, Request::Frame { .. }), "what is asked after it comes after it");
    server.send(&Reply::Event { frame: json!({"type": "event_of_a_later_time"}).to_string() }).await;
    server.send(&Reply::Event { frame: system("peer_joined").to_string() }).await;
    server.send(&Reply::Missed { tag: "push".into(), count: Some(3) }).await;
    server.send(&Reply::Missed { tag: "push".into(), count: None }).await;
    assert_eq!(next_event(&mut events).await, Heard::Event(Some("peer_joined".into())));
    assert_eq!(next_event(&mut events).await, Heard::Lagged(3));
    assert_eq!(next_event(&mut events).await, Heard::Away);
    server.send(&Reply::Silent { tag: "push".into() }).await;
    assert_eq!(events.next().await, None);
    asking.abort();
}

#[cfg(unix)]
#[tokio::test]
async fn an_older_server_of_the_session_ends_the_wait_for_events() {
    let (connection, mut server) = FakeServer::start();
    let mut events = connection.events::<Push>();
    server.receive().await;
    server.send(&crate::ipc::Reply::Error { code: "bad_json".into(), message: "unknown variant".into() }).await;
    assert_eq!(tokio::time::timeout(PATIENCE, events.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_silent_broker_is_given_up_after_75_seconds() {
    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let (_silent, _) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    // No one polls `_silent`, so no pong comes back. The runtime jumps from timer to timer now.
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let mut state = connection.watch();
    state.wait_for(|state| matches!(state, State::Connecting(Some(_)))).await.unwrap();
    let waited = started.elapsed();
    assert!(waited >= limits::STALE_AFTER && waited < limits::STALE_AFTER * 2, "{waited:?}");
}

#[tokio::test]
async fn a_send_whose_answer_was_lost_is_the_same_message_on_the_next_socket() {
    use crate::features::messaging::Draft;
    use claudemesh_protocol::features::messaging::Priority;

    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let (mut socket, _) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    let to = SecretKey::from_seed([9; 32]).public();
    let sending = tokio::spawn({
        let connection = connection.clone();
        async move { connection.send_direct(&to, &Draft::new("once", Priority::Next)).await }
    });
    let first = socket.receive().await;
    drop(socket);
    let (mut socket, _) = broker.greet().await;
    let second = socket.receive().await;
    for field in ["client_message_id", "request_fingerprint", "ciphertext", "nonce", "targetSpec"] {
        assert!(first[field].is_string() && first[field] == second[field], "{field}");
    }
    socket.send(json!({"type": "ack", "id": second["id"], "messageId": "m1", "queued": true, "duplicate": true})).await;
    assert_eq!(sending.await.unwrap().unwrap().message_id, "m1");
}

#[tokio::test]
async fn a_request_that_was_given_up_is_not_sent_late() {
    let broker = FakeBroker::start().await;
    let connection = Connection::start(identity(&broker.url()), None);
    let (mut socket, _) = broker.greet().await;
    connection.ready(PATIENCE).await.unwrap();
    // Given up before the task behind the connection could run: this test has one thread and does not yield.
    let given_up = futures_util::FutureExt::now_or_never(connection.call(list_peers(), PATIENCE));
    assert!(given_up.is_none());
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(list_peers(), PATIENCE).await }
    });
    let only = socket.receive().await;
    socket.send(json!({"type": "peers_list", "peers": [], "_reqId": only["_reqId"]})).await;
    // Had the first one been sent, its answer would complete no one and this call would wait in vain.
    call.await.unwrap().unwrap();
}
