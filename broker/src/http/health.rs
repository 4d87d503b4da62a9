//! Liveness, readiness, metrics.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, Responder};
use claudemesh_protocol::error::ErrorCode;
use serde_json::json;

use super::State;
use crate::metrics::{self, METRICS};
use crate::refusal::Refusal;

/// Storage must answer within this time to count as up.
const PING_DEADLINE: Duration = Duration::from_secs(2);

async fn db_up(state: &State) -> bool {
    let up = matches!(tokio::time::timeout(PING_DEADLINE, state.db.ping()).await, Ok(Ok(())));
    METRICS.db_healthy.set(i64::from(up));
    up
}

fn uptime_s(state: &State) -> i64 {
    (state.clock.mono_ms() - state.started_mono_ms) / 1_000
}

/// 200 while storage answers, else 503: a proxy must not send peers to a broker that cannot keep its promises.
pub(super) async fn health(state: State) -> impl Responder {
    let up = db_up(&state).await;
    let body = json!({
        "status": if up { "ok" } else { "degraded" },
        "db": if up { "up" } else { "down" },
        "version": env!("CARGO_PKG_VERSION"),
        "gitSha": option_env!("GIT_SHA").unwrap_or("unknown"),
        "uptime": uptime_s(&state),
        // What heads of audit chains are signed with: to be compared with what clients kept.
        "auditKey": state.audit.public(),
    });
    let mut answer = if up { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(body)
}

pub(super) async fn ready(state: State) -> impl Responder {
    if !db_up(&state).await {
        return HttpResponse::ServiceUnavailable().json(json!({ "status": "not_ready", "reason": "db_down" }));
    }
    HttpResponse::Ok().json(json!({
        "status": "ready",
        "version": env!("CARGO_PKG_VERSION"),
        "gitSha": option_env!("GIT_SHA").unwrap_or("unknown"),
        "uptime": uptime_s(&state),
    }))
}

/// For this machine, and for anyone who reaches the address that is meant for it. What stands in the metrics (how many people there
/// are, how much they write) is no one else's business, and a proxy that passes everything must not publish it by mistake.
pub(super) async fn metrics(state: State, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let meant = state.metrics_addr.is_some_and(|address| request.app_config().local_addr() == address);
    if !meant && !is_from_here(&request) {
        let message = "metrics are for this machine; `metrics_listen` opens an address for others";
        return Err(Refusal::new(ErrorCode::Forbidden, message));
    }
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(metrics::render()))
}

/// A process of this machine asks by itself, and not for someone else.
fn is_from_here(request: &HttpRequest) -> bool {
    let passed_on = ["x-forwarded-for", "forwarded", "x-real-ip", "via"];
    if passed_on.iter().any(|header| request.headers().contains_key(*header)) {
        return false;
    }
    #[cfg(unix)]
    if request.conn_data::<crate::unix_socket::OverUnixSocket>().is_some() {
        return true;
    }
    request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}
