use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::runner::{FailCode, Reset, Source, VERSION};

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, json: serde_json::Value) {
    assert_eq!(serde_json::to_value(&value).unwrap(), json);
    assert_eq!(serde_json::from_value::<T>(json).unwrap(), value);
}

fn failure() -> Failure {
    Failure { code: FailCode::InstallFailed, message: "m".into() }
}

#[test]
fn messages_keep_their_form() {
    same(
        ToRunner::Attach { version: VERSION, session: "00".into() },
        json!({"type": "attach", "version": 1, "session": "00"}),
    );
    same(ToRunner::Ping { n: 7 }, json!({"type": "ping", "n": 7}));
    same(ToRunner::Notify { id: "s".into(), method: "m".into() }, json!({"type": "notify", "id": "s", "method": "m"}));
    same(FromRunner::Pong { n: 7 }, json!({"type": "pong", "n": 7}));
    same(
        FromRunner::Notification { id: "s".into(), method: "m".into() },
        json!({"type": "notification", "id": "s", "method": "m"}),
    );
    let event = |event| FromRunner::Event { id: "s".into(), event };
    let of = |event: serde_json::Value| json!({"type": "event", "id": "s", "event": event});
    same(event(Event::Installing { line: "x".into() }), of(json!({"what": "installing", "line": "x"})));
    same(
        event(Event::Installed { runtime: "node".into(), version: None }),
        of(json!({"what": "installed", "runtime": "node"})),
    );
    same(event(Event::Running { pid: 3, restarts: 0 }), of(json!({"what": "running", "pid": 3, "restarts": 0})));
    same(event(Event::ListChanged { list: Change::Prompts }), of(json!({"what": "list_changed", "list": "prompts"})));
    same(event(Event::Stopped { message: None }), of(json!({"what": "stopped"})));
    let crashed =
        Event::Crashed { exit: Some(1), signal: None, message: "m".into(), restarts: 2, retry_in_ms: Some(4) };
    same(event(crashed), of(json!({"what": "crashed", "exit": 1, "message": "m", "restarts": 2, "retry_in_ms": 4})));
}

#[test]
fn heads_keep_their_form() {
    let spec = ServiceSpec::new("s", "time", "m", Source::Command { command: "c".into() });
    let json = serde_json::to_value(&spec).unwrap();
    same(Ask::Install { spec: Box::new(spec.clone()) }, json!({"type": "install", "spec": json}));
    same(Ask::Start { id: "s".into(), spec: None }, json!({"type": "start", "id": "s"}));
    same(Ask::Start { id: "s".into(), spec: Some(Box::new(spec)) }, json!({"type": "start", "id": "s", "spec": json}));
    same(Ask::Stop { id: "s".into(), grace_ms: 5 }, json!({"type": "stop", "id": "s", "grace_ms": 5}));
    same(Ask::Remove { id: "s".into() }, json!({"type": "remove", "id": "s"}));
    same(
        Ask::Request { id: "s".into(), method: "tools/call".into(), progress: true, timeout_ms: 9 },
        json!({"type": "request", "id": "s", "method": "tools/call", "progress": true, "timeout_ms": 9}),
    );
    same(
        Ask::Logs { id: "s".into(), lines: 5, follow: true },
        json!({"type": "logs", "id": "s", "lines": 5, "follow": true}),
    );
    same(Ask::Stats { id: None }, json!({"type": "stats"}));
    for (answer, word) in
        [(Answer::Done, "done"), (Answer::Result, "result"), (Answer::Error, "error"), (Answer::Logs, "logs")]
    {
        same(answer, json!({"type": word}));
    }
    same(Answer::Failed(failure()), json!({"type": "failed", "code": "install_failed", "message": "m"}));
    let stats = Answer::Stats { services: vec![Stats::default()] };
    assert_eq!(serde_json::from_value::<Answer>(serde_json::to_value(&stats).unwrap()).unwrap(), stats);
    same(Note::Progress, json!({"type": "progress"}));
    same(
        RunnerAsk::Egress { id: "s".into(), host: "h".into(), port: 443, phase: Phase::Run },
        json!({"type": "egress", "id": "s", "host": "h", "port": 443, "phase": "run"}),
    );
    same(
        RunnerAsk::Request { id: "s".into(), method: "roots/list".into(), during: vec![2] },
        json!({"type": "request", "id": "s", "method": "roots/list", "during": [2]}),
    );
    same(BrokerAnswer::Opened, json!({"type": "opened"}));
    same(
        BrokerAnswer::Refused { why: RefusedWhy::NotAllowed, message: "m".into() },
        json!({"type": "refused", "why": "not_allowed", "message": "m"}),
    );
    same(BrokerAnswer::Failed(failure()), json!({"type": "failed", "code": "install_failed", "message": "m"}));
    same(Reset { code: FailCode::Cancelled, message: "m".into() }, json!({"code": "cancelled", "message": "m"}));
}

#[test]
fn what_a_newer_side_says_is_unknown_and_no_error() {
    let newer = json!({"type": "newer", "x": 1});
    assert_eq!(serde_json::from_value::<ToRunner>(newer.clone()).unwrap(), ToRunner::Unknown);
    assert_eq!(serde_json::from_value::<FromRunner>(newer.clone()).unwrap(), FromRunner::Unknown);
    assert_eq!(serde_json::from_value::<Ask>(newer.clone()).unwrap(), Ask::Unknown);
    assert_eq!(serde_json::from_value::<Answer>(newer.clone()).unwrap(), Answer::Unknown);
    assert_eq!(serde_json::from_value::<RunnerAsk>(newer.clone()).unwrap(), RunnerAsk::Unknown);
    assert_eq!(serde_json::from_value::<BrokerAnswer>(newer).unwrap(), BrokerAnswer::Unknown);
    assert_eq!(serde_json::from_value::<FailCode>(json!("newer")).unwrap(), FailCode::Unknown);
    let hello = json!({"version": 9, "public_key": "k", "more": {}});
    assert_eq!(
        serde_json::from_value::<Hello>(hello).unwrap(),
        Hello { version: 9, public_key: "k".into(), ..Hello::default() }
    );
}
