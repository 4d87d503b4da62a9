//! The feature table: one line per feature builds memory, dispatch and event delivery.

use super::context::MeshContext;
use super::events::MeshEvent;
use super::outcome::Outcome;
use crate::features::messaging::MessagingMemory;
use crate::refusal::Refusal;

/// One feature of a mesh: plain synchronous code on its own memory.
pub trait Feature: Sized + 'static {
    /// Name in metrics and logs; the folder's name.
    const NAME: &'static str;
    /// What clients ask.
    type Request;
    /// What it remembers while the mesh is in memory.
    type Memory;

    /// Its part of the mesh's memory.
    fn memory(features: &mut Features) -> &mut Self::Memory;

    /// Decides about one request; never waits.
    ///
    /// # Errors
    /// Becomes one `error` frame.
    fn handle(memory: &mut Self::Memory, cx: &mut MeshContext<'_>, request: Self::Request) -> Result<Outcome, Refusal>;

    /// Reacts to what happened.
    fn on_event(_memory: &mut Self::Memory, _cx: &mut MeshContext<'_>, _event: &MeshEvent) {}
}

/// Builds [`Features`] and the dispatch from the list in `features/mod.rs`.
#[macro_export]
macro_rules! feature_table {
    ($($field:ident: $variant:ident => $feature:ty,)*) => {
        /// Memory of every feature of one mesh.
        pub struct Features {
            $(#[allow(missing_docs)] pub $field: <$feature as $crate::mesh::dispatch::Feature>::Memory,)*
        }

        impl Features {
            /// Names of all features.
            pub(crate) const NAMES: &'static [&'static str] =
                &[$(<$feature as $crate::mesh::dispatch::Feature>::NAME,)*];

            /// Hands a request to the feature that owns it.
            pub(crate) fn dispatch(
                &mut self, cx: &mut $crate::mesh::context::MeshContext<'_>,
                message: claudemesh_protocol::message::ClientMessage,
            ) -> (&'static str, Result<$crate::mesh::outcome::Outcome, $crate::refusal::Refusal>) {
                use $crate::mesh::dispatch::Feature;
                match message {
                    $(claudemesh_protocol::message::ClientMessage::$variant(request) => (
                        <$feature>::NAME,
                        <$feature>::handle(&mut self.$field, cx, request),
                    ),)*
                    claudemesh_protocol::message::ClientMessage::Session(_) => (
                        "session",
                        Err($crate::refusal::Refusal::new(
                            claudemesh_protocol::error::ErrorCode::AlreadyHello,
                            "this socket has said hello before",
                        )),
                    ),
                }
            }

            /// Tells every feature.
            pub(crate) fn on_event(
                &mut self, cx: &mut $crate::mesh::context::MeshContext<'_>, event: &$crate::mesh::events::MeshEvent,
            ) {
                use $crate::mesh::dispatch::Feature;
                $(<$feature>::on_event(&mut self.$field, cx, event);)*
            }
        }
    };
}

pub use crate::features::Features;

impl Features {
    /// Memory of a mesh: only messaging has any that is loaded.
    pub fn new(messaging: MessagingMemory) -> Self {
        Self { messaging, presence: (), groups: (), topics: (), info: (), moderation: () }
    }
}
