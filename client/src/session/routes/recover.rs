//! What a process of this session took and did not show, because it was ended in between.

use std::collections::HashMap;

use claudemesh_protocol::features::messaging::Stage;

use super::{CHANNEL, HOOK, MONITOR, PULL, REWAKE, SHELL, SOCKET, STOP, transcript};
use crate::features::questions::wait;
use crate::inbox::InboxError;
use crate::session::{JoinedMesh, Session};

/// Routes that say of each message whether it was handed over.
const ROUTES: [&str; 9] = [CHANNEL, HOOK, STOP, REWAKE, MONITOR, SOCKET, PULL, SHELL, wait::ROUTE];

/// Gives claims back that no one settles any more, so that another route shows the messages; those that stand in the
/// host's transcript were shown.
///
/// # Errors
/// [`InboxError`]
pub async fn claims(session: &Session, bound: &JoinedMesh) -> Result<(), InboxError> {
    // A pull that is under way settles its own.
    let _pulling = bound.pull_lock.lock().await;
    let (reader, now) = (bound.reader(), crate::clock::now_ms());
    let stale = bound.mailbox.run(move |inbox| inbox.stale_claims(&reader, &ROUTES, now)).await?;
    if stale.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = stale.iter().map(|message| message.message_id.clone()).collect();
    let shown = match session.routes.transcript() {
        Some(path) => tokio::task::spawn_blocking(move || transcript::read(&path, &ids).1).await.unwrap_or_default(),
        None => HashMap::new(),
    };
    let (there, lost): (Vec<_>, Vec<_>) =
        stale.into_iter().partition(|message| shown.contains_key(&message.message_id));
    tracing::warn!(
        mesh.slug = bound.tag.slug,
        shown = there.len(),
        lost = lost.len(),
        "messages were taken by a process that ended"
    );
    let seqs = |list: Vec<crate::inbox::Message>| list.into_iter().map(|message| message.seq).collect::<Vec<i64>>();
    let (there, lost, reader) = (seqs(there), seqs(lost), bound.reader());
    bound
        .mailbox
        .run(move |inbox| {
            inbox.set_stage(&reader, &there, Stage::Handed)?;
            inbox.unclaim(&reader, &lost)
        })
        .await?;
    session.routes.touch();
    Ok(())
}
