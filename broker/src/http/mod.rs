//! HTTP: who asks, what may be asked and how it fails, the WebSocket upgrade, health and metrics. The routes of a feature lie in
//! its folder.

pub mod api;
pub mod auth;
pub mod caller;
pub mod fields;
mod health;
pub mod openapi;
pub mod rates;
pub mod routes;
#[cfg(test)]
mod tests;
mod ws;

use std::sync::{Arc, Mutex};

use actix_web::dev::ServiceResponse;
use actix_web::{HttpRequest, HttpResponse, web};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MeshId;

use crate::audit::HeadSigner;
use crate::blobs::Blobs;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::db::Db;
use crate::features::Features;
use crate::journal::{Journal, MeshStore};
use crate::mesh::directory::Directory;
use crate::refusal::Refusal;
use crate::session::SessionDeps;

/// What handlers share.
pub struct AppState {
    /// Storage.
    pub db: Db,
    /// Group commit.
    pub journal: Journal,
    /// Signs the heads of audit chains.
    pub audit: Arc<HeadSigner>,
    /// Time.
    pub clock: SharedClock,
    /// Bytes that are too large for the database.
    pub blobs: Arc<Blobs>,
    /// Live meshes.
    pub directory: Directory,
    /// Configuration.
    pub config: Config,
    /// For new sockets.
    pub sessions: Arc<SessionDeps>,
    /// Seen signatures and attempts.
    pub auth: auth::AuthState,
    /// Rates of hook tokens.
    pub hook_rates: Mutex<rates::Rates>,
    /// Where `/metrics` answers anyone, and nothing else answers.
    pub metrics_addr: Option<std::net::SocketAddr>,
    /// Wakes the upkeep: a mesh was deleted, its rows can go.
    pub erase: Arc<tokio::sync::Notify>,
    /// Monotonic ms of the start, for the uptime.
    pub started_mono_ms: i64,
}

impl AppState {
    /// One mesh's storage.
    pub fn storage(&self, mesh: &MeshId) -> MeshStore {
        MeshStore::new(self.db.clone(), mesh.clone(), self.journal.clone())
    }
}

/// Every route of the broker.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/ws", web::get().to(ws::upgrade))
        .route("/health", web::get().to(health::health))
        .route("/health/ready", web::get().to(health::ready))
        .route("/metrics", web::get().to(health::metrics));
    Features::configure(config);
    // Clients read JSON from every answer, so this one has it, too.
    config.default_service(web::to(no_such_route));
}

async fn no_such_route() -> Result<HttpResponse, Refusal> {
    Err(Refusal::new(ErrorCode::NotFound, "this broker has no such route"))
}

/// How a request reached the broker: `http://host` or `https://host`; `None` when its Host header is none that a URL can have.
pub fn reached_at(request: &HttpRequest) -> Option<String> {
    let info = request.connection_info();
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    let host = Some(info.host()).filter(|host| !host.is_empty() && host.bytes().all(fine))?;
    let scheme = if info.scheme() == "https" { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

/// Runs work that must not stop halfway when the client goes away: a stored change that the live mesh never hears of.
pub(crate) async fn to_the_end<T: 'static>(
    work: impl Future<Output = Result<T, Refusal>> + 'static,
) -> Result<T, Refusal> {
    actix_web::rt::spawn(work).await.unwrap_or_else(|error| Err(Refusal::fault(ErrorCode::Internal, error)))
}

/// Whether a request came to the address that is for metrics, and asks for something else.
pub fn is_misplaced(request: &actix_web::dev::ServiceRequest, metrics: Option<std::net::SocketAddr>) -> bool {
    metrics.is_some_and(|metrics| request.app_config().local_addr() == metrics)
        && !["/metrics", "/health", "/health/ready"].contains(&request.path())
}

/// Writes what failed inside the broker into the log, beside the incident that the answer names.
pub fn log_fault(response: &ServiceResponse) {
    let Some(refusal) = response.response().error().and_then(|error| error.as_error::<Refusal>()) else { return };
    let request = response.request();
    // The route as it is written: paths hold invite codes and tokens.
    let route = request.match_pattern().unwrap_or_default();
    let mesh = request.match_info().get("id").filter(|_| route.starts_with("/mesh/{id}")).map(MeshId::from);
    refusal.log(mesh.as_ref(), &format!("{} {route}", request.method()));
}

/// Shared state as handlers take it.
pub type State = web::Data<AppState>;

/// Makes the shared state.
pub fn state(parts: AppState) -> State {
    web::Data::from(Arc::new(parts))
}
