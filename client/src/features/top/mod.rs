//! `claudemesh top`: who is there and what waits, on one screen that follows what happens.
//!
//! [`Board`] is what the screen shows, [`view`] draws it on any backend, [`cli`] keeps it up to date and reads the keys. What happens
//! wakes it: events of the broker, mail, keys. Counters and statuses that no one announces are asked for every few seconds.

use std::collections::HashMap;
use std::time::Duration;

use claudemesh_protocol::features::presence::{Peer, PeerStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::inbox::Tally;

pub mod cli;
mod view;

/// How far back rates look.
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Peers of one mesh that are kept for rates.
const MAX_RATES: usize = 10_000;

/// What waits in one mesh, for scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// The mesh.
    pub mesh: String,
    /// Connected peers.
    pub online: usize,
    /// Sessions that are away and may come back.
    pub away: usize,
    /// Messages that no one has seen.
    pub unread: i64,
    /// Messages that are held from a session.
    pub held: i64,
    /// Questions without an answer.
    pub questions: i64,
    /// Commands that wait in the outbox.
    pub queued: usize,
}

/// A row of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PeerRow {
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) waiting: u32,
    /// Messages a minute, received and sent; `None` before two reports came.
    pub(super) rate: Option<(f64, f64)>,
    pub(super) host: String,
    pub(super) folder: String,
    pub(super) model: String,
    pub(super) groups: String,
    pub(super) summary: String,
    pub(super) own: bool,
}

/// A line below the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) what: &'static str,
    pub(super) id: String,
    pub(super) from: String,
    pub(super) text: String,
}

/// How rows are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Name,
    Status,
    Waiting,
    Rate,
}

impl Order {
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Name => Self::Status,
            Self::Status => Self::Waiting,
            Self::Waiting => Self::Rate,
            Self::Rate => Self::Name,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Status => "status",
            Self::Waiting => "waiting",
            Self::Rate => "rate",
        }
    }
}

/// What the screen shows of one mesh.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    pub(super) counts: Counts,
    pub(super) peers: Vec<PeerRow>,
    pub(super) waiting: Vec<Waiting>,
    /// Why the numbers are old; `None` while the broker answers.
    pub(super) trouble: Option<String>,
    rates: Rates,
}

impl Board {
    pub(super) fn new(mesh: &str) -> Self {
        Self { counts: Counts { mesh: mesh.to_owned(), ..Counts::default() }, ..Self::default() }
    }

    /// Takes over who is there. `own` is the member's key, `this` the session id of this connection, which is left out.
    pub(super) fn peers(&mut self, list: &[Peer], own: &str, this: &str, now: Instant) {
        let others: Vec<&Peer> = list.iter().filter(|peer| peer.session_id != this).collect();
        self.counts.online = others.iter().filter(|peer| peer.online).count();
        self.counts.away = others.len() - self.counts.online;
        self.rates.note(&others, now);
        self.peers = others.iter().map(|peer| row(peer, own, self.rates.of(peer))).collect();
        self.trouble = None;
    }

    pub(super) fn tally(&mut self, tally: Tally, queued: usize) {
        (self.counts.unread, self.counts.held, self.counts.questions) = (tally.unread, tally.held, tally.questions);
        self.counts.queued = queued;
    }

    /// Messages a minute of all peers.
    pub(super) fn rate(&self) -> f64 {
        // The sum of nothing is minus zero.
        self.peers.iter().filter_map(|peer| peer.rate).map(|(_, sent)| sent).sum::<f64>() + 0.0
    }

    /// The rows in this order; with `away` also who is away.
    pub(super) fn sorted(&self, order: Order, away: bool) -> Vec<&PeerRow> {
        let mut rows: Vec<&PeerRow> = self.peers.iter().filter(|peer| away || peer.status != "away").collect();
        rows.sort_by(|one, two| {
            let by = match order {
                Order::Name => std::cmp::Ordering::Equal,
                Order::Status => rank(one.status).cmp(&rank(two.status)),
                Order::Waiting => two.waiting.cmp(&one.waiting),
                Order::Rate => total(two).total_cmp(&total(one)),
            };
            by.then_with(|| one.name.to_lowercase().cmp(&two.name.to_lowercase()))
        });
        rows
    }
}

fn total(row: &PeerRow) -> f64 {
    row.rate.map_or(0.0, |(got, sent)| got + sent)
}

fn rank(status: &str) -> u8 {
    match status {
        "working" => 0,
        "dnd" => 1,
        "idle" => 2,
        _ => 3,
    }
}

fn row(peer: &Peer, own: &str, rate: Option<(f64, f64)>) -> PeerRow {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PeerRow {
        name: peer.display_name.clone(),
        status: match peer.status {
            _ if !peer.online => "away",
            PeerStatus::Idle => "idle",
            PeerStatus::Working => "working",
            PeerStatus::Dnd => "dnd",
        },
        waiting: peer.waiting.unwrap_or(0),
        rate,
        host: text(&peer.hostname),
        folder: peer.cwd.clone(),
        model: text(&peer.model),
        groups: peer.groups.iter().map(|group| format!("@{}", group.name)).collect::<Vec<_>>().join(" "),
        summary: text(&peer.summary),
        own: peer.member_pubkey.to_hex() == own,
    }
}

/// The counters of peers over the last minute.
#[derive(Clone, Debug, Default)]
struct Rates {
    /// By session: oldest first, at most one sample per look.
    samples: HashMap<String, Vec<(Instant, f64, f64)>>,
}

impl Rates {
    fn note(&mut self, peers: &[&Peer], now: Instant) {
        self.samples.retain(|session, _| peers.iter().any(|peer| peer.session_id == *session));
        for peer in peers {
            let Some(stats) = &peer.stats else { continue };
            if !self.samples.contains_key(&peer.session_id) && self.samples.len() >= MAX_RATES {
                continue;
            }
            let seen = self.samples.entry(peer.session_id.clone()).or_default();
            let (got, sent) = (stats.messages_in.unwrap_or(0.0), stats.messages_out.unwrap_or(0.0));
            // A session that was started again counts from the beginning.
            if seen.last().is_some_and(|(_, before, out)| got < *before || sent < *out) {
                seen.clear();
            }
            seen.push((now, got, sent));
            // One sample from before the window stays, so that there is always something to compare with.
            while seen.len() > 2 && now.duration_since(seen[1].0) >= RATE_WINDOW {
                seen.remove(0);
            }
        }
    }

    fn of(&self, peer: &Peer) -> Option<(f64, f64)> {
        let seen = self.samples.get(&peer.session_id)?;
        let (first, last) = (seen.first()?, seen.last()?);
        let minutes = last.0.duration_since(first.0).as_secs_f64() / 60.0;
        (minutes > 0.0).then(|| ((last.1 - first.1) / minutes, (last.2 - first.2) / minutes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn peer(name: &str, status: &str, more: serde_json::Value) -> Peer {
        let mut peer = serde_json::json!({
            "pubkey": "1".repeat(64), "memberPubkey": "a".repeat(64), "displayName": name, "status": status, "summary": null,
            "groups": [], "sessionId": name, "connectedAt": "t", "cwd": "/srv/api", "online": true,
        });
        peer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(peer).unwrap()
    }

    #[test]
    fn rates_are_of_the_last_minute_and_begin_anew_with_a_session() {
        let mut board = Board::new("team");
        let at = |seconds: u64| Instant::now() + Duration::from_secs(seconds);
        let stats = |got: f64, sent: f64| serde_json::json!({"stats": {"messagesIn": got, "messagesOut": sent}});
        let start = at(0);
        let mut look = |seconds: u64, got: f64, sent: f64| {
            let peers = [peer("api", "idle", stats(got, sent)), peer("me", "idle", serde_json::json!({}))];
            board.peers(&peers, &"b".repeat(64), "me", start + Duration::from_secs(seconds));
            board.peers.first().and_then(|row| row.rate)
        };
        assert_eq!(look(0, 10.0, 20.0), None, "one look tells no rate");
        assert_eq!(look(30, 10.0, 25.0), Some((0.0, 10.0)));
        assert_eq!(look(90, 40.0, 25.0), Some((30.0, 0.0)), "of the minute since the second look");
        assert_eq!(look(95, 0.0, 0.0), None, "started again");
        assert_eq!(board.counts.online, 1, "this screen is nobody");
    }

    #[test]
    fn rows_are_ordered_as_asked() {
        let mut board = Board::new("team");
        let waiting = serde_json::json!({"waiting": 3});
        let away = serde_json::json!({"online": false});
        let peers = [
            peer("zoe", "working", serde_json::json!({})),
            peer("Ann", "idle", waiting),
            peer("bob", "dnd", serde_json::json!({})),
            peer("cid", "idle", away),
        ];
        board.peers(&peers, "", "", Instant::now());
        let names = |order, away| board.sorted(order, away).iter().map(|row| row.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(Order::Name, true), ["Ann", "bob", "cid", "zoe"]);
        assert_eq!(names(Order::Status, false), ["zoe", "bob", "Ann"]);
        assert_eq!(names(Order::Waiting, false), ["Ann", "bob", "zoe"]);
        assert_eq!((board.counts.online, board.counts.away), (3, 1));
    }
}
