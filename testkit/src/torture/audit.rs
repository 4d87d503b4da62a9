//! The audit log.
//!
//! The promise: the chain is whole after each restart; what was seen of it before is still there, and signed heads are extended; every
//! change has exactly one entry, and no entry is without its change.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use claudemesh_protocol::crypto::audit::{Entry, GENESIS};
use claudemesh_protocol::crypto::{keys, signed};
use claudemesh_protocol::features::audit::{AuditEntry, AuditHeadsResult, AuditPage};
use claudemesh_protocol::id::{MeshId, PublicKey};
use serde_json::{Value, json};

use super::Subject;
use super::cast::{Asking, Board, Quiet};
use crate::enrol::OwnedMesh;
use crate::identity::Session;

/// Entries of a kind, and the fields of their payload that say which change it was.
pub(super) struct Audited {
    pub(super) event: &'static str,
    pub(super) fields: &'static [&'static str],
}

/// One change: the event, and the values of those fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    event: String,
    fields: String,
}

impl Mark {
    pub(super) fn new<const N: usize>(event: &str, fields: [Value; N]) -> Self {
        Self { event: event.into(), fields: Value::from(fields.to_vec()).to_string() }
    }
}

/// What was seen of the chain of a mesh.
pub(super) struct Chain {
    mesh: MeshId,
    owner: Session,
    /// By place.
    hashes: Vec<String>,
    /// Changes that have an entry.
    marks: HashMap<Mark, i64>,
    key: Option<PublicKey>,
    heads: u64,
    /// Moves on, so that every old place is asked for some day.
    turn: usize,
}

impl Chain {
    pub(super) fn new(mesh: &OwnedMesh) -> Self {
        let owner = mesh.creator.session("audit");
        let (hashes, marks) = (Vec::new(), HashMap::new());
        Self { mesh: mesh.id.clone(), owner, hashes, marks, key: None, heads: 0, turn: 0 }
    }

    /// After each restart, with no one writing.
    pub(super) async fn check(
        &mut self,
        quiet: &Quiet,
        board: &Board,
        subjects: &mut [&mut dyn Subject],
    ) -> Result<()> {
        let mut asking = quiet.connect(&self.owner.hello(json!({}))).await?;
        // The broker adds entries of its own in its time, so what is asked first is compared with what is read then.
        let verdict = asking.call(json!({"type": "audit_verify"}), "audit_verify_result").await?;
        ensure!(verdict["valid"] == true, "the broker finds its chain broken: {verdict}");
        self.turn = (self.turn + 7) % self.hashes.len().max(1);
        let old = self.turn + 1;
        let now = asking.call(json!({"type": "audit_heads", "at": old}), "audit_heads_result").await?;
        let now: AuditHeadsResult = serde_json::from_value(now)?;
        let known = self.hashes.len();
        self.read_on(&mut asking, subjects).await?;
        let verified = verdict["entries"].as_i64().context("how many entries there are")?;
        ensure!(
            i64::try_from(known)? <= verified
                && verified <= now.head.seq
                && now.head.seq <= i64::try_from(self.hashes.len())?,
            "{known} entries were known, {verified} verified, the head is entry {}, and {} are there",
            now.head.seq,
            self.hashes.len()
        );
        let there = self.hashes.get(old - 1);
        ensure!(
            now.hash_at.is_none() || now.hash_at.as_ref() == there,
            "entry {old} is {:?}, not {there:?}",
            now.hash_at
        );
        ensure!(now.hash_at.is_some() || old > known, "entry {old} was seen and is not there");
        self.heads(board, now)?;
        for subject in subjects {
            self.count(*subject)?;
        }
        Ok(())
    }

    /// Reads what is new and follows its hashes.
    async fn read_on(&mut self, asking: &mut Asking, subjects: &[&mut dyn Subject]) -> Result<()> {
        let audited: Vec<&Audited> = subjects.iter().flat_map(|subject| subject.audited()).collect();
        loop {
            let frame = json!({"type": "audit_export", "after": self.hashes.len()});
            let page: AuditPage = serde_json::from_value(asking.call(frame, "audit_page").await?)?;
            for entry in &page.entries {
                follow(&self.mesh, &self.hashes, entry)?;
                self.hashes.push(entry.hash.clone());
                let Some(kind) = audited.iter().find(|kind| kind.event == entry.event_type) else { continue };
                let payload: Value = serde_json::from_str(&entry.payload)?;
                let fields: Vec<Value> = kind.fields.iter().map(|field| payload[field].clone()).collect();
                let mark = Mark { event: kind.event.into(), fields: Value::from(fields).to_string() };
                if let Some(before) = self.marks.insert(mark.clone(), entry.seq) {
                    anyhow::bail!("entries {before} and {} are both of {mark:?}", entry.seq);
                }
            }
            if page.next.is_none() {
                return Ok(());
            }
        }
    }

    /// Heads that were shown in welcomes, also before the kill, are on the chain that is there now.
    fn heads(&mut self, board: &Board, now: AuditHeadsResult) -> Result<()> {
        for told in board.heads.take().into_iter().chain([now]) {
            let key = *self.key.get_or_insert(told.key);
            ensure!(key == told.key, "the broker signs with another key than before");
            let head = &told.head;
            let text = signed::audit_head(&self.mesh, head.seq, &head.hash, head.at);
            keys::verify(&told.key, text.as_bytes(), &head.signature).context("the signature of a head")?;
            let hash =
                usize::try_from(head.seq - 1).map_or(Some(GENESIS), |place| self.hashes.get(place).map(String::as_str));
            ensure!(hash == Some(&*head.hash), "head {} was {}, and is {hash:?}", head.seq, head.hash);
            self.heads += 1;
        }
        Ok(())
    }

    /// Every confirmed change has an entry, and there are as many as changes.
    fn count(&self, subject: &mut dyn Subject) -> Result<()> {
        for mark in subject.confirmed() {
            ensure!(self.marks.contains_key(&mark), "a confirmed change has no entry: {mark:?}");
        }
        let Some(changes) = subject.changes() else { return Ok(()) };
        let of = |mark: &Mark| subject.audited().iter().any(|kind| kind.event == mark.event);
        let entries = self.marks.keys().filter(|mark| of(mark)).count() as u64;
        ensure!(entries == changes, "{}: {entries} entries of {changes} changes", subject.name());
        Ok(())
    }

    /// Reads the whole chain again: none of it was written anew.
    pub(super) async fn finish(&self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.owner.hello(json!({}))).await?;
        let mut again = Vec::new();
        loop {
            let frame = json!({"type": "audit_export", "after": again.len()});
            let page: AuditPage = serde_json::from_value(asking.call(frame, "audit_page").await?)?;
            again.extend(page.entries.into_iter().map(|entry| entry.hash));
            if page.next.is_none() {
                break;
            }
        }
        let same = again.iter().zip(&self.hashes).position(|(now, before)| now != before);
        ensure!(same.is_none() && again.len() >= self.hashes.len(), "entry {same:?} is not the one that was seen");
        Ok(())
    }

    pub(super) fn summary(&self) -> String {
        format!("{} entries, whole after each restart, {} signed heads extended", self.hashes.len(), self.heads)
    }
}

/// The entry is the one behind these.
fn follow(mesh: &MeshId, hashes: &[String], entry: &AuditEntry) -> Result<()> {
    let (place, before) = (hashes.len() + 1, hashes.last().map_or(GENESIS, String::as_str));
    ensure!(entry.seq == i64::try_from(place)?, "entry {} follows entry {}", entry.seq, place - 1);
    ensure!(entry.prev_hash == before, "entry {place} names another one before it");
    let hashed = Entry {
        mesh: mesh.as_str(),
        event: &entry.event_type,
        actor: entry.actor.as_ref().map(|actor| actor.as_str()),
        payload: &entry.payload,
        at_ms: entry.created_at_ms,
    };
    ensure!(hashed.hash(before) == entry.hash, "the hash of entry {place} does not fit");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_the_one_behind_the_others() {
        let mesh: MeshId = "m".into();
        let made = |seq: i64, before: &str| {
            let (event, payload, at_ms) = ("state_set", r#"{"key":"k"}"#, 5);
            let hash = Entry { mesh: "m", event, actor: None, payload, at_ms }.hash(before);
            AuditEntry {
                seq,
                prev_hash: before.into(),
                hash,
                event_type: event.into(),
                actor: None,
                payload: payload.into(),
                created_at_ms: at_ms,
            }
        };
        let first = made(1, GENESIS);
        let hashes = vec![first.hash.clone()];
        let second = made(2, &first.hash);
        assert!(follow(&mesh, &[], &first).is_ok() && follow(&mesh, &hashes, &second).is_ok());
        for wrong in [
            AuditEntry { seq: 3, ..second.clone() },
            AuditEntry { prev_hash: GENESIS.into(), ..second.clone() },
            AuditEntry { payload: "{}".into(), ..second.clone() },
            AuditEntry { created_at_ms: 6, ..second.clone() },
        ] {
            assert!(follow(&mesh, &hashes, &wrong).is_err(), "{wrong:?}");
        }
        assert!(follow(&"other".into(), &hashes, &second).is_err());
    }
}
