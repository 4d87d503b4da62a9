//! `info`.

use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::id::{MemberId, MeshId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connection::skew;
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::output::{Style, clean};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};
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
        json_fields::joined([json_fields::of::<MeshInfoResult>(), json_fields::of::<Own>()])
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Facts>()]
    }

    fn run(self, cx: &Context) -> Ran {
        info(cx).map(done)
    }
}

/// What this machine knows of the mesh.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Own {
    slug: String,
    mesh_id: MeshId,
    member_id: MemberId,
    broker_url: String,
    display_name: String,
    peer_count: u32,
    state_count: usize,
}

/// All facts, for scripts.
#[derive(Serialize, JsonSchema)]
struct Facts {
    #[serde(flatten)]
    info: MeshInfoResult,
    #[serde(flatten)]
    own: Own,
    /// Short name of the mesh on this machine; the broker's id is `meshId`.
    mesh: String,
}

/// Runs `info`.
///
/// # Errors
/// Of the connection.
pub fn info(cx: &Context) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let (ack, mut info, there) = ask(cx, &entry, |connection| async move {
        let ack = connection.hello_ack()?;
        let info = connection.mesh_info().await?;
        // The same number as `claudemesh peers` shows: who is connected, without this shell.
        let there = connection.list_peers().await?.iter().filter(|peer| peer.online).count();
        Ok((ack, info, u32::try_from(there).unwrap_or(u32::MAX)))
    })?;
    info.peers = there;
    let name = ack.member_display_name.clone();
    if let Some(hint) = skew::hint(ack.broker_version.as_deref()) {
        cx.out.warn(&hint);
    }
    let own = Own {
        slug: entry.slug.clone(),
        mesh_id: entry.mesh_id.clone(),
        member_id: entry.member_id.clone(),
        broker_url: entry.broker_url.clone(),
        display_name: name.clone(),
        peer_count: there,
        state_count: info.state_keys.len(),
    };
    let value = Facts { info, own, mesh: entry.slug.clone() };
    cx.out.answer(&value, |out| {
        let info = &value.info;
        let title = format!("{} · {}", clean(&entry.slug), clean(&entry.broker_url));
        let mut text = format!("{}\n", out.paint(Style::Bold, &title));
        let mut row = |label: &str, value: String| text += &format!("  {label:<9}{value}\n");
        row("mesh", clean(entry.mesh_id.as_str()).into_owned());
        row("member", clean(entry.member_id.as_str()).into_owned());
        row("you", clean(&name).into_owned());
        row("peers", info.peers.to_string());
        row("members", info.members.to_string());
        let list = |names: &[String]| names.iter().map(|name| clean(name).into_owned()).collect::<Vec<_>>().join(", ");
        for (label, names) in [
            ("groups", &info.groups),
            ("topics", &info.topics),
            ("state", &info.state_keys),
            ("streams", &info.streams),
        ] {
            if !names.is_empty() {
                row(label, list(names));
            }
        }
        let tasks = &info.tasks;
        if tasks.open + tasks.claimed + tasks.done > 0 {
            row("tasks", format!("{} open, {} claimed, {} done", tasks.open, tasks.claimed, tasks.done));
        }
        if info.schedules > 0 {
            row("scheduled", info.schedules.to_string());
        }
        text
    })
}
