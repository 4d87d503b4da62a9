//! Who may do what, written a second time for the tests of frames and of routes.

use claudemesh_protocol::capability::Capability;

use crate::db::members::Role;

/// What a capability says beside the role.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Word {
    Nothing,
    Own(bool),
    Start(bool),
    /// The first is the member's own, the second the start's.
    Both(bool, bool),
}

pub(crate) const WORDS: [Word; 9] = [
    Word::Nothing,
    Word::Own(true),
    Word::Own(false),
    Word::Start(true),
    Word::Start(false),
    Word::Both(true, true),
    Word::Both(true, false),
    Word::Both(false, true),
    Word::Both(false, false),
];

/// The table of docs/capabilities.md, written a second time.
pub(crate) fn model(role: Role, word: Word, capability: Capability) -> bool {
    let by_role = match role {
        Role::Owner => return true,
        Role::Admin => capability != Capability::CanDeleteMesh,
        Role::Member => [
            "canSend",
            "canUseTools",
            "canWriteState",
            "canReadShared",
            "canSchedule",
            "canRunSql",
            "canRunGraph",
            "canDeployMcp",
        ]
        .contains(&capability.as_str()),
    };
    match (word, role) {
        (Word::Own(own) | Word::Both(own, _), _) => own,
        (Word::Start(start), Role::Member) => start,
        (Word::Start(_), _) | (Word::Nothing, _) => by_role,
    }
}
