//! Telling the host that its lists of prompts and resources have changed: skills were shared or removed, or a mesh could not be
//! asked when the lists were made and is there now. No words for the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claudemesh_protocol::features::skills::SkillsChanged;
use claudemesh_protocol::session::HelloAck;

use crate::connection::Heard;
use crate::session::events::{OnEvent, OnWelcome};
use crate::session::{JoinedMesh, Session};

/// Changes within this time are told once: the host reads its lists anew each time.
const GATHER: Duration = Duration::from_millis(100);

/// What the host knows of the lists.
#[derive(Default)]
pub struct ListChanges {
    /// It is about to be told.
    telling: AtomicBool,
    /// It got a list that lacks a mesh.
    incomplete: AtomicBool,
}

impl ListChanges {
    /// A mesh could not be asked for a list that goes to the host.
    pub fn was_incomplete(&self) {
        self.incomplete.store(true, Ordering::SeqCst);
    }

    fn changed(session: &Arc<Session>) {
        if session.list_changes.telling.swap(true, Ordering::SeqCst) {
            return;
        }
        let session = Arc::clone(session);
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            // Before the host is told: what changes from here on is told again.
            session.list_changes.telling.store(false, Ordering::SeqCst);
            // A host that has not greeted has no list yet.
            let Some(host) = session.gate.host() else { return };
            // A host that is gone needs none.
            let _ = host.notify_prompt_list_changed().await;
            let _ = host.notify_resource_list_changed().await;
        });
    }
}

/// Passes changes on.
pub struct SkillChanges;

impl OnEvent for SkillChanges {
    type Event = SkillsChanged;

    /// What was changed does not matter, nor whether some of it was missed.
    fn on_event(session: &Arc<Session>, _: &JoinedMesh, _: Heard<SkillsChanged>) {
        ListChanges::changed(session);
    }
}

/// Completes lists.
#[derive(Default)]
pub struct LateMeshes;

impl OnWelcome for LateMeshes {
    async fn on_welcome(&mut self, session: &Arc<Session>, _: &JoinedMesh, _: &HelloAck) {
        if session.list_changes.incomplete.swap(false, Ordering::SeqCst) {
            ListChanges::changed(session);
        }
    }
}
