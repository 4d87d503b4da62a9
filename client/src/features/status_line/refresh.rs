//! Keeps the cache fresh while a status line is looked at, and costs nothing while none is.
//!
//! The status line touches `run/status-line`; the MCP server of a session asks the broker for the peers only when that
//! happened lately. A list of a thousand peers every few seconds, for each of a thousand sessions, is worth no one's while.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::features::presence::Peer;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::config::ConfigStore;
use crate::connection::Stored;
use crate::files;
use crate::session::JoinedMesh;
use crate::session::Session;

use super::cache;

/// How often the peers are asked for.
const EVERY: Duration = Duration::from_secs(20);
/// Mail of this time is looked at together.
const BURST: Duration = Duration::from_secs(1);
/// A status line that was not called for so long is gone.
const LOOKED_AT: Duration = Duration::from_secs(120);
/// The mark is renewed when it is older than this.
const RENEW: Duration = Duration::from_secs(10);

/// Says that someone looks. A config folder that cannot be written shows old numbers, no more.
pub(super) fn ask(store: &ConfigStore) {
    if age(store).is_some_and(|age| age < RENEW) || !store.dir().is_dir() {
        return;
    }
    let run = store.dir().join("run");
    // Not flushed to disk: a mark that is lost is made again.
    let _ = files::create_private_dir(&run).and_then(|()| std::fs::write(run.join("status-line"), b"1"));
}

/// Whether someone looks.
fn asked(store: &ConfigStore) -> bool {
    age(store).is_some_and(|age| age < LOOKED_AT)
}

/// Time since the mark was renewed; `None` without one. A time to come counts as now.
fn age(store: &ConfigStore) -> Option<Duration> {
    let modified = std::fs::metadata(store.dir().join("run/status-line")).and_then(|meta| meta.modified()).ok()?;
    Some(modified.elapsed().unwrap_or_default())
}

/// Writes the peers of one mesh into the cache as long as the session lives.
pub async fn run(session: Arc<Session>, bound: JoinedMesh) {
    let stop = session.stopped();
    // The first row of a session should not wait for the second tick.
    tokio::select! {
        () = stop.cancelled() => return,
        _ = bound.connection.ready(EVERY) => {}
    }
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut mail = bound.connection.mail_events();
    let mut there = None;
    loop {
        // Mail changes what waits, not who is there.
        let came = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => false,
            came = next_mail(&mut mail) => came,
        };
        let store = session.store().clone();
        if !asked(&store) {
            continue;
        }
        if !came || there.is_none() {
            // Not connected: the row says how old the numbers are.
            let Ok(peers) = bound.connection.list_peers().await else { continue };
            there = Some(count(&peers));
        }
        let (slug, you, there) = (bound.tag.slug.clone(), session.name(), there.unwrap_or_default());
        let now = crate::clock::now_ms();
        let Ok(waits) = bound.mailbox.run(move |inbox| inbox.tally(now)).await else { continue };
        let written = tokio::task::spawn_blocking(move || cache::record(&store, &slug, there, &you, waits)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(mesh.slug = bound.tag.slug, %error, "the peer cache could not be written")
            }
            Err(error) => tracing::debug!(mesh.slug = bound.tag.slug, %error, "the peer cache could not be written"),
        }
    }
}

/// Mail came; a burst of it is one word. Never returns when none can come any more.
async fn next_mail(mail: &mut Option<broadcast::Receiver<Stored>>) -> bool {
    if let Some(events) = mail {
        if !matches!(events.recv().await, Err(RecvError::Closed)) {
            tokio::time::sleep(BURST).await;
            while events.try_recv().is_ok() {}
            return true;
        }
        *mail = None;
    }
    std::future::pending().await
}

/// How many peers are connected, and how many there are with the people who are away. A session that has ended is no one who
/// could come back, so anyone who has one that is connected is not counted as away.
fn count(peers: &[Peer]) -> (usize, usize) {
    let online: Vec<&Peer> = peers.iter().filter(|peer| peer.online).collect();
    let mut away: Vec<_> = peers.iter().map(|peer| peer.member_pubkey).collect();
    away.retain(|member| !online.iter().any(|peer| peer.member_pubkey == *member));
    away.sort_unstable_by_key(|member| member.to_hex());
    away.dedup();
    (online.len(), online.len() + away.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_sessions_are_nobody() {
        let peer = |key: &str, member: &str, online: bool| -> Peer {
            serde_json::from_value(serde_json::json!({
                "pubkey": key.repeat(64), "memberPubkey": member.repeat(64), "displayName": "x", "status": "idle",
                "summary": null, "groups": [], "sessionId": key, "connectedAt": "t", "cwd": "/", "online": online,
            }))
            .unwrap()
        };
        let mut peers = vec![peer("1", "a", true)];
        peers.extend(["2", "3", "4", "5"].map(|key| peer(key, "b", false)));
        peers.push(peer("6", "a", false));
        assert_eq!(count(&peers), (1, 2));
        peers.push(peer("7", "b", true));
        assert_eq!(count(&peers), (2, 2));
    }

    #[test]
    fn a_look_is_remembered_for_two_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path().join("none"));
        ask(&store);
        assert!(!asked(&store) && !store.dir().exists(), "no config folder is made for it");
        let store = ConfigStore::at(dir.path());
        ask(&store);
        assert!(asked(&store));
        let mark = std::fs::File::open(dir.path().join("run/status-line")).unwrap();
        mark.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!asked(&store));
        ask(&store);
        assert!(asked(&store), "an old mark is renewed");
    }
}
