//! The open questions of one session: where answers are counted and anyone who waits hears of the end.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::id::PublicKey;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::audit::{self, AuditError, Event};
use super::poll::{Poll, Refusal, Step};
use super::wire::{Answer, Behavior};
use crate::config::ConfigStore;
use crate::inbox::Message;
use crate::session::JoinedMesh;

/// Questions that may be open at once. Hosts run a handful of calls side by side.
pub const MAX_OPEN: usize = 16;
/// Answers that do not count are written down so often in a minute; beyond it they are only logged, or a stranger could
/// fill the disk.
const REFUSALS_PER_MINUTE: usize = 20;

/// How the host asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestSource {
    /// By a hook that waits for our word. It hangs up when it does not need it any more.
    Hook,
    /// By a notification. No one tells when the user has decided.
    Channel,
}

/// What approvers decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub behavior: Behavior,
    /// Row id of the mesh in which.
    pub mesh: String,
    /// Member key of who gave the last word.
    pub by: PublicKey,
    /// Name at that time, as it was told.
    pub name: String,
    /// In their words.
    pub reason: Option<String>,
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough approvals, or a denial.
    Decided(Decision),
    /// The session does not need it any more.
    Withdrawn,
    /// Answers came and cannot be written down.
    Unrecorded(String),
}

struct PendingRequest {
    source: RequestSource,
    polls: Vec<Poll>,
    verdict: watch::Sender<Option<Verdict>>,
}

/// The open questions.
#[derive(Clone, Default)]
pub struct PendingRequests {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    open: Mutex<HashMap<String, PendingRequest>>,
    count: watch::Sender<usize>,
    /// One counts at a time: judged, written down, counted.
    settling: tokio::sync::Mutex<()>,
    refused: Mutex<VecDeque<Instant>>,
    hooks: watch::Sender<Hooks>,
}

/// Whether the host asks by hooks as well as by notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hooks {
    /// Not known before the first question.
    #[default]
    Unknown,
    /// It does.
    Yes,
    /// A question came and no hook with it.
    No,
}

impl PendingRequests {
    fn open(&self) -> MutexGuard<'_, HashMap<String, PendingRequest>> {
        self.inner.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a question; `None` when too many are open or the id is taken.
    pub fn add(&self, id: &str, source: RequestSource, polls: Vec<Poll>) -> Option<watch::Receiver<Option<Verdict>>> {
        let mut open = self.open();
        if open.len() >= MAX_OPEN || open.contains_key(id) {
            return None;
        }
        let (verdict, receiver) = watch::channel(None);
        open.insert(id.to_owned(), PendingRequest { source, polls, verdict });
        self.inner.count.send_replace(open.len());
        Some(receiver)
    }

    /// Forgets a question. Answers to it are unknown from now on.
    pub fn remove(&self, id: &str) {
        let mut open = self.open();
        open.remove(id);
        self.inner.count.send_replace(open.len());
    }

    /// Whether there is room for a question under this id.
    pub fn has_room(&self, id: &str) -> bool {
        let open = self.open();
        open.len() < MAX_OPEN && !open.contains_key(id)
    }

    /// Ends questions of one source, or all: the session does not need them any more.
    pub fn withdraw(&self, source: Option<RequestSource>) {
        for open in self.open().values().filter(|open| source.is_none_or(|source| open.source == source)) {
            open.end(Verdict::Withdrawn);
        }
    }

    /// Waits until all questions are forgotten.
    pub async fn emptied(&self, patience: Duration) {
        let mut count = self.inner.count.subscribe();
        let _ = tokio::time::timeout(patience, count.wait_for(|count| *count == 0)).await;
    }

    /// The host asks by hooks: notifications of the same questions are not needed, not even one that was taken for the only
    /// one because its hook was late.
    pub fn hooked(&self) {
        if self.inner.hooks.send_replace(Hooks::Yes) != Hooks::Yes {
            self.withdraw(Some(RequestSource::Channel));
        }
    }

    /// Whether the host asks by hooks, too. The first notification waits up to `patience` for its hook, later ones know.
    pub async fn is_hooked(&self, patience: Duration) -> bool {
        let mut hooks = self.inner.hooks.subscribe();
        let known = hooks.wait_for(|hooks| *hooks != Hooks::Unknown);
        let _ = tokio::time::timeout(patience, known).await;
        self.inner.hooks.send_if_modified(|hooks| {
            let silent = *hooks == Hooks::Unknown;
            if silent {
                *hooks = Hooks::No;
            }
            silent
        });
        *self.inner.hooks.borrow() == Hooks::Yes
    }

    fn judge(&self, mesh: &str, answer: &Answer, now_ms: i64) -> Result<(Step, Poll), Refusal> {
        let open = self.open();
        let one = open.get(&answer.id).filter(|one| one.verdict.borrow().is_none()).ok_or(Refusal::Unknown)?;
        let poll = one.polls.iter().find(|poll| poll.mesh.as_str() == mesh).ok_or(Refusal::Unknown)?;
        Ok((poll.judge(answer, now_ms)?, poll.clone()))
    }

    fn count(&self, mesh: &str, answer: &Answer, step: Step, decision: Decision) {
        let mut open = self.open();
        let Some(one) = open.get_mut(&answer.id) else { return };
        if let Some(poll) = one.polls.iter_mut().find(|poll| poll.mesh.as_str() == mesh) {
            poll.count(answer);
        }
        match step {
            Step::Counted => {}
            Step::Allow | Step::Deny => one.end(Verdict::Decided(decision)),
        }
    }

    fn unrecorded(&self, id: &str, error: &AuditError) {
        if let Some(one) = self.open().get(id) {
            one.end(Verdict::Unrecorded(error.to_string()));
        }
    }

    /// Whether a refusal may still be written down.
    fn may_record_refusal(&self) -> bool {
        let mut times = self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner);
        while times.front().is_some_and(|at| at.elapsed() >= Duration::from_secs(60)) {
            times.pop_front();
        }
        let may = times.len() < REFUSALS_PER_MINUTE;
        if may {
            times.push_back(Instant::now());
        }
        may
    }
}

impl PendingRequest {
    /// The first end counts.
    fn end(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(verdict);
            }
            first
        });
    }
}

/// Writes a record without holding the runtime up.
///
/// # Errors
/// [`AuditError`]
pub async fn record(
    store: &ConfigStore,
    key: &SecretKey,
    mesh: &str,
    event: Event,
    data: Value,
) -> Result<(), AuditError> {
    let (store, key, mesh) = (store.clone(), key.clone(), mesh.to_owned());
    let done = tokio::task::spawn_blocking(move || audit::append(&store, &key, &mesh, event, data)).await;
    done.unwrap_or_else(|_| Err(AuditError::ended()))
}

/// Takes what has come for the open questions of a mesh and counts it.
pub async fn settle(requests: &PendingRequests, store: &ConfigStore, bound: &JoinedMesh) {
    let _settling = requests.inner.settling.lock().await;
    loop {
        let (reader, now) = (bound.reader(), crate::clock::now_ms());
        let taken = match bound.mailbox.run(move |inbox| inbox.take_permission_words(&reader, now)).await {
            Ok(taken) if taken.is_empty() => return,
            Ok(taken) => taken,
            Err(error) => {
                return tracing::error!(mesh.slug = bound.tag.slug, %error, "permission answers cannot be read");
            }
        };
        for message in taken.iter().filter(|message| message.subtype.as_deref() == Some(super::ANSWER)) {
            take(requests, store, bound, message, now).await;
        }
    }
}

async fn take(requests: &PendingRequests, store: &ConfigStore, bound: &JoinedMesh, message: &Message, now_ms: i64) {
    let key = &bound.connection.identity().member;
    let mesh = bound.tag.id.as_str();
    let answer = Answer::of(message).ok_or(Refusal::Malformed);
    let judged = answer.and_then(|answer| requests.judge(mesh, &answer, now_ms).map(|judged| (answer, judged)));
    let (answer, (step, poll)) = match judged {
        Ok(judged) => judged,
        Err(refusal) => {
            let why = refusal.as_str();
            tracing::warn!(
                mesh.slug = bound.tag.slug,
                from = message.sender_member,
                why,
                "a permission answer does not count"
            );
            let data = json!({
                "why": why, "message": message.message_id, "sender": message.sender_pubkey,
                "senderMember": message.sender_member, "request": Answer::of(message).map(|answer| answer.id),
            });
            if requests.may_record_refusal()
                && let Err(error) = record(store, key, mesh, Event::Refused, data).await
            {
                tracing::error!(%error, "a refused permission answer was not written down");
            }
            return;
        }
    };
    let name = message.from_name();
    let data = json!({
        "request": poll.id, "session": poll.session, "digest": poll.digest, "expiresAtMs": poll.expires_at_ms,
        "behavior": answer.behavior, "member": answer.member, "signedAtMs": answer.signed_at_ms,
        "signature": answer.signature, "name": name.chars().take(100).collect::<String>(), "reason": answer.reason,
    });
    if let Err(error) = record(store, key, mesh, Event::Answered, data).await {
        tracing::error!(%error, "a permission answer cannot be written down and does not count");
        return requests.unrecorded(&answer.id, &error);
    }
    let decision = Decision {
        behavior: answer.behavior,
        mesh: mesh.to_owned(),
        by: answer.member,
        name,
        reason: answer.reason.clone(),
    };
    requests.count(mesh, &answer, step, decision);
}
