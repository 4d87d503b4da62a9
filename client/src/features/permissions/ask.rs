//! The asking end: one question to the approvers of every mesh, and the wait for its end.
//!
//! Anyone who drops the future withdraws the question: a hook that hangs up has its answer already. Without a word that can
//! be proved and written down the answer is always "no one has decided", and the host's own dialog goes on.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::id::PublicKey;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::broadcast;

use super::audit::Event;
use super::pending_requests::{Decision, RequestSource, Verdict, record};
use super::poll::Poll;
use super::rules::{MeshRules, Rules};
use super::wire::{self, Behavior, ClosedNote, Request};
use super::{CLOSED, REQUEST, settle};
use crate::features::messaging::Draft;
use crate::session::notes::harmless_value;
use crate::session::{JoinedMesh, Session};

/// Characters of the preview that go into the log.
const LOGGED_CHARS: usize = 500;
/// Approvers have this long to hear of the end of a question.
const CLOSED_TTL: Duration = Duration::from_secs(600);
/// Tools that only the person at the session can answer: questions to that person, and our own tool, whose confirmation
/// must not be handed on from one approver to the next.
const NEVER: [&str; 2] = ["AskUserQuestion", "answer_permission"];

/// A call that the host wants to be allowed.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the tool.
    pub tool: String,
    /// What approvers see.
    pub preview: String,
    /// SHA-256 of tool and input.
    pub digest: String,
    /// The host's id of the question; one of ours when it has none.
    pub id: Option<String>,
    /// How the host asks.
    pub source: RequestSource,
}

/// How it ended for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Tell the host.
    Decided(Decision),
    /// The host's own dialog decides; perhaps there is something to tell the user.
    Open(Option<String>),
}

/// One mesh in which a question was asked.
#[derive(Clone)]
struct Place {
    bound: JoinedMesh,
    approvers: Vec<PublicKey>,
    quorum: u32,
    expires: Duration,
}

/// Asks and waits.
pub async fn ask(session: &Arc<Session>, call: Call) -> Ended {
    let name = call.tool.rsplit("__").next().unwrap_or(&call.tool);
    if NEVER.contains(&name) {
        return Ended::Open(None);
    }
    let rules = match Rules::load(session.store()) {
        Ok(rules) => rules,
        Err(error) => return Ended::Open(Some(format!("claudemesh: no one was asked for this permission: {error}."))),
    };
    let places: Vec<Place> = session.meshes().into_iter().filter_map(|bound| place(bound, &rules)).collect();
    let Some(expires) = places.iter().map(|place| place.expires).min() else { return Ended::Open(None) };
    let id = call.id.clone().unwrap_or_else(|| fresh_id(session));
    if !session.permissions.has_room(&id) {
        return Ended::Open(Some("claudemesh: too many permission requests are open; this one is yours.".into()));
    }
    let now = crate::clock::now_ms();
    let ttl_ms = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
    let polls: Vec<Poll> = places.iter().map(|place| poll(place, &id, &call, now.saturating_add(ttl_ms))).collect();
    for (place, poll) in places.iter().zip(&polls) {
        let data = json!({
            "request": id, "session": poll.session, "digest": call.digest, "expiresAtMs": poll.expires_at_ms,
            "tool": call.tool, "preview": call.preview.chars().take(LOGGED_CHARS).collect::<String>(),
            "approvers": place.approvers, "quorum": place.quorum,
        });
        if let Err(error) = log(session, &place.bound, Event::Asked, data).await {
            return Ended::Open(Some(format!("claudemesh: no one was asked for this permission: {error}.")));
        }
    }
    let Some(mut verdict) = session.permissions.add(&id, call.source, polls.clone()) else { return Ended::Open(None) };
    let mut question = Question { session: Arc::clone(session), id, places, ended: false };
    // Monotonic: a clock that is set back does not keep a question open.
    let deadline = tokio::time::Instant::now() + expires;
    let sent = send(&question, &polls, &call, ttl_ms).await;
    if sent == 0 {
        question.end(Event::Withdrawn, "withdrawn", json!({"why": "no approver can be reached"})).await;
        return Ended::Open(Some("claudemesh: no approver of this permission can be reached; decide here.".into()));
    }
    let watching = join_all(question.places.iter().map(|place| watch(session, &place.bound)));
    let ended = tokio::select! {
        ended = verdict.wait_for(Option::is_some) => ended.ok().and_then(|ended| ended.clone()),
        () = tokio::time::sleep_until(deadline) => None,
        _ = watching => None,
    };
    match ended {
        Some(Verdict::Decided(decision)) => question.decided(decision).await,
        Some(Verdict::Withdrawn) => {
            question.end(Event::Withdrawn, "withdrawn", json!({})).await;
            Ended::Open(None)
        }
        Some(Verdict::Unrecorded(why)) => {
            question.end(Event::Withdrawn, "withdrawn", json!({"why": why})).await;
            Ended::Open(Some(format!("claudemesh: an answer to this permission does not count: {why}. Decide here.")))
        }
        None => {
            question.end(Event::Expired, "expired", json!({})).await;
            let after = expires.as_secs();
            Ended::Open(Some(format!("claudemesh: no approver has decided within {after} s; decide here.")))
        }
    }
}

fn place(bound: JoinedMesh, rules: &Rules) -> Option<Place> {
    let MeshRules { approvers, quorum, .. } = rules.of(&bound.tag.id)?;
    let own = bound.connection.identity().member.public();
    // Anyone who runs as this user could answer itself.
    let approvers: Vec<PublicKey> = approvers.iter().copied().filter(|key| *key != own).collect();
    let enough = usize::try_from(*quorum).is_ok_and(|quorum| quorum <= approvers.len());
    let expires = rules.of(&bound.tag.id)?.expires();
    enough.then(|| Place { bound, approvers, quorum: *quorum, expires })
}

fn poll(place: &Place, id: &str, call: &Call, expires_at_ms: i64) -> Poll {
    let identity = place.bound.connection.identity();
    Poll {
        mesh: identity.mesh_id.clone(),
        id: id.to_owned(),
        session: identity.own_public(),
        digest: call.digest.clone(),
        expires_at_ms,
        approvers: place.approvers.iter().copied().collect(),
        quorum: usize::try_from(place.quorum).unwrap_or(usize::MAX),
        allowed: std::collections::BTreeSet::new(),
    }
}

fn fresh_id(session: &Session) -> String {
    loop {
        let id = wire::new_id(&mut rand::rngs::OsRng);
        // Full: any id is refused, and told so.
        if session.permissions.has_room(&id) || !session.permissions.has_room("") {
            return id;
        }
    }
}

/// Sends the request to everyone at once; answers how many copies the brokers took.
async fn send(question: &Question, polls: &[Poll], call: &Call, ttl_ms: i64) -> usize {
    let mut sends = vec![];
    for (place, poll) in question.places.iter().zip(polls) {
        let request = Request {
            id: poll.id.clone(),
            mesh_id: poll.mesh.clone(),
            session: poll.session,
            tool: call.tool.chars().take(wire::MAX_TOOL_CHARS).collect(),
            preview: call.preview.clone(),
            digest: poll.digest.clone(),
            expires_at_ms: poll.expires_at_ms,
            ttl_ms,
            quorum: place.quorum,
            of: u32::try_from(place.approvers.len()).unwrap_or(u32::MAX),
        };
        let Ok(text) = serde_json::to_string(&request) else { continue };
        let draft = Draft {
            subtype: Some(REQUEST),
            expires_in: u64::try_from(ttl_ms).ok().map(Duration::from_millis),
            ..Draft::new(text, Priority::Now)
        };
        sends.extend(place.approvers.iter().map(|approver| send_one(&place.bound, *approver, draft.clone())));
    }
    join_all(sends).await.into_iter().filter(|sent| *sent).count()
}

async fn send_one(bound: &JoinedMesh, to: PublicKey, draft: Draft) -> bool {
    match bound.connection.send_direct(&to, &draft).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(mesh.slug = bound.tag.slug, approver = to.short(), %error, "an approver was not told");
            false
        }
    }
}

/// Counts what comes in a mesh; ends never.
async fn watch(session: &Arc<Session>, bound: &JoinedMesh) {
    let Some(mut events) = bound.connection.mail_events() else { return std::future::pending().await };
    loop {
        settle(session, bound).await;
        if matches!(events.recv().await, Err(broadcast::error::RecvError::Closed)) {
            return std::future::pending().await;
        }
    }
}

async fn log(
    session: &Session,
    bound: &JoinedMesh,
    event: Event,
    data: serde_json::Value,
) -> Result<(), super::audit::AuditError> {
    record(session.store(), &bound.connection.identity().member, &bound.tag.id, event, data).await
}

/// A question that is out. Dropped before its end, it is withdrawn.
struct Question {
    session: Arc<Session>,
    id: String,
    places: Vec<Place>,
    ended: bool,
}

impl Question {
    async fn decided(mut self, decision: Decision) -> Ended {
        let data = json!({
            "request": self.id, "behavior": decision.behavior, "by": decision.by, "reason": decision.reason,
        });
        let Some(place) = self.places.iter().find(|place| place.bound.tag.id == decision.mesh) else {
            return Ended::Open(None);
        };
        if let Err(error) = log(&self.session, &place.bound, Event::Decided, data).await {
            self.end(Event::Withdrawn, "withdrawn", json!({"why": "the decision cannot be written down"})).await;
            return Ended::Open(Some(format!("claudemesh: a decision does not count: {error}. Decide here.")));
        }
        let outcome = match decision.behavior {
            Behavior::Allow => "allowed",
            Behavior::Deny => "denied",
        };
        self.ended = true;
        self.session.permissions.remove(&self.id);
        // The host does not wait for others to hear of it.
        let (places, id) = (std::mem::take(&mut self.places), self.id.clone());
        tokio::spawn(async move { tell_closed(&places, &id, outcome).await });
        Ended::Decided(decision)
    }

    async fn end(&mut self, event: Event, outcome: &'static str, data: serde_json::Value) {
        self.ended = true;
        end(&self.session, &self.places, &self.id, event, outcome, data).await;
    }
}

async fn end(
    session: &Session,
    places: &[Place],
    id: &str,
    event: Event,
    outcome: &'static str,
    mut data: serde_json::Value,
) {
    data["request"] = id.into();
    for place in places {
        if let Err(error) = log(session, &place.bound, event, data.clone()).await {
            tracing::error!(%error, "the end of a permission request was not written down");
        }
    }
    tell_closed(places, id, outcome).await;
    session.permissions.remove(id);
}

async fn tell_closed(places: &[Place], id: &str, outcome: &str) {
    let note = ClosedNote { id: id.to_owned(), outcome: outcome.to_owned() };
    let Ok(text) = serde_json::to_string(&note) else { return };
    let mut sends = vec![];
    for place in places {
        let draft =
            Draft { subtype: Some(CLOSED), expires_in: Some(CLOSED_TTL), ..Draft::new(text.clone(), Priority::Now) };
        sends.extend(place.approvers.iter().map(|approver| send_one(&place.bound, *approver, draft.clone())));
    }
    join_all(sends).await;
}

impl Drop for Question {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (session, places, id) = (Arc::clone(&self.session), std::mem::take(&mut self.places), self.id.clone());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                end(&session, &places, &id, Event::Withdrawn, "withdrawn", json!({})).await;
            })),
            Err(_) => session.permissions.remove(&id),
        }
    }
}

/// What the model reads about a denial.
pub fn denial(decision: &Decision) -> String {
    let key = decision.by.to_hex();
    let who = format!("mesh member \"{}\" (key {})", harmless_value(&decision.name), &key[..16]);
    match decision.reason.as_deref().map(harmless_value).filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("Denied by {who}, who wrote: \"{reason}\""),
        None => format!("Denied by {who}."),
    }
}
