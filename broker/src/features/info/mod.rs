//! `mesh_info`: one look at the whole mesh.

use claudemesh_protocol::capability::Capability;
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
        let (reads, uses_sql) = (cx.may(Capability::CanReadShared)?, cx.may(Capability::CanRunSql)?);
        Ok(Outcome::Overview(Box::new(move |features, cx| {
            features.describe(cx, &mut info);
            let (storage, quotas) = (cx.storage(), cx.limits().quotas.clone());
            let slow = async move {
                Features::describe_stored(&storage, &member, &quotas, &mut info).await?;
                if !uses_sql {
                    info.tables.clear();
                }
                if !reads {
                    leave_out_shared(&mut info);
                }
                Ok::<_, DbError>(info)
            };
            let work = Self::work_in(cx.own_lane::<Self>(), slow, |(), _, info| Ok(Outcome::Answer(info)));
            Self::answer::<MeshInfo>(Ok(work))
        })))
    }
}

/// A member that may not read shared things learns neither their names nor how many there are.
fn leave_out_shared(info: &mut MeshInfoResult) {
    for names in [&mut info.state_keys, &mut info.streams, &mut info.collections] {
        names.clear();
    }
    for count in [
        &mut info.state_count,
        &mut info.memory_count,
        &mut info.context_count,
        &mut info.skill_count,
        &mut info.file_count,
        &mut info.stream_count,
    ] {
        *count = 0;
    }
    (info.tasks, info.clock) = (TaskCounts::default(), None);
}
