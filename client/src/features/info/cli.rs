//! `info`.

use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::id::{MemberId, MeshId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::screen::Screen;
use crate::connection::skew;
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::output::columns;
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
pub(super) struct Own {
    pub(super) slug: String,
    pub(super) mesh_id: MeshId,
    pub(super) member_id: MemberId,
    pub(super) broker_url: String,
    pub(super) display_name: String,
    pub(super) peer_count: u32,
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
    if let Some(hint) = skew::hint(ack.broker_version.as_deref()) {
        cx.out.warn(&hint);
    }
    let own = Own {
        slug: entry.slug.clone(),
        mesh_id: entry.mesh_id.clone(),
        member_id: entry.member_id.clone(),
        broker_url: entry.broker_url.clone(),
        display_name: ack.member_display_name.clone(),
        peer_count: there,
    };
    let value = Facts { info, own, mesh: entry.slug.clone() };
    let width = usize::from(columns(&cx.env));
    cx.out.answer(&value, |out| Screen { info: &value.info, own: &value.own, width, out }.text())
}
