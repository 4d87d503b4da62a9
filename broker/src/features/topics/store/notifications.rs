//! `notifications`: who was mentioned where, and whether it was read. The journal writes them with the message that mentions.

use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;
#[cfg(feature = "postgres")]
use diesel_async::AsyncPgConnection;
use diesel_async::RunQueryDsl;
#[cfg(feature = "postgres")]
use futures_util::future::BoxFuture;

use super::super::schema::notifications;
use crate::audit::Audit;
use crate::db::{DbError, MeshDb};
use crate::features::messaging::schema::messages;
use crate::journal::{MeshStore, Part};
use crate::{tx_write, with_conn};

/// A mention to store.
#[derive(Clone, Debug, PartialEq, Insertable)]
#[diesel(table_name = notifications)]
pub struct NewNotification {
    /// Mesh.
    pub mesh_id: String,
    /// Who is mentioned.
    pub member_id: String,
    /// Place of the message in the order of the mesh.
    pub seq: i64,
    /// Message.
    pub message_id: String,
    /// Topic.
    pub topic_id: String,
    /// `mention`.
    pub kind: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// Mentions of one transaction of the journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotificationsPart(pub Vec<NewNotification>);

impl Part for NotificationsPart {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    #[cfg(feature = "sqlite")]
    fn write_sqlite(&self, conn: &mut SqliteConnection) -> Result<(), DbError> {
        for row in &self.0 {
            let insert = diesel::insert_or_ignore_into(notifications::table).values(row.clone());
            diesel::RunQueryDsl::execute(insert, conn)?;
        }
        Ok(())
    }

    #[cfg(feature = "postgres")]
    fn write_postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<(), DbError>> {
        /// Rows per statement: a statement may carry 65,535 values.
        const ROWS: usize = 2_000;
        Box::pin(async move {
            for chunk in self.0.chunks(ROWS) {
                let insert = diesel::insert_into(notifications::table).values(chunk).on_conflict_do_nothing();
                insert.execute(conn).await?;
            }
            Ok(())
        })
    }
}

/// Which mentions of a member are read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose.
    pub member: MemberId,
    /// Only those that are not read.
    pub unread: bool,
    /// Only those after this time, Unix milliseconds.
    pub since_ms: i64,
    /// Only those before this one.
    pub before: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// A mention with its message.
#[derive(Clone, Debug, PartialEq, Queryable)]
pub struct Notified {
    /// Message.
    pub message_id: String,
    /// Topic.
    pub topic_id: String,
    /// `mention`.
    pub kind: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub read_at_ms: Option<i64>,
    /// Sender's name.
    pub sender_name: String,
    /// Sender's key.
    pub sender_pubkey: String,
    /// Base64.
    pub ciphertext: String,
}

/// Mentions of a member whose message is still there, newest first.
///
/// # Errors
/// Storage fails.
pub async fn notified(db: &MeshDb, wanted: &Wanted) -> Result<Vec<Notified>, DbError> {
    let (mesh, member) = (db.mesh().as_str(), wanted.member.as_str());
    // What is read was so at a time: none is later than this one.
    let read_after = if wanted.unread { i64::MAX } else { i64::MIN };
    Ok(with_conn!(db.db(), |conn| {
        let own =
            notifications::table.filter(notifications::mesh_id.eq(mesh)).filter(notifications::member_id.eq(member));
        let before: i64 = match &wanted.before {
            None => i64::MAX,
            Some(id) => {
                let place = own.filter(notifications::message_id.eq(id)).select(notifications::seq);
                place.first(conn).await?
            }
        };
        let of_message = messages::mesh_id.eq(notifications::mesh_id).and(messages::seq.eq(notifications::seq));
        notifications::table
            .inner_join(messages::table.on(of_message))
            .filter(notifications::mesh_id.eq(mesh))
            .filter(notifications::member_id.eq(member))
            .filter(notifications::read_at_ms.is_null().or(notifications::read_at_ms.gt(read_after)))
            .filter(notifications::created_at_ms.gt(wanted.since_ms))
            .filter(notifications::seq.lt(before))
            .order(notifications::seq.desc())
            .limit(i64::from(wanted.limit))
            .select((
                notifications::message_id,
                notifications::topic_id,
                notifications::kind,
                notifications::created_at_ms,
                notifications::read_at_ms,
                messages::sender_name,
                messages::sender_key,
                messages::ciphertext,
            ))
            .load(conn)
            .await?
    }))
}

/// How many mentions a member has not read.
///
/// # Errors
/// Storage fails.
pub async fn unread_notified(db: &MeshDb, member: &MemberId) -> Result<i64, DbError> {
    Ok(with_conn!(db.db(), |conn| notifications::table
        .filter(notifications::mesh_id.eq(db.mesh().as_str()))
        .filter(notifications::member_id.eq(member.as_str()))
        .filter(notifications::read_at_ms.is_null())
        .count()
        .get_result(conn)
        .await?))
}

/// How many members a message mentions.
///
/// # Errors
/// Storage fails.
pub async fn notified_by(db: &MeshDb, message: &str) -> Result<i64, DbError> {
    Ok(with_conn!(db.db(), |conn| notifications::table
        .filter(notifications::mesh_id.eq(db.mesh().as_str()))
        .filter(notifications::message_id.eq(message))
        .count()
        .get_result(conn)
        .await?))
}

/// Marks mentions of a member as read: those of these messages, or all (`None`). Returns how many were not.
///
/// # Errors
/// Storage fails.
pub async fn mark_notified(
    store: &MeshStore,
    member: &MemberId,
    ids: Option<Vec<String>>,
    now_ms: i64,
) -> Result<usize, DbError> {
    let member = member.clone();
    Ok(tx_write!(store, (member, ids, now_ms), |conn, mesh| {
        let own = notifications::table
            .filter(notifications::mesh_id.eq(mesh.as_str()))
            .filter(notifications::member_id.eq(member.as_str()))
            .filter(notifications::read_at_ms.is_null());
        let read = notifications::read_at_ms.eq(*now_ms);
        let marked = match ids {
            Some(ids) => {
                let of_ids = own.filter(notifications::message_id.eq_any(ids));
                diesel::update(of_ids).set(read).execute(conn).await?
            }
            None => diesel::update(own).set(read).execute(conn).await?,
        };
        Ok((marked, Audit::Unaudited("what a member has read changes nothing for others")))
    })?)
}
