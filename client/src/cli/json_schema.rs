//! `claudemesh json-schema`: what each call prints with `--json`.

use clap::Args;
use serde_json::{Map, Value};

use super::{AnyVerb, no_verb};
use crate::context::Context;
use crate::error::CliError;
use crate::output::clean;
use crate::verb::{Audience, Effect, Ran, Shape, Verb, done};

/// Print the JSON Schema of what commands print with `--json`: one object, a schema for each call.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh json-schema peers\n  claudemesh json-schema state get\n  \
                        claudemesh json-schema > claudemesh.schemas.json\n\n\
                        A command that prints something else with a flag has one schema for each: `inbox` and\n\
                        `inbox --questions`. See docs/json.md.")]
pub struct JsonSchemaArgs {
    /// Only this command and those below it, for example `state` or `state get` [default: all]
    pub command: Vec<String>,
}

impl Verb for JsonSchemaArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    /// Exit 5 for a command that does not exist or prints no JSON.
    fn run(self, cx: &Context) -> Ran {
        let wanted = self.command.join(" ");
        let is_meant = |shape: &Shape| {
            let rest = shape.call.strip_prefix(&*wanted);
            wanted.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let found: Map<String, Value> =
            all().into_iter().filter(is_meant).map(|shape| (shape.call.clone(), shape.schema())).collect();
        if found.is_empty() {
            let message = format!("There is no command '{}' that prints JSON.", clean(&wanted));
            return Err(
                CliError::not_found(message).hint("`claudemesh json-schema` prints the schemas of all of them.")
            );
        }
        // It is JSON in every case; nothing is picked out of a schema.
        let text = serde_json::to_string_pretty(&Value::Object(found));
        let text = text.map_err(|error| CliError::internal(format!("The schemas cannot be written: {error}.")))?;
        cx.out.write(&(text + "\n")).map(done)
    }
}

/// The shapes of all calls, in the order of the help.
pub fn all() -> Vec<Shape> {
    let mut all = vec![no_verb::shape()];
    all.extend(AnyVerb::shapes());
    all
}

/// The table of the reference page: a row for each call.
pub fn table() -> String {
    let mut text = String::from("| Call | Prints | Fields |\n|---|---|---|\n");
    for shape in all() {
        let call = if shape.call.is_empty() { "claudemesh".to_owned() } else { shape.call.clone() };
        let fields: Vec<String> = shape.fields().iter().map(|name| format!("`{name}`")).collect();
        text += &format!("| `{}` | {} | {} |\n", call.replace('|', "\\|"), shape.form.as_str(), fields.join(" "));
    }
    text
}
