//! The durable inbox of a member: `<config dir>/inbox/<mesh id>.db`, shared by all its sessions and the shell.
//!
//! A message is acknowledged to the broker only after it is here, so it survives a crash of any process at any moment.
//! Every process that receives it notes a delivery for its own reader (a session key, or [`MEMBER_READER`]); a reader
//! shows each of its deliveries once, however many processes of that reader run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use claudemesh_protocol::features::messaging::{Priority, Stage};
use claudemesh_protocol::id::MeshId;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::error::{CliError, ExitCode};
use crate::files::{self, FileLock};

mod admitted;
pub mod answers;
pub mod attachments;
mod delivery_claims;
mod held;
pub mod listed;
mod mailbox;
pub mod pending_waits;
pub mod permissions;
mod queries;
pub mod questions;
#[cfg(test)]
mod questions_tests;
mod row;
mod schema;
pub mod sent;
#[cfg(test)]
mod tests;

pub use admitted::{Admitted, Mail, Person};
pub use held::Verdict;
pub use listed::{Listed, ListedObject, Tally};
pub use mailbox::Mailbox;
use row::NewDelivery;
pub use row::{Kind, Message, MessageObject, NewMessage, RecipientKind};
use schema::{deliveries, messages};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
/// Reader name of connections that speak for the member: the shell, not a session.
pub const MEMBER_READER: &str = "member";
/// Messages older than this are removed, seen or not: no one reads a month back, and the file must not grow for ever.
pub const KEEP: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long a process waits for another one that writes.
const BUSY_TIMEOUT_MS: u32 = 5_000;
/// JoinedMesh of one list.
pub const MAX_LIST: i64 = 1_000;

/// The lock that shells hold from looking at the member's unseen messages until these are printed and marked.
pub fn turn_path(config_dir: &Path, mesh: &MeshId) -> PathBuf {
    config_dir.join("inbox").join(format!("{}.turn.lock", crate::config::file_name_of(mesh.as_str())))
}

/// The files of a mesh's inbox, there or not.
pub fn files_of(config_dir: &Path, mesh: &MeshId) -> Vec<PathBuf> {
    let name = crate::config::file_name_of(mesh.as_str());
    let file = |end: &str| config_dir.join("inbox").join(format!("{name}.{end}"));
    ["db", "db-wal", "db-shm", "lock", "turn.lock"].map(file).into()
}

/// An inbox that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The file or its folder cannot be made.
    #[error("the inbox {} cannot be opened: {reason}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A statement failed: full disk, damaged file, lock held too long.
    #[error("the inbox cannot be used: {0}")]
    Sql(#[from] diesel::result::Error),
    /// A file of a message cannot be written.
    #[error("a file that came with a message cannot be kept: {0}")]
    Attachment(#[from] std::io::Error),
    /// The process is ending.
    #[error("the inbox is closed")]
    Closed,
}

impl From<InboxError> for CliError {
    fn from(error: InboxError) -> Self {
        Self::new(ExitCode::Io, "inbox_error", crate::error::sentence(&error.to_string()))
            .hint("Check free space and rights of the folder `inbox` in the config folder.")
    }
}

/// One open inbox. Blocking; [`Mailbox`] is the form for async code.
pub struct Inbox {
    db: SqliteConnection,
    /// Where small files of messages go: with the long texts, which are removed when they are old.
    attached: PathBuf,
    pending_waits: pending_waits::PendingWaits,
}

impl Inbox {
    /// Opens or makes the inbox of a mesh below the config folder. File 0600, folder 0700, WAL, every commit synced.
    ///
    /// # Errors
    /// [`InboxError`]
    pub fn open(config_dir: &Path, mesh: &MeshId) -> Result<Self, InboxError> {
        let dir = config_dir.join("inbox");
        let path = dir.join(format!("{}.db", crate::config::file_name_of(mesh.as_str())));
        let failed = |reason: String| InboxError::Open { path: path.clone(), reason };
        files::create_private_dir(&dir).map_err(|error| failed(error.to_string()))?;
        create_private_file(&path).map_err(|error| failed(error.to_string()))?;
        let url = path.to_str().ok_or_else(|| failed("its path is not valid UTF-8".into()))?;
        let mut db = SqliteConnection::establish(url).map_err(|error| failed(error.to_string()))?;
        // First the timeout: changing the journal mode may have to wait for another process.
        db.batch_execute(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};"))?;
        // Changing the mode, alone of all statements, does not wait while another process opens or closes the file.
        patiently(|| db.batch_execute("PRAGMA journal_mode = WAL;"))?;
        db.batch_execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        let pending = |db: &mut SqliteConnection| db.has_pending_migration(MIGRATIONS);
        if pending(&mut db).map_err(|error| failed(error.to_string()))? {
            let _lock = FileLock::take(&path.with_extension("lock"), Duration::from_secs(10))
                .map_err(|error| failed(error.to_string()))?;
            db.run_pending_migrations(MIGRATIONS).map_err(|error| failed(error.to_string()))?;
        }
        let attached = config_dir.join("texts").join(crate::config::file_name_of(mesh.as_str()));
        Ok(Self { db, attached, pending_waits: pending_waits::PendingWaits::default() })
    }

    /// Stores messages and notes that `reader` received them, all or nothing. A message that is known (same id, or same
    /// sender and idempotency key) is stored once; answers for each whether it was new to this reader.
    ///
    /// # Errors
    /// [`InboxError::Sql`], [`InboxError::Attachment`]; nothing is stored then.
    pub fn store(&mut self, reader: &str, new: &[NewMessage]) -> Result<Vec<bool>, InboxError> {
        let mut unpacked = Vec::new();
        for message in new {
            let body = message.body.as_deref().unwrap_or_default();
            let body = attachments::unpacked(&self.attached, &message.message_id, body)?;
            unpacked.push(body.map(|body| NewMessage { body: Some(body), ..message.clone() }));
        }
        let new = new.iter().zip(&unpacked).map(|(message, unpacked)| unpacked.as_ref().unwrap_or(message));
        let fresh = self.db.immediate_transaction(|db| {
            new.map(|message| store_one(db, reader, message)).collect::<QueryResult<Vec<bool>>>()
        })?;
        Ok(fresh)
    }

    /// Takes over what no one has shown: messages for the member or an audience that only the shell's connection
    /// received and that no human has seen. Called once when a session starts; answers how many.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn adopt(&mut self, reader: &str, now_ms: i64) -> Result<usize, InboxError> {
        let count = self.db.immediate_transaction(|db| {
            let orphans: Vec<i64> = messages::table
                .filter(messages::seen_at_ms.is_null())
                .filter(messages::recipient_kind.ne(RecipientKind::Session.as_str()))
                .filter(diesel::dsl::not(diesel::dsl::exists(
                    deliveries::table
                        .filter(deliveries::seq.eq(messages::seq))
                        .filter(deliveries::reader.ne(MEMBER_READER)),
                )))
                .order(messages::seq)
                .limit(MAX_LIST)
                .select(messages::seq)
                .load(db)?;
            let stage = Stage::Received.as_str();
            let rows: Vec<_> =
                orphans.iter().map(|&seq| NewDelivery { reader, seq, received_at_ms: now_ms, stage }).collect();
            // SQLite has no multi-row insert that ignores conflicts in diesel's typed form: one by one, they are few.
            for row in &rows {
                diesel::insert_or_ignore_into(deliveries::table).values(row).execute(db)?;
            }
            QueryResult::Ok(rows.len())
        })?;
        Ok(count)
    }

    /// Gives claimed messages back: the write into the session failed.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn unclaim(&mut self, reader: &str, seqs: &[i64]) -> Result<(), InboxError> {
        diesel::update(deliveries::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::seq.eq_any(seqs))
            .set((
                deliveries::shown_at_ms.eq(None::<i64>),
                deliveries::route.eq(None::<String>),
                deliveries::stage.eq(Stage::Received.as_str()),
            ))
            .execute(&mut self.db)?;
        Ok(())
    }

    /// Notes how far deliveries of `reader` came.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn set_stage(&mut self, reader: &str, seqs: &[i64], stage: Stage) -> Result<(), InboxError> {
        diesel::update(deliveries::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::seq.eq_any(seqs))
            .set(deliveries::stage.eq(stage.as_str()))
            .execute(&mut self.db)?;
        Ok(())
    }

    /// Marks messages seen; those that are keep their time.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn mark_seen(&mut self, seqs: &[i64], now_ms: i64) -> Result<usize, InboxError> {
        let count = diesel::update(messages::table)
            .filter(messages::seq.eq_any(seqs))
            .filter(messages::seen_at_ms.is_null())
            .set(messages::seen_at_ms.eq(now_ms))
            .execute(&mut self.db)?;
        Ok(count)
    }

    /// Removes messages received or sent before `before_ms`; answers how many were received.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn prune(&mut self, before_ms: i64) -> Result<usize, InboxError> {
        diesel::delete(schema::sent::table.filter(schema::sent::sent_at_ms.lt(before_ms))).execute(&mut self.db)?;
        let old = messages::table.filter(messages::received_at_ms.lt(before_ms));
        let count: i64 = old.count().get_result(&mut self.db)?;
        if count == 0 {
            return Ok(0);
        }
        Ok(diesel::delete(old).execute(&mut self.db)?)
    }
}

impl Mail<'_> {
    /// Takes deliveries that were not shown, oldest first, as far as `pick` lets them through, and marks them shown by `route`
    /// in the same step: of several processes that ask at once, each message goes to exactly one. What a call of this process
    /// waits for is left to it.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn claim(&mut self, route: &str, pick: &Pick, now_ms: i64) -> Result<Vec<Message>, InboxError> {
        if self.count_unshown()? == 0 {
            return Ok(vec![]);
        }
        let reader = self.reader;
        let awaited = self.awaited(reader)?;
        let taken = self.db.immediate_transaction(|db| {
            let mut next = deliveries::table
                .inner_join(messages::table)
                .filter(deliveries::reader.eq(reader))
                .filter(deliveries::shown_at_ms.is_null())
                .filter(deliveries::inbound.eq(Verdict::Accept.as_str()))
                .filter(deliveries::seq.ne_all(awaited))
                .order(deliveries::seq)
                .limit(pick.limit.clamp(1, MAX_LIST))
                .select(deliveries::seq)
                .into_boxed();
            if pick.urgent_only {
                next = next.filter(messages::priority.eq(Priority::Now.as_str()));
            }
            if let Some(member) = &pick.only_from {
                next = next.filter(messages::sender_member.eq(member));
            }
            if pick.reminders_only {
                next = next.filter(messages::subtype.eq("reminder"));
            }
            if !pick.muted.is_empty() {
                next = next.filter(messages::sender_pubkey.ne_all(&pick.muted));
            }
            let next: Vec<i64> = next.load(db)?;
            let mut taken: Vec<i64> = diesel::update(deliveries::table)
                .filter(deliveries::reader.eq(reader))
                .filter(deliveries::seq.eq_any(&next))
                .filter(deliveries::shown_at_ms.is_null())
                .set((deliveries::shown_at_ms.eq(now_ms), deliveries::route.eq(route)))
                .returning(deliveries::seq)
                .get_results(db)?;
            taken.sort_unstable();
            messages::table
                .filter(messages::seq.eq_any(taken))
                .order(messages::seq)
                .select(Message::as_select())
                .load(db)
        })?;
        Ok(taken)
    }
}

/// Which deliveries to take.
#[derive(Clone, Debug, Default)]
pub struct Pick {
    /// Most deliveries.
    pub limit: i64,
    /// Only priority `now`.
    pub urgent_only: bool,
    /// Only what this member (key) wrote.
    pub only_from: Option<String>,
    /// Only what was scheduled as a reminder.
    pub reminders_only: bool,
    /// Keys of senders whose messages stay: sessions of one member are heard one by one.
    pub muted: Vec<String>,
}

/// Repeats a statement that found the file locked, as long as other statements would have waited.
fn patiently<T>(mut statement: impl FnMut() -> QueryResult<T>) -> QueryResult<T> {
    let deadline = Instant::now() + Duration::from_millis(BUSY_TIMEOUT_MS.into());
    loop {
        match statement() {
            Err(diesel::result::Error::DatabaseError(_, info))
                if info.message().contains("locked") && Instant::now() < deadline =>
            {
                // Nothing tells when the other process is done; it takes about a millisecond.
                std::thread::park_timeout(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn store_one(db: &mut SqliteConnection, reader: &str, message: &NewMessage) -> QueryResult<bool> {
    diesel::insert_or_ignore_into(messages::table).values(message).execute(db)?;
    let known = messages::table
        .filter(messages::message_id.eq(&message.message_id))
        .select(messages::seq)
        .first::<i64>(db)
        .optional()?;
    let known = match (known, &message.client_message_id) {
        (Some(seq), _) => Some(seq),
        // A retry that an older broker took for a second message.
        (None, Some(client_id)) => messages::table
            .filter(messages::sender_member.eq(&message.sender_member))
            .filter(messages::client_message_id.eq(client_id))
            .select(messages::seq)
            .first::<i64>(db)
            .optional()?,
        (None, None) => None,
    };
    let Some(seq) = known else { return Ok(false) };
    let delivery = NewDelivery { reader, seq, received_at_ms: message.received_at_ms, stage: Stage::Received.as_str() };
    Ok(diesel::insert_or_ignore_into(deliveries::table).values(&delivery).execute(db)? == 1)
}

fn create_private_file(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    // SQLite gives the files beside it (-wal, -shm) the same rights.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, files::PRIVATE_FILE);
    options.open(path).map(drop)
}
