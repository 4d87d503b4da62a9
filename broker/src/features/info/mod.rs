//! `mesh_info`: one look at the whole mesh.

use std::collections::BTreeSet;

use claudemesh_protocol::features::info::{MeshInfoResult, Request, Response, TaskCounts};
use claudemesh_protocol::message::ServerMessage;

use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::{Feature, Features};
use crate::mesh::outcome::Outcome;
use crate::refusal::Refusal;

/// The feature.
pub struct Info;

impl Feature for Info {
    const NAME: &'static str = "info";
    type Request = Request;
    type Memory = ();

    fn memory(features: &mut Features) -> &mut () {
        &mut features.info
    }

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        let Request::MeshInfo(_) = request;
        let own = cx.peer()?;
        let seen = |peer: &&crate::mesh::peers::Peer| !peer.ephemeral && (peer.visible || peer.member == own.member);
        let groups: BTreeSet<String> = cx
            .core
            .roster
            .iter()
            .filter(seen)
            .flat_map(|peer| &peer.groups)
            .map(|group| format!("@{}", group.name))
            .collect();
        let topics =
            cx.core.topics.iter().filter(|topic| topic.visible_to(&own.member)).map(|topic| topic.name.clone());
        let members = cx.core.roster.members().filter(|member| member.revoked_at_ms.is_none()).count();
        let result = MeshInfoResult {
            mesh: cx.core.id.clone(),
            slug: Some(cx.core.slug.clone()),
            peers: u32::try_from(cx.core.roster.iter().filter(seen).count()).unwrap_or(u32::MAX),
            groups: groups.into_iter().collect(),
            state_keys: vec![],
            memory_count: 0,
            file_count: 0,
            tasks: TaskCounts::default(),
            streams: vec![],
            tables: vec![],
            collections: vec![],
            topics: topics.collect(),
            members: u32::try_from(members).unwrap_or(u32::MAX),
            your_name: own.name.clone(),
            your_groups: own.groups.iter().map(|group| format!("@{}", group.name)).collect(),
        };
        Ok(Outcome::answer(ServerMessage::from(Response::from(result))))
    }
}
