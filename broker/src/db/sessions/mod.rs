//! `sessions`: what a returning session gets back, per session and never per member. `member_stats`: totals per member.

mod part;

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::presence::{PeerStatus, Profile, Stats};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::columns::{Json, Text};
use crate::db::schema::{member_stats, sessions};
use crate::db::{Db, DbError, MeshDb};
use crate::{with_conn, with_tx};

pub use part::{LastSeen, SessionsPart};

/// A session as remembered.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = sessions, treat_none_as_default_value = false)]
pub struct SessionRecord {
    /// Mesh.
    #[diesel(serialize_as = Text<MeshId>, deserialize_as = Text<MeshId>)]
    pub mesh_id: MeshId,
    /// Key of the session (the member key for sessions without one).
    #[diesel(serialize_as = Text<PublicKey>, deserialize_as = Text<PublicKey>)]
    pub session_key: PublicKey,
    /// Its member.
    #[diesel(serialize_as = Text<MemberId>, deserialize_as = Text<MemberId>)]
    pub member_id: MemberId,
    /// The client's session id.
    pub session_id: String,
    /// Effective name.
    pub display_name: String,
    /// Working directory.
    pub cwd: String,
    /// Host.
    pub hostname: Option<String>,
    /// Groups with roles.
    #[diesel(serialize_as = Json<Vec<Group>>, deserialize_as = Json<Vec<Group>>)]
    pub groups: Vec<Group>,
    /// Profile.
    #[diesel(serialize_as = Json<Profile>, deserialize_as = Json<Profile>)]
    pub profile: Profile,
    /// Whether lists and audiences include it.
    pub visible: bool,
    /// What it works on.
    pub summary: Option<String>,
    /// Status when it was last seen.
    #[diesel(serialize_as = Text<PeerStatus>, deserialize_as = Text<PeerStatus>)]
    pub status: PeerStatus,
    /// Its own counters.
    #[diesel(serialize_as = Json<Stats>, deserialize_as = Json<Stats>)]
    pub stats: Stats,
    /// Unix milliseconds; kept from the first time it was stored.
    pub first_seen_at_ms: i64,
    /// Unix milliseconds.
    pub last_seen_at_ms: i64,
    /// Whether its key was proved once; then only a proof opens it again.
    pub proven: bool,
    /// The name that its client brings along, when it was renamed.
    pub renamed_from: Option<String>,
}

/// What an upsert takes over from the new row: everything but the key and `first_seen_at_ms`. A macro, because the type
/// of the expression has no short name.
macro_rules! session_changes {
    ($($column:ident),+) => {
        ($($crate::db::schema::sessions::$column.eq(diesel::upsert::excluded($crate::db::schema::sessions::$column)),)+)
    };
    () => {
        $crate::db::sessions::session_changes!(
            member_id, session_id, display_name, cwd, hostname, groups, profile, visible, summary, status, stats,
            last_seen_at_ms, proven, renamed_from
        )
    };
}
pub(crate) use session_changes;

/// One remembered session.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb, key: &PublicKey) -> Result<Option<SessionRecord>, DbError> {
    let key = key.to_hex();
    Ok(with_conn!(db.db(), |conn| sessions::table
        .find((db.mesh().as_str(), &key))
        .select(SessionRecord::as_select())
        .first(conn)
        .await
        .optional()?))
}

/// Sessions seen since a time, the latest first: a message may still wait for them.
///
/// # Errors
/// Storage fails.
pub async fn load_known(db: &MeshDb, since_ms: i64) -> Result<Vec<SessionRecord>, DbError> {
    Ok(with_conn!(db.db(), |conn| sessions::table
        .filter(sessions::mesh_id.eq(db.mesh().as_str()))
        .filter(sessions::last_seen_at_ms.ge(since_ms))
        .order((sessions::last_seen_at_ms.desc(), sessions::session_key))
        .select(SessionRecord::as_select())
        .load(conn)
        .await?))
}

/// Forgets sessions that were not seen since a time; returns how many.
///
/// # Errors
/// Storage fails.
pub async fn forget_before(db: &Db, before_ms: i64) -> Result<usize, DbError> {
    // Unaudited: upkeep.
    Ok(with_tx!(db, |conn| diesel::delete(sessions::table.filter(sessions::last_seen_at_ms.lt(before_ms)))
        .execute(conn)
        .await?))
}

/// Forgets these sessions of a mesh.
///
/// # Errors
/// Storage fails; what was done stays done.
pub async fn forget(db: &MeshDb, keys: &[PublicKey]) -> Result<(), DbError> {
    for chunk in keys.chunks(500) {
        let keys: Vec<String> = chunk.iter().map(PublicKey::to_hex).collect();
        // Unaudited: what a session left behind is no shared thing.
        with_tx!(db.db(), |conn| diesel::delete(
            sessions::table
                .filter(sessions::mesh_id.eq(db.mesh().as_str()))
                .filter(sessions::session_key.eq_any(&keys))
        )
        .execute(conn)
        .await?);
    }
    Ok(())
}

/// An increment of a member's totals: what happened since the last one, so that reconnecting counts nothing twice.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = member_stats, treat_none_as_default_value = false)]
pub struct StatsDelta {
    /// Mesh.
    #[diesel(serialize_as = Text<MeshId>, deserialize_as = Text<MeshId>)]
    pub mesh_id: MeshId,
    /// Member.
    #[diesel(serialize_as = Text<MemberId>, deserialize_as = Text<MemberId>)]
    pub member_id: MemberId,
    /// Messages received.
    pub messages_in: i64,
    /// Messages sent.
    pub messages_out: i64,
    /// Tool calls.
    pub tool_calls: i64,
    /// Failed tool calls.
    pub errors: i64,
}

/// Totals of one member.
pub type MemberTotals = StatsDelta;

/// Totals of every member of a mesh that has any, by member id.
///
/// # Errors
/// Storage fails.
pub async fn totals(db: &MeshDb) -> Result<Vec<MemberTotals>, DbError> {
    Ok(with_conn!(db.db(), |conn| member_stats::table
        .filter(member_stats::mesh_id.eq(db.mesh().as_str()))
        .order(member_stats::member_id)
        .select(MemberTotals::as_select())
        .load(conn)
        .await?))
}

/// When the latest session of a mesh was seen; `None` when there never was one.
///
/// # Errors
/// Storage fails.
pub async fn newest_seen(db: &MeshDb) -> Result<Option<i64>, DbError> {
    Ok(with_conn!(db.db(), |conn| sessions::table
        .filter(sessions::mesh_id.eq(db.mesh().as_str()))
        .select(diesel::dsl::max(sessions::last_seen_at_ms))
        .first::<Option<i64>>(conn)
        .await?))
}

#[cfg(test)]
mod tests;
