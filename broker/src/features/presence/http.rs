//! `POST /hook/set-status`: a hook of the host says what a session does. The token says whose sessions it may touch.

use actix_web::{HttpRequest, HttpResponse};
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::presence::{HookSetStatus, HookSetStatusResult};

use super::metrics::METRICS;
use crate::http::State;
use crate::http::auth::Body;
use crate::mesh::attach::cut;
use crate::refusal::Refusal;

crate::routes! {
    post "/hook/set-status" => set_status, open;
}

/// None of these routes is for API keys.
pub const OPERATIONS: &[crate::http::openapi::Operation] = &[];

async fn set_status(request: HttpRequest, body: Body, state: State) -> Result<HttpResponse, Refusal> {
    METRICS.hook_requests.inc();
    let Some(token) = bearer(&request).filter(|token| (32..=256).contains(&token.len())) else {
        let message = "expected `Authorization: Bearer <hook token>`";
        return Err(Refusal::new(ErrorCode::Unauthorized, message));
    };
    let mut status: HookSetStatus = body.json()?;
    // Cut as a hello's are, or a long one would fit no session; and a parked status is small.
    status.cwd = cut(&status.cwd);
    status.session_id = status.session_id.as_deref().map(cut);
    let token_hash = sha256_hex(token.as_bytes());
    let rate = state.config.effective_limits().hook_per_minute;
    let taken = {
        let mut rates = state.hook_rates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rates.take(&token_hash, status.pid.unwrap_or(0), rate, state.clock.mono_ms())
    };
    if let Err(wait) = taken {
        METRICS.hook_limited.inc();
        return Err(Refusal::wait(ErrorCode::RateLimited, "too many hook calls", wait));
    }
    let changed = state.directory.hook_status(&token_hash, &status).await;
    Ok(HttpResponse::Ok().json(HookSetStatusResult {
        ok: true,
        pending: changed.is_empty(),
        sessions: u32::try_from(changed.len()).ok().filter(|count| *count > 0),
        presence_id: changed.into_iter().next(),
        error: None,
    }))
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    request.headers().get("authorization")?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}
