//! Memories over HTTP, for programs with an API key.

use actix_web::{HttpRequest, HttpResponse};
use claudemesh_protocol::features::memory::{Conditions, ListMemories, Memory as Row, Recall, Remember};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::api::{ApiCaller, query};
use crate::http::openapi::Operation;
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    get "/api/v1/memory" => recall, key Read;
    post "/api/v1/memory" => remember, key StateWrite;
}

/// What the OpenAPI document says of these routes.
pub const OPERATIONS: &[Operation] = &[
    Operation::new(
        "GET",
        "/api/v1/memory",
        "Memories that a query finds, the best first; without one all, the newest first",
    )
    .asks("q", "Words of the memory.")
    .asks("tag", "Only with this tag.")
    .asks("limit", "How many at most.")
    .asks("cursor", "`next` of the page before.")
    .gives::<Found>(),
    Operation::new("POST", "/api/v1/memory", "Store a memory").takes::<New>().gives::<Stored>(),
];

/// A part of what was found.
#[derive(Serialize, JsonSchema)]
struct Found {
    /// Memories.
    memories: Vec<Row>,
    /// There is more: `cursor` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A memory to store.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct New {
    /// The text.
    content: String,
    /// Words to find it by.
    #[serde(default)]
    tags: Vec<String>,
}

/// A memory that was stored.
#[derive(Serialize, JsonSchema)]
struct Stored {
    /// Its id.
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    q: Option<String>,
    tag: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

async fn recall(request: HttpRequest, caller: ApiCaller) -> Answer {
    let Which { q, tag, limit, cursor } = query(&request)?;
    let only = Conditions { tags: tag.into_iter().collect(), ..Conditions::default() };
    let found = match q {
        Some(query) => caller.ask(Recall { query, only, limit, cursor }).await?,
        None => caller.ask(ListMemories { only, limit, cursor }).await?,
    };
    Ok(caller.ok(Found { memories: found.memories, next: found.next }))
}

async fn remember(caller: ApiCaller) -> Answer {
    let New { content, tags } = caller.json()?;
    let stored = caller.ask(Remember { content, tags }).await?;
    Ok(caller.ok(Stored { id: stored.id.to_string() }))
}
