//! What happens to a session beside its messages: hooks, another id, its status, what is held.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use claudemesh_protocol::features::presence::{self, PeerStatus};
use claudemesh_protocol::message::ClientMessage;
use serde_json::json;
use tokio::time::Instant;

use super::routes::{self, Report, UnconfirmedDelivery, proof};
use super::{JoinedMesh, Session};
use crate::config::{MessageMode, broker_http};
use crate::error::CliError;
use crate::features::mcp_servers::asked::{AskedCalls, NOTE_CHARS, Waiting};
use crate::features::questions::{reply, text};
use crate::inbox::questions::{Question, QuestionState};
use crate::inbox::{InboxError, Mail};

/// A status that stays the same is told again after this long, well before the broker lets `working` expire.
const REPEAT_STATUS: Duration = Duration::from_secs(60);
/// Questions that one hook looks at.
const MAX_QUESTIONS: i64 = 20;

/// Askers that one stop writes to: a flood of questions must not become a flood of answers.
const MAX_DECLINED: usize = 20;

/// What runs beside the MCP server until the session ends: the local socket, the look for proof, the status reports.
pub(crate) async fn tend(session: Arc<Session>) {
    #[cfg(unix)]
    {
        let socket = tokio::spawn(crate::ipc::server::run(Arc::clone(&session)));
        *session.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }
    tokio::spawn(proof::watch(Arc::clone(&session)));
    report_statuses(session).await;
}

/// Tells the brokers the status that hooks report, the newest only and in order. It goes the hooks' own way over HTTP: a
/// status that a person or the model has set by hand is another matter and stays.
async fn report_statuses(session: Arc<Session>) {
    let stop = session.stopped();
    let mut statuses = session.hook_status.subscribe();
    let mut told: Option<(&str, Instant)> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = statuses.changed() => if changed.is_err() { return },
        }
        let Some(status) = *statuses.borrow_and_update() else { continue };
        // Each tool call says that the session works; the broker needs it now and then.
        if told.is_some_and(|(last, at)| last == status && at.elapsed() < REPEAT_STATUS) {
            continue;
        }
        told = Some((status, Instant::now()));
        let token = match session.store().hook_token_or_create() {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(%error, "no hook token: the status cannot be reported");
                continue;
            }
        };
        let reports: Vec<(String, String)> = session.meshes().iter().map(|bound| report_of(bound, status)).collect();
        let posting = tokio::task::spawn_blocking(move || {
            let bearer = format!("Bearer {}", token.expose());
            for (broker, report) in reports {
                if let Err(error) = crate::hook::report::post(&broker, &bearer, &report) {
                    tracing::debug!(%error, "the status was not reported");
                }
            }
        });
        let _ = posting.await;
    }
}

fn report_of(bound: &JoinedMesh, status: &str) -> (String, String) {
    let identity = bound.connection.identity();
    let report = json!({"session_id": identity.session_id, "pid": identity.pid, "cwd": identity.cwd, "status": status});
    (broker_http(&identity.broker_url), report.to_string())
}

impl Session {
    /// The config folder.
    pub fn config_dir(&self) -> &Path {
        self.store().dir()
    }

    /// Session id on the wire; it stays when the host gives the session another id.
    pub fn wire_session_id(&self) -> String {
        let first = self.meshes().into_iter().next().map(|bound| bound.connection.identity().session_id.clone());
        first.unwrap_or_else(|| self.session_id())
    }

    /// Slugs of the meshes that are bound.
    pub fn slugs_bound(&self) -> Vec<String> {
        self.meshes().into_iter().map(|bound| bound.tag.slug).collect()
    }

    /// The host has said what it is.
    pub fn greeted(&self, name: &str, version: &str) {
        let pid = u32::try_from(super::parent_pid()).unwrap_or(0);
        let channel = routes::host::channel(&self.env, name, pid);
        if let routes::Channel::Off(reason) = &channel {
            tracing::info!(reason, "messages do not go over the channel");
        }
        let project = std::path::PathBuf::from(&self.identity().cwd);
        let socket = routes::inbox_socket::InboxSocket::allowed(&self.env, &project);
        if let Some(id) = self.routes.session_id() {
            let transcripts = crate::paths::ClaudeFiles::locate(&self.env).transcripts(&project);
            self.routes.expect_transcript(transcripts.join(format!("{id}.jsonl")));
        }
        self.routes.greeted(format!("{name} {version}"), channel, socket);
    }

    /// Counts messages that were shown.
    pub fn count_in(&self, count: usize) {
        self.counters.messages_in.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A hook says what the session does.
    pub fn report_status(&self, status: &'static str) {
        self.hook_status.send_replace(Some(status));
    }

    /// Whether the user does not want to be disturbed, as far as this process was told.
    pub fn is_quiet(&self) -> bool {
        self.dnd.load(Ordering::Relaxed)
    }

    /// Notes the status that the session gave itself.
    pub fn note_own_status(&self, status: PeerStatus) {
        self.dnd.store(status == PeerStatus::Dnd, Ordering::Relaxed);
    }

    /// Notes what the session's shell writes about it.
    pub fn note_own_write(&self, message: &ClientMessage) {
        if let ClientMessage::Presence(presence::Request::SetStatus(write)) = message {
            self.note_own_status(write.status);
        }
    }

    /// The host gave the session another id. After `/clear` and the like the seat stays: the same key is kept for the new
    /// id, so that a later resume finds it. A session that was resumed under our feet gets its own key back, with the
    /// mail that waits for it; a fork gets one of its own.
    pub async fn session_changed(self: &Arc<Self>, before: Option<String>, now: String, source: Option<&str>) {
        tracing::info!(session.before = before, session.now = now, source, "the host changed the session");
        let config = match self.store.load() {
            Ok(config) => config,
            Err(error) => return tracing::error!(%error, "the config cannot be read"),
        };
        for bound in self.meshes() {
            let Some(entry) = config.meshes.iter().find(|entry| entry.mesh_id.as_str() == bound.tag.id) else {
                continue;
            };
            let own = bound.connection.identity().own_key().clone();
            let stored = match self.store.known_session_key(&entry.mesh_id, &now) {
                Ok(stored) => stored,
                Err(error) => {
                    tracing::error!(mesh.slug = bound.tag.slug, %error, "the session's key cannot be read");
                    continue;
                }
            };
            let other = stored.as_ref().is_some_and(|key| key.public() != own.public());
            if other || source == Some("fork") {
                if let Err(error) = self.rebind(&bound, entry).await {
                    tracing::error!(mesh.slug = bound.tag.slug, %error, "the mesh cannot be used");
                }
            } else if stored.is_none()
                && let Err(error) = self.store.keep_session_key(&entry.mesh_id, &entry.slug, &now, &own)
            {
                tracing::warn!(mesh.slug = bound.tag.slug, %error, "a resume will not find this session's key");
            }
        }
    }

    pub(super) async fn rebind(
        self: &Arc<Self>,
        bound: &JoinedMesh,
        entry: &crate::config::MeshEntry,
    ) -> Result<(), CliError> {
        self.unbind(bound);
        bound.connection.close().await;
        self.bind_one(entry).await
    }

    /// Context for the next prompt: questions that were shown before and still wait for their answer.
    pub async fn question_reminder(&self) -> Option<String> {
        let found = self.questions(|mail| mail.pending_questions(MAX_QUESTIONS)).await;
        let slugged =
            |(bound, list): (JoinedMesh, Vec<Question>)| list.into_iter().map(move |one| (bound.tag.slug.clone(), one));
        let mut list: Vec<(String, Question)> = found.into_iter().flat_map(slugged).collect();
        // What was not shown yet comes as a message, with the same hook.
        list.retain(|(_, question)| question.state == QuestionState::Delivered);
        joined(text::reminder(&list), &self.calls(AskedCalls::waiting))
    }

    /// Why the model must not stop yet: questions that wait for an answer, and those of them that no route has shown before.
    /// Each may do so twice; then the asker is told that the session has stopped over it.
    pub async fn questions_before_stop(&self) -> Option<(String, Vec<UnconfirmedDelivery>)> {
        let stopping = self.questions(|mail| mail.block_for_questions(crate::clock::now_ms())).await;
        let (mut list, mut shown) = (vec![], vec![]);
        for (bound, stopping) in stopping {
            let fresh = stopping.blocking.iter().filter(|question| question.state == QuestionState::Pending);
            let (seqs, message_ids): (Vec<i64>, Vec<String>) =
                fresh.map(|question| (question.message.seq, question.message.message_id.clone())).unzip();
            shown.push(UnconfirmedDelivery {
                bound: bound.clone(),
                message_ids,
                seqs,
                route: routes::STOP,
                at: Instant::now(),
                misses: 0,
                batch_of_prompt: None,
            });
            list.extend(stopping.blocking.into_iter().map(|question| (bound.tag.slug.clone(), question)));
            // The host does not wait for it.
            tokio::spawn(decline(bound, stopping.declined));
        }
        joined(text::stop_reason(&list), &self.calls(AskedCalls::blocking)).map(|text| (text, shown))
    }

    /// Calls of the session's own MCP servers that the model has still to answer.
    fn calls(&self, which: fn(&AskedCalls) -> Vec<Waiting>) -> Vec<Waiting> {
        if self.mode() == MessageMode::Off {
            return vec![];
        }
        self.meshes().iter().flat_map(|bound| which(bound.hosting.asked())).collect()
    }

    async fn questions<T: Send + 'static>(
        &self,
        ask: fn(&mut Mail<'_>) -> Result<T, InboxError>,
    ) -> Vec<(JoinedMesh, T)> {
        let mut list = vec![];
        if self.mode() == MessageMode::Off {
            return list;
        }
        for bound in self.meshes() {
            let found = match self.admit(&bound).await {
                Ok(admitted) => admitted.run(ask).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => list.push((bound, found)),
                Err(error) => tracing::error!(mesh.slug = bound.tag.slug, %error, "questions cannot be read"),
            }
        }
        list
    }

    /// How the routes stand.
    pub async fn report(&self) -> Report {
        let mut unshown = 0;
        for bound in self.meshes() {
            unshown += self.waiting(&bound).await;
        }
        Report { name: Some(self.name()), ..self.routes.report(unshown) }
    }

    /// How many messages a pull would bring. What the rule for incoming messages keeps back does not wait for the session,
    /// and a number would tell of it.
    pub async fn waiting(&self, bound: &JoinedMesh) -> i64 {
        let counted = match self.admit(bound).await {
            Ok(admitted) => admitted.run(|mail| mail.count_unshown()).await,
            Err(error) => Err(error),
        };
        counted.unwrap_or_else(|error| {
            tracing::error!(mesh.slug = bound.tag.slug, %error, "waiting messages cannot be counted");
            0
        })
    }

    /// What a tool's answer says besides: messages wait and nothing else will bring them.
    pub async fn notice(&self) -> Option<String> {
        if self.mode() == MessageMode::Off || self.routes.can_push() {
            return None;
        }
        let mut waiting: HashMap<String, i64> = HashMap::new();
        for bound in self.meshes() {
            let count = self.waiting(&bound).await;
            if count > 0 {
                waiting.insert(bound.tag.slug, count);
            }
        }
        let total: i64 = waiting.values().sum();
        match total {
            0 => None,
            1 => Some("1 mesh message waits: check_messages reads it".into()),
            total => Some(format!("{total} mesh messages wait: check_messages reads them")),
        }
    }

    /// Writes a harmless line into the session over one route, for the doctor.
    ///
    /// # Errors
    /// Why that route is closed.
    pub async fn probe(&self, route: &str) -> Result<(), String> {
        self.routes.probe(route).await
    }

    /// Messages that a person must release, per mesh.
    pub async fn held(&self) -> Vec<(String, i64)> {
        let mut list = vec![];
        for bound in self.meshes() {
            let reader = bound.reader();
            let count = bound.mailbox.run(move |inbox| inbox.count_held(&reader)).await.unwrap_or(0);
            if count > 0 {
                list.push((bound.tag.slug, count));
            }
        }
        list
    }

    /// A line for the user when more messages are held than before; the host shows it, the model does not read it.
    pub async fn held_notice(&self) -> Option<String> {
        let held = self.held().await;
        let total = held.iter().map(|(_, count)| count).sum();
        let before = self.held_told.swap(total, Ordering::Relaxed);
        if total <= before || self.mode() == MessageMode::Off {
            return None;
        }
        let places: Vec<String> = held.iter().map(|(slug, count)| format!("{count} in {slug}")).collect();
        Some(format!(
            "claudemesh: messages are held for you ({}). To read and release them: claudemesh held",
            places.join(", ")
        ))
    }

    /// Waits until the local socket and its entry are gone.
    pub(super) async fn socket_closed(&self) {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = socket {
            let _ = socket.await;
        }
    }

    /// Removes a mesh whose connection is given up.
    fn unbind(&self, bound: &JoinedMesh) {
        let mut list = self.bound.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|known| known.tag.id != bound.tag.id);
    }

    /// The session's id as the host last told it, else one of our own.
    pub fn session_id(&self) -> String {
        self.routes.session_id().unwrap_or_else(|| self.throw_away_id.clone())
    }
}

/// What is said of questions, and the calls; `None` when there is nothing to say.
fn joined(questions: String, calls: &[Waiting]) -> Option<String> {
    let calls = calls.iter().map(|call| call.text(NOTE_CHARS));
    let texts: Vec<String> = std::iter::once(questions).filter(|text| !text.is_empty()).chain(calls).collect();
    Some(texts.join("\n\n")).filter(|text| !text.is_empty())
}

/// Tells askers that their questions were given up. Not connected, or too many at once: their own time ends their wait.
async fn decline(bound: JoinedMesh, questions: Vec<Question>) {
    for question in questions.iter().take(MAX_DECLINED) {
        if let Err(error) = reply::tell_stopped(&bound.connection, &question.message).await {
            tracing::warn!(mesh.slug = bound.tag.slug, %error, "an asker was not told that its question was given up");
        }
    }
}
