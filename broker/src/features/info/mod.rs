//! `mesh_info`: one look at the whole mesh.

use claudemesh_protocol::features::info::{MeshInfo, MeshInfoResult, Request, TaskCounts};

use crate::db::DbError;
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

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        let Request::MeshInfo(_) = request;
        let own = cx.asker()?;
        let member = own.member.clone();
        let members = cx.roster().members().filter(|member| member.revoked_at_ms.is_none()).count();
        let mut info = MeshInfoResult {
            mesh: cx.mesh_id().clone(),
            slug: Some(cx.slug().to_owned()),
            peers: 0,
            groups: vec![],
            state_keys: vec![],
            state_count: 0,
            memory_count: 0,
            context_count: 0,
            skill_count: 0,
            vault_count: 0,
            mcp_server_count: 0,
            file_count: 0,
            tasks: TaskCounts::default(),
            streams: vec![],
            stream_count: 0,
            tables: vec![],
            collections: vec![],
            clock: None,
            schedules: 0,
            topics: vec![],
            limits: vec![],
            members: u32::try_from(members).unwrap_or(u32::MAX),
            your_name: own.name.clone(),
            your_groups: cx.roster().all_groups(own.acts_for.and_then(|at| cx.roster().get(at)).unwrap_or(own)),
        };
        Ok(Outcome::Overview(Box::new(move |features, cx| {
            features.describe(cx, &mut info);
            let (storage, quotas) = (cx.storage(), cx.limits().quotas.clone());
            let slow = async move {
                Features::describe_stored(&storage, &member, &quotas, &mut info).await?;
                Ok::<_, DbError>(info)
            };
            let work = Self::work_in(cx.own_lane::<Self>(), slow, |(), _, info| Ok(Outcome::Answer(info)));
            Self::answer::<MeshInfo>(Ok(work))
        })))
    }
}
