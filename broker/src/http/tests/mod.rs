//! The routes of enrolment and members through the real handlers, storage and directory, without a socket.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, Error};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claudemesh_protocol::crypto::http as signed_http;
use claudemesh_protocol::crypto::invite::{InviteV1, root_key, root_key_text};
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::crypto::{envelope, signed};
use claudemesh_protocol::features::enrolment::{Claim, Claimed, CreateInvite, CreateMesh, MeshCreated};
use claudemesh_protocol::id::{InviteId, MeshId, random_code};
use claudemesh_protocol::limits;
use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::db::DbOptions;
use crate::journal::Journal;
use crate::mesh::context::Shared;
use crate::mesh::directory::Arbiters;
use crate::mesh::hook_statuses::HookStatusRegistry;

const NOW: i64 = 1_700_000_000_000;

struct Bench {
    state: State,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

async fn bench(change: impl FnOnce(&mut Config)) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: folder.path().into(), ..Config::default() };
    change(&mut config);
    let db = Db::open(&config.database_url(), DbOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    let clock = ManualClock::at(NOW);
    let (journal, _writer) = Journal::start(db.clone());
    let audit = Arc::new(crate::audit::HeadSigner::open(folder.path()).unwrap());
    let blobs = Arc::new(crate::blobs::Blobs::open(&config).unwrap());
    let shared = Shared {
        clock: clock.clone(),
        db: db.clone(),
        journal: journal.clone(),
        audit: audit.clone(),
        limits: config.effective_limits(),
        connections: config.connections.clone(),
        hooks: Arc::new(HookStatusRegistry::default()),
        blobs: blobs.clone(),
        hosting: Arc::new(crate::mesh::hosting::NoHost),
    };
    let arbiters = Arbiters::default();
    arbiters.add(actix_rt::Arbiter::current());
    let directory = Directory::new(shared, arbiters);
    let sessions = Arc::new(SessionDeps {
        directory: directory.clone(),
        clock: clock.clone(),
        limits: config.effective_limits(),
        pending: AtomicUsize::new(0),
        next_socket: AtomicUsize::new(1),
        seen_hellos: Default::default(),
        traffic: Default::default(),
    });
    let state = state(AppState {
        db,
        journal,
        audit,
        metrics_addr: None,
        erase: Arc::default(),
        started_mono_ms: 0,
        clock: clock.clone(),
        blobs,
        directory,
        config,
        sessions,
        auth: auth::AuthState::default(),
        hook_rates: Mutex::default(),
    });
    Bench { state, clock, _folder: folder }
}

#[cfg(feature = "postgres")]
#[actix_rt::test]
async fn health_and_readiness_say_when_storage_cannot_be_reached() {
    let Bench { state, clock: _clock, _folder } = bench(|_| ()).await;
    let service = init_service(App::new().app_data(state.clone()).configure(configure)).await;
    let get = |path: &str| TestRequest::get().uri(path).to_request();
    assert_eq!(call_service(&service, get("/health")).await.status(), 200);
    let mut parts = Arc::into_inner({
        drop(service);
        state.into_inner()
    })
    .expect("the service is gone");
    parts.db = crate::db::testing::unreachable();
    let service = init_service(App::new().app_data(super::state(parts)).configure(configure)).await;
    let answer = call_service(&service, get("/health")).await;
    assert_eq!(answer.status(), 503);
    let body: Value = serde_json::from_slice(&read_body(answer).await).unwrap();
    assert_eq!((&body["status"], &body["db"]), (&"degraded".into(), &"down".into()));
    let answer = call_service(&service, get("/health/ready")).await;
    assert_eq!(answer.status(), 503);
    let body: Value = serde_json::from_slice(&read_body(answer).await).unwrap();
    assert_eq!(body["reason"], "db_down");
}

fn key() -> SecretKey {
    SecretKey::random(&mut rand::rngs::OsRng)
}

/// One request; a signed one is signed a millisecond after the one before, because the same signature passes once.
struct Call<'a> {
    method: &'a str,
    path: String,
    body: Vec<u8>,
    signer: Option<&'a SecretKey>,
    headers: Vec<(&'static str, String)>,
}

fn call<'a>(method: &'a str, path: impl Into<String>) -> Call<'a> {
    Call { method, path: path.into(), body: vec![], signer: None, headers: vec![] }
}

impl<'a> Call<'a> {
    fn json(mut self, body: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(body).unwrap();
        self
    }

    fn by(mut self, key: &'a SecretKey) -> Self {
        static MOMENT: AtomicI64 = AtomicI64::new(0);
        let at = NOW + MOMENT.fetch_add(1, Ordering::Relaxed) % 1_000;
        self.headers.extend(signed_http::headers(key, self.method, &self.path, &self.body, at));
        self.signer = Some(key);
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

async fn send<B: MessageBody>(
    app: &impl Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    call: Call<'_>,
) -> (u16, Value) {
    let mut request = TestRequest::with_uri(&call.path)
        .method(call.method.parse().unwrap())
        .peer_addr("203.0.113.7:4000".parse().unwrap())
        .set_payload(call.body);
    for (name, value) in call.headers {
        request = request.insert_header((name, value));
    }
    let response = call_service(app, request.to_request()).await;
    let status = response.status().as_u16();
    let body = read_body(response).await;
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into())))
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"].as_str().unwrap_or_default())
}

macro_rules! app {
    ($bench:expr) => {
        init_service(App::new().app_data($bench.state.clone()).configure(configure)).await
    };
}

struct Team {
    id: MeshId,
    owner: SecretKey,
    creator: SecretKey,
}

async fn team<B: MessageBody>(
    app: &impl Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    slug: &str,
) -> Team {
    let (owner, creator) = (key(), key());
    let (status, body) = send(app, call("POST", "/mesh").json(&mesh_request(slug, &owner, &creator)).by(&owner)).await;
    assert_eq!(status, 201, "{body}");
    let created: MeshCreated = serde_json::from_value(body).unwrap();
    Team { id: created.mesh_id, owner, creator }
}

fn mesh_request(slug: &str, owner: &SecretKey, creator: &SecretKey) -> CreateMesh {
    CreateMesh {
        slug: slug.into(),
        name: None,
        owner_pubkey: owner.public(),
        member_pubkey: creator.public(),
        display_name: "Ada".into(),
    }
}

fn invite_request(team: &Team, role: &str, max_uses: u32) -> CreateInvite {
    let invite_id = InviteId::random(&mut rand::rngs::OsRng);
    let expires_at = NOW / 1_000 + 3_600;
    let canonical = signed::invite_v2(&team.id, &invite_id, expires_at, role, &team.owner.public());
    CreateInvite {
        invite_id,
        code: random_code(&mut rand::rngs::OsRng),
        role: role.into(),
        max_uses,
        expires_at,
        signature_v2: team.owner.sign(canonical.as_bytes()),
        v1_token_hash: None,
        preset: None,
    }
}

fn claim_request(code: &str, member: &SecretKey, recipient: &crypto_box::SecretKey) -> Claim {
    let recipient = URL_SAFE_NO_PAD.encode(recipient.public_key().as_bytes());
    let signature = member.sign(signed::claim(code, &member.public(), &recipient).as_bytes());
    Claim {
        recipient_x25519_pubkey: recipient,
        peer_pubkey: member.public(),
        signature,
        display_name: Some("Bob".into()),
    }
}

async fn enrol<B: MessageBody>(
    app: &impl Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    team: &Team,
    role: &str,
) -> (SecretKey, Claimed) {
    let invite = invite_request(team, role, 1);
    let path = format!("/mesh/{}/invites", team.id);
    let (status, body) = send(app, call("POST", path).json(&invite).by(&team.owner)).await;
    assert_eq!(status, 201, "{body}");
    let (member, recipient) = (key(), crypto_box::SecretKey::generate(&mut rand::rngs::OsRng));
    let claim = claim_request(&invite.code, &member, &recipient);
    let (status, body) = send(app, call("POST", format!("/invites/{}/claim", invite.code)).json(&claim)).await;
    assert_eq!(status, 200, "{body}");
    let claimed: Claimed = serde_json::from_value(body).unwrap();
    let sealed = URL_SAFE_NO_PAD.decode(&claimed.sealed_root_key).unwrap();
    assert_eq!(envelope::open_anonymous(&sealed, &recipient).unwrap(), root_key(&team.id));
    (member, claimed)
}

/// The owner's member, as the asking principal.
async fn owner_of(bench: &Bench, team: &Team) -> crate::mesh::principal::Principal {
    let owner = crate::db::members::owner(&bench.state.storage(&team.id)).await.unwrap().unwrap();
    crate::mesh::principal::Principal::Member(owner.id)
}

// After the macro that they use.
mod enrolment;
mod matrix;
mod members;
mod meshes;
mod principals;
