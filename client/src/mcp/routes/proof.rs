//! Proof that messages arrived: the host's transcript holds their ids. Without it a channel that swallows is found out.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::features::messaging::Stage;

use super::{CHANNEL, Channel, Handed, Routes, SOCKET};
use crate::mcp::hub::Hub;

/// How much of the transcript's end is read: far more than one turn writes.
const TAIL_BYTES: u64 = 4 << 20;
/// How long a session at rest may take to begin the turn for a note.
const ARRIVAL: Duration = Duration::from_millis(1_500);
/// Looks in vain at a session at rest before a route counts as dead.
const MAX_MISSES: u8 = 2;

impl Handed {
    /// Only the transcript shows that it arrived.
    fn needs_proof(&self) -> bool {
        self.route == CHANNEL || self.route == SOCKET
    }
}

impl Routes {
    /// Takes out what hooks, waits and pulls handed over: a hook that fires afterwards shows that the model had its turn.
    pub fn take_confirmed(&self) -> Vec<Handed> {
        let mut state = self.state();
        let (rest, confirmed) = std::mem::take(&mut state.handed).into_iter().partition(Handed::needs_proof);
        state.handed = rest;
        confirmed
    }

    /// What was handed over and nothing has confirmed, with the transcript that would show it.
    fn unproven(&self) -> Option<(PathBuf, Vec<String>)> {
        let state = self.state();
        let transcript = state.transcript.clone()?;
        let unproven = state.handed.iter().filter(|handed| handed.needs_proof());
        let ids: Vec<String> = unproven.flat_map(|handed| handed.message_ids.clone()).collect();
        if ids.is_empty() { None } else { Some((transcript, ids)) }
    }

    /// Takes out what was found. Answers it, and what must be given to another route because the channel is dead.
    fn settle(&self, found: &[String], at_rest: bool) -> (Vec<Handed>, Vec<Handed>) {
        let mut state = self.state();
        let (mut seen, mut rest, mut lost) = (vec![], vec![], vec![]);
        for mut handed in std::mem::take(&mut state.handed) {
            if handed.message_ids.iter().all(|id| found.contains(id)) {
                seen.push(handed);
            } else if !handed.needs_proof() {
                rest.push(handed);
            } else {
                // Without hooks nobody knows whether a turn is under way, and it may arrive after it.
                if at_rest && state.last_hook.is_some() && handed.at.elapsed() >= ARRIVAL {
                    handed.misses += 1;
                }
                if handed.misses >= MAX_MISSES { lost.push(handed) } else { rest.push(handed) }
            }
        }
        let by = |list: &[Handed], route: &str| list.iter().any(|handed| handed.route == route);
        if by(&seen, CHANNEL) {
            state.channel = Channel::Proven;
        }
        for route in [CHANNEL, SOCKET] {
            if !by(&lost, route) {
                continue;
            }
            let reason = "what was written is not in the session's transcript".to_owned();
            if route == CHANNEL {
                state.channel = Channel::Dead(reason);
            } else {
                state.socket = Err(reason);
            }
            // What is still on its way there goes another way too.
            let (more, keep) = rest.into_iter().partition(|handed: &Handed| handed.route == route);
            rest = keep;
            lost.extend::<Vec<Handed>>(more);
        }
        state.handed = rest;
        (seen, lost)
    }

    fn at_rest(&self) -> bool {
        !self.state().in_turn()
    }
}

/// Looks for what the channel wrote in the transcript, and acts on what is found. Called at hooks and after notes.
pub async fn look(hub: &Hub) {
    let Some((transcript, ids)) = hub.routes.unproven() else { return };
    let at_rest = hub.routes.at_rest();
    let wanted = ids.clone();
    let Ok(found) = tokio::task::spawn_blocking(move || find(&transcript, &wanted)).await else { return };
    let (seen, lost) = hub.routes.settle(&found, at_rest);
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
        hub.routes.touch();
    }
}

/// Tells the sender that the messages were seen, and the inbox.
pub async fn confirm(handed: &Handed) {
    handed.bound.connection.acknowledge(handed.message_ids.clone(), Stage::Seen, handed.route);
    let (reader, seqs, now) = (handed.bound.reader(), handed.seqs.clone(), crate::clock::now_ms());
    let noted = handed.bound.mailbox.run(move |inbox| {
        inbox.set_stage(&reader, &seqs, Stage::Seen)?;
        inbox.mark_seen(&seqs, now)
    });
    if let Err(error) = noted.await {
        tracing::warn!(mesh.slug = handed.bound.tag.slug, %error, "the inbox does not know what was seen");
    }
}

/// Looks again whenever a note could have arrived since, until the session ends.
pub async fn watch(hub: Arc<Hub>) {
    let stop = hub.stopped();
    let mut tick = tokio::time::interval(ARRIVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // Costs a lock when nothing is unproven.
            _ = tick.tick() => look(&hub).await,
        }
    }
}

/// Which of the ids stand in the end of the file. An id is a random word, so finding it means finding the message.
fn find(transcript: &Path, ids: &[String]) -> Vec<String> {
    let Ok(mut file) = std::fs::File::open(transcript) else { return vec![] };
    let length = file.metadata().map(|meta| meta.len()).unwrap_or(0);
    if file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).is_err() {
        return vec![];
    }
    let mut tail = Vec::new();
    if file.take(TAIL_BYTES).read_to_end(&mut tail).is_err() {
        return vec![];
    }
    let holds = |id: &&String| memchr::memmem::find(&tail, id.as_bytes()).is_some();
    ids.iter().filter(holds).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_the_end_of_the_transcript() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let ids = ["early1234567".to_owned(), "late12345678".to_owned(), "none12345678".to_owned()];
        let mut text = "early1234567\n".to_owned();
        text.push_str(&"x".repeat(TAIL_BYTES as usize));
        text.push_str("\n{\"id\":\"late12345678\"}\n");
        std::fs::write(&path, text).unwrap();
        assert_eq!(find(&path, &ids), [ids[1].clone()]);
        assert!(find(&dir.path().join("missing"), &ids).is_empty());
    }
}
