//! What a feature of a mesh is, and the table that calls each of them: one line per feature.

use std::future::{Future, ready};
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_protocol::call::{Call, ServerBody};
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::id::{MemberId, MeshId};
use claudemesh_protocol::session::HelloAck;

use super::context::{FlushWanted, MeshContext};
use super::events::MeshEvent;
use super::outcome::{Failed, Lane, Outcome, Work, boxed};
use super::peers::PeerHandle;
use crate::blobs::{BlobError, Blobs};
use crate::db::MeshDb;
use crate::db::{Db, DbError};
pub use crate::features::Features;
use crate::journal::Batch;
use crate::quota::{Quota, Quotas};
use crate::refusal::Refusal;

/// One feature of a mesh: plain synchronous code on its own memory.
///
/// Every method but `handle` has a default that does nothing.
pub trait Feature: Sized + 'static {
    /// Name in metrics, logs and lanes; the folder's name.
    const NAME: &'static str;
    /// Its named bounds; the operator's file lists them.
    const QUOTAS: &'static [&'static Quota] = &[];
    /// What clients ask.
    type Request;
    /// What it remembers while the mesh is in memory: a cache of storage.
    type Memory: Default + Send + 'static;

    /// Registers its metrics, if it has some.
    fn register_metrics() {}

    /// Reads its memory from storage: at the first use of a mesh, after a crash, after a sleep.
    ///
    /// # Errors
    /// Storage; the mesh is not loaded then.
    fn load(storage: &MeshDb) -> impl Future<Output = Result<Self::Memory, DbError>> + Send {
        let _ = storage;
        ready(Ok(Self::Memory::default()))
    }

    /// Every feature is loaded: shares what others see of its memory.
    fn started(_memory: &mut Self::Memory, _cx: &mut MeshContext<'_>) {}

    /// Decides about one request; never waits.
    ///
    /// # Errors
    /// Becomes one `error` frame.
    fn handle(memory: &mut Self::Memory, cx: &mut MeshContext<'_>, request: Self::Request) -> Result<Outcome, Refusal>;

    /// Reacts to what happened.
    fn on_event(_memory: &mut Self::Memory, _cx: &mut MeshContext<'_>, _event: &MeshEvent) {}

    /// A time has come that it asked for with [`MeshContext::wake_at`].
    fn on_wake(_memory: &mut Self::Memory, _cx: &mut MeshContext<'_>, _key: &str) {}

    /// Adds what it has to write to a batch of the journal; keeps in its memory what it must know once that is on disk.
    fn collect(_memory: &mut Self::Memory, _cx: &mut MeshContext<'_>, _wanted: FlushWanted, _batch: &mut Batch) {}

    /// The batch of the last `collect` is on disk, or failed as a whole.
    fn committed(_memory: &mut Self::Memory, _cx: &mut MeshContext<'_>, _result: &Result<(), Refusal>) {}

    /// Whether nothing of it waits for storage, so that the mesh may leave memory.
    fn is_settled(_memory: &Self::Memory, _cx: &MeshContext<'_>) -> bool {
        true
    }

    /// Whether someone who has no connection waits for it, so that the mesh stays in memory.
    fn keeps_awake(_memory: &Self::Memory) -> bool {
        false
    }

    /// Adds its part to the answer of a hello.
    fn greet(_memory: &Self::Memory, _cx: &MeshContext<'_>, _peer: PeerHandle, _ack: &mut HelloAck) {}

    /// Adds its part to the overview of the mesh, as the caller may see it.
    fn describe(_memory: &Self::Memory, _cx: &MeshContext<'_>, _info: &mut MeshInfoResult) {}

    /// Adds to the overview what only storage knows, above all what a member and the mesh use of [`Feature::QUOTAS`]. Runs outside
    /// the mesh, after `describe`.
    ///
    /// # Errors
    /// Storage; the overview fails then.
    fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> impl Future<Output = Result<(), DbError>> + Send {
        let _ = (storage, member, quotas, info);
        ready(Ok(()))
    }

    /// Meshes in which it has something to do until a time (Unix milliseconds), whether anyone is there or not. The broker loads
    /// those that sleep. Asked every few seconds, over all meshes.
    ///
    /// # Errors
    /// Storage; it is asked again.
    fn due(db: &Db, until_ms: i64) -> impl Future<Output = Result<Vec<MeshId>, DbError>> + Send {
        let _ = (db, until_ms);
        ready(Ok(vec![]))
    }

    /// Once an hour, over all meshes of the broker: removes what no one will ask for again. Returns how much that was.
    ///
    /// # Errors
    /// Storage; it is tried again in a minute.
    fn upkeep(db: &Db, now_ms: i64) -> impl Future<Output = Result<usize, DbError>> + Send {
        let _ = (db, now_ms);
        ready(Ok(0))
    }

    /// With the upkeep, over all meshes of the broker: removes bytes that no row of it names. Returns how much that was.
    ///
    /// # Errors
    /// The store of the bytes, or storage; it is tried again with the next upkeep.
    fn sweep(db: &Db, blobs: &Blobs) -> impl Future<Output = Result<usize, BlobError>> + Send {
        let _ = (db, blobs);
        ready(Ok(0))
    }

    /// The answer of the handler of one request, as the mesh passes it on. The request's table says what it is.
    ///
    /// # Errors
    /// Those of the handler.
    fn answer<C: Call>(outcome: Result<Outcome<C::Answer>, Refusal>) -> Result<Outcome, Refusal> {
        outcome.map(Outcome::erase)
    }

    /// Slow work in a lane of this feature: `slow` runs outside the mesh, `then` is the step back in it, in lane order. A failure
    /// is told to the caller alone, and there is no step: for what leaves nothing behind in memory.
    fn work<T, E, A>(
        key: impl std::fmt::Display,
        slow: impl Future<Output = Result<T, E>> + Send + 'static,
        then: impl FnOnce(&mut Self::Memory, &mut MeshContext<'_>, T) -> Result<Outcome<A>, Refusal> + Send + 'static,
    ) -> Outcome<A>
    where
        T: Send + 'static,
        E: Into<Refusal>,
        A: ServerBody,
        Features: MemoryOf<Self>,
    {
        Self::work_in(Lane::of::<Self>(key), slow, then)
    }

    /// As [`Feature::work`], in a lane that is shared with others.
    fn work_in<T, E, A>(
        lane: Lane,
        slow: impl Future<Output = Result<T, E>> + Send + 'static,
        then: impl FnOnce(&mut Self::Memory, &mut MeshContext<'_>, T) -> Result<Outcome<A>, Refusal> + Send + 'static,
    ) -> Outcome<A>
    where
        T: Send + 'static,
        E: Into<Refusal>,
        A: ServerBody,
        Features: MemoryOf<Self>,
    {
        let future = boxed::<Self, _, _>(async move {
            let done = slow.await.map_err(Into::into)?;
            Ok(move |memory: &mut Self::Memory, cx: &mut MeshContext<'_>| then(memory, cx, done).map(Outcome::erase))
        });
        Outcome::Work(Work::new(lane, future))
    }

    /// As [`Feature::work_in`], with a step that always runs: also when storage failed, the work took too long, or it panicked.
    /// For what the mesh has in memory and storage may or may not have.
    fn work_or_failure<T, E, A>(
        lane: Lane,
        slow: impl Future<Output = Result<T, E>> + Send + 'static,
        then: impl FnOnce(&mut Self::Memory, &mut MeshContext<'_>, Result<T, Refusal>) -> Result<Outcome<A>, Refusal>
        + Send
        + 'static,
    ) -> Outcome<A>
    where
        T: Send + 'static,
        E: Into<Refusal>,
        A: ServerBody,
        Features: MemoryOf<Self>,
    {
        // Whichever end comes takes it.
        let then = Arc::new(Mutex::new(Some(then)));
        let failed = Arc::clone(&then);
        let future = boxed::<Self, _, _>(async move {
            let done = slow.await.map_err(Into::into);
            Ok(move |memory: &mut Self::Memory, cx: &mut MeshContext<'_>| run_once(&then, memory, cx, done))
        });
        let on_failure: Failed = Box::new(move |features, cx, refusal| {
            cx.enter(Self::NAME);
            run_once(&failed, MemoryOf::<Self>::memory(features), cx, Err(refusal))
        });
        Outcome::Work(Work { on_failure: Some(on_failure), ..Work::new(lane, future) })
    }
}

/// Runs a step, the first time.
fn run_once<M, T, A: ServerBody, F>(
    step: &Mutex<Option<F>>,
    memory: &mut M,
    cx: &mut MeshContext<'_>,
    done: Result<T, Refusal>,
) -> Result<Outcome, Refusal>
where
    F: FnOnce(&mut M, &mut MeshContext<'_>, Result<T, Refusal>) -> Result<Outcome<A>, Refusal>,
{
    match step.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(step) => step(memory, cx, done).map(Outcome::erase),
        None => Ok(Outcome::Silent),
    }
}

/// A feature's part of the memory of a mesh.
pub trait MemoryOf<F: Feature> {
    /// Its memory.
    fn memory(&mut self) -> &mut F::Memory;
}

/// Builds [`Features`] and everything that goes to each feature from the list in `features/mod.rs`.
#[macro_export]
macro_rules! feature_table {
    (routes { $($module:ident,)* } $($field:ident: $variant:ident => $feature:ty,)*) => {
        use $crate::mesh::dispatch::Feature as _;

        /// Memory of every feature of one mesh.
        #[derive(Default)]
        pub struct Features {
            $(#[allow(missing_docs)] pub $field: <$feature as $crate::mesh::dispatch::Feature>::Memory,)*
        }

        $(impl $crate::mesh::dispatch::MemoryOf<$feature> for Features {
            fn memory(&mut self) -> &mut <$feature as $crate::mesh::dispatch::Feature>::Memory {
                &mut self.$field
            }
        })*

        impl Features {
            /// Names of all features.
            pub(crate) const NAMES: &'static [&'static str] = &[$(<$feature>::NAME,)*];

            /// The named bounds of all features.
            pub(crate) fn quotas() -> Vec<&'static $crate::quota::Quota> {
                [$(<$feature>::QUOTAS,)*].concat()
            }

            /// Registers the metrics of all features: one that has counted nothing yet is shown as 0.
            pub(crate) fn register_metrics() {
                $(<$feature>::register_metrics();)*
            }

            /// The routes of all features.
            pub(crate) fn routes() -> Vec<&'static $crate::http::routes::Route> {
                [$($module::http::ROUTES,)*].into_iter().flatten().collect()
            }

            /// What the OpenAPI document says of the routes for API keys.
            pub(crate) fn operations() -> Vec<&'static $crate::http::openapi::Operation> {
                [$($module::http::OPERATIONS,)*].into_iter().flatten().collect()
            }

            /// Registers the routes of all features.
            pub(crate) fn configure(config: &mut actix_web::web::ServiceConfig) {
                $($module::http::configure(config);)*
            }

            /// Name of the feature that owns a request.
            pub(crate) fn owner(message: &claudemesh_protocol::message::ClientMessage) -> &'static str {
                match message {
                    $(claudemesh_protocol::message::ClientMessage::$variant(_) => <$feature>::NAME,)*
                    claudemesh_protocol::message::ClientMessage::Session(_) => "session",
                }
            }

            /// Reads the memory of every feature, all beside each other.
            pub(crate) async fn load(
                storage: &$crate::db::MeshDb,
            ) -> Result<Self, $crate::db::DbError> {
                let ($($field,)*) = tokio::try_join!($(Box::pin(<$feature>::load(storage)),)*)?;
                Ok(Self { $($field,)* })
            }

            /// Tells every feature that all are loaded.
            pub(crate) fn started(&mut self, cx: &mut $crate::mesh::context::MeshContext<'_>) {
                $(
                    cx.enter(<$feature>::NAME);
                    <$feature>::started(&mut self.$field, cx);
                )*
            }

            /// Hands a request to the feature that owns it.
            pub(crate) fn dispatch(
                &mut self, cx: &mut $crate::mesh::context::MeshContext<'_>,
                message: claudemesh_protocol::message::ClientMessage,
            ) -> Result<$crate::mesh::outcome::Outcome, $crate::refusal::Refusal> {
                let row = message.row();
                cx.check_key(&row)?;
                if let Some(needed) = row.needs {
                    cx.require(needed)?;
                }
                let outcome = match message {
                    $(claudemesh_protocol::message::ClientMessage::$variant(request) => {
                        cx.enter(<$feature>::NAME);
                        <$feature>::handle(&mut self.$field, cx, request)
                    })*
                    claudemesh_protocol::message::ClientMessage::Session(_) => {
                        Err(claudemesh_protocol::error::ErrorCode::AlreadyHello.into())
                    }
                };
                let outcome = match outcome {
                    Ok($crate::mesh::outcome::Outcome::Overview(step)) => step(self, cx),
                    outcome => outcome,
                };
                if row.silent && !cx.wants_confirmation() { outcome.map($crate::mesh::outcome::Outcome::silence) } else { outcome }
            }

            /// Tells every feature what happened.
            pub(crate) fn on_event(
                &mut self, cx: &mut $crate::mesh::context::MeshContext<'_>, event: &$crate::mesh::events::MeshEvent,
            ) {
                $(
                    cx.enter(<$feature>::NAME);
                    <$feature>::on_event(&mut self.$field, cx, event);
                )*
            }

            /// Wakes the feature of this name.
            pub(crate) fn on_wake(
                &mut self, cx: &mut $crate::mesh::context::MeshContext<'_>, feature: &'static str, key: &str,
            ) {
                cx.enter(feature);
                $(if feature == <$feature>::NAME {
                    return <$feature>::on_wake(&mut self.$field, cx, key);
                })*
            }

            /// Collects what every feature has to write.
            pub(crate) fn collect(
                &mut self, cx: &mut $crate::mesh::context::MeshContext<'_>,
                wanted: $crate::mesh::context::FlushWanted, batch: &mut $crate::journal::Batch,
            ) {
                $(
                    cx.enter(<$feature>::NAME);
                    <$feature>::collect(&mut self.$field, cx, wanted, batch);
                )*
            }

            /// Tells every feature what became of the batch.
            pub(crate) fn committed(
                &mut self, cx: &mut $crate::mesh::context::MeshContext<'_>,
                result: &Result<(), $crate::refusal::Refusal>,
            ) {
                $(
                    cx.enter(<$feature>::NAME);
                    <$feature>::committed(&mut self.$field, cx, result);
                )*
            }

            /// Whether nothing of any feature waits for storage.
            pub(crate) fn is_settled(&self, cx: &$crate::mesh::context::MeshContext<'_>) -> bool {
                true $(&& <$feature>::is_settled(&self.$field, cx))*
            }

            /// Whether someone who has no connection waits for any feature.
            pub(crate) fn keeps_awake(&self) -> bool {
                false $(|| <$feature>::keeps_awake(&self.$field))*
            }

            /// Adds the part of every feature to the answer of a hello.
            pub(crate) fn greet(
                &self, cx: &$crate::mesh::context::MeshContext<'_>, peer: $crate::mesh::peers::PeerHandle,
                ack: &mut claudemesh_protocol::session::HelloAck,
            ) {
                $(<$feature>::greet(&self.$field, cx, peer, ack);)*
            }

            /// Adds the part of every feature to the overview of the mesh.
            pub(crate) fn describe(
                &self, cx: &$crate::mesh::context::MeshContext<'_>,
                info: &mut claudemesh_protocol::features::info::MeshInfoResult,
            ) {
                $(<$feature>::describe(&self.$field, cx, info);)*
            }

            /// Adds what only storage knows to the overview, feature after feature.
            pub(crate) async fn describe_stored(
                storage: &$crate::db::MeshDb, member: &claudemesh_protocol::id::MemberId,
                quotas: &$crate::quota::Quotas, info: &mut claudemesh_protocol::features::info::MeshInfoResult,
            ) -> Result<(), $crate::db::DbError> {
                $(<$feature>::describe_stored(storage, member, quotas, info).await?;)*
                Ok(())
            }

            /// Meshes in which some feature has something to do until a time, each as often as features name it.
            pub(crate) async fn due(
                db: &$crate::db::Db, until_ms: i64,
            ) -> Result<Vec<claudemesh_protocol::id::MeshId>, $crate::db::DbError> {
                let mut all = Vec::new();
                $(all.extend(<$feature>::due(db, until_ms).await?);)*
                Ok(all)
            }

            /// Removes bytes that no row of any feature names.
            pub(crate) async fn sweep(db: &$crate::db::Db, blobs: &$crate::blobs::Blobs) {
                $(
                    match <$feature>::sweep(db, blobs).await {
                        Ok(0) => {}
                        Ok(removed) => tracing::info!(feature = <$feature>::NAME, removed, "bytes put in order"),
                        Err(error) => {
                            tracing::warn!(feature = <$feature>::NAME, error = %error, "bytes could not be put in order");
                        }
                    }
                )*
            }

            /// The hourly clean-up of every feature, over all meshes; `false` when one of them failed.
            pub(crate) async fn upkeep(db: &$crate::db::Db, now_ms: i64) -> bool {
                let mut fine = true;
                $(
                    match <$feature>::upkeep(db, now_ms).await {
                        Ok(0) => {}
                        Ok(removed) => tracing::info!(feature = <$feature>::NAME, removed, "old rows removed"),
                        Err(error) => {
                            tracing::warn!(feature = <$feature>::NAME, error = %error, "old rows could not be removed");
                            fine = false;
                        }
                    }
                )*
                fine
            }
        }
    };
}
