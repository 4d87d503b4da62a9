//! Reading a chain: page by page, and from its beginning to find where it broke.

use claudemesh_protocol::crypto::audit::GENESIS;
use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::hashed;
use super::schema::audit_log;
use crate::db::columns::OptionalText;
use crate::db::{DbError, MeshDb};
use crate::with_conn;

/// Entries in one page of [`query`].
pub const MAX_PAGE: u32 = 200;
/// Entries that [`verify`] has in memory at once.
const VERIFIED_AT_ONCE: i64 = 500;

/// An entry as stored.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = audit_log)]
pub struct AuditEntry {
    /// Place in the chain, from 1, without gaps.
    pub seq: i64,
    /// Hash of the entry before; `genesis` for the first.
    pub prev_hash: String,
    /// SHA-256, lower-case hex.
    pub hash: String,
    /// What happened.
    pub event_type: String,
    /// Member who did it.
    #[diesel(deserialize_as = OptionalText<MemberId>)]
    pub actor_member_id: Option<MemberId>,
    /// Canonical JSON.
    pub payload: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What [`query`] looks for; nothing set is everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// One kind of event.
    pub event: Option<String>,
    /// One member's doings.
    pub actor: Option<MemberId>,
    /// Only entries before this place: the last one of the page before.
    pub before_seq: Option<i64>,
    /// Entries to leave out first.
    pub skip: u32,
}

/// The end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Place of the last entry; 0 for an empty chain.
    pub seq: i64,
    /// Its hash; `genesis` for an empty chain.
    pub hash: String,
}

impl Head {
    /// Before the first entry.
    pub fn genesis() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Entries that are right, from the first one.
    pub entries: i64,
    /// Place of the first entry that is missing, changed or does not follow; `None` for a whole chain.
    pub broken_at: Option<i64>,
    /// The end of what is right.
    pub head: Head,
}

/// Entries, newest first, at most `limit` and [`MAX_PAGE`].
///
/// # Errors
/// Storage fails.
pub async fn query(db: &MeshDb, filter: &Filter, limit: u32) -> Result<Vec<AuditEntry>, DbError> {
    Ok(with_conn!(db.db(), |conn| {
        let mut rows = audit_log::table
            .filter(audit_log::mesh_id.eq(db.mesh().as_str()))
            .filter(audit_log::seq.lt(filter.before_seq.unwrap_or(i64::MAX)))
            .select(AuditEntry::as_select())
            .order(audit_log::seq.desc())
            .limit(i64::from(limit.min(MAX_PAGE)))
            .offset(i64::from(filter.skip))
            .into_boxed();
        if let Some(event) = &filter.event {
            rows = rows.filter(audit_log::event_type.eq(event));
        }
        if let Some(actor) = &filter.actor {
            rows = rows.filter(audit_log::actor_member_id.eq(actor.as_str()));
        }
        rows.load(conn).await?
    }))
}

/// How many entries a filter takes, its page left out of account.
///
/// # Errors
/// Storage fails.
pub async fn count(db: &MeshDb, filter: &Filter) -> Result<i64, DbError> {
    Ok(with_conn!(db.db(), |conn| {
        let mut rows = audit_log::table.filter(audit_log::mesh_id.eq(db.mesh().as_str())).count().into_boxed();
        if let Some(event) = &filter.event {
            rows = rows.filter(audit_log::event_type.eq(event));
        }
        if let Some(actor) = &filter.actor {
            rows = rows.filter(audit_log::actor_member_id.eq(actor.as_str()));
        }
        rows.get_result(conn).await?
    }))
}

/// Entries behind a place, oldest first, at most `limit` and [`MAX_PAGE`].
///
/// # Errors
/// Storage fails.
pub async fn page(db: &MeshDb, after: i64, limit: u32) -> Result<Vec<AuditEntry>, DbError> {
    Ok(with_conn!(db.db(), |conn| audit_log::table
        .filter(audit_log::mesh_id.eq(db.mesh().as_str()))
        .filter(audit_log::seq.gt(after))
        .order(audit_log::seq)
        .limit(i64::from(limit.min(MAX_PAGE)))
        .select(AuditEntry::as_select())
        .load(conn)
        .await?))
}

/// Hash of the entry at a place; `None` when the log is shorter.
///
/// # Errors
/// Storage fails.
pub async fn hash_at(db: &MeshDb, seq: i64) -> Result<Option<String>, DbError> {
    Ok(with_conn!(db.db(), |conn| audit_log::table
        .find((db.mesh().as_str(), seq))
        .select(audit_log::hash)
        .first(conn)
        .await
        .optional()?))
}

/// The end of the chain, as it is stored.
///
/// # Errors
/// Storage fails.
pub async fn head(db: &MeshDb) -> Result<Head, DbError> {
    let found: Option<(i64, String)> = with_conn!(db.db(), |conn| audit_log::table
        .filter(audit_log::mesh_id.eq(db.mesh().as_str()))
        .order(audit_log::seq.desc())
        .select((audit_log::seq, audit_log::hash))
        .first(conn)
        .await
        .optional()?);
    Ok(found.map_or_else(Head::genesis, |(seq, hash)| Head { seq, hash }))
}

/// Follows the whole chain, a page at a time. Entries that are appended meanwhile may or may not be seen.
///
/// # Errors
/// Storage fails.
pub async fn verify(db: &MeshDb) -> Result<Verdict, DbError> {
    verify_on(db, Head::genesis(), i64::MAX).await
}

/// Follows the chain behind a place that is known to be right, until `at_most` entries or more are checked. Nothing is broken and
/// as many were checked: there may be more.
///
/// # Errors
/// Storage fails.
pub async fn verify_on(db: &MeshDb, from: Head, at_most: i64) -> Result<Verdict, DbError> {
    let first = from.seq;
    let mut head = from;
    loop {
        if head.seq - first >= at_most {
            return Ok(Verdict { entries: head.seq, broken_at: None, head });
        }
        let page: Vec<AuditEntry> = with_conn!(db.db(), |conn| audit_log::table
            .filter(audit_log::mesh_id.eq(db.mesh().as_str()))
            .filter(audit_log::seq.gt(head.seq))
            .order(audit_log::seq)
            .limit(VERIFIED_AT_ONCE.min(at_most))
            .select(AuditEntry::as_select())
            .load(conn)
            .await?);
        if page.is_empty() {
            return Ok(Verdict { entries: head.seq, broken_at: None, head });
        }
        for entry in page {
            let actor = entry.actor_member_id.as_ref().map(MemberId::as_str);
            let fields = hashed(db.mesh().as_str(), &entry.event_type, actor, &entry.payload, entry.created_at_ms);
            let follows = entry.seq == head.seq + 1 && entry.prev_hash == head.hash;
            if !follows || fields.hash(&entry.prev_hash) != entry.hash {
                return Ok(Verdict { entries: head.seq, broken_at: Some(head.seq + 1), head });
            }
            head = Head { seq: entry.seq, hash: entry.hash };
        }
    }
}
