//! `info`.

use serde_json::{Value, json};

use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::output::{Style, clean};
use crate::verb::{Effect, Ran, Verb, done};
use clap::Args;

/// Show facts about a mesh.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh info --json")]
pub struct InfoArgs {}

impl Verb for InfoArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        info(cx).map(done)
    }
}

/// Runs `info`.
///
/// # Errors
/// Of the connection.
pub fn info(cx: &Context) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let (name, info) = ask(cx, &entry, |connection| async move {
        let name = connection.hello_ack()?.member_display_name.clone();
        Ok((name, connection.mesh_info().await?))
    })?;
    let mut value = serde_json::to_value(&info).unwrap_or_default();
    let own = json!({
        "slug": entry.slug, "meshId": entry.mesh_id, "memberId": entry.member_id, "brokerUrl": entry.broker_url,
        "displayName": name, "peerCount": info.peers, "stateCount": info.state_keys.len(),
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut value, own) {
        all.extend(own);
    }
    cx.out.answer(&value, |out| {
        let title = format!("{} · {}", clean(&entry.slug), clean(&entry.broker_url));
        let mut text = format!("{}\n", out.paint(Style::Bold, &title));
        let mut row = |label: &str, value: String| text += &format!("  {label:<9}{value}\n");
        row("mesh", clean(entry.mesh_id.as_str()).into_owned());
        row("member", clean(entry.member_id.as_str()).into_owned());
        row("you", clean(&name).into_owned());
        row("peers", info.peers.to_string());
        row("members", info.members.to_string());
        let list = |names: &[String]| names.iter().map(|name| clean(name).into_owned()).collect::<Vec<_>>().join(", ");
        for (label, names) in [("groups", &info.groups), ("topics", &info.topics), ("state", &info.state_keys)] {
            if !names.is_empty() {
                row(label, list(names));
            }
        }
        text
    })
}
