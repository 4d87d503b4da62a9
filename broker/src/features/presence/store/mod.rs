//! `sessions`: what a returning session gets back, per session and never per member. `member_stats`: totals per member.

mod part;

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::presence::{PeerStatus, Profile, Stats};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::{member_stats, sessions};
use crate::db::{Db, DbError, MeshDb, convert};
use crate::{with_conn, with_tx};

pub use part::{LastSeen, PresencePart};

/// A session as remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// Mesh.
    pub mesh_id: MeshId,
    /// Key of the session (the member key for sessions without one).
    pub session_key: PublicKey,
    /// Its member.
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
    pub groups: Vec<Group>,
    /// Profile.
    pub profile: Profile,
    /// Whether lists and audiences include it.
    pub visible: bool,
    /// What it works on.
    pub summary: Option<String>,
    /// Status when it was last seen.
    pub status: PeerStatus,
    /// Its own counters.
    pub stats: Stats,
    /// Unix milliseconds; kept from the first time it was stored.
    pub first_seen_at_ms: i64,
    /// Unix milliseconds.
    pub last_seen_at_ms: i64,
    /// Whether its key was proved once; then only a proof opens it again.
    pub proven: bool,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = sessions, treat_none_as_default_value = false)]
pub(crate) struct SessionRow {
    mesh_id: String,
    session_key: String,
    member_id: String,
    session_id: String,
    display_name: String,
    cwd: String,
    hostname: Option<String>,
    groups: String,
    profile: String,
    visible: bool,
    summary: Option<String>,
    status: String,
    stats: String,
    first_seen_at_ms: i64,
    last_seen_at_ms: i64,
    proven: bool,
}

impl From<&SessionRecord> for SessionRow {
    fn from(session: &SessionRecord) -> Self {
        Self {
            mesh_id: session.mesh_id.to_string(),
            session_key: session.session_key.to_hex(),
            member_id: session.member_id.to_string(),
            session_id: session.session_id.clone(),
            display_name: session.display_name.clone(),
            cwd: session.cwd.clone(),
            hostname: session.hostname.clone(),
            groups: convert::to_json(&session.groups),
            profile: convert::to_json(&session.profile),
            visible: session.visible,
            summary: session.summary.clone(),
            status: session.status.as_str().into(),
            stats: convert::to_json(&session.stats),
            first_seen_at_ms: session.first_seen_at_ms,
            last_seen_at_ms: session.last_seen_at_ms,
            proven: session.proven,
        }
    }
}

impl TryFrom<SessionRow> for SessionRecord {
    type Error = DbError;

    fn try_from(row: SessionRow) -> Result<Self, DbError> {
        Ok(Self {
            session_key: convert::key("sessions.session_key", &row.session_key)?,
            groups: convert::from_json("sessions.groups", &row.groups)?,
            profile: convert::from_json("sessions.profile", &row.profile)?,
            status: convert::status("sessions.status", &row.status)?,
            stats: convert::from_json("sessions.stats", &row.stats)?,
            mesh_id: row.mesh_id.into(),
            member_id: row.member_id.into(),
            session_id: row.session_id,
            display_name: row.display_name,
            cwd: row.cwd,
            hostname: row.hostname,
            visible: row.visible,
            summary: row.summary,
            first_seen_at_ms: row.first_seen_at_ms,
            last_seen_at_ms: row.last_seen_at_ms,
            proven: row.proven,
        })
    }
}

/// What an upsert takes over from the new row: everything but the key and `first_seen_at_ms`. A macro, because the type
/// of the expression has no short name.
macro_rules! session_changes {
    ($($column:ident),+) => {
        ($($crate::features::presence::schema::sessions::$column.eq(diesel::upsert::excluded($crate::features::presence::schema::sessions::$column)),)+)
    };
    () => {
        $crate::features::presence::store::session_changes!(
            member_id, session_id, display_name, cwd, hostname, groups, profile, visible, summary, status, stats,
            last_seen_at_ms, proven
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
    let row = with_conn!(db.db(), |conn| sessions::table
        .find((db.mesh().as_str(), &key))
        .select(SessionRow::as_select())
        .first(conn)
        .await
        .optional()?);
    row.map(TryInto::try_into).transpose()
}

/// Sessions seen since a time, the latest first: whom a message may still wait for.
///
/// # Errors
/// Storage fails.
pub async fn load_known(db: &MeshDb, since_ms: i64) -> Result<Vec<SessionRecord>, DbError> {
    let rows = with_conn!(db.db(), |conn| sessions::table
        .filter(sessions::mesh_id.eq(db.mesh().as_str()))
        .filter(sessions::last_seen_at_ms.ge(since_ms))
        .order((sessions::last_seen_at_ms.desc(), sessions::session_key))
        .select(SessionRow::as_select())
        .load(conn)
        .await?);
    rows.into_iter().map(TryInto::try_into).collect()
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
#[derive(Clone, Debug, PartialEq)]
pub struct StatsDelta {
    /// Mesh.
    pub mesh_id: MeshId,
    /// Member.
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

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = member_stats)]
pub(crate) struct StatsRow {
    mesh_id: String,
    member_id: String,
    messages_in: i64,
    messages_out: i64,
    tool_calls: i64,
    errors: i64,
}

impl From<&StatsDelta> for StatsRow {
    fn from(delta: &StatsDelta) -> Self {
        Self {
            mesh_id: delta.mesh_id.to_string(),
            member_id: delta.member_id.to_string(),
            messages_in: delta.messages_in,
            messages_out: delta.messages_out,
            tool_calls: delta.tool_calls,
            errors: delta.errors,
        }
    }
}

impl From<StatsRow> for MemberTotals {
    fn from(row: StatsRow) -> Self {
        Self {
            mesh_id: row.mesh_id.into(),
            member_id: row.member_id.into(),
            messages_in: row.messages_in,
            messages_out: row.messages_out,
            tool_calls: row.tool_calls,
            errors: row.errors,
        }
    }
}

/// Totals of every member of a mesh that has any, by member id.
///
/// # Errors
/// Storage fails.
pub async fn totals(db: &MeshDb) -> Result<Vec<MemberTotals>, DbError> {
    let rows = with_conn!(db.db(), |conn| member_stats::table
        .filter(member_stats::mesh_id.eq(db.mesh().as_str()))
        .order(member_stats::member_id)
        .select(StatsRow::as_select())
        .load(conn)
        .await?);
    Ok(rows.into_iter().map(Into::into).collect())
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
