//! Proof that messages arrived and were read: the host's transcript holds their ids, and words of the model after them.
//!
//! Without it a channel that swallows is found out. Where there is no transcript that can be read, hooks are the proof: a
//! turn that ends, and a tool call where it cannot be of the batch that the message was shown in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::features::messaging::Stage;

use super::transcript::{self, Sign};
use super::{CHANNEL, Channel, MONITOR, REWAKE, Routes, SOCKET, UnconfirmedDelivery};
use crate::session::Session;

/// How long a session at rest may take to begin the turn for a note.
const ARRIVAL: Duration = Duration::from_millis(1_500);
/// Looks in vain at a session at rest before a route counts as dead.
const MAX_MISSES: u8 = 2;

/// Why it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Time has passed, or a prompt came: the model has not had its turn for it yet.
    Time,
    /// A tool was called.
    Tool,
    /// The turn is over.
    Stop,
}

/// What the transcript says of what was handed over.
#[derive(Default)]
struct Evidence {
    /// There is one to look into.
    looked: bool,
    /// It holds what the model says.
    known: bool,
    signs: HashMap<String, Sign>,
}

impl Evidence {
    /// The weakest sign of the messages of one text_to_wake.
    fn of(&self, handed: &UnconfirmedDelivery) -> Option<Sign> {
        let signs = handed.message_ids.iter().map(|id| self.signs.get(id).copied());
        signs.min().flatten()
    }
}

impl UnconfirmedDelivery {
    /// Only the transcript shows that it arrived.
    fn needs_proof(&self) -> bool {
        self.route == CHANNEL || self.route == SOCKET
    }

    /// The host may keep it for later while a turn of its own accord is under way.
    fn may_be_kept(&self) -> bool {
        self.route == REWAKE || self.route == MONITOR
    }

    /// Whether the model had its turn after it. `prompts`: how many prompts the session has had.
    fn was_read(&self, occasion: Occasion, evidence: &Evidence, prompts: u64) -> bool {
        let sign = evidence.of(self);
        if sign == Some(Sign::Read) {
            return true;
        }
        if self.needs_proof() {
            return false;
        }
        match occasion {
            Occasion::Time => false,
            Occasion::Stop => !evidence.known || !self.may_be_kept() || sign == Some(Sign::InContext),
            // One of several that the model called at once tells nothing: it had called them all before.
            Occasion::Tool => !evidence.known && self.batch_of_prompt.is_none_or(|of| of < prompts),
        }
    }
}

impl Routes {
    /// What was handed over and nothing has confirmed, with the transcript that would show it.
    fn unproven(&self) -> (Option<PathBuf>, Vec<String>) {
        let state = self.state();
        (state.transcript.clone(), state.handed.iter().flat_map(|handed| handed.message_ids.clone()).collect())
    }

    /// Takes out what was read. Answers it, and what must be given to another route because one is dead.
    fn settle(&self, occasion: Occasion, evidence: &Evidence) -> (Vec<UnconfirmedDelivery>, Vec<UnconfirmedDelivery>) {
        let mut state = self.state();
        let (at_rest, prompts) = (!state.in_turn(), state.prompts);
        let (mut seen, mut rest, mut lost) = (vec![], vec![], vec![]);
        for mut handed in std::mem::take(&mut state.handed) {
            if handed.route == CHANNEL && evidence.of(&handed).is_some() {
                state.channel = Channel::Proven;
            }
            if handed.was_read(occasion, evidence, prompts) {
                seen.push(handed);
                continue;
            }
            // Without hooks no one knows whether a turn is under way, and it may arrive after it.
            let overdue = at_rest && state.last_hook.is_some() && handed.at.elapsed() >= ARRIVAL;
            if handed.needs_proof() && evidence.looked && overdue && evidence.of(&handed).is_none() {
                handed.misses += 1;
            }
            if handed.misses >= MAX_MISSES { lost.push(handed) } else { rest.push(handed) }
        }
        for route in [CHANNEL, SOCKET] {
            if !lost.iter().any(|handed| handed.route == route) {
                continue;
            }
            let reason = "what was written is not in the session's transcript".to_owned();
            if route == CHANNEL {
                state.channel = Channel::Dead(reason);
            } else {
                state.socket = Err(reason);
            }
            // What is still on its way there goes another way too.
            let (more, keep) = rest.into_iter().partition(|handed: &UnconfirmedDelivery| handed.route == route);
            rest = keep;
            lost.extend::<Vec<UnconfirmedDelivery>>(more);
        }
        state.handed = rest;
        (seen, lost)
    }
}

/// Looks what of the handed messages was read, and acts on it. Called at hooks and as time goes by.
pub async fn look(session: &Session, occasion: Occasion) {
    drop(session.answers.written().await);
    let (transcript, ids) = session.routes.unproven();
    if ids.is_empty() {
        return;
    }
    let evidence = match transcript {
        Some(transcript) => {
            let read = tokio::task::spawn_blocking(move || {
                let (known, signs) = transcript::read(&transcript, &ids);
                Evidence { looked: true, known, signs }
            });
            let Ok(evidence) = read.await else { return };
            evidence
        }
        None => Evidence::default(),
    };
    let (seen, lost) = session.routes.settle(occasion, &evidence);
    for handed in seen {
        confirm(&handed).await;
    }
    for handed in lost {
        tracing::warn!(
            mesh.slug = handed.bound.tag.slug,
            route = handed.route,
            count = handed.seqs.len(),
            "messages were swallowed"
        );
        let reader = handed.bound.reader();
        let seqs = handed.seqs.clone();
        if let Err(error) = handed.bound.mailbox.run(move |inbox| inbox.unclaim(&reader, &seqs)).await {
            tracing::error!(mesh.slug = handed.bound.tag.slug, %error, "messages stay unshown");
        }
        session.routes.touch();
    }
}

/// Notes that the messages were seen, and tells the sender.
pub async fn confirm(handed: &UnconfirmedDelivery) {
    let (reader, seqs, now) = (handed.bound.reader(), handed.seqs.clone(), crate::clock::now_ms());
    let noted = handed.bound.mailbox.run(move |inbox| {
        inbox.set_stage(&reader, &seqs, Stage::Seen)?;
        inbox.mark_seen(&seqs, now)
    });
    if let Err(error) = noted.await {
        tracing::warn!(mesh.slug = handed.bound.tag.slug, %error, "the inbox does not know what was seen");
    }
    // Last: anyone who hears of it may end us.
    handed.bound.connection.acknowledge(handed.message_ids.clone(), Stage::Seen, handed.route);
}

/// Looks again whenever a note could have arrived since, until the session ends.
pub async fn watch(session: Arc<Session>) {
    let stop = session.stopped();
    let mut tick = tokio::time::interval(ARRIVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // Costs a lock when nothing is unproven.
            _ = tick.tick() => look(&session, Occasion::Time).await,
        }
    }
}
