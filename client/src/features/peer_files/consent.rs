//! Who may read the folder of this session: what its user said, what is asked, and what was given.
//!
//! Only an order over the local socket decides ([`Folder::decide`]), which the shell gives outside of sessions only. A question stays
//! open after the one who asked was sent away, so that the user can answer late and the next request gets through.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::PublicKey;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::folder::SharedFolder;
use super::remembered::{Permit, Remembered};
use super::report::{AllowedRow, QuestionRow, ReadRow, Report, Scope};
use crate::features::permissions::audit::Event;
use crate::features::permissions::pending_requests::record;
use crate::features::permissions::wire::new_id;
use crate::session::Session;

/// Questions that are open at once; more would be read by no one.
pub const MAX_OPEN: usize = 16;
/// A question that no one answers is forgotten after this time.
const QUESTION_TTL: Duration = Duration::from_secs(600);
/// Who was denied is not asked about again for this time.
const DENIED_TTL: Duration = Duration::from_secs(600);
/// How long a consent for one file holds: as long as its parts take.
const ONCE_TTL: Duration = Duration::from_secs(60);
/// Ids of sealed requests that are known, so that none counts twice.
const MAX_SEEN: usize = 4_096;
/// What was given and is still shown.
const MAX_READS: usize = 50;
/// Requests that are answered at once.
pub const MAX_SERVED: usize = 32;
/// Of these, how many use the disk.
const MAX_ON_DISK: usize = 4;

/// Someone who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Row id of the mesh.
    pub mesh: String,
    /// Its short name.
    pub slug: String,
    /// Key of the member.
    pub member: PublicKey,
    /// Key of the session, or of the member when there is none.
    pub session: String,
    /// Name, for people.
    pub name: String,
    /// The member's key has sealed the request. Otherwise the broker says who it is.
    pub verified: bool,
}

impl Reader {
    /// Whether a consent for that one may be used for this one. Sealed and plain requests are never taken for each other.
    fn is_member(&self, other: &Self) -> bool {
        (&self.mesh, self.member, self.verified) == (&other.mesh, other.member, other.verified)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// A list, not a file.
    pub list: bool,
    /// Below the folder.
    pub path: String,
}

impl Access {
    /// The word for it.
    pub const fn verb(&self) -> &'static str {
        if self.list { "list" } else { "read" }
    }
}

/// A question to the user.
#[derive(Clone, Debug)]
pub struct OpenQuestion {
    /// Five letters.
    pub id: String,
    /// Who asks.
    pub reader: Reader,
    /// For what, at first.
    pub access: Access,
    asked_at: String,
    since: Instant,
}

/// What the user said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be read.
    Allow(Scope),
    /// It may not.
    Deny,
}

/// A consent that lives as long as the session.
#[derive(Clone, Debug)]
struct Allowed {
    reader: Reader,
    /// Of one file or list, until then.
    once: Option<(Access, Instant)>,
    since: String,
}

#[derive(Default)]
struct State {
    shared: Option<Arc<SharedFolder>>,
    trouble: Option<String>,
    open: Vec<OpenQuestion>,
    allowed: Vec<Allowed>,
    denied: Vec<(Reader, Instant)>,
    reads: VecDeque<ReadRow>,
    seen: HashSet<String>,
    seen_order: VecDeque<String>,
}

/// The shared folder of a session.
pub struct Folder {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Requests that are answered.
    pub(super) serving: Arc<Semaphore>,
    /// Reads and lists that use the disk.
    pub(super) disk: Arc<Semaphore>,
}

/// Why a reader gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoConsent {
    /// The user said no.
    #[error("the user of this session does not allow it")]
    Denied,
    /// The user said nothing.
    #[error("the user of this session was asked and has not answered within {0} s; ask again later")]
    Unanswered(u64),
    /// Too much is asked.
    #[error("too many questions are open at this session")]
    Full,
}

impl NoConsent {
    /// Its stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Denied => ErrorCode::ConsentDenied,
            Self::Unanswered(_) => ErrorCode::ConsentTimeout,
            Self::Full => ErrorCode::Busy,
        }
    }
}

/// How it stands with a request.
#[derive(Debug)]
enum Verdict {
    Allowed,
    Denied,
    /// The user has to be asked, and now is.
    Asked(OpenQuestion),
    /// The user was asked before.
    Waits,
    Full,
}

impl Default for Folder {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            serving: Arc::new(Semaphore::new(MAX_SERVED)),
            disk: Arc::new(Semaphore::new(MAX_ON_DISK)),
        }
    }
}

impl Folder {
    fn state(&self) -> MutexGuard<'_, State> {
        // No section leaves a list half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shares a folder from now on. One that cannot be opened is told by [`Folder::report`] and is no reason not to start.
    pub fn share(&self, dir: &Path) {
        let opened = SharedFolder::open(dir);
        let mut state = self.state();
        match opened {
            Ok(folder) => (state.shared, state.trouble) = (Some(Arc::new(folder)), None),
            Err(error) => {
                tracing::error!(%error, "the folder that was to be shared cannot be opened");
                state.shared = None;
                state.trouble = Some(format!("{}: {error}", dir.display()));
            }
        }
    }

    /// The folder.
    pub fn shared(&self) -> Option<Arc<SharedFolder>> {
        self.state().shared.clone()
    }

    /// Whether the id of a sealed request is used for the first time.
    pub(super) fn is_fresh(&self, id: &str) -> bool {
        let mut state = self.state();
        if !state.seen.insert(id.to_owned()) {
            return false;
        }
        state.seen_order.push_back(id.to_owned());
        if state.seen_order.len() > MAX_SEEN
            && let Some(oldest) = state.seen_order.pop_front()
        {
            state.seen.remove(&oldest);
        }
        true
    }

    /// Waits until the user has allowed it. `tell` is called with a question that is new.
    ///
    /// # Errors
    /// [`NoConsent`]
    pub(super) async fn consent(
        &self,
        session: &Session,
        reader: &Reader,
        access: &Access,
        patience: Duration,
        tell: impl Fn(&OpenQuestion),
    ) -> Result<(), NoConsent> {
        let deadline = Instant::now() + patience;
        // Before the first look, so that no decision is missed.
        let mut changed = self.changed.subscribe();
        loop {
            match self.verdict(session, reader, access).await {
                Verdict::Allowed => return Ok(()),
                Verdict::Denied => return Err(NoConsent::Denied),
                Verdict::Full => return Err(NoConsent::Full),
                Verdict::Asked(question) => tell(&question),
                Verdict::Waits => {}
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() {
                    return Err(NoConsent::Denied);
                },
                () = tokio::time::sleep_until(deadline) => return Err(NoConsent::Unanswered(patience.as_secs())),
            }
        }
    }

    async fn verdict(&self, session: &Session, reader: &Reader, access: &Access) -> Verdict {
        let Some(folder) = self.shared() else { return Verdict::Denied };
        // The file may be changed by the shell at any time.
        let store = session.store().clone();
        let remembered = tokio::task::spawn_blocking(move || Remembered::load(&store)).await;
        let always = match remembered {
            Ok(Ok(remembered)) => remembered.allows(&reader.mesh, &reader.member, folder.path()),
            Ok(Err(error)) => {
                tracing::error!(%error, "no one is remembered who may read the folder");
                false
            }
            Err(_) => false,
        };
        if always && reader.verified {
            return Verdict::Allowed;
        }
        self.look(reader, access, Instant::now())
    }

    fn look(&self, reader: &Reader, access: &Access, now: Instant) -> Verdict {
        let mut state = self.state();
        state.forget(now);
        let fits = |one: &Allowed| match &one.once {
            Some((once, _)) => one.reader.is_member(reader) && once == access,
            None => one.reader.is_member(reader) && one.reader.session == reader.session,
        };
        if state.allowed.iter().any(fits) {
            return Verdict::Allowed;
        }
        if state.denied.iter().any(|(one, _)| one.is_member(reader)) {
            return Verdict::Denied;
        }
        if state.open.iter().any(|one| one.reader.is_member(reader)) {
            return Verdict::Waits;
        }
        if state.open.len() >= MAX_OPEN {
            return Verdict::Full;
        }
        let id = loop {
            let id = new_id(&mut rand::rngs::OsRng);
            if state.open.iter().all(|one| one.id != id) {
                break id;
            }
        };
        let (reader, access) = (reader.clone(), access.clone());
        let question = OpenQuestion { id, reader, access, asked_at: crate::clock::now_iso(), since: now };
        state.open.push(question.clone());
        Verdict::Asked(question)
    }

    /// Does what the user decided about a question. First it is written down, then it counts.
    ///
    /// # Errors
    /// Code and words: no such question, a consent that cannot be given, or nothing can be written.
    pub async fn decide(
        &self,
        session: &Session,
        id: &str,
        decision: Decision,
    ) -> Result<OpenQuestion, (ErrorCode, String)> {
        let found = {
            let mut state = self.state();
            state.forget(Instant::now());
            state.open.iter().find(|one| one.id == id).cloned()
        };
        let question = found.ok_or((ErrorCode::NotFound, format!("no open question {id}")))?;
        let reader = &question.reader;
        if decision == Decision::Allow(Scope::Always) && !reader.verified {
            let message = "who asks is the broker's word only, because the client there is older: allow it once or for the session";
            return Err((ErrorCode::Invalid, message.into()));
        }
        let folder = self.shared().ok_or((ErrorCode::NotShared, "this session shares no folder".to_owned()))?;
        let unavailable = |error: String| (ErrorCode::Unavailable, error);
        let bound = session.meshes().into_iter().find(|bound| bound.tag.id == reader.mesh);
        let bound = bound.ok_or((ErrorCode::MeshNotFound, "the mesh was left".to_owned()))?;
        let (event, scope) = match decision {
            Decision::Allow(scope) => (Event::FolderAllowed, Some(scope.as_str())),
            Decision::Deny => (Event::FolderDenied, None),
        };
        let data = json!({
            "question": question.id, "member": reader.member, "session": reader.session, "name": reader.name,
            "verified": reader.verified, "folder": folder.path(), "what": question.access.verb(),
            "path": question.access.path, "scope": scope,
        });
        let key = &bound.connection.identity().member;
        record(session.store(), key, &reader.mesh, event, data)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        if decision == Decision::Allow(Scope::Always) {
            let permit = Permit {
                mesh: reader.mesh.as_str().into(),
                slug: reader.slug.clone(),
                member: reader.member,
                name: reader.name.clone(),
                folder: folder.path().to_path_buf(),
                since: crate::clock::now_iso(),
            };
            let store = session.store().clone();
            let write = move || Remembered::change(&store, |remembered| remembered.add(permit));
            let written = tokio::task::spawn_blocking(write).await.map_err(|error| unavailable(error.to_string()))?;
            written.map_err(|error| unavailable(error.to_string()))?;
        }
        self.apply(&question, decision, Instant::now());
        Ok(question)
    }

    fn apply(&self, question: &OpenQuestion, decision: Decision, now: Instant) {
        let mut state = self.state();
        state.open.retain(|one| one.id != question.id);
        let reader = question.reader.clone();
        let since = crate::clock::now_iso();
        match decision {
            Decision::Allow(Scope::Once) => {
                let once = Some((question.access.clone(), now + ONCE_TTL));
                state.allowed.push(Allowed { reader, once, since });
            }
            Decision::Allow(Scope::Session) => state.allowed.push(Allowed { reader, once: None, since }),
            // It is in the file.
            Decision::Allow(Scope::Always) => {}
            Decision::Deny => state.denied.push((reader, now + DENIED_TTL)),
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// The question that this request makes.
    #[cfg(test)]
    pub(super) fn question_for_test(&self, reader: Reader, access: Access) -> OpenQuestion {
        match self.look(&reader, &access, Instant::now()) {
            Verdict::Asked(question) => question,
            other => panic!("{other:?}"),
        }
    }

    /// Forgets what this session was told of a member; answers how much that was. The file is for the caller to change.
    pub fn revoke(&self, member: &PublicKey) -> usize {
        let mut state = self.state();
        let before = state.allowed.len();
        state.allowed.retain(|one| one.reader.member != *member);
        before - state.allowed.len()
    }

    /// Notes what was given.
    pub(super) fn given(&self, reader: &Reader, access: &Access) {
        let mut state = self.state();
        let (mesh, name) = (reader.slug.clone(), reader.name.clone());
        let (what, path) = (access.verb().to_owned(), access.path.clone());
        state.reads.push_front(ReadRow { at: crate::clock::now_iso(), mesh, name, what, path });
        state.reads.truncate(MAX_READS);
    }

    /// How it stands.
    pub fn report(&self, session: &Session) -> Report {
        // Without the file no one is remembered; the shell says what is wrong with it.
        let remembered = Remembered::load(session.store()).unwrap_or_default();
        let mut state = self.state();
        state.forget(Instant::now());
        let folder = state.shared.as_ref().map(|folder| folder.path().to_path_buf());
        let question = |one: &OpenQuestion| QuestionRow {
            id: one.id.clone(),
            mesh: one.reader.slug.clone(),
            name: one.reader.name.clone(),
            member: one.reader.member.to_hex(),
            verified: one.reader.verified,
            what: one.access.verb().to_owned(),
            path: one.access.path.clone(),
            asked_at: one.asked_at.clone(),
        };
        let allowed = |one: &Allowed| AllowedRow {
            mesh: one.reader.slug.clone(),
            name: one.reader.name.clone(),
            member: one.reader.member.to_hex(),
            scope: if one.once.is_some() { Scope::Once } else { Scope::Session }.as_str().to_owned(),
            path: one.once.as_ref().map(|(access, _)| access.path.clone()),
            since: one.since.clone(),
        };
        let always = remembered.allowed.into_iter().filter(|one| Some(&one.folder) == folder.as_ref());
        Report {
            session: session.name(),
            folder: folder.as_ref().map(|folder| folder.display().to_string()),
            trouble: state.trouble.clone(),
            questions: state.open.iter().map(question).collect(),
            allowed: state.allowed.iter().map(allowed).chain(always.map(AllowedRow::from)).collect(),
            reads: state.reads.iter().cloned().collect(),
        }
    }
}

impl From<Permit> for AllowedRow {
    fn from(permit: Permit) -> Self {
        Self {
            mesh: permit.slug,
            name: permit.name,
            member: permit.member.to_hex(),
            scope: Scope::Always.as_str().to_owned(),
            path: None,
            since: permit.since,
        }
    }
}

impl State {
    /// Drops what is over.
    fn forget(&mut self, now: Instant) {
        self.open.retain(|one| now.duration_since(one.since) < QUESTION_TTL);
        self.denied.retain(|(_, until)| now < *until);
        self.allowed.retain(|one| one.once.as_ref().is_none_or(|(_, until)| now < *until));
    }
}

#[cfg(test)]
#[path = "consent_tests.rs"]
mod tests;
