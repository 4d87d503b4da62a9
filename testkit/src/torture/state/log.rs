//! All that is known of the writes of a mesh, from whoever learned it: no two may differ.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};
use claudemesh_protocol::features::state::StateEntry;
use serde_json::{Value, json};

use super::super::audit::Mark;
use super::COUNTER;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    Set,
    /// Sets, if that is the version now.
    Compare {
        expected: u64,
    },
    Delete,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// No answer yet.
    Open,
    Confirmed,
    Refused,
    /// The broker was killed before it answered: it was done once, or not at all.
    Unknown,
}

struct Write {
    key: &'static str,
    act: Act,
    fate: Fate,
}

/// A write as it was seen.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    key: String,
    version: u64,
    /// Who wrote what: the mark of the write; `None` for a deletion.
    mark: Option<String>,
}

#[derive(Default)]
pub(super) struct Log {
    writes: Vec<Vec<Write>>,
    by_revision: BTreeMap<u64, Seen>,
    by_version: HashMap<String, BTreeMap<u64, u64>>,
    /// Mark -> revision.
    marks: HashMap<String, u64>,
    /// Newest confirmed version of each key.
    newest: HashMap<String, u64>,
    fresh: Vec<Mark>,
    last_confirmed: u64,
    open: usize,
    confirmed: u64,
    conflicts: u64,
    unknown: u64,
}

fn mark_of(writer: usize, number: usize) -> String {
    format!("w{writer}n{number}")
}

impl Log {
    pub(super) fn new(writers: usize) -> Self {
        Self { writes: (0..writers).map(|_| Vec::new()).collect(), ..Self::default() }
    }

    /// Writes of a writer so far.
    pub(super) fn writes(&self, writer: usize) -> usize {
        self.writes[writer].len()
    }

    /// Begins a write; answers its number and its mark.
    pub(super) fn begin(&mut self, writer: usize, key: &'static str, act: Act) -> (usize, String) {
        let number = self.writes[writer].len();
        self.writes[writer].push(Write { key, act, fate: Fate::Open });
        self.open += 1;
        (number, mark_of(writer, number))
    }

    /// What had no answer when the broker was killed will get none.
    pub(super) fn abandon(&mut self) {
        for write in self.writes.iter_mut().flat_map(|writes| writes.iter_mut().rev().take(2 * super::WINDOW)) {
            if write.fate == Fate::Open {
                write.fate = Fate::Unknown;
                self.unknown += 1;
            }
        }
        self.open = 0;
    }

    fn end(&mut self, writer: usize, number: usize, fate: Fate) -> Result<(&'static str, Act), String> {
        let write = self.writes[writer].get_mut(number).filter(|write| write.fate == Fate::Open);
        let write = write.ok_or_else(|| format!("write {number} was answered twice, or never sent"))?;
        write.fate = fate;
        self.open -= 1;
        Ok((write.key, write.act))
    }

    pub(super) fn confirmed(
        &mut self,
        writer: usize,
        number: usize,
        version: u64,
        revision: u64,
    ) -> Result<(), String> {
        let (key, act) = self.end(writer, number, Fate::Confirmed)?;
        if let Act::Compare { expected } = act
            && version != expected + 1
        {
            return Err(format!("{key} was compared with version {expected} and has version {version}"));
        }
        let mark = (act != Act::Delete).then(|| mark_of(writer, number));
        self.note(revision, Seen { key: key.into(), version, mark })?;
        let newest = self.newest.entry(key.into()).or_default();
        *newest = (*newest).max(version);
        self.last_confirmed = self.last_confirmed.max(revision);
        self.confirmed += 1;
        let event = if act == Act::Delete { "state_deleted" } else { "state_set" };
        self.fresh.push(Mark::new(event, [json!(key), json!(version)]));
        Ok(())
    }

    pub(super) fn refused(&mut self, writer: usize, number: usize, answer: &Value) -> Result<(), String> {
        let (key, act) = self.end(writer, number, Fate::Refused)?;
        match (act, answer["code"].as_str()) {
            (Act::Compare { expected }, Some("conflict")) => {
                self.conflicts += 1;
                let now = answer["current"]["version"].as_u64();
                if now.is_none_or(|now| now == expected) {
                    return Err(format!("a conflict with version {expected}, and it is {now:?}"));
                }
                let newest = self.newest.entry(key.into()).or_default();
                *newest = (*newest).max(now.unwrap_or_default());
            }
            (Act::Delete, Some("not_found")) => {}
            _ => return Err(format!("{key} was refused: {answer}")),
        }
        let mark = mark_of(writer, number);
        match self.marks.get(&mark) {
            Some(revision) => Err(format!("{mark} was refused and is revision {revision}")),
            None => Ok(()),
        }
    }

    /// The version that a key has at least.
    pub(super) fn version(&self, key: &str) -> u64 {
        let seen = self.by_version.get(key).and_then(|versions| versions.last_key_value()).map(|(version, _)| *version);
        seen.unwrap_or_default().max(self.newest.get(key).copied().unwrap_or_default())
    }

    /// Someone saw a row.
    pub(super) fn see(&mut self, row: &StateEntry) -> Result<(), String> {
        let mark = if row.deleted {
            None
        } else if row.key == COUNTER {
            if row.value["count"] != json!(row.version) {
                return Err(format!(
                    "{COUNTER} has version {} and value {}: two won, or one was lost",
                    row.version, row.value
                ));
            }
            row.value["by"].as_str()
        } else {
            row.value.as_str()
        };
        if mark.is_none() && !row.deleted {
            return Err(format!("no one wrote {row:?}"));
        }
        let seen = Seen { key: row.key.clone(), version: row.version, mark: mark.map(str::to_owned) };
        self.note(row.revision, seen)
    }

    fn note(&mut self, revision: u64, seen: Seen) -> Result<(), String> {
        if let Some(known) = self.by_revision.get(&revision) {
            if *known == seen {
                return Ok(());
            }
            return Err(format!("revision {revision} was {known:?} and is {seen:?}"));
        }
        if let Some(mark) = &seen.mark {
            self.written(mark, &seen.key)?;
            if let Some(before) = self.marks.insert(mark.clone(), revision) {
                return Err(format!("{mark} was done twice, as revision {before} and {revision}"));
            }
        }
        let versions = self.by_version.entry(seen.key.clone()).or_default();
        if let Some(before) = versions.insert(seen.version, revision) {
            return Err(format!(
                "{} has version {} twice, in revision {before} and {revision}",
                seen.key, seen.version
            ));
        }
        let before = versions.range(..seen.version).next_back().map(|(_, revision)| *revision);
        let after = versions.range(seen.version + 1..).next().map(|(_, revision)| *revision);
        if before.is_some_and(|before| before >= revision) || after.is_some_and(|after| after <= revision) {
            return Err(format!("version {} of {} is not in the order of the revisions", seen.version, seen.key));
        }
        self.by_revision.insert(revision, seen);
        Ok(())
    }

    /// A mark is that of a write of this key that was not refused.
    fn written(&self, mark: &str, key: &str) -> Result<(), String> {
        let place = mark.strip_prefix('w').and_then(|rest| rest.split_once('n'));
        let place =
            place.and_then(|(writer, number)| Some((writer.parse::<usize>().ok()?, number.parse::<usize>().ok()?)));
        let write = place.and_then(|(writer, number)| self.writes.get(writer)?.get(number));
        match write {
            Some(write) if write.key == key && write.fate != Fate::Refused => Ok(()),
            Some(write) => Err(format!("{mark} of {} ({:?}) is there as {key}", write.key, write.fate)),
            None => Err(format!("no one wrote {mark}")),
        }
    }

    /// All answers are there.
    pub(super) fn answered(&self) -> bool {
        self.open == 0
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn last_confirmed(&self) -> u64 {
        self.last_confirmed
    }

    pub(super) fn take_confirmed(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.fresh)
    }

    /// Compares all keys of a broker at rest with what is known.
    pub(super) fn judge(&mut self, revision: u64, rows: &BTreeMap<String, StateEntry>) -> Result<()> {
        for row in rows.values() {
            self.see(row).map_err(anyhow::Error::msg)?;
        }
        for (key, newest) in &self.newest {
            let version = rows.get(key).map_or(0, |row| row.version);
            ensure!(version >= *newest, "{key} has version {version}, and version {newest} was confirmed");
        }
        let last = self.by_revision.last_key_value().map_or(0, |(revision, _)| *revision);
        ensure!(revision >= last, "the mesh is at revision {revision}, and revision {last} was seen");
        // Each write raises the version of one key and the revision of the mesh by one.
        let versions: u64 = rows.values().map(|row| row.version).sum();
        ensure!(versions == revision, "the versions of all keys are {versions} in all, and the revision is {revision}");
        let newest = rows.values().map(|row| row.revision).max().unwrap_or_default();
        ensure!(newest == revision, "the newest key is of revision {newest}, and the mesh is at {revision}");
        Ok(())
    }

    pub(super) fn summary(&self, revision: u64) -> String {
        let (confirmed, conflicts, unknown) = (self.confirmed, self.conflicts, self.unknown);
        format!(
            "{confirmed} writes confirmed and there, revision {revision} ({conflicts} lost a comparison, {unknown} were cut off, done or not)"
        )
    }
}
