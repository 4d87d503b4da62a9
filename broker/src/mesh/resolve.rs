//! Which members and sessions a target means. Pure functions on the roster.

use std::collections::HashSet;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::members::Grant;
use claudemesh_protocol::features::messaging::Candidate;
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::name::{SEPARATOR, folded, splits};
use claudemesh_protocol::target::{MIN_KEY_PREFIX, Target};
use claudemesh_protocol::time::iso;
use smallvec::SmallVec;

use super::peers::{Member, Peer, PeerHandle, Roster, allows};
use crate::db::former_names::{FormerName, Subject};
use crate::metrics::METRICS;
use crate::refusal::Refusal;

/// Candidates listed in an `ambiguous_target` error.
const MAX_CANDIDATES: usize = 16;

/// One meaning of a name or key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A session, connected or away.
    Session(PublicKey),
    /// A member with all its sessions.
    Member(MemberId, PublicKey),
}

impl Resolved {
    /// The key to send to.
    pub fn key(&self) -> PublicKey {
        match self {
            Self::Session(key) | Self::Member(_, key) => *key,
        }
    }

    /// The member that is meant, or whose session is.
    pub fn member<'a>(&'a self, roster: &'a Roster) -> Option<&'a MemberId> {
        match self {
            Self::Member(id, _) => Some(id),
            Self::Session(key) => {
                let peer = roster.with_key(key).first().and_then(|at| roster.get(*at));
                peer.map(|peer| &peer.member).or_else(|| roster.known.get(key).map(|known| &known.member))
            }
        }
    }

    /// As the wire shows it.
    pub fn candidate(&self, roster: &Roster) -> Candidate {
        let member = self.member(roster).and_then(|id| roster.member(id));
        let member_name = member.map(|member| member.display_name.clone());
        let last_seen = |online: bool, at_ms: Option<i64>| at_ms.filter(|_| !online).map(iso);
        match self {
            Self::Session(key) => {
                let peer = roster.with_key(key).first().and_then(|at| roster.get(*at));
                let known = roster.known.get(key);
                let online = peer.is_some_and(Peer::online);
                let seen_ms = peer.map(|peer| peer.last_seen_ms).or_else(|| known.map(|known| known.last_seen_ms));
                let name = peer.map(|peer| &peer.name).or_else(|| known.map(|known| &known.name));
                let cwd = peer.map(|peer| &peer.cwd).or_else(|| known.map(|known| &known.cwd));
                let host =
                    peer.map_or_else(|| known.and_then(|known| known.hostname.as_ref()), |peer| peer.hostname.as_ref());
                Candidate {
                    kind: "session".into(),
                    pubkey: *key,
                    member_pubkey: member.map_or(*key, |member| member.pubkey),
                    name: name.cloned().unwrap_or_default(),
                    online,
                    cwd: cwd.cloned(),
                    member_name,
                    hostname: host.cloned(),
                    last_seen_at: last_seen(online, seen_ms),
                }
            }
            Self::Member(id, key) => {
                let online = roster.of_member(id).iter().any(|at| roster.get(*at).is_some_and(Peer::online));
                Candidate {
                    kind: "member".into(),
                    pubkey: *key,
                    member_pubkey: *key,
                    name: member_name.clone().unwrap_or_default(),
                    online,
                    cwd: None,
                    member_name,
                    hostname: None,
                    last_seen_at: last_seen(online, member.and_then(|member| member.last_seen_at_ms)),
                }
            }
        }
    }
}

/// What a delivery is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecipientKind {
    /// One session.
    Session,
    /// A member: under its own key when none of its sessions was there, and the first that returns takes it; else under the key
    /// of a session that was there, and another takes it when that one leaves it behind.
    Member,
}

/// One recipient of a message in memory.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// Session key, or member key.
    pub key: PublicKey,
    /// Which of them.
    pub kind: RecipientKind,
    /// Member behind it.
    pub member: MemberId,
    /// It is a session that is here, and the message is for its member: left behind, it goes to another session.
    pub copy: bool,
    /// It has acknowledged (or counts as delivered).
    pub received: bool,
}

/// Who a message is for, and the sockets it can be pushed to now.
pub struct Routed {
    /// What storage and receipts know.
    pub recipient: Recipient,
    /// Records that share the key.
    pub peers: Sockets,
}

/// Nearly always one.
pub type Sockets = SmallVec<[PeerHandle; 1]>;

/// Recipients up to which a look at all of them is cheaper than a set.
const FEW: usize = 8;

/// The meaning of a name, a key, a key prefix or `member/session` in this mesh.
///
/// What is there now comes first: a name, then an address, then a name that someone had until a day ago. A session that is here wins
/// over those that are not, and of several that are away and belong to one member the member is meant: the first that returns is as
/// good as any.
///
/// # Errors
/// `unknown_target`, or `ambiguous_target` with the candidates.
pub fn resolve_name(roster: &Roster, text: &str, caller: Option<PeerHandle>) -> Result<Resolved, Refusal> {
    let text = text.trim();
    if let Some(key) = PublicKey::parse(text) {
        return resolve_key(roster, &key);
    }
    let name = folded(text);
    let mut found = addressed(roster, text, caller);
    for (id, key) in members_called(roster, &name) {
        add(&mut found, Resolved::Member(id, key));
    }
    // No one gets what is for another member's session by calling its own one so.
    if found.is_empty() || !text.contains(SEPARATOR) {
        // A member is not taken for a session that has ended.
        let counts = |session: &Resolved| found.is_empty() || !roster.with_key(&session.key()).is_empty();
        let called: Vec<_> = sessions_called(roster, &name, None, caller).into_iter().filter(counts).collect();
        for session in called {
            add_covered(roster, &mut found, session);
        }
    }
    if is_prefix(text) {
        // Also beside a name: a session that calls itself like the beginning of a key must not get what is meant for the key.
        for other in with_prefix(roster, &name) {
            add(&mut found, other);
        }
    }
    if found.is_empty() {
        found = formerly(roster, &name);
        if found.len() > 1 {
            return Err(formerly_of_several(roster, text, &found));
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(unknown(&format!("no one here is called `{}`", printable(text)))),
        _ => Err(ambiguous(roster, text, &found)),
    }
}

fn add(found: &mut Vec<Resolved>, one: Resolved) {
    if !found.contains(&one) {
        found.push(one);
    }
}

/// A session that carries its member's name is reached through the member, which survives its restart.
fn add_covered(roster: &Roster, found: &mut Vec<Resolved>, session: Resolved) {
    let of = session.member(roster);
    if !found.iter().any(|other| matches!(other, Resolved::Member(id, _) if Some(id) == of)) {
        add(found, session);
    }
}

fn is_prefix(text: &str) -> bool {
    text.len() >= MIN_KEY_PREFIX && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a living member other than this one has the name.
pub fn is_taken(roster: &Roster, name: &str, by_other_than: &MemberId) -> bool {
    members_called(roster, &folded(name)).iter().any(|(id, _)| id != by_other_than)
}

fn members_called(roster: &Roster, name: &str) -> Vec<(MemberId, PublicKey)> {
    let called = |member: &&Member| member.revoked_at_ms.is_none() && folded(&member.display_name) == name;
    let mut members: Vec<&Member> = roster.members().filter(called).collect();
    members.sort_unstable_by_key(|member| (member.joined_at_ms, &member.id));
    members.into_iter().map(|member| (member.id.clone(), member.pubkey)).collect()
}

/// What a text means as `member/session`: the member by its name, a former name or its key.
fn addressed(roster: &Roster, text: &str, caller: Option<PeerHandle>) -> Vec<Resolved> {
    let mut found = Vec::new();
    for (member, session) in splits(text) {
        let (member, session) = (folded(member), folded(session));
        let mut members = members_called(roster, &member);
        if members.is_empty() {
            let former = formerly(roster, &member);
            let keyed = if is_prefix(&member) { with_prefix(roster, &member) } else { vec![] };
            members.extend(former.into_iter().chain(keyed).filter_map(|one| match one {
                Resolved::Member(id, key) => Some((id, key)),
                Resolved::Session(_) => None,
            }));
        }
        for (id, key) in members {
            let mut sessions = sessions_called(roster, &session, Some(&id), caller);
            if sessions.is_empty() {
                let former = formerly(roster, &session);
                sessions.extend(former.into_iter().filter(|one| one.member(roster) == Some(&id) && one.key() != key));
            }
            let own_name = roster.member(&id).is_some_and(|member| folded(&member.display_name) == session);
            if sessions.is_empty() && own_name {
                sessions.push(Resolved::Member(id, key));
            }
            sessions.into_iter().for_each(|one| add(&mut found, one));
        }
    }
    found
}

/// The sessions of this name, of one member or of any: those that are here, else those that are away.
fn sessions_called(roster: &Roster, name: &str, of: Option<&MemberId>, caller: Option<PeerHandle>) -> Vec<Resolved> {
    let meant = |member: &MemberId| of.is_none_or(|of| of == member);
    let named: Vec<&Peer> = roster
        .iter()
        .filter(|peer| {
            !peer.ephemeral && peer.session_key.is_some() && meant(&peer.member) && folded(&peer.name) == name
        })
        .filter(|peer| Some(peer.handle) != caller)
        .collect();
    let here: Vec<Resolved> =
        named.iter().filter(|peer| peer.online()).map(|peer| Resolved::Session(peer.key())).collect();
    if !here.is_empty() {
        return here;
    }
    let leased = named.iter().map(|peer| (peer.key(), peer.member.clone()));
    let ended = roster
        .known
        .iter()
        .filter(|(_, known)| meant(&known.member) && is_live(roster, &known.member) && folded(&known.name) == name)
        // Of a session that is here its present name counts.
        .filter(|(key, _)| {
            let mut here = roster.with_key(key).iter().filter_map(|handle| roster.get(*handle));
            here.all(|peer| folded(&peer.name) == name)
        });
    let mut away: Vec<(PublicKey, MemberId)> =
        leased.chain(ended.map(|(key, known)| (*key, known.member.clone()))).collect();
    away.sort_unstable();
    away.dedup();
    let mut found = Vec::new();
    for (key, member) in &away {
        let several = away.iter().filter(|(_, other)| other == member).count() > 1;
        let member_key = roster.member(member).map_or(*key, |member| member.pubkey);
        let one = if several || member_key == *key {
            Resolved::Member(member.clone(), member_key)
        } else {
            Resolved::Session(*key)
        };
        add(&mut found, one);
    }
    found
}

/// Who had a name until a renaming not long ago: members, else sessions, of which the last one of each member is meant. A name that
/// several had means none of them.
fn formerly(roster: &Roster, name: &str) -> Vec<Resolved> {
    let meaning = |row: &FormerName| match &row.subject {
        Subject::Member(id) if is_live(roster, id) => {
            roster.member(id).map(|member| Resolved::Member(id.clone(), member.pubkey))
        }
        Subject::Session(key) => {
            let session = Resolved::Session(*key);
            session.member(roster).is_some_and(|member| is_live(roster, member)).then_some(session)
        }
        Subject::Member(_) => None,
    };
    let (members, sessions): (Vec<Resolved>, Vec<Resolved>) =
        roster.former.of_name(name).filter_map(meaning).partition(|one| matches!(one, Resolved::Member(..)));
    // A session that carried its member's name is reached through the member.
    let mut found: Vec<Resolved> = Vec::new();
    for one in if members.is_empty() { sessions } else { members } {
        if !found.iter().any(|known| known.member(roster) == one.member(roster)) {
            found.push(one);
        }
    }
    found
}

fn with_prefix(roster: &Roster, prefix: &str) -> Vec<Resolved> {
    let mut found: Vec<Resolved> = roster
        .members()
        .filter(|member| member.revoked_at_ms.is_none() && member.pubkey.to_hex().starts_with(prefix))
        .map(|member| Resolved::Member(member.id.clone(), member.pubkey))
        .collect();
    let sessions = roster.known.iter().filter(|(key, known)| {
        key.to_hex().starts_with(prefix)
            && is_live(roster, &known.member)
            && roster.member(&known.member).is_none_or(|member| member.pubkey != **key)
    });
    found.extend(sessions.map(|(key, _)| Resolved::Session(*key)));
    found
}

fn resolve_key(roster: &Roster, key: &PublicKey) -> Result<Resolved, Refusal> {
    let known = roster.known.get(key);
    // A key that a session of someone used stays that session's, no matter who enrols it afterwards: older links ask for no proof.
    let of_another = |member: &Member| known.is_some_and(|known| known.member != member.id);
    if let Some(member) = roster.member_by_key(key).filter(|member| !of_another(member)) {
        if member.revoked_at_ms.is_some() {
            let banned = member.banned_at_ms().is_some();
            return Err(unknown(if banned {
                "that member was banned from this mesh"
            } else {
                "that member is in this mesh no more: it was removed, or has left"
            }));
        }
        return Ok(Resolved::Member(member.id.clone(), *key));
    }
    let owner = roster
        .with_key(key)
        .first()
        .and_then(|at| roster.get(*at))
        .map(|peer| &peer.member)
        .or_else(|| known.map(|known| &known.member));
    match owner {
        Some(member) if is_live(roster, member) => Ok(Resolved::Session(*key)),
        _ => Err(unknown("no session or member of this mesh has that key")),
    }
}

fn is_live(roster: &Roster, member: &MemberId) -> bool {
    roster.member(member).is_some_and(|member| member.revoked_at_ms.is_none())
}

fn unknown(message: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownTarget, message)
}

fn ambiguous(roster: &Roster, text: &str, found: &[Resolved]) -> Refusal {
    let candidates = found.iter().take(MAX_CANDIDATES).map(|one| one.candidate(roster)).collect();
    let message = format!("`{}` may mean {} recipients; use an address or a key of them", printable(text), found.len());
    Refusal { candidates, ..Refusal::new(ErrorCode::AmbiguousTarget, message) }
}

fn formerly_of_several(roster: &Roster, text: &str, found: &[Resolved]) -> Refusal {
    let message = format!(
        "no one is called `{}` now, and {} had that name not long ago; use a name of today",
        printable(text),
        found.len()
    );
    Refusal { message, ..ambiguous(roster, text, found) }
}

fn printable(text: &str) -> String {
    text.chars().filter(|symbol| !symbol.is_control()).take(64).collect()
}

/// Where one message goes: every recipient once.
pub struct Route<'a> {
    /// Roster.
    pub roster: &'a Roster,
    /// Sender.
    pub sender: &'a Peer,
    /// Left out of audiences.
    pub exclude: &'a [PublicKey],
    /// Result.
    pub routed: SmallVec<[Routed; 1]>,
    /// Keys of `routed`, once they are more than [`FEW`].
    seen: HashSet<PublicKey, foldhash::quality::RandomState>,
    blocked: usize,
    /// One of the targets is the sending session itself.
    own: bool,
}

impl<'a> Route<'a> {
    /// An empty route.
    pub fn new(roster: &'a Roster, sender: &'a Peer, exclude: &'a [PublicKey]) -> Self {
        Self { roster, sender, exclude, routed: SmallVec::new(), seen: HashSet::default(), blocked: 0, own: false }
    }

    /// All that the targets mean take no such messages from this sender. A topic is none of these: its history keeps them.
    pub fn all_blocked(&self) -> bool {
        self.routed.is_empty() && self.blocked > 0
    }

    /// The message is for the session that sends it, and for no one else.
    pub fn only_itself(&self) -> bool {
        self.routed.is_empty() && self.own
    }

    /// Adds the recipients of one target. `subscribers` are those of the topic, for topic targets.
    ///
    /// # Errors
    /// `unknown_target`, `ambiguous_target`, `blocked`.
    pub fn add(&mut self, target: &Target, subscribers: &[MemberId]) -> Result<(), Refusal> {
        match target {
            Target::Key(key) => self.add_resolved(&resolve_key(self.roster, key)?),
            Target::Name(name) => {
                let resolved = resolve_name(self.roster, name, Some(self.sender.handle))?;
                self.add_resolved(&resolved)
            }
            Target::Everyone => self.add_audience("the mesh", &[], |_| true),
            Target::Group(group) => {
                // Members that are in it themselves get it as direct messages are got: with all their sessions, or later.
                let members = self.roster.members_in(group);
                self.add_audience(&format!("@{group}"), &members, |peer| peer.in_group(group))
            }
            Target::Topic(_) => {
                for member in subscribers {
                    self.add_member(member, Grant::Broadcast);
                }
                Ok(())
            }
        }
    }

    fn add_resolved(&mut self, resolved: &Resolved) -> Result<(), Refusal> {
        let member = match resolved {
            Resolved::Member(id, _) => Some(id.clone()),
            Resolved::Session(key) => self.member_of_session(key),
        };
        let allowed = member
            .as_ref()
            .and_then(|id| self.roster.member(id))
            .is_some_and(|member| allows(member, &self.sender.member_key, &self.sender.key(), Grant::Dm));
        let Some(member) = member.filter(|_| allowed) else {
            METRICS.dropped_by_grant.with_label_values(&["dm"]).inc();
            return Err(Refusal::new(
                ErrorCode::BlockedByGrants,
                "by recipient grants: it takes no direct messages from this sender",
            ));
        };
        match resolved {
            Resolved::Member(id, _) => self.add_member(id, Grant::Dm),
            Resolved::Session(key) => {
                let peers: Sockets =
                    self.roster.with_key(key).iter().copied().filter(|at| *at != self.sender.handle).collect();
                if peers.is_empty() && *key == self.sender.key() {
                    // A push to the connection that sends would come back as someone else's message.
                    self.own = true;
                    return Ok(());
                }
                self.push(*key, RecipientKind::Session, member, peers);
            }
        }
        Ok(())
    }

    fn member_of_session(&self, key: &PublicKey) -> Option<MemberId> {
        let live =
            self.roster.with_key(key).first().and_then(|at| self.roster.get(*at)).map(|peer| peer.member.clone());
        live.or_else(|| self.roster.known.get(key).map(|known| known.member.clone()))
    }

    /// Every session of a member; with none online, its queue.
    fn add_member(&mut self, id: &MemberId, grant: Grant) {
        let Some(member) = self.roster.member(id).filter(|member| member.revoked_at_ms.is_none()) else { return };
        if grant == Grant::Broadcast && !allows(member, &self.sender.member_key, &self.sender.key(), grant) {
            METRICS.dropped_by_grant.with_label_values(&["broadcast"]).inc();
            self.blocked += 1;
            return;
        }
        let (had, sessions): (Vec<&Peer>, Vec<&Peer>) = self
            .roster
            .of_member(id)
            .iter()
            .filter_map(|at| self.roster.get(*at))
            .filter(|peer| peer.handle != self.sender.handle)
            .partition(|peer| grant == Grant::Broadcast && self.excluded(peer));
        if !sessions.iter().any(|peer| peer.online()) {
            // The author of a topic message has it, and so has everyone who got it directly: nothing waits for their members.
            let has = *id == self.sender.member || !had.is_empty() || self.exclude.contains(&member.pubkey);
            if grant == Grant::Dm || !has {
                self.push(member.pubkey, RecipientKind::Member, id.clone(), Sockets::new());
            }
            return;
        }
        let (keyed, keyless): (Vec<&Peer>, Vec<&Peer>) =
            sessions.into_iter().partition(|peer| peer.session_key.is_some());
        for peer in keyed {
            // One that is away gets its copy when it returns; the others have theirs, so nothing is to be passed on.
            let kind = if peer.online() { RecipientKind::Member } else { RecipientKind::Session };
            self.push(peer.key(), kind, id.clone(), Sockets::from_buf([peer.handle]));
        }
        if !keyless.is_empty() {
            let peers = keyless.iter().map(|peer| peer.handle).collect();
            self.push(member.pubkey, RecipientKind::Member, id.clone(), peers);
        }
    }

    fn add_audience(
        &mut self,
        what: &str,
        members: &[MemberId],
        belongs: impl Fn(&Peer) -> bool,
    ) -> Result<(), Refusal> {
        let blocked = self.blocked;
        let mut excluded = false;
        for member in members {
            self.add_member(member, Grant::Broadcast);
            excluded |= *member != self.sender.member;
        }
        let roster = self.roster;
        for peer in roster.iter() {
            // A verb at the shell and the inbox at the shell are one person, who knows what they wrote.
            let same_shell =
                self.sender.ephemeral && peer.channel == self.sender.channel && peer.key() == self.sender.key();
            let own = peer.handle == self.sender.handle || same_shell;
            if own || peer.ephemeral || !peer.visible || !belongs(peer) {
                continue;
            }
            if self.excluded(peer) {
                excluded = true;
                continue;
            }
            let Some(member) = roster.member(&peer.member) else { continue };
            if !allows(member, &self.sender.member_key, &self.sender.key(), Grant::Broadcast) {
                METRICS.dropped_by_grant.with_label_values(&["broadcast"]).inc();
                self.blocked += 1;
                continue;
            }
            let kind = if peer.session_key.is_some() { RecipientKind::Session } else { RecipientKind::Member };
            self.push(peer.key(), kind, peer.member.clone(), Sockets::from_buf([peer.handle]));
        }
        if self.routed.is_empty() && self.blocked == blocked {
            return Err(unknown(&match excluded {
                true => format!("no one else is in {what}: you are left out, and the others get the message directly"),
                false if what.starts_with('@') => format!("no one else is in {what}"),
                // Members who are away are in the mesh, and this target does not mean them.
                false => {
                    format!("no one else is connected to {what}; a group or a topic also reaches those who are away")
                }
            }));
        }
        Ok(())
    }

    fn is_new(&mut self, key: PublicKey) -> bool {
        if self.routed.len() < FEW {
            return self.routed.iter().all(|routed| routed.recipient.key != key);
        }
        if self.seen.is_empty() {
            self.seen.extend(self.routed.iter().map(|routed| routed.recipient.key));
        }
        self.seen.insert(key)
    }

    fn excluded(&self, peer: &Peer) -> bool {
        self.exclude.iter().any(|key| *key == peer.key() || *key == peer.member_key)
    }

    fn push(&mut self, key: PublicKey, kind: RecipientKind, member: MemberId, peers: Sockets) {
        if self.is_new(key) {
            let copy =
                kind == RecipientKind::Member && self.roster.member(&member).is_some_and(|member| member.pubkey != key);
            self.routed.push(Routed { recipient: Recipient { key, kind, member, copy, received: false }, peers });
        } else if kind == RecipientKind::Member
            && let Some(routed) = self.routed.iter_mut().find(|routed| routed.recipient.key == key)
        {
            // Connections without session key share their member's copy.
            for peer in peers {
                if !routed.peers.contains(&peer) {
                    routed.peers.push(peer);
                }
            }
        }
    }
}
