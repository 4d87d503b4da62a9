//! Shared state over HTTP, for programs with an API key. The ETag of a key is its version.

use actix_web::http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::state::{DeleteState, GetState, ListState, SetState, StateEntry, StateResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::api::{ApiCaller, query};
use crate::http::openapi::Operation;
use crate::refusal::{Refusal, invalid};

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    get "/api/v1/state" => list, key Read;
    get "/api/v1/state/{key}" => get, key Read;
    put "/api/v1/state/{key}" => set, key StateWrite;
    delete "/api/v1/state/{key}" => delete, key StateWrite;
}

/// What the OpenAPI document says of these routes.
pub const OPERATIONS: &[Operation] = &[
    Operation::new("GET", "/api/v1/state", "Shared keys with their values, in order")
        .asks("prefix", "Only keys that begin so.")
        .asks("limit", "How many at most.")
        .asks("cursor", "`next` of the page before.")
        .gives::<Page>(),
    Operation::new("GET", "/api/v1/state/{key}", "One shared key")
        .with_header("If-None-Match", "The ETag that is known: 304 when it is still so.")
        .gives::<StateResult>(),
    Operation::new("PUT", "/api/v1/state/{key}", "Write a shared key; the body is its value, any JSON")
        .asks("ttl", "Seconds after which the key is deleted.")
        .with_header("If-Match", "Only if the key has this ETag.")
        .with_header("If-None-Match", "`*`: only if there is no such key.")
        .takes::<Value>()
        .gives::<Written>(),
    Operation::new("DELETE", "/api/v1/state/{key}", "Delete a shared key")
        .with_header("If-Match", "Only if the key has this ETag.")
        .gives::<Written>(),
];

/// A part of the list.
#[derive(Serialize, JsonSchema)]
struct Page {
    /// By key.
    entries: Vec<StateEntry>,
    /// There is more: `cursor` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Revision of the mesh that the page shows at least.
    revision: u64,
}

/// A write.
#[derive(Serialize, JsonSchema)]
struct Written {
    /// The key.
    key: String,
    /// Its version now.
    version: u64,
    /// Revision of the mesh.
    revision: u64,
}

fn tag(version: u64) -> String {
    format!("\"{version}\"")
}

/// The version of an ETag in a header.
fn version(request: &HttpRequest, name: HeaderName) -> Result<Option<u64>, Refusal> {
    let words = format!("`{name}`: expected one ETag of this key");
    let Some(header) = request.headers().get(&name) else { return Ok(None) };
    let text = header.to_str().ok().and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    text.map(Some).ok_or_else(|| invalid(words))
}

async fn list(request: HttpRequest, caller: ApiCaller) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Which {
        prefix: Option<String>,
        limit: Option<u32>,
        cursor: Option<String>,
    }
    let which: Which = query(&request)?;
    let list = ListState { prefix: which.prefix, limit: which.limit, cursor: which.cursor, since: None };
    let found = caller.ask(list).await?;
    Ok(caller.ok(Page { entries: found.entries, next: found.next, revision: found.revision }))
}

async fn get(request: HttpRequest, path: web::Path<String>, caller: ApiCaller) -> Answer {
    let found = caller.ask(GetState { key: path.into_inner() }).await?;
    if found.version == 0 {
        return Err(Refusal::new(ErrorCode::NotFound, "there is no such key"));
    }
    let tag = tag(found.version);
    let known = request.headers().get(IF_NONE_MATCH).and_then(|header| header.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag || one.trim() == "*")) {
        return Ok(caller.with_rate(HttpResponse::NotModified()).insert_header((ETAG, tag)).finish());
    }
    Ok(caller.with_rate(HttpResponse::Ok()).insert_header((ETAG, tag)).json(found))
}

fn written(caller: &ApiCaller, key: String, version: u64, revision: u64) -> HttpResponse {
    let mut response = caller.with_rate(HttpResponse::Ok());
    response.insert_header((ETAG, tag(version)));
    response.json(Written { key, version, revision })
}

async fn set(request: HttpRequest, path: web::Path<String>, caller: ApiCaller) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct How {
        ttl: Option<u64>,
    }
    let (how, value): (How, Value) = (query(&request)?, caller.json()?);
    let fresh = request.headers().get(IF_NONE_MATCH);
    let expected_version = match (fresh, version(&request, IF_MATCH)?) {
        (None, known) => known,
        (Some(header), None) if header == "*" => Some(0),
        (Some(_), _) => return Err(invalid("`If-None-Match`: expected `*`, and no `If-Match` beside it")),
    };
    let key = path.into_inner();
    let set = SetState { key: key.clone(), value, expected_version, ttl_s: how.ttl };
    let done = caller.ask(set).await?;
    Ok(written(&caller, key, done.version, done.revision))
}

async fn delete(request: HttpRequest, path: web::Path<String>, caller: ApiCaller) -> Answer {
    let (key, expected_version) = (path.into_inner(), version(&request, IF_MATCH)?);
    let done = caller.ask(DeleteState { key: key.clone(), expected_version }).await?;
    Ok(written(&caller, key, done.version, done.revision))
}
