use std::time::Duration;

use claudemesh_protocol::features::mcp_servers::Raw;
use claudemesh_protocol::message::ClientMessage;
use serde_json::{Value, json};

use super::*;
use crate::audit::{Filter, query};
use crate::mesh::testing::{Frames, TestMesh};

fn register() -> McpRegister {
    let tool = ToolDef { name: "add".into(), ..ToolDef::default() };
    McpRegister { server_name: "calc".into(), description: "Sums".into(), tools: vec![tool], persistent: false }
}

fn call(name: &str) -> McpCall {
    McpCall {
        server_name: "calc".into(),
        tool_name: "add".into(),
        args: Some(Raw::of(&json!({"secret": "xyzzy"}))),
        call: Some(name.into()),
        progress: true,
        parts: true,
        ..McpCall::default()
    }
}

fn tell(mesh: &mut TestMesh, at: PeerHandle, request: impl Into<ClientMessage>) {
    let request = request.into();
    match mesh.step(Some(at), |features, cx| features.dispatch(cx, request)) {
        Ok(Outcome::Work(work)) => mesh.core.work.push(work),
        Ok(Outcome::Answer(answer)) => mesh.step(Some(at), |_, cx| {
            let to = cx.reply_to().unwrap();
            cx.reply(&to, &answer);
        }),
        Ok(_) => {}
        Err(refusal) => panic!("{refusal}"),
    }
}

/// Alice runs the server `calc`, Bob calls it.
struct Team {
    mesh: TestMesh,
    host: PeerHandle,
    asked: Frames,
    caller: PeerHandle,
    told: Frames,
}

impl Team {
    async fn new() -> Self {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (host, asked) = mesh.peer(&alice, "alice", Some(11));
        let (caller, told) = mesh.peer(&bob, "bob", Some(12));
        mesh.ask(host, register()).await;
        Self { mesh, host, asked, caller, told }
    }

    /// The id of the call under this name, once it has come to the host.
    async fn calls(&mut self, name: &str) -> String {
        tell(&mut self.mesh, self.caller, call(name));
        self.mesh.settle().await;
        let forward = TestMesh::take(&self.asked, "mcp_call_forward").pop().expect("the call came to the host");
        forward["callId"].as_str().unwrap().to_owned()
    }

    async fn answers(&mut self, response: McpCallResponse) {
        tell(&mut self.mesh, self.host, response);
        self.mesh.settle().await;
    }

    fn results(&self) -> Vec<Value> {
        TestMesh::take(&self.told, "mcp_call_result")
    }

    fn running(&mut self) -> usize {
        self.mesh.step(None, |features, _| features.mcp_servers.calls.len())
    }
}

fn done(id: &str) -> McpCallResponse {
    McpCallResponse { call_id: id.into(), result: Some(Raw::of(&json!(3))), ..McpCallResponse::default() }
}

#[actix_rt::test]
async fn a_call_ends_by_time_and_its_host_hears_of_it() {
    let mut team = Box::pin(Team::new()).await;
    let first = team.calls("one").await;
    team.mesh.advance(Duration::from_secs(10));
    let second = team.calls("two").await;
    team.mesh.advance(Duration::from_millis(19_999));
    assert_eq!(team.running(), 2);
    team.mesh.advance(Duration::from_millis(1));
    team.mesh.settle().await;
    let results = team.results();
    assert_eq!((results.len(), &results[0]["code"], team.running()), (1, &json!("timeout"), 1));
    assert_eq!(TestMesh::take(&team.asked, "mcp_call_cancel")[0]["callId"], first);
    // Too late: it answers nothing any more.
    team.answers(done(&first)).await;
    assert_eq!(team.results().len(), 0);
    team.answers(done(&second)).await;
    assert_eq!((team.results()[0]["result"].clone(), team.running()), (json!(3), 0));
}

#[actix_rt::test]
async fn only_the_socket_that_was_asked_answers() {
    let mut team = Box::pin(Team::new()).await;
    let id = team.calls("one").await;
    // Bob knows the id, and is not the host.
    tell(&mut team.mesh, team.caller, done(&id));
    let (other, _) = team.mesh.peer(&"member-1".into(), "other", Some(13));
    tell(&mut team.mesh, other, done(&id));
    assert_eq!((team.results().len(), team.running()), (0, 1));
    // The host comes back over another socket: what was asked over the old one has ended.
    team.asked = team.mesh.connect(team.host);
    team.mesh.settle().await;
    let results = team.results();
    assert_eq!((results.len(), &results[0]["code"]), (1, &json!("host_gone")));
    team.answers(done(&id)).await;
    assert_eq!(team.results().len(), 0);
    team.mesh.confirm = true;
    let told: Value = serde_json::from_str(&team.mesh.ask(team.host, done(&id)).await.write(None)).unwrap();
    assert_eq!(told["code"], "not_found", "{told}");
}

#[actix_rt::test]
async fn a_call_is_given_up_by_its_caller_alone_and_with_its_socket() {
    let mut team = Box::pin(Team::new()).await;
    let first = team.calls("one").await;
    let cancel = || McpCancel { call: "one".into(), reason: Some("not needed".into()) };
    tell(&mut team.mesh, team.host, cancel());
    assert_eq!(team.running(), 1, "the name is the caller's own");
    tell(&mut team.mesh, team.caller, cancel());
    team.mesh.settle().await;
    assert_eq!(team.results()[0]["code"], "cancelled");
    let told = TestMesh::take(&team.asked, "mcp_call_cancel");
    assert_eq!((&told[0]["callId"], &told[0]["reason"]), (&json!(first), &json!("not needed")));
    let second = team.calls("one").await;
    team.mesh.disconnect(team.caller);
    team.mesh.settle().await;
    assert_eq!(TestMesh::take(&team.asked, "mcp_call_cancel")[0]["callId"], second);
    assert_eq!(team.running(), 0);
}

#[actix_rt::test]
async fn a_host_that_is_away_or_busy_is_not_asked() {
    let mut team = Box::pin(Team::new()).await;
    let code = |answer: claudemesh_protocol::message::ServerMessage| {
        let told: Value = serde_json::from_str(&answer.write(None)).unwrap();
        told["code"].clone()
    };
    for number in 0..64 {
        team.calls(&number.to_string()).await;
    }
    assert_eq!(code(team.mesh.ask(team.caller, call("one too many")).await), "busy");
    assert_eq!(
        code(team.mesh.ask(team.caller, McpCall { args: Some(Raw::of(&json!([]))), ..call("x") }).await),
        "invalid_args"
    );
    assert_eq!(
        code(team.mesh.ask(team.caller, McpCall { server_name: "none".into(), ..call("x") }).await),
        "not_found"
    );
    team.mesh.disconnect(team.host);
    team.mesh.settle().await;
    assert_eq!((team.results().len(), team.running()), (64, 0), "each of them was told");
    assert_eq!(code(team.mesh.ask(team.caller, call("x")).await), "host_offline");
    team.asked = team.mesh.connect(team.host);
    team.calls("again").await;
}

#[actix_rt::test]
async fn a_large_result_is_read_in_parts_each_of_them_once() {
    let mut team = Box::pin(Team::new()).await;
    let id = team.calls("one").await;
    team.answers(McpCallResponse { call_id: id.clone(), parts: Some(2), bytes: Some(6), ..McpCallResponse::default() })
        .await;
    assert_eq!(team.results()[0]["parts"], 2);
    for part in [1, 0] {
        tell(&mut team.mesh, team.caller, McpPart { call: "one".into(), part });
        team.mesh.settle().await;
        assert_eq!(TestMesh::take(&team.asked, "mcp_part_forward")[0]["part"], part);
        let again = McpPart { call: "one".into(), part };
        let told: Value = serde_json::from_str(&team.mesh.ask(team.caller, again).await.write(None)).unwrap();
        assert_eq!(told["code"], "not_found", "it is on its way");
        let data = McpPartResponse { call_id: id.clone(), part, data: format!("[{part}]"), error: None };
        tell(&mut team.mesh, team.caller, data.clone());
        assert_eq!(TestMesh::take(&team.told, "mcp_part_data").len(), 0, "only the host has it");
        tell(&mut team.mesh, team.host, data);
        team.mesh.settle().await;
        assert_eq!(TestMesh::take(&team.told, "mcp_part_data")[0]["data"], format!("[{part}]"));
    }
    assert_eq!(team.running(), 0, "it was read to its end");
    // One that no one reads on.
    let id = team.calls("two").await;
    team.answers(McpCallResponse { call_id: id, parts: Some(2), bytes: Some(6), ..McpCallResponse::default() }).await;
    team.mesh.advance(Duration::from_secs(30));
    team.mesh.settle().await;
    assert_eq!((team.running(), TestMesh::take(&team.asked, "mcp_call_cancel").len()), (0, 1));
    let id = team.calls("three").await;
    let large = McpCallResponse { call_id: id, parts: Some(2), bytes: Some(50_000_001), ..McpCallResponse::default() };
    team.told.lock().unwrap().clear();
    team.answers(large).await;
    assert_eq!(team.results()[0]["code"], "payload_too_large");
}

#[actix_rt::test]
async fn the_audit_log_has_names_of_calls_and_no_arguments() {
    let mut team = Box::pin(Team::new()).await;
    for name in ["one", "two"] {
        let id = team.calls(name).await;
        team.answers(done(&id)).await;
    }
    team.mesh.tick();
    team.mesh.settle().await;
    let found = async |mesh: &TestMesh| query(&mesh.core.storage(), &Filter::default(), 99).await.unwrap();
    assert!(found(&team.mesh).await.iter().all(|entry| entry.event_type != "mcp_called"), "not one each");
    team.mesh.advance(Duration::from_secs(60));
    team.mesh.tick();
    team.mesh.settle().await;
    let log = found(&team.mesh).await;
    let called: Vec<_> = log.iter().filter(|entry| entry.event_type == "mcp_called").collect();
    assert_eq!(called.len(), 1);
    let payload: Value = serde_json::from_str(&called[0].payload).unwrap();
    assert_eq!((&payload["server"], &payload["tool"], &payload["count"]), (&json!("calc"), &json!("add"), &json!(2)));
    assert_eq!(called[0].actor_member_id, Some("member-2".into()));
    assert!(!format!("{log:?}").contains("xyzzy"));
}

#[actix_rt::test]
async fn who_may_not_offer_servers_any_more_offers_none() {
    let mut team = Box::pin(Team::new()).await;
    let of = crate::db::rights::Subject::Member("member-1".into());
    team.mesh.core.rights.put(&of, [(Capability::CanDeployMcp, false)].into());
    let answer: Value = serde_json::from_str(&team.mesh.ask(team.caller, call("x")).await.write(None)).unwrap();
    assert_eq!(answer["code"], "not_found", "{answer}");
    let listed: Value =
        serde_json::from_str(&team.mesh.ask(team.caller, McpList::default()).await.write(None)).unwrap();
    assert_eq!(listed["servers"], json!([]));
    team.mesh.core.rights.put(&of, Default::default());
    team.calls("x").await;
}

#[actix_rt::test]
async fn a_name_is_taken_while_it_is_being_stored() {
    let mut team = Box::pin(Team::new()).await;
    let other = || McpRegister { server_name: "other".into(), ..register() };
    tell(&mut team.mesh, team.host, other());
    let request = ClientMessage::from(other());
    let refusal = team.mesh.step(Some(team.caller), |features, cx| features.dispatch(cx, request)).err().unwrap();
    assert_eq!(refusal.code, ErrorCode::AlreadyExists);
    team.mesh.settle().await;
    let answer: Value = serde_json::from_str(&team.mesh.ask(team.caller, other()).await.write(None)).unwrap();
    assert_eq!(answer["code"], "already_exists", "{answer}");
    assert!(team.mesh.step(None, |features, _| features.mcp_servers.claims.is_empty()));
}
