//! The OpenAPI 3.1 document of the routes for API keys, made from their tables and the types of their bodies.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::routes::{Needs, Route};
use crate::features::Features;

/// The schema of a body.
type Body = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of one route.
#[derive(Clone, Copy)]
pub struct Operation {
    /// As in the table of routes.
    pub method: &'static str,
    /// As in the table of routes.
    pub path: &'static str,
    summary: &'static str,
    query: [Option<(&'static str, &'static str)>; 6],
    header: [Option<(&'static str, &'static str)>; 2],
    body: Option<Body>,
    answer: Option<Body>,
    status: u16,
    events: bool,
}

/// The list with one more.
const fn and<const N: usize>(
    mut list: [Option<(&'static str, &'static str)>; N],
    one: (&'static str, &'static str),
) -> [Option<(&'static str, &'static str)>; N] {
    let mut at = 0;
    while list[at].is_some() {
        at += 1;
    }
    list[at] = Some(one);
    list
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    /// A route without query, body and answer.
    pub const fn new(method: &'static str, path: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            summary,
            query: [None; 6],
            header: [None; 2],
            body: None,
            answer: None,
            status: 200,
            events: false,
        }
    }

    /// It has a parameter in the query.
    #[must_use]
    pub const fn asks(self, name: &'static str, doc: &'static str) -> Self {
        Self { query: and(self.query, (name, doc)), ..self }
    }

    /// It looks at a header.
    #[must_use]
    pub const fn with_header(self, name: &'static str, doc: &'static str) -> Self {
        Self { header: and(self.header, (name, doc)), ..self }
    }

    /// It takes a JSON body.
    #[must_use]
    pub const fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema_of::<T>), ..self }
    }

    /// It answers with a JSON body.
    #[must_use]
    pub const fn gives<T: JsonSchema>(self) -> Self {
        Self { answer: Some(schema_of::<T>), ..self }
    }

    /// Its status is another one than 200.
    #[must_use]
    pub const fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// It answers with server-sent events.
    #[must_use]
    pub const fn gives_events(self) -> Self {
        Self { events: true, ..self }
    }

    fn parameters(&self) -> Vec<Value> {
        let named = |place: &'static str| move |(name, doc): &(&str, &str)| json!({"name": name, "in": place, "description": doc, "schema": {"type": "string"}});
        let parts = self.path.split('{').skip(1).filter_map(|part| part.split_once('}'));
        let path =
            parts.map(|(name, _)| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
        let query = self.query.iter().flatten().map(named("query"));
        path.chain(query).chain(self.header.iter().flatten().map(named("header"))).collect()
    }

    fn describe(&self, route: &Route, generator: &mut SchemaGenerator) -> Value {
        let content = |schema: Schema| json!({"application/json": {"schema": schema}});
        let mut answer = json!({"description": "Done."});
        if let Some(schema) = self.answer {
            answer["content"] = content(schema(generator));
        } else if self.events {
            answer["content"] = json!({"text/event-stream": {"schema": {"type": "string"}}});
        }
        let mut described = json!({
            "summary": self.summary,
            "parameters": self.parameters(),
            "responses": {
                self.status.to_string(): answer,
                "4XX": {"$ref": "#/components/responses/Refused"},
                "5XX": {"$ref": "#/components/responses/Refused"},
            },
        });
        if let Needs::Key(needed) = route.needs {
            described["description"] = json!(format!("Needs a key with `{}`.", needed.as_str()));
            described["security"] = json!([{"key": []}]);
        } else {
            described["security"] = json!([]);
        }
        if let Some(schema) = self.body {
            described["requestBody"] = json!({"required": true, "content": content(schema(generator))});
        }
        described
    }
}

/// The body of every refusal.
#[derive(serde::Serialize, JsonSchema)]
struct Refused {
    /// Always `false`.
    ok: bool,
    /// One of the codes of docs/errors.md.
    error: String,
    /// For people.
    message: Option<String>,
    /// Milliseconds after which the same request may pass.
    retry_after_ms: Option<u64>,
}

/// The document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in Features::operations() {
        let row =
            Features::routes().into_iter().find(|row| row.path == operation.path && row.method == operation.method);
        let Some(row) = row else { continue };
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_ascii_lowercase()] = operation.describe(row, &mut generator);
    }
    let refused = generator.subschema_for::<Refused>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "claudemesh",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The mesh for programs. A key is made with `claudemesh apikey create`.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Refused": {
                    "description": "Nothing was done; `error` says why.",
                    "content": {"application/json": {"schema": refused}},
                },
            },
            "schemas": generator.take_definitions(true),
        },
    })
}
