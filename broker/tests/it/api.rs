//! The routes for API keys over real sockets: who is let in, what they answer, and streams of events.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::http::{self, Reply};
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A key as a program has it.
struct Key {
    id: String,
    header: String,
    base: String,
}

impl Key {
    async fn make(broker: &TestBroker, peer: &mut TestPeer, capabilities: Value, scopes: Value) -> Result<Self> {
        let create =
            json!({"type": "apikey_create", "label": "ci", "capabilities": capabilities, "topicScopes": scopes});
        let made = peer.call(create, "apikey_created").await?;
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Ok(Self { id: text("id"), header: format!("Bearer {}", text("secret")), base: broker.base() })
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Reply> {
        let all: Vec<(&str, &str)> =
            [("authorization", self.header.as_str())].into_iter().chain(headers.iter().copied()).collect();
        let body = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
        http::send(method, &format!("{}{path}", self.base), &all, &body).await
    }

    async fn get(&self, path: &str) -> Result<Reply> {
        self.ask("GET", path, &[], &Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Reply> {
        self.ask("POST", path, &[], &body).await
    }
}

/// A stream of server-sent events.
struct Events {
    socket: TcpStream,
    text: String,
}

/// One event: its name, id and data.
type Event = (String, String, Value);

impl Events {
    async fn open(key: &Key, path: &str, last: Option<&str>) -> Result<Self> {
        let host = key.base.trim_start_matches("http://");
        let mut socket = TcpStream::connect(host).await?;
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\n{last}\r\n", key.header);
        socket.write_all(head.as_bytes()).await?;
        let mut events = Self { socket, text: String::new() };
        let head = events.until("\r\n\r\n").await?;
        ensure!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Ok(events)
    }

    /// What comes before a mark, which is taken as well.
    async fn until(&mut self, mark: &str) -> Result<String> {
        let mut buffer = [0; 4_096];
        loop {
            if let Some(at) = self.text.find(mark) {
                let rest = self.text.split_off(at + mark.len());
                let mut before = std::mem::replace(&mut self.text, rest);
                before.truncate(at);
                return Ok(before);
            }
            let count =
                tokio::time::timeout(std::time::Duration::from_secs(20), self.socket.read(&mut buffer)).await??;
            ensure!(count > 0, "the stream ended: {}", self.text);
            self.text.push_str(std::str::from_utf8(&buffer[..count])?);
        }
    }

    /// The next event. Each is one chunk, whose lines of length stand between them.
    async fn next(&mut self) -> Result<Event> {
        let text = self.until("\n\n").await?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.trim_end().strip_prefix(name)).unwrap_or_default().to_owned()
        };
        Ok((field("event: "), field("id: "), serde_json::from_str(&field("data: ")).context(text.clone())?))
    }

    async fn message(&mut self) -> Result<(String, String)> {
        let (kind, id, data) = self.next().await?;
        ensure!(kind == "message", "{kind}: {data}");
        Ok((id, data["ciphertext"].as_str().unwrap_or_default().to_owned()))
    }
}

/// Every route with a body that is right in all but the key.
fn routes(number: u32) -> Vec<(&'static str, String, Value, &'static str)> {
    let body = json!({"topic": "plans", "text": "hello"});
    vec![
        ("POST", "/api/v1/messages".into(), body, "send"),
        ("GET", "/api/v1/topics".into(), Value::Null, "read"),
        ("GET", "/api/v1/topics/plans/messages".into(), Value::Null, "read"),
        ("GET", "/api/v1/topics/plans/members".into(), Value::Null, "read"),
        ("PATCH", "/api/v1/topics/plans/read".into(), json!({}), "read"),
        ("GET", "/api/v1/notifications".into(), Value::Null, "read"),
        ("POST", "/api/v1/notifications/read".into(), json!({"all": true}), "read"),
        ("GET", "/api/v1/members".into(), Value::Null, "read"),
        ("GET", "/api/v1/state".into(), Value::Null, "read"),
        ("GET", "/api/v1/state/kept".into(), Value::Null, "read"),
        ("PUT", format!("/api/v1/state/k{number}"), json!({"n": number}), "state_write"),
        ("DELETE", format!("/api/v1/state/k{number}"), Value::Null, "state_write"),
        ("GET", "/api/v1/memory".into(), Value::Null, "read"),
        ("POST", "/api/v1/memory".into(), json!({"content": format!("memory {number}")}), "state_write"),
        ("GET", "/api/v1/tasks".into(), Value::Null, "read"),
        ("POST", "/api/v1/tasks".into(), json!({"title": format!("task {number}")}), "state_write"),
    ]
}

/// What is of topics, which a key that is confined reaches.
const OF_TOPICS: [&str; 6] = [
    "/api/v1/messages",
    "/api/v1/topics",
    "/api/v1/topics/plans/messages",
    "/api/v1/topics/plans/members",
    "/api/v1/topics/plans/read",
    "/api/v1/notifications",
];

broker_suite! {
    async fn every_key_and_scope_reaches_its_routes_and_no_other(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        for name in ["plans", "other"] {
            owner.call(json!({"type": "topic_create", "name": name}), "topic_created").await?;
        }
        owner.call(json!({"type": "set_state", "key": "kept", "value": 1, "confirm": true}), "done").await?;
        let (mut number, mut passed, mut refused) = (0, 0, 0);
        let sets = [vec!["send"], vec!["read"], vec!["state_write"], vec!["send", "read"], vec!["admin"]];
        for capabilities in sets {
            for scope in [None, Some("plans"), Some("other")] {
                let key = Key::make(&broker, &mut owner, json!(capabilities), json!(scope.map(|one| [one]))).await?;
                number += 1;
                for (method, path, body, needed) in routes(number) {
                    let may = capabilities.contains(&needed) || capabilities.contains(&"admin");
                    let of_topics = OF_TOPICS.contains(&path.as_str());
                    let named = path.contains("plans") || path.ends_with("/messages");
                    let in_scope = scope.is_none() || (of_topics && (scope == Some("plans") || !named));
                    let reply = key.ask(method, &path, &[], &body).await?;
                    let case = format!("{method} {path} with {capabilities:?} {scope:?}: {:?}", reply.json());
                    if !may {
                        assert_eq!(reply.failure(), (403, "api_key_missing_capability".into()), "{case}");
                        refused += 1;
                    } else if !in_scope {
                        assert_eq!(reply.failure(), (403, "api_key_topic_out_of_scope".into()), "{case}");
                        refused += 1;
                    } else {
                        assert_eq!(reply.status, 200, "{case}");
                        assert!(!reply.header("ratelimit-remaining").is_empty(), "{case}");
                        passed += 1;
                    }
                }
            }
        }
        assert!(passed > 40 && refused > 80, "{passed} {refused}");
        // Without a key, with a wrong one, and with one of another kind.
        for (method, path, body, _) in routes(0) {
            let bytes = body.to_string().into_bytes();
            let url = format!("{}{path}", broker.base());
            let none = http::send(method, &url, &[], &bytes).await?;
            assert_eq!(none.failure(), (401, "api_key_missing".into()), "{method} {path}");
            let wrong = format!("Bearer cm_{}", "A".repeat(43));
            for header in ["Bearer cm_short", "Bearer other", wrong.as_str()] {
                let reply = http::send(method, &url, &[("authorization", header)], &bytes).await?;
                assert_eq!(reply.failure(), (401, "api_key_invalid".into()), "{method} {path} {header}");
            }
        }
        Ok(())
    }

    async fn a_program_writes_and_reads_with_pages_tags_and_keys_of_idempotency(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let mut bob = broker.join(&mesh.member("bob")?).await?;
        owner.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        bob.call(json!({"type": "topic_join", "topic": "plans", "confirm": true}), "done").await?;
        let key = Key::make(&broker, &mut owner, json!(["admin"]), Value::Null).await?;
        let once = [("idempotency-key", "build-7")];
        let body = json!({"topic": "plans", "text": "build 7 is green, @bob"});
        let first = key.ask("POST", "/api/v1/messages", &once, &body).await?.json();
        assert_eq!((&first["topic"], &first["notifications"], &first["duplicate"]), (&json!("plans"), &json!(1), &json!(false)));
        assert_eq!(bob.text().await?, "build 7 is green, @bob", "it is pushed");
        let again = key.ask("POST", "/api/v1/messages", &once, &body).await?.json();
        assert_eq!((&again["messageId"], &again["duplicate"]), (&first["messageId"], &json!(true)));
        let other = key.ask("POST", "/api/v1/messages", &once, &json!({"topic": "plans", "text": "else"})).await?;
        assert_eq!(other.failure(), (409, "already_exists".into()));
        for number in 0..3 {
            key.post("/api/v1/messages", json!({"topic": "plans", "text": number.to_string()})).await?;
        }
        let page = key.get("/api/v1/topics/plans/messages?limit=3").await?.json();
        let next = page["next"].as_str().unwrap_or_default();
        let rest = key.get(&format!("/api/v1/topics/plans/messages?limit=3&before={next}")).await?.json();
        let count = |page: &Value| page["messages"].as_array().map(Vec::len);
        assert_eq!((count(&page), count(&rest), rest.get("next")), (Some(3), Some(1), None));
        // State: the ETag is the version.
        let put = key.ask("PUT", "/api/v1/state/build", &[("if-none-match", "*")], &json!({"green": true})).await?;
        assert_eq!((put.status, put.header("etag")), (200, "\"1\""));
        let taken = key.ask("PUT", "/api/v1/state/build", &[("if-none-match", "*")], &json!(2)).await?;
        assert_eq!(taken.failure(), (409, "conflict".into()));
        let same = key.ask("GET", "/api/v1/state/build", &[("if-none-match", "\"1\"")], &Value::Null).await?;
        assert_eq!((same.status, same.body.len()), (304, 0));
        let newer = key.ask("PUT", "/api/v1/state/build", &[("if-match", "\"1\"")], &json!(2)).await?;
        assert_eq!(newer.header("etag"), "\"2\"");
        let stale = key.ask("DELETE", "/api/v1/state/build", &[("if-match", "\"1\"")], &Value::Null).await?;
        assert_eq!(stale.failure(), (409, "conflict".into()));
        assert_eq!(key.ask("DELETE", "/api/v1/state/build", &[("if-match", "\"2\"")], &Value::Null).await?.status, 200);
        assert_eq!(key.get("/api/v1/state/build").await?.failure(), (404, "not_found".into()));
        // Memory and tasks.
        key.post("/api/v1/memory", json!({"content": "ports above 1024", "tags": ["net"]})).await?;
        assert_eq!(key.get("/api/v1/memory?q=ports").await?.json()["memories"][0]["content"], "ports above 1024");
        let task = key.post("/api/v1/tasks", json!({"title": "write"})).await?.json();
        let done = key.post(&format!("/api/v1/tasks/{}/complete", task["id"].as_str().unwrap_or_default()), json!({"result": "ok"})).await?;
        assert_eq!((&done.json()["status"], &done.json()["result"]), (&json!("done"), &json!("ok")));
        // Bad requests.
        for (method, path, body, expected) in [
            ("POST", "/api/v1/messages", json!({"topic": "none", "text": "x"}), (404, "topic_not_found")),
            ("POST", "/api/v1/messages", json!({"topic": "plans"}), (400, "invalid_args")),
            ("POST", "/api/v1/messages", json!({"topic": "plans", "text": ""}), (400, "invalid_args")),
            ("POST", "/api/v1/messages", json!({"topic": "plans", "ciphertext": "%"}), (400, "invalid_args")),
            ("POST", "/api/v1/messages", json!({"topic": "plans", "text": "x", "priority": "soon"}), (400, "invalid_args")),
            ("POST", "/api/v1/messages", json!({"topic": "plans", "text": "x", "more": 1}), (400, "invalid_args")),
            ("POST", "/api/v1/messages", json!([]), (400, "invalid_args")),
            ("GET", "/api/v1/topics/plans/messages?limit=0", Value::Null, (400, "invalid_args")),
            ("GET", "/api/v1/topics/plans/messages?before=none", Value::Null, (404, "not_found")),
            ("GET", "/api/v1/topics/plans/messages?page=2", Value::Null, (400, "invalid_args")),
            ("GET", "/api/v1/notifications?since=soon", Value::Null, (400, "invalid_args")),
            ("POST", "/api/v1/notifications/read", json!({}), (400, "invalid_args")),
            ("GET", "/api/v1/topics/none/stream", Value::Null, (404, "topic_not_found")),
            ("GET", "/api/v1/nothing", Value::Null, (404, "not_found")),
        ] {
            let (status, code) = expected;
            assert_eq!(key.ask(method, path, &[], &body).await?.failure(), (status, code.to_owned()), "{method} {path} {body}");
        }
        let broken = http::send("POST", &format!("{}/api/v1/messages", broker.base()), &[("authorization", &key.header)], b"{").await?;
        assert_eq!(broken.failure(), (400, "bad_json".into()));
        Ok(())
    }

    async fn a_stream_has_each_message_once_also_after_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        owner.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        let mut key = Key::make(&broker, &mut owner, json!(["read"]), json!(["plans"])).await?;
        let path = "/api/v1/topics/plans/stream";
        let mut events = Events::open(&key, path, None).await?;
        let (kind, _, ready) = events.next().await?;
        assert_eq!((kind.as_str(), &ready["topic"], &ready["recovered"]), ("ready", &json!("plans"), &json!(true)));
        let mut last = String::new();
        for text in ["one", "two"] {
            owner.say("#plans", text, json!({})).await?;
            let (id, _) = events.message().await?;
            last = id;
        }
        drop(events);
        for number in 0..120 {
            owner.say("#plans", &number.to_string(), json!({})).await?;
        }
        broker.restart().await?;
        key.base = broker.base();
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let mut events = Events::open(&key, path, Some(&last)).await?;
        assert_eq!(events.next().await?.2["recovered"], true);
        owner.say("#plans", "newest", json!({})).await?;
        let mut seen = BTreeMap::new();
        for _ in 0..121 {
            let (id, body) = events.message().await?;
            ensure!(seen.insert(id, body).is_none(), "a message came twice");
        }
        let page = key.get("/api/v1/topics/plans/messages?limit=200").await?.json();
        let rows = page["messages"].as_array().context("messages")?;
        assert_eq!(rows.iter().filter(|row| seen.contains_key(row["id"].as_str().unwrap_or_default())).count(), 121);
        let mut lost = Events::open(&key, path, Some("no-such-message")).await?;
        assert_eq!(lost.next().await?.2["recovered"], false);
        Ok(())
    }

    async fn a_stream_ends_with_its_key_its_member_and_its_right_to_read(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let member = mesh.member("bob")?;
        let mut bob = broker.join(&member).await?;
        owner.call(json!({"type": "topic_create", "name": "plans"}), "topic_created").await?;
        let path = "/api/v1/topics/plans/stream";
        let of_owner = Key::make(&broker, &mut owner, json!(["read"]), Value::Null).await?;
        let of_bob = Key::make(&broker, &mut bob, json!(["read"]), Value::Null).await?;
        let mut revoked = Events::open(&of_owner, path, None).await?;
        let mut banned = Events::open(&of_bob, path, None).await?;
        let mut closed = Events::open(&of_bob, path, None).await?;
        for events in [&mut revoked, &mut banned, &mut closed] {
            assert_eq!(events.next().await?.0, "ready");
        }
        owner.call(json!({"type": "apikey_revoke", "id": of_owner.id}), "apikey_revoke_response").await?;
        let (kind, _, data) = revoked.next().await?;
        assert_eq!((kind.as_str(), &data["error"]), ("error", &json!("api_key_invalid")));
        assert_eq!(of_owner.get("/api/v1/topics").await?.failure(), (401, "api_key_invalid".into()));
        // Who may not see the topic any more hears nothing more of it.
        owner.call(json!({"type": "topic_update", "topic": "plans", "visibility": "private"}), "topic_updated").await?;
        owner.say("#plans", "secret", json!({})).await?;
        let (kind, _, data) = closed.next().await?;
        assert_eq!((kind.as_str(), data["ciphertext"].as_str()), ("error", None), "{data}");
        assert_eq!(banned.next().await?.0, "error");
        owner.call(json!({"type": "topic_update", "topic": "plans", "visibility": "public"}), "topic_updated").await?;
        let mut again = Events::open(&of_bob, path, None).await?;
        assert_eq!(again.next().await?.0, "ready");
        owner.call(json!({"type": "ban", "target": member.pubkey()}), "ban_ack").await?;
        let (kind, _, data) = again.next().await?;
        assert_eq!((kind.as_str(), &data["error"]), ("error", &json!("api_key_invalid")));
        Ok(())
    }

    async fn the_document_tells_of_every_route(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let reply = http::send("GET", &format!("{}/api/v1/openapi.json", broker.base()), &[], b"").await?;
        let document = reply.json();
        assert_eq!((reply.status, &document["openapi"]), (200, &json!("3.1.0")));
        for (method, path, _, needed) in routes(1) {
            let path = path.replace("/plans/", "/{topic}/").replace("/kept", "/{key}").replace("/k1", "/{key}");
            let operation = &document["paths"][&path][method.to_lowercase()];
            assert_eq!(operation["description"], format!("Needs a key with `{needed}`."), "{method} {path}");
        }
        // Every reference leads somewhere.
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap_or_default();
            ensure!(document.pointer(pointer).is_some(), "{pointer} is not there");
        }
        Ok(())
    }

    async fn the_examples_of_the_document_work(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        owner.call(json!({"type": "topic_create", "name": "builds"}), "topic_created").await?;
        let key = Key::make(&broker, &mut owner, json!(["admin"]), Value::Null).await?;
        let (secret, base) = (key.header.trim_start_matches("Bearer ").to_owned(), broker.base());
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md"))?;
        let mut ran = 0;
        for line in text.lines().filter(|line| line.starts_with("curl -sS ")) {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", line]).env("KEY", &secret).env("BROKER", &base);
            let output = tokio::task::spawn_blocking(move || command.output()).await??;
            let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| line.to_owned())?;
            ensure!(output.status.success() && answer["ok"] != false, "{line}: {answer}");
            ran += 1;
        }
        assert_eq!(ran, 4);
        Ok(())
    }
}
