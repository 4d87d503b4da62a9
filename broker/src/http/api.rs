//! Who asks with an API key. The key is looked up by the hash of its secret; everything else is decided in the mesh, for each request:
//! whether it lives, what it may do, how often it may ask.

use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderName};
use actix_web::{FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder, web};
use claudemesh_protocol::call::Call;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::api_keys::limits::SECRET_START;
use claudemesh_protocol::id::{MemberId, MeshId};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AppState;
use super::auth::Body;
use super::routes::Needs;
use crate::features::Features;
use crate::mesh::context::Core;
use crate::mesh::keys::{self, KeyRate};
use crate::mesh::principal::Principal;
use crate::refusal::{Refusal, invalid};

/// Characters of a secret: `cm_` and 32 bytes in base64url.
const SECRET_CHARS: usize = 46;

/// A program with a key that the route lets in.
pub struct ApiCaller {
    /// The mesh of the key.
    pub mesh: MeshId,
    /// Id of the key.
    pub key: Arc<str>,
    /// The member that it acts for.
    pub member: MemberId,
    /// When it ends, Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    rate: KeyRate,
    body: Body,
    state: web::Data<AppState>,
}

/// What the mesh says of a key.
struct Admitted {
    member: MemberId,
    expires_at_ms: Option<i64>,
    rate: KeyRate,
}

fn admit(core: &mut Core, id: &str, needs: Needs) -> Result<Admitted, Refusal> {
    let (now, mono) = (core.clock.now_ms(), core.clock.mono_ms());
    let limit = core.limits.quotas.rate(Features::KEY_REQUESTS_PER_MINUTE);
    let key = core.keys.used(id, now)?;
    let rate = key.count(limit, mono)?;
    if let Needs::Key(needed) = needs {
        keys::require(key, needed)?;
    }
    let (member, expires_at_ms) = (key.member.clone(), key.expires_at_ms);
    if core.roster.live_member(&member).is_none() {
        return Err(ErrorCode::ApiKeyInvalid.into());
    }
    Ok(Admitted { member, expires_at_ms, rate })
}

/// The secret of `Authorization: Bearer …`.
fn secret(request: &HttpRequest) -> Result<String, Refusal> {
    let missing = || Refusal::from(ErrorCode::ApiKeyMissing);
    let header = request.headers().get(AUTHORIZATION).ok_or_else(missing)?;
    let text = header.to_str().map_err(|_| missing())?;
    let (scheme, secret) = text.trim().split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    let secret = secret.trim();
    if !secret.starts_with(SECRET_START) || secret.len() != SECRET_CHARS {
        return Err(ErrorCode::ApiKeyInvalid.into());
    }
    Ok(secret.to_owned())
}

impl ApiCaller {
    async fn of(request: HttpRequest, body: Body) -> Result<Self, Refusal> {
        let (pattern, method) = (request.match_pattern().unwrap_or_default(), request.method().as_str());
        let row = Features::routes().into_iter().find(|row| row.path == pattern && row.method == method);
        let (Some(row), Some(state)) = (row, request.app_data::<web::Data<AppState>>()) else {
            return Err(Refusal::fault(ErrorCode::Internal, "the route has no row or no state"));
        };
        let found = Features::key_with(&state.db, &secret(&request)?).await?;
        let (mesh, id) = found.ok_or(ErrorCode::ApiKeyInvalid)?;
        let (key, needs): (Arc<str>, Needs) = (id.as_str().into(), row.needs);
        let admitted = state.directory.with(&mesh, move |core, _| admit(core, &id, needs)).await??;
        let Admitted { member, expires_at_ms, rate } = admitted;
        Ok(Self { mesh, key, member, expires_at_ms, rate, body, state: state.clone() })
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// As [`Body::json`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        self.body.json()
    }

    /// The body as it came.
    pub fn bytes(&self) -> &[u8] {
        self.body.bytes()
    }

    /// For requests to the mesh.
    pub fn principal(&self) -> Principal {
        Principal::Key(Arc::clone(&self.key))
    }

    /// Asks the mesh as everyone does: with its capability checks, quotas and audit entries.
    ///
    /// # Errors
    /// Those of the request.
    pub async fn ask<C: Call>(&self, request: C) -> Result<C::Answer, Refusal> {
        self.state.directory.request(&self.mesh, self.principal(), request).await
    }

    /// Says how much of its rate the key has used.
    pub fn with_rate(&self, mut response: HttpResponseBuilder) -> HttpResponseBuilder {
        let header = |name: &'static str, value: u64| (HeaderName::from_static(name), value.to_string());
        response.insert_header(header("ratelimit-limit", self.rate.limit));
        response.insert_header(header("ratelimit-remaining", self.rate.remaining));
        response.insert_header(header("ratelimit-reset", self.rate.reset_ms.div_ceil(1_000)));
        response
    }

    /// 200 with a JSON body.
    pub fn ok(&self, body: impl Serialize) -> HttpResponse {
        self.with_rate(HttpResponse::Ok()).json(body)
    }
}

impl FromRequest for ApiCaller {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, body) = (request.clone(), Body::from_request(request, payload));
        Box::pin(async move {
            // Before the body is read: who has no key sends none.
            secret(&request)?;
            Self::of(request, body.await?).await
        })
    }
}

/// The query string as a struct.
///
/// # Errors
/// `invalid_args`.
pub fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Refusal> {
    let found = web::Query::<T>::from_query(request.query_string());
    Ok(found.map_err(|error| invalid(format!("the query: {error}")))?.into_inner())
}
