//! What presence writes in a transaction of the journal: sessions, signs of life, counters.

use claudemesh_protocol::id::MemberId;
#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;
#[cfg(feature = "postgres")]
use diesel_async::AsyncPgConnection;
#[cfg(feature = "postgres")]
use futures_util::future::BoxFuture;

use super::{SessionRecord, StatsDelta};
use crate::db::DbError;
use crate::journal::Part;

/// A sign of life of a member.
#[derive(Clone, Debug, PartialEq)]
pub struct LastSeen {
    /// The member.
    pub member_id: MemberId,
    /// Unix milliseconds; never set back.
    pub at_ms: i64,
}

/// What presence writes in one transaction of the journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionsPart {
    /// Sessions whose remembered state changed.
    pub sessions: Vec<SessionRecord>,
    /// Counter increments.
    pub stats: Vec<StatsDelta>,
    /// Signs of life.
    pub last_seen: Vec<LastSeen>,
}

impl Part for SessionsPart {
    fn rows(&self) -> usize {
        self.sessions.len() + self.stats.len() + self.last_seen.len()
    }

    fn merge(&mut self, other: &Self) {
        self.sessions.extend(other.sessions.iter().cloned());
        self.stats.extend(other.stats.iter().cloned());
        self.last_seen.extend(other.last_seen.iter().cloned());
    }

    /// Increments would count twice.
    fn once(&self) -> bool {
        !self.stats.is_empty()
    }

    #[cfg(feature = "sqlite")]
    fn write_sqlite(&self, conn: &mut SqliteConnection) -> Result<(), DbError> {
        sqlite::write(conn, self)
    }

    #[cfg(feature = "postgres")]
    fn write_postgres<'a>(&'a self, conn: &'a mut AsyncPgConnection) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(postgres::write(conn, self))
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use diesel::prelude::*;
    use diesel::sqlite::SqliteConnection;

    use super::super::session_changes;
    use super::SessionsPart;
    use crate::db::DbError;
    use crate::db::schema::members;
    use crate::db::schema::{member_stats, sessions};

    pub(super) fn write(conn: &mut SqliteConnection, part: &SessionsPart) -> Result<(), DbError> {
        for session in &part.sessions {
            diesel::insert_into(sessions::table)
                .values(session.clone())
                .on_conflict((sessions::mesh_id, sessions::session_key))
                .do_update()
                .set(session_changes!())
                .execute(conn)?;
        }
        for seen in &part.last_seen {
            let older = members::last_seen_at_ms.is_null().or(members::last_seen_at_ms.lt(seen.at_ms));
            diesel::update(members::table.find(seen.member_id.as_str()).filter(older))
                .set(members::last_seen_at_ms.eq(seen.at_ms))
                .execute(conn)?;
        }
        for delta in &part.stats {
            diesel::insert_into(member_stats::table)
                .values(delta.clone())
                .on_conflict(member_stats::member_id)
                .do_update()
                .set((
                    member_stats::messages_in.eq(member_stats::messages_in + delta.messages_in),
                    member_stats::messages_out.eq(member_stats::messages_out + delta.messages_out),
                    member_stats::tool_calls.eq(member_stats::tool_calls + delta.tool_calls),
                    member_stats::errors.eq(member_stats::errors + delta.errors),
                ))
                .execute(conn)?;
        }
        Ok(())
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use diesel::prelude::*;
    use diesel_async::{AsyncPgConnection, RunQueryDsl};

    use super::super::session_changes;
    use super::SessionsPart;
    use crate::db::DbError;
    use crate::db::schema::members;
    use crate::db::schema::{member_stats, sessions};

    pub(super) async fn write(conn: &mut AsyncPgConnection, part: &SessionsPart) -> Result<(), DbError> {
        for session in &part.sessions {
            diesel::insert_into(sessions::table)
                .values(session.clone())
                .on_conflict((sessions::mesh_id, sessions::session_key))
                .do_update()
                .set(session_changes!())
                .execute(conn)
                .await?;
        }
        for seen in &part.last_seen {
            let older = members::last_seen_at_ms.is_null().or(members::last_seen_at_ms.lt(seen.at_ms));
            diesel::update(members::table.find(seen.member_id.as_str()).filter(older))
                .set(members::last_seen_at_ms.eq(seen.at_ms))
                .execute(conn)
                .await?;
        }
        for delta in &part.stats {
            diesel::insert_into(member_stats::table)
                .values(delta.clone())
                .on_conflict(member_stats::member_id)
                .do_update()
                .set((
                    member_stats::messages_in.eq(member_stats::messages_in + delta.messages_in),
                    member_stats::messages_out.eq(member_stats::messages_out + delta.messages_out),
                    member_stats::tool_calls.eq(member_stats::tool_calls + delta.tool_calls),
                    member_stats::errors.eq(member_stats::errors + delta.errors),
                ))
                .execute(conn)
                .await?;
        }
        Ok(())
    }
}
