//! `/ws`: the upgrade. Nothing is checked before the hello but the number of sockets that have not said it.

use std::sync::atomic::Ordering;

use actix_web::{HttpRequest, HttpResponse, web};

use super::{State, reached_at};
use crate::session::socket;

pub(super) async fn upgrade(
    request: HttpRequest,
    payload: web::Payload,
    state: State,
) -> Result<HttpResponse, actix_web::Error> {
    let pending = state.sessions.pending.load(Ordering::Relaxed);
    if pending >= state.config.connections.max_unauthenticated {
        return Ok(HttpResponse::ServiceUnavailable()
            .insert_header(("retry-after", "1"))
            .body("too many connections that have not said hello"));
    }
    socket::upgrade(&request, payload, state.sessions.clone(), reached_at(&request).map(Into::into))
}
