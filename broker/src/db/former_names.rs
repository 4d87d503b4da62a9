//! `former_names`: names that still mean a member or a session for a day after it was renamed.

use std::collections::HashMap;

use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::{limits, name};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::former_names;
use crate::audit::By;
use crate::db::{Db, DbError, MeshDb};
use crate::journal::MeshStore;
use crate::{tx_write, with_conn, with_tx};

/// Stores a name that is given up. A macro, because it is part of a transaction on either backend.
macro_rules! insert_former {
    ($conn:ident, $mesh:ident, $subject:expr, $name:expr, $at_ms:expr) => {{
        let (kind, subject) = $subject.columns();
        let until_ms = $crate::db::former_names::until($at_ms);
        diesel::insert_into($crate::db::schema::former_names::table)
            .values((
                $crate::db::schema::former_names::mesh_id.eq($mesh.as_str()),
                $crate::db::schema::former_names::kind.eq(kind),
                $crate::db::schema::former_names::subject.eq(&subject),
                $crate::db::schema::former_names::name.eq($name.as_str()),
                $crate::db::schema::former_names::until_ms.eq(until_ms),
            ))
            .on_conflict((
                $crate::db::schema::former_names::mesh_id,
                $crate::db::schema::former_names::kind,
                $crate::db::schema::former_names::subject,
                $crate::db::schema::former_names::name,
            ))
            .do_update()
            .set($crate::db::schema::former_names::until_ms.eq(until_ms))
            .execute($conn)
            .await?;
    }};
}
pub(super) use insert_former;

/// Whose name it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A member's.
    Member(MemberId),
    /// A session's.
    Session(PublicKey),
}

impl Subject {
    /// `kind` and `subject` of a row.
    pub(super) fn columns(&self) -> (&'static str, String) {
        match self {
            Self::Member(member) => ("member", member.to_string()),
            Self::Session(key) => ("session", key.to_hex()),
        }
    }

    fn read(kind: &str, subject: &str) -> Option<Self> {
        match kind {
            "member" => Some(Self::Member(subject.into())),
            "session" => PublicKey::parse(subject).map(Self::Session),
            _ => None,
        }
    }
}

/// A name that someone had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerName {
    /// Who.
    pub subject: Subject,
    /// The name.
    pub name: String,
    /// Wall ms; from then on it means no one.
    pub until_ms: i64,
}

/// The former names of one mesh in memory.
#[derive(Clone, Debug, Default)]
pub struct FormerNames {
    by_name: HashMap<String, Vec<FormerName>>,
}

impl FormerNames {
    /// Out of storage.
    pub fn of(rows: impl IntoIterator<Item = FormerName>) -> Self {
        let mut names = Self::default();
        rows.into_iter().for_each(|row| names.put(row));
        names
    }

    /// Adds one, or renews it.
    pub fn put(&mut self, row: FormerName) {
        let list = self.by_name.entry(name::folded(&row.name)).or_default();
        list.retain(|known| known.subject != row.subject);
        list.push(row);
    }

    /// Who had this name, the last one first.
    pub fn of_name(&self, folded: &str) -> impl Iterator<Item = &FormerName> {
        self.by_name.get(folded).into_iter().flatten().rev()
    }

    /// The names that someone had, oldest first.
    pub fn of_subject<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a FormerName> {
        self.by_name.values().flatten().filter(move |row| row.subject == *subject)
    }

    /// Forgets what ended.
    pub fn expire(&mut self, now_ms: i64) {
        self.by_name.retain(|_, list| {
            list.retain(|row| row.until_ms > now_ms);
            !list.is_empty()
        });
    }
}

/// When a name that is given up at this time ends.
pub fn until(now_ms: i64) -> i64 {
    now_ms.saturating_add(limits::millis(limits::FORMER_NAME_TTL))
}

/// What is stored of one mesh.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb) -> Result<FormerNames, DbError> {
    let rows: Vec<(String, String, String, i64)> = with_conn!(db.db(), |conn| former_names::table
        .filter(former_names::mesh_id.eq(db.mesh().as_str()))
        .order((former_names::until_ms, former_names::kind, former_names::subject, former_names::name))
        .select((former_names::kind, former_names::subject, former_names::name, former_names::until_ms))
        .load(conn)
        .await?);
    let read = |(kind, subject, name, until_ms): (String, String, String, i64)| {
        Some(FormerName { subject: Subject::read(&kind, &subject)?, name, until_ms })
    };
    Ok(FormerNames::of(rows.into_iter().filter_map(read)))
}

/// Notes the name that a session gives up. The session itself is stored with what else is remembered of it.
///
/// # Errors
/// Storage fails.
pub async fn session_renamed(
    store: &MeshStore,
    session: &PublicKey,
    (from, to): (&str, &str),
    by: &By,
) -> Result<(), DbError> {
    let (session, from, to, by) = (*session, from.to_owned(), to.to_owned(), by.clone());
    Ok(tx_write!(store, (session, from, to, by), |conn, mesh| {
        insert_former!(conn, mesh, Subject::Session(*session), from, by.at_ms);
        let payload = json!({"session": session, "from": from, "to": to});
        Ok(((), by.entry("session_renamed", payload)))
    })?)
}

/// Forgets what ended before a time, in all meshes.
///
/// # Errors
/// Storage fails.
pub async fn forget_before(db: &Db, now_ms: i64) -> Result<usize, DbError> {
    // Unaudited: upkeep.
    Ok(with_tx!(db, |conn| diesel::delete(former_names::table.filter(former_names::until_ms.le(now_ms)))
        .execute(conn)
        .await?))
}
