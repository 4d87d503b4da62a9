//! Finds the actor of a mesh: started on first use, started again when it died, forgotten when it went to sleep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle};
use claudemesh_protocol::call::{Call, ServerBody};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::presence::HookSetStatus;
use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::message::{ClientMessage, Failure, ServerMessage};
use tokio::sync::Mutex as AsyncMutex;

use super::actor::Mesh;
use super::context::{Core, Shared};
use super::dispatch::Features;
use super::load::{self, Found};
use super::messages::{Drain, HookStatus, ReloadMembers, Request, Snapshot};
use super::principal::{Answer, Principal, Waiting};
use crate::refusal::Refusal;
use crate::session::CloseReason;

/// Longest wait for the answer to a request of someone without a socket: longer than work may take.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(40);
/// Pause before a mesh that is going to sleep is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A loaded mesh, or the turn of the caller that loads it.
type Slot = Arc<AsyncMutex<Option<Addr<Mesh>>>>;

/// The threads that meshes run on, added as the workers start.
#[derive(Clone, Default)]
pub struct Arbiters {
    handles: Arc<Mutex<Vec<ArbiterHandle>>>,
}

impl Arbiters {
    /// One more thread.
    pub fn add(&self, handle: ArbiterHandle) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    fn pick(&self, id: &MeshId) -> Option<ArbiterHandle> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let sum: usize = id.as_str().bytes().map(usize::from).sum();
        handles.get(sum % handles.len().max(1)).cloned()
    }
}

struct Inner {
    shared: Shared,
    arbiters: Arbiters,
    slots: Mutex<HashMap<MeshId, Slot>>,
    closing: std::sync::atomic::AtomicBool,
}

/// Handle of the directory. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

/// Connected sessions of a member, for HTTP lists.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Member key.
    pub member_key: PublicKey,
    /// Whether a socket is open.
    pub online: bool,
}

impl Directory {
    /// A directory whose meshes run on the given arbiters.
    pub fn new(shared: Shared, arbiters: Arbiters) -> Self {
        let inner = Inner { shared, arbiters, slots: Mutex::default(), closing: false.into() };
        Self { inner: Arc::new(inner) }
    }

    fn slot(&self, id: &MeshId) -> Slot {
        let mut slots = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(id.clone()).or_default())
    }

    /// The mesh's actor, loaded when it is not in memory.
    ///
    /// # Errors
    /// `unauthorized` when there is no such mesh (who is not a member learns nothing), `mesh_archived`, or storage.
    pub async fn get(&self, id: &MeshId) -> Result<Addr<Mesh>, Refusal> {
        if self.inner.closing.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(ErrorCode::ShuttingDown.into());
        }
        if id.as_str().is_empty() || id.as_str().len() > 64 {
            return Err(ErrorCode::Unauthorized.into());
        }
        let slot = self.slot(id);
        // One loader per mesh; the others wait for it. Other meshes are not held up.
        let mut turn = slot.lock().await;
        if let Some(mesh) = turn.as_ref().filter(|mesh| mesh.connected()) {
            return Ok(mesh.clone());
        }
        let loaded = match load::load(&self.inner.shared.db, id).await {
            Ok(Found::Mesh(loaded)) => Ok(loaded),
            Ok(Found::Archived) => Err(ErrorCode::MeshArchived.into()),
            Ok(Found::Deleted) => Err(ErrorCode::MeshDeleted.into()),
            Ok(Found::Nothing) => Err(ErrorCode::Unauthorized.into()),
            Err(error) => Err(error.into()),
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(refusal) => {
                drop(turn);
                drop(slot);
                self.forget_if_empty(id);
                return Err(refusal);
            }
        };
        let (shared, directory) = (self.inner.shared.clone(), self.clone());
        let arbiter = self.inner.arbiters.pick(id).ok_or(ErrorCode::ShuttingDown)?;
        let mesh = Mesh::start_in_arbiter(&arbiter, move |_| Mesh::new(*loaded, shared, directory));
        *turn = Some(mesh.clone());
        Ok(mesh)
    }

    fn forget_if_empty(&self, id: &MeshId) {
        let mut slots = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // No one else holds the slot and it is empty: a guess at mesh ids must not grow the map.
        if slots
            .get(id)
            .is_some_and(|slot| Arc::strong_count(slot) == 1 && slot.try_lock().is_ok_and(|mesh| mesh.is_none()))
        {
            slots.remove(id);
        }
    }

    /// The mesh's actor if it is in memory.
    pub async fn loaded(&self, id: &MeshId) -> Option<Addr<Mesh>> {
        let slot = {
            let slots = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.get(id).cloned()
        }?;
        let turn = slot.lock().await;
        turn.as_ref().filter(|mesh| mesh.connected()).cloned()
    }

    /// Forgets a mesh that goes to sleep or died; the next use loads it anew.
    pub async fn retire(&self, id: &MeshId) {
        let slot = self.slot(id);
        *slot.lock().await = None;
        drop(slot);
        self.forget_if_empty(id);
    }

    /// Runs a read or change inside a mesh that is in memory; `None` when it is not.
    pub async fn with_loaded<T: Send + 'static>(
        &self,
        id: &MeshId,
        run: impl FnOnce(&mut Core, &mut Features) -> T + Send + 'static,
    ) -> Option<T> {
        let mesh = self.loaded(id).await?;
        let (done, result) = tokio::sync::oneshot::channel();
        let snapshot = Snapshot(Box::new(move |core, features| drop(done.send(run(core, features)))));
        mesh.send(snapshot).await.ok()?;
        result.await.ok()
    }

    /// Runs a read or change inside a mesh, which is loaded if it sleeps.
    ///
    /// # Errors
    /// Those of [`Directory::get`], or the mesh ended meanwhile.
    pub async fn with<T: Send + 'static>(
        &self,
        id: &MeshId,
        run: impl FnOnce(&mut Core, &mut Features) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.get(id).await?;
        self.with_loaded(id, run).await.ok_or_else(|| ErrorCode::Busy.into())
    }

    /// Runs a request of someone without a socket, as a frame is run: in the mesh, which is loaded if it sleeps, with the same
    /// capability check, quotas and audit entries. A silent request is confirmed.
    ///
    /// # Errors
    /// Those of the request, of [`Directory::get`], `revoked` when the member is banned, `timeout` after
    /// [`REQUEST_DEADLINE`]: then a change may be made all the same.
    pub async fn request<C: Call>(&self, mesh: &MeshId, from: Principal, request: C) -> Result<C::Answer, Refusal> {
        let answer = tokio::time::timeout(REQUEST_DEADLINE, self.answered(mesh, from, request.into()));
        let late = || Refusal::new(ErrorCode::Timeout, "the mesh took too long; a change may be made all the same");
        match answer.await.unwrap_or_else(|_| Err(late()))? {
            ServerMessage::Failure(Failure::Error(frame)) => Err(frame.into()),
            answer => C::Answer::from_message(answer).map_err(|other| {
                Refusal::fault(ErrorCode::Internal, format!("`{}` was answered by `{}`", C::TAG, other.tag()))
            }),
        }
    }

    async fn answered(&self, mesh: &MeshId, from: Principal, message: ClientMessage) -> Answer {
        let (waiting, answer) = Waiting::new(from.clone());
        let mut request = Request { from, message, waiting };
        loop {
            let Ok(given) = self.get(mesh).await?.send(request).await else { break };
            match given {
                Ok(()) => break,
                // It is going to sleep: the directory starts it anew.
                Err(back) => request = *back,
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let lost = |_| Refusal::fault(ErrorCode::Internal, "the mesh ended before it gave an answer");
        answer.await.unwrap_or_else(|error| Err(lost(error)))
    }

    /// Takes over member rows that HTTP changed: joins, edits, grants, settings.
    pub async fn reload_members(&self, id: &MeshId) {
        if let Some(mesh) = self.loaded(id).await {
            // A mesh that ends meanwhile is loaded anew, with its members.
            let _ = mesh.send(ReloadMembers).await;
        }
    }

    /// Ends a mesh that was archived or deleted: its sockets close with the reason, it leaves memory.
    pub async fn end(&self, id: &MeshId, reason: CloseReason) {
        if let Some(mesh) = self.loaded(id).await {
            let _ = mesh.send(Drain(reason)).await;
        }
        self.retire(id).await;
    }

    /// Sessions of a mesh, for HTTP lists; empty when the mesh is not in memory.
    pub async fn roster(&self, id: &MeshId) -> Vec<PeerView> {
        self.with_loaded(id, |core, _| {
            core.roster
                .iter()
                .filter(|peer| !peer.ephemeral)
                .map(|peer| PeerView { member_key: peer.member_key, online: peer.online() })
                .collect()
        })
        .await
        .unwrap_or_default()
    }

    /// Applies a hook's status in every mesh that has sessions of its token; answers the presences that changed.
    pub async fn hook_status(&self, token_hash: &str, status: &HookSetStatus) -> Vec<String> {
        let mut changed = Vec::new();
        for id in self.inner.shared.hooks.meshes_of(token_hash) {
            if let Some(mesh) = self.loaded(&id).await {
                let message = HookStatus { token_hash: token_hash.into(), status: status.clone() };
                changed.extend(mesh.send(message).await.unwrap_or_default());
            }
        }
        if changed.is_empty() {
            let mono = self.inner.shared.clock.mono_ms();
            self.inner.shared.hooks.park(token_hash.into(), status.clone(), mono);
        }
        changed
    }

    /// Ids of the meshes in memory.
    pub fn ids(&self) -> Vec<MeshId> {
        let slots = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.keys().cloned().collect()
    }

    /// Drains every mesh: sockets close with 1001, everything pending is written. New hellos are refused.
    pub async fn drain(&self) {
        self.inner.closing.store(true, std::sync::atomic::Ordering::Relaxed);
        let drains = self.ids().into_iter().map(|id| async move {
            if let Some(mesh) = self.loaded(&id).await {
                let _ = mesh.send(Drain(CloseReason::ShuttingDown)).await;
            }
        });
        futures_util::future::join_all(drains).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::testing::TestMesh;

    #[actix_rt::test]
    async fn guesses_at_mesh_ids_leave_nothing_behind() {
        // Kept, with its folder, until the end.
        let mesh = TestMesh::new().await;
        let core = mesh.core;
        let shared = Shared {
            clock: core.clock,
            db: core.db,
            journal: core.journal,
            audit: core.audit,
            limits: core.limits,
            connections: core.connections,
            hooks: core.hooks,
            blobs: core.blobs,
            hosting: core.hosting,
        };
        let directory = Directory::new(shared, Arbiters::default());
        for number in 0..100 {
            let guess = MeshId::from(format!("guess-{number}"));
            assert_eq!(directory.get(&guess).await.err().map(|refusal| refusal.code), Some(ErrorCode::Unauthorized));
        }
        assert_eq!(directory.ids().len(), 0);
    }
}
