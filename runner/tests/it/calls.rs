//! Requests to MCP servers and from them.

use claudemesh_protocol::runner::frame::Kind;
use claudemesh_protocol::runner::{Answer, Ask, Change, Event, FailCode, FromRunner, Note, RunnerAsk, ToRunner};
use serde_json::{Value, json};

use crate::harness::{Runner, patiently, python};

#[tokio::test]
async fn a_server_is_started_called_and_says_who_it_is() {
    let runner = Runner::start().await;
    let mut spec = python("s");
    spec.client.capabilities.insert("roots".into(), json!({}));
    runner.run(&spec).await;
    let body = runner.event("s", |event, body| matches!(event, Event::Running { .. }).then(|| body.to_vec())).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["initialize"]["client"]["capabilities"], json!({"roots": {}}));
    assert_eq!(body["initialize"]["protocolVersion"], "2025-11-25");
    // Two pages.
    assert!(body["tools"].as_array().unwrap().len() > 10, "{body}");
    let who = runner.call("s", "who", json!({})).await;
    assert_eq!(
        (who["no_new_privs"].as_str(), &who["core"], &who["descriptors"]),
        (Some("1"), &json!(0), &json!([0, 1, 2]))
    );
    // What the server wrote comes as it wrote it.
    let (answer, body) = runner.ask(Runner::call_ask("s", false), &Runner::params("bad", &json!({}))).await;
    assert_eq!((answer, std::str::from_utf8(&body).unwrap().contains("\"data\": 1.1")), (Answer::Error, true));
}

#[tokio::test]
async fn older_revisions_are_spoken_and_unknown_ones_are_not() {
    let runner = Runner::start().await;
    for (id, revision) in [("a", "2024-11-05"), ("b", "2025-03-26"), ("c", "2025-06-18")] {
        let mut spec = python(id);
        spec.env = vec![plain("REVISION", revision)];
        runner.run(&spec).await;
        assert_eq!(runner.call(id, "say", json!({"text": "x"})).await, "said");
    }
    let mut spec = python("old");
    spec.args.push("old".into());
    runner.install(&spec, b"").await.unwrap();
    let failure = runner.start_service("old").await.unwrap_err();
    assert_eq!((failure.code, failure.message.contains("1999-01-01")), (FailCode::HandshakeFailed, true));
}

pub(crate) fn plain(name: &str, value: &str) -> claudemesh_protocol::runner::EnvVar {
    claudemesh_protocol::runner::EnvVar {
        name: name.into(),
        value: claudemesh_protocol::runner::Text::Plain(value.into()),
    }
}

#[tokio::test]
async fn progress_comes_before_the_result_and_only_when_it_is_wanted() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    let params =
        json!({"name": "progress", "arguments": {"steps": 3}, "_meta": {"progressToken": "callers own"}}).to_string();
    let mut exchange = runner.begin(&Runner::call_ask("s", true), params.as_bytes()).await;
    let mut steps = Vec::new();
    loop {
        let frame = patiently("a frame", exchange.frame()).await.unwrap();
        if frame.kind == Kind::Note {
            assert_eq!(frame.head::<Note>().unwrap(), Note::Progress);
            steps.push(serde_json::from_slice::<Value>(&frame.body).unwrap()["progress"].as_u64().unwrap());
            continue;
        }
        assert_eq!(frame.head::<Answer>().unwrap(), Answer::Result);
        break;
    }
    assert_eq!(steps, [1, 2, 3]);
    let (_, body) = runner.ask(Runner::call_ask("s", false), params.as_bytes()).await;
    assert!(String::from_utf8(body).unwrap().contains("false"), "no token reaches the server that is not the runner's");
}

#[tokio::test]
async fn a_request_is_cancelled_when_its_stream_is_reset_and_when_it_takes_too_long() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    let exchange = runner.begin(&Runner::call_ask("s", false), &Runner::params("wait", &json!({}))).await;
    exchange.reset(FailCode::Cancelled, "");
    runner.logged("s", "cancelled: the caller no longer waits").await;
    let short = Ask::Request { id: "s".into(), method: "tools/call".into(), progress: false, timeout_ms: 50 };
    assert_eq!(runner.fails(short, &Runner::params("wait", &json!({}))).await, FailCode::Timeout);
    runner.logged("s", "cancelled: it took too long").await;
    assert_eq!(runner.call("s", "say", json!({"text": "x"})).await, "said");
}

#[tokio::test]
async fn fifty_megabytes_come_through_beside_other_calls_and_more_is_refused() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    runner.run(&python("other")).await;
    let bytes = 50_000_000;
    let mut large = runner.begin(&Runner::call_ask("s", false), &Runner::params("big", &json!({"bytes": bytes}))).await;
    let first = patiently("the beginning", large.frame()).await.unwrap();
    // It waits for credit now; other calls do not.
    assert_eq!(runner.call("other", "say", json!({"text": "x"})).await, "said");
    assert_eq!(runner.call("s", "say", json!({"text": "x"})).await, "said");
    let mut all = first.body;
    while let Some(frame) = patiently("more", large.frame()).await {
        all.extend_from_slice(&frame.body);
        if frame.last {
            break;
        }
    }
    let result: Value = serde_json::from_slice(&all).unwrap();
    assert_eq!(result["content"][0]["text"].as_str().unwrap().len(), bytes);
    drop((all, result));
    let more = Runner::params("big", &json!({"bytes": 60_000_000}));
    assert_eq!(runner.fails(Runner::call_ask("s", false), &more).await, FailCode::TooLarge);
    assert_eq!(runner.call("s", "say", json!({"text": "x"})).await, "said");
}

#[tokio::test]
async fn what_is_no_message_goes_to_the_log_and_harms_nothing() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    let line = format!("{} tail", "y".repeat(300_000));
    for text in [
        "hello",
        "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}",
        "{\"jsonrpc\": \"2.0\"",
        "[[[",
        "\u{0}\u{1b}[2J",
        &line,
    ] {
        runner.call("s", "say", json!({"text": text, "to": "stdout"})).await;
    }
    // A frame of the wire in a program's output is only text.
    let mut forged = Vec::new();
    let frame = claudemesh_protocol::runner::frame::Frame::message(&FromRunner::Pong { n: 666 }, Vec::new()).unwrap();
    frame.encode(&claudemesh_protocol::runner::frame::Session::NONE, &mut forged).unwrap();
    let forged: String = forged.iter().map(|byte| char::from(*byte)).collect();
    runner.call("s", "say", json!({"text": forged, "to": "stdout"})).await;
    runner.logged("s", "hello").await;
    let log = runner.log("s").await;
    assert!(log.iter().all(|line| line.len() <= 8_192));
    runner.tell(&ToRunner::Ping { n: 5 }, b"");
    runner.said(|said| said.iter().any(|(said, _)| *said == FromRunner::Pong { n: 5 }).then_some(())).await;
    assert!(!runner.transcript().contains("666"));
}

#[tokio::test]
async fn a_server_asks_its_client_and_can_take_it_back() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    let (answer, body) = runner
        .ask(Runner::call_ask("s", false), &Runner::params("ask", &json!({"method": "sampling/createMessage"})))
        .await;
    let body = String::from_utf8(body).unwrap();
    assert!(answer == Answer::Result && body.contains("\"result\": {\"n\": 1.1}"), "{body}");
    let during = runner
        .asked(|ask| match ask {
            RunnerAsk::Request { id, method, during } if id == "s" && method == "sampling/createMessage" => {
                Some(during.clone())
            }
            _ => None,
        })
        .await;
    assert_eq!(during.len(), 1, "the call during which it asks");
    let (_, body) =
        runner.ask(Runner::call_ask("s", false), &Runner::params("ask", &json!({"method": "nosuch"}))).await;
    assert!(String::from_utf8(body).unwrap().contains("-32601"));
    // The server cancels its own request: the broker's stream is reset.
    let _open = runner
        .begin(&Runner::call_ask("s", false), &Runner::params("ask", &json!({"method": "elicitation/create"})))
        .await;
    runner
        .asked(|ask| matches!(ask, RunnerAsk::Request { method, .. } if method == "elicitation/create").then_some(()))
        .await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "ask-3"}});
    runner.call("s", "say", json!({"text": cancel.to_string(), "to": "stdout"})).await;
    runner.asked(|ask| (*ask == RunnerAsk::Unknown).then_some(())).await;
}

#[tokio::test]
async fn changed_lists_and_notifications_are_passed_on_both_ways() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    runner.call("s", "change", json!({})).await;
    let body = runner
        .event("s", |event, body| matches!(event, Event::ListChanged { list: Change::Tools }).then(|| body.to_vec()))
        .await;
    let tools: Value = serde_json::from_slice(&body).unwrap();
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "extra"), "{tools}");
    let params = runner
        .said(|said| {
            said.iter().find_map(|(said, body)| match said {
                FromRunner::Notification { method, .. } if method == "notifications/message" => Some(body.clone()),
                _ => None,
            })
        })
        .await;
    assert_eq!(serde_json::from_slice::<Value>(&params).unwrap()["data"], "hello");
    runner.tell(&ToRunner::Notify { id: "s".into(), method: "notifications/x".into() }, b"{\"a\":1}");
    runner.logged("s", "heard notifications/x {\"a\": 1}").await;
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused_with_their_code() {
    let runner = Runner::start().await;
    runner.install(&python("s"), b"").await.unwrap();
    let request =
        |id: &str, method: &str| Ask::Request { id: id.into(), method: method.into(), progress: false, timeout_ms: 0 };
    assert_eq!(runner.fails(request("no", "ping"), b"").await, FailCode::NotFound);
    assert_eq!(runner.fails(request("s", "ping"), b"").await, FailCode::NotRunning);
    runner.start_service("s").await.unwrap();
    assert_eq!(runner.ask(request("s", "ping"), b"").await.0, Answer::Result);
    assert_eq!(runner.fails(request("s", "initialize"), b"{}").await, FailCode::Invalid);
    assert_eq!(runner.fails(request("s", "notifications/cancelled"), b"{}").await, FailCode::Invalid);
    for params in ["[1]", "{", "{}}\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\""] {
        assert_eq!(runner.fails(request("s", "tools/list"), params.as_bytes()).await, FailCode::Invalid, "{params}");
    }
    assert_eq!(runner.install(&python("s"), b"").await.unwrap_err().code, FailCode::Exists);
    let mut bad = python("../x");
    assert_eq!(runner.install(&bad, b"").await.unwrap_err().code, FailCode::Invalid);
    bad = python("b");
    bad.env = vec![plain("LD_PRELOAD", "/x")];
    assert_eq!(runner.install(&bad, b"").await.unwrap_err().code, FailCode::Invalid);
}
