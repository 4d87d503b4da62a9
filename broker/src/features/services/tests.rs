//! Who may do what to a service: every scope, every viewer, every verb, against a table that is written by hand.

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::mcp_servers::{McpCall, McpSchema};
use claudemesh_protocol::message::ClientMessage;
use serde_json::{Value, json};

use super::*;
use crate::mesh::peers::Role;
use crate::mesh::testing::{Frames, TestMesh};

const NAME: &str = "svc";

/// What someone may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// It is as if it were not there.
    Nothing,
    /// It is there, and only its owner may change it.
    Use,
    /// Use and change it.
    All,
    /// Change it, and not use it: for those who moderate.
    Manage,
}

/// Who looks, in the order of the columns of [`TABLE`].
const VIEWERS: [&str; 7] = ["owner", "dev", "api", "lead", "named", "stranger", "admin"];

/// For each scope what each viewer may do.
fn table() -> Vec<(Scope, [May; 7])> {
    use May::{All as A, Manage as M, Nothing as N, Use as U};
    let text = |text: &str| text.to_owned();
    vec![
        (Scope::Peer, [A, N, N, N, N, N, M]),
        (Scope::Mesh, [A, U, U, U, U, U, A]),
        (Scope::Peers(vec![text("named")]), [A, N, N, N, U, N, M]),
        (Scope::Group(text("dev")), [A, U, U, N, N, N, M]),
        (Scope::Groups(vec![text("dev/api"), text("ops")]), [A, N, U, U, N, N, M]),
        (Scope::Role(text("lead")), [A, N, N, U, N, N, M]),
    ]
}

struct Team {
    mesh: TestMesh,
    viewers: Vec<(PeerHandle, Frames)>,
}

fn tool() -> ToolDef {
    ToolDef { name: "add".into(), ..ToolDef::default() }
}

fn service(owner: &MemberId, scope: Scope, audience: Vec<MemberId>) -> Service {
    let source = Pinned { source: Source::Npx { package: "p".into() }, pinned: None };
    Service {
        owner: owner.clone(),
        version: Version {
            revision: 1,
            source,
            config: Config::default(),
            deployed_by: "owner".into(),
            description: "d".into(),
        },
        scope,
        audience,
        status: Status::Running,
        error: None,
        runtime: None,
        tools: [tool()].into(),
        created_at_ms: 7,
        updated_at_ms: 7,
        trial: None,
        queue: VecDeque::new(),
    }
}

impl Team {
    async fn new() -> Self {
        let mut mesh = TestMesh::new().await;
        let mut viewers = Vec::new();
        for (number, name) in (1..).zip(VIEWERS) {
            let member = mesh.member(name, number).await;
            if name == "admin" {
                mesh.core.roster.member_mut(&member).unwrap().role = Role::Admin;
            }
            let (at, frames) = mesh.peer(&member, name, Some(number + 10));
            let group = |name: &str, role: Option<&str>| Group { name: name.into(), role: role.map(str::to_owned) };
            mesh.core.roster.get_mut(at).unwrap().groups = match name {
                "dev" => vec![group("dev", None)],
                "api" => vec![group("dev/api", Some("helper"))],
                "lead" => vec![group("ops", Some("lead"))],
                _ => vec![],
            };
            viewers.push((at, frames));
        }
        Self { mesh, viewers }
    }

    fn put(&mut self, scope: &Scope) {
        let audience = if matches!(scope, Scope::Peers(_)) { vec!["member-5".into()] } else { vec![] };
        let service = service(&"member-1".into(), scope.clone(), audience);
        self.mesh.step(None, |features, cx| {
            features.services.services.insert(NAME.into(), service);
            features.services.publish(cx, NAME);
        });
    }

    async fn ask(&mut self, at: PeerHandle, request: impl Into<ClientMessage>) -> Value {
        serde_json::from_str(&self.mesh.ask(at, request).await.write(None)).unwrap()
    }

    /// What each verb answers: a code, or `ok`.
    async fn answers(&mut self, viewer: usize, scope: &Scope) -> Vec<(&'static str, String)> {
        let at = self.viewers[viewer].0;
        let name = || NAME.to_owned();
        let code = |answer: &Value| answer["code"].as_str().unwrap_or("ok").to_owned();
        let mut found = Vec::new();
        let listed = self.ask(at, McpCatalog::default()).await;
        let is_listed = listed["services"].as_array().unwrap().iter().any(|row| row["name"] == NAME);
        found.push(("catalog", if is_listed { "ok" } else { "not_found" }.to_owned()));
        let schema = self.ask(at, McpSchema { server_name: name(), tool_name: None }).await;
        found.push(("schema", code(&schema)));
        found.push(("logs", code(&self.ask(at, McpLogs { server_name: name(), ..McpLogs::default() }).await)));
        let call = McpCall { server_name: name(), tool_name: "add".into(), ..McpCall::default() };
        found.push(("call", code(&self.ask(at, call).await)));
        let read = self.ask(at, McpScope { server_name: name(), scope: None }).await;
        let is_known = read["deployed_by"] == "owner";
        assert!(is_known || (&read["scope"], &read["deployed_by"]) == (&json!({"type": "peer"}), &json!("unknown")));
        found.push(("scope", if is_known { "ok" } else { "not_found" }.to_owned()));
        self.viewers[viewer].1.lock().unwrap().clear();
        self.mesh.step(None, |features, cx| telling::updated(&features.services, cx, NAME));
        self.mesh.settle().await;
        let told = TestMesh::take(&self.viewers[viewer].1, "push").iter().any(|push| push["event"] == "mcp_updated");
        found.push(("event", if told { "ok" } else { "not_found" }.to_owned()));
        let ack = self.greeted(at);
        found.push(("hello", if ack.is_empty() { "not_found" } else { "ok" }.to_owned()));
        found.push(("update", code(&self.ask(at, McpUpdate { server_name: name(), wait: false }).await)));
        let same = McpScope { server_name: name(), scope: Some(Scope::Peer) };
        found.push(("rescope", code(&self.ask(at, same).await)));
        self.put(scope);
        found.push(("undeploy", code(&self.ask(at, McpUndeploy { server_name: name() }).await)));
        self.put(scope);
        found
    }

    fn greeted(&mut self, at: PeerHandle) -> Vec<Value> {
        let ack = json!({"presenceId": "p", "memberDisplayName": "m"});
        let mut ack: HelloAck = serde_json::from_value(ack).unwrap();
        self.mesh.step(None, |features, cx| Services::greet(&features.services, cx, at, &mut ack));
        ack.services
    }
}

/// What the table says of a verb. This broker has no host: what would reach one is refused with that, and not before.
fn expected(may: May, verb: &str) -> &'static str {
    let reaches_host = ["logs", "call", "update"].contains(&verb);
    let done = if reaches_host { "services_off" } else { "ok" };
    let changes = ["update", "rescope", "undeploy"].contains(&verb);
    let listed = ["catalog", "scope"].contains(&verb);
    match may {
        May::All => done,
        May::Use if changes => "forbidden",
        May::Use => done,
        May::Manage if changes || listed => done,
        May::Manage | May::Nothing => "not_found",
    }
}

#[actix_rt::test]
async fn each_viewer_may_do_with_each_scope_what_the_table_says() {
    let mut team = Box::pin(Team::new()).await;
    for (scope, row) in table() {
        team.put(&scope);
        for (viewer, may) in row.into_iter().enumerate() {
            for (verb, answer) in Box::pin(team.answers(viewer, &scope)).await {
                assert_eq!(answer, expected(may, verb), "{} {verb} with {scope:?}", VIEWERS[viewer]);
            }
        }
    }
}

#[actix_rt::test]
async fn a_scope_that_changes_is_told_to_those_who_gain_and_lose_it() {
    let mut team = Box::pin(Team::new()).await;
    team.put(&Scope::Group("dev".into()));
    let owner = team.viewers[0].0;
    // The owner is in no group: `mesh` is for those who may give rights.
    let wide = team.ask(owner, McpScope { server_name: NAME.into(), scope: Some(Scope::Mesh) }).await;
    assert_eq!(wide["code"], "forbidden");
    let admin = team.viewers[6].0;
    for (_, frames) in &team.viewers {
        frames.lock().unwrap().clear();
    }
    let answer = team.ask(admin, McpScope { server_name: NAME.into(), scope: Some(Scope::Role("lead".into())) }).await;
    assert_eq!((&answer["scope"], &answer["deployed_by"]), (&json!({"role": "lead"}), &json!("owner")));
    team.mesh.settle().await;
    let events = |viewer: usize| -> Vec<String> {
        let told = TestMesh::take(&team.viewers[viewer].1, "push");
        told.iter().map(|push| push["event"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(events(0), ["mcp_scope_changed"], "the owner keeps it");
    assert_eq!((events(1), events(2)), (vec!["mcp_undeployed".into()], vec!["mcp_undeployed".into()]), "dev lost it");
    assert_eq!(events(3), ["mcp_scope_changed", "mcp_deployed"], "the lead gained it");
    assert_eq!((events(4), events(5)), (vec![], vec![]));
}

#[actix_rt::test]
async fn a_name_is_of_a_service_or_of_a_session_and_of_one_member() {
    use claudemesh_protocol::features::mcp_servers::McpRegister;
    let mut team = Box::pin(Team::new()).await;
    team.put(&Scope::Peer);
    let register = || McpRegister { server_name: NAME.into(), description: "d".into(), ..McpRegister::default() };
    let stranger = team.viewers[5].0;
    assert_eq!(team.ask(stranger, register()).await["code"], "already_exists", "also one that it does not see");
    let owner = team.viewers[0].0;
    assert_eq!(team.ask(owner, register()).await["serverName"], NAME);
    let taken = team.mesh.step(None, |_, cx| cx.services().is_of_another(NAME, &"member-6".into()));
    assert!(taken);
}

#[actix_rt::test]
async fn who_may_not_deploy_any_more_offers_no_services_and_who_may_not_use_tools_sees_none() {
    use claudemesh_protocol::capability::Capability;
    let mut team = Box::pin(Team::new()).await;
    team.put(&Scope::Mesh);
    let deny = |team: &mut Team, member: &str, what: Option<Capability>| {
        let of = crate::db::rights::Subject::Member(member.into());
        team.mesh.core.rights.put(&of, what.map(|capability| (capability, false)).into_iter().collect());
    };
    let stranger = team.viewers[5].0;
    deny(&mut team, "member-6", Some(Capability::CanUseTools));
    assert_eq!(team.ask(stranger, McpCatalog::default()).await["code"], "forbidden");
    assert!(team.greeted(stranger).is_empty());
    deny(&mut team, "member-6", None);
    assert_eq!(team.greeted(stranger).len(), 1);
    deny(&mut team, "member-1", Some(Capability::CanDeployMcp));
    assert_eq!(team.ask(stranger, McpCatalog::default()).await["services"], json!([]));
    assert!(team.greeted(stranger).is_empty());
}

#[actix_rt::test]
async fn a_broker_without_a_host_says_so() {
    let mut team = Box::pin(Team::new()).await;
    let source = Source::Npx { package: "p".into() };
    let deploy =
        McpDeploy { server_name: "new".into(), source, config: None, scope: None, description: None, wait: false };
    let owner = team.viewers[0].0;
    let answer = team.ask(owner, deploy).await;
    assert_eq!(answer["code"], "services_off");
    assert!(answer["message"].as_str().unwrap().contains("[services]"), "{answer}");
    assert_eq!(team.ask(owner, McpCatalog::default()).await["services"], json!([]));
}
