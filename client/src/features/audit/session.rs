//! A session compares the audit log with what was seen of it, each time the broker welcomes it.

use std::sync::Arc;

use claudemesh_protocol::session::HelloAck;

use crate::config::audit_heads::{self, Glance, HeadFault, extends, glance, kept};
use crate::session::events::OnWelcome;
use crate::session::notes::ChannelNote;
use crate::session::{JoinedMesh, Session};

/// What was told of one mesh.
#[derive(Default)]
pub struct LogWatch {
    told: Option<HeadFault>,
}

impl OnWelcome for LogWatch {
    async fn on_welcome(&mut self, session: &Arc<Session>, bound: &JoinedMesh, ack: &HelloAck) {
        let fault = match look(session, bound, ack).await {
            Ok(fault) => fault,
            Err(error) => {
                tracing::warn!(mesh.slug = bound.tag.slug, %error, "the audit log was not compared");
                return;
            }
        };
        if let Some(fault) = &fault {
            tracing::error!(mesh.slug = bound.tag.slug, %fault, "the audit log is not the one that was seen before");
            // Once, not with every reconnect.
            if self.told.as_ref() != Some(fault) {
                let text = format!(
                    "[audit] the log of this mesh is not the one that was seen before: {fault}. Tell the user; `claudemesh audit verify` checks it."
                );
                session.tell(bound, ChannelNote::of_mesh(&text, [("kind", "audit_fault".to_owned())], &bound.tag));
            }
        }
        self.told = fault;
    }
}

/// What does not fit, if anything; keeps a head that does.
async fn look(session: &Session, bound: &JoinedMesh, ack: &HelloAck) -> Result<Option<HeadFault>, String> {
    let Some(mut told) = audit_heads::told(ack) else { return Ok(None) };
    let mesh = bound.connection.identity().mesh_id.clone();
    let seen = session.store().seen_head(&mesh).map_err(|error| error.to_string())?;
    let fault = match glance(&mesh, seen.as_ref(), &told) {
        Glance::Fault(fault) => Some(fault),
        Glance::Extends => None,
        Glance::Longer => {
            let at = seen.as_ref().map(|seen| seen.seq);
            told = bound.connection.audit_heads(at).await.map_err(|error| error.to_string())?;
            extends(&mesh, seen.as_ref(), &told).err()
        }
    };
    let is_new = seen.is_none_or(|seen| seen.seq < told.head.seq);
    if fault.is_none() && is_new {
        session.store().keep_head(kept(&mesh, &told)).map_err(|error| error.to_string())?;
    }
    Ok(fault)
}
