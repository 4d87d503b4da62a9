//! Liveness, readiness, metrics.

use std::time::Duration;

use actix_web::{HttpResponse, Responder};
use serde_json::json;

use super::State;
use crate::metrics::METRICS;

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

pub(super) async fn metrics() -> impl Responder {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(METRICS.render())
}
