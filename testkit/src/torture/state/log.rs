//! All that is known of the writes of a mesh, from anyone who learned it: no two may differ.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};
use claudemesh_protocol::features::state::StateEntry;
use serde_json::{Value, json};

use super::super::asked::{Asked, Fate, mark_of};
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

/// A write as it was seen.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    key: String,
    version: u64,
    /// Who wrote what: the mark of the write; `None` for a deletion.
    mark: Option<String>,
}

pub(super) struct Log {
    /// Keys, and what was done to them.
    pub(super) asked: Asked<(&'static str, Act)>,
    by_revision: BTreeMap<u64, Seen>,
    by_version: HashMap<String, BTreeMap<u64, u64>>,
    /// Mark -> revision.
    marks: HashMap<String, u64>,
    /// Newest confirmed version of each key.
    newest: HashMap<String, u64>,
    fresh: Vec<Mark>,
    last_confirmed: u64,
}

impl Log {
    pub(super) fn new(writers: usize) -> Self {
        Self {
            asked: Asked::new(writers),
            by_revision: BTreeMap::new(),
            by_version: HashMap::new(),
            marks: HashMap::new(),
            newest: HashMap::new(),
            fresh: Vec::new(),
            last_confirmed: 0,
        }
    }

    /// Begins a write; answers its number and its mark.
    pub(super) fn begin(&mut self, writer: usize, key: &'static str, act: Act) -> (usize, String) {
        let number = self.asked.begin(writer, (key, act));
        (number, mark_of(writer, number))
    }

    pub(super) fn confirmed(
        &mut self,
        writer: usize,
        number: usize,
        version: u64,
        revision: u64,
    ) -> Result<(), String> {
        let (key, act) = self.asked.end(writer, number, Fate::Confirmed)?;
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
        let event = if act == Act::Delete { "state_deleted" } else { "state_set" };
        self.fresh.push(Mark::new(event, [json!(key), json!(version)]));
        Ok(())
    }

    pub(super) fn refused(&mut self, writer: usize, number: usize, answer: &Value) -> Result<(), String> {
        let (key, act) = self.asked.end(writer, number, Fate::Refused)?;
        match (act, answer["code"].as_str()) {
            (Act::Compare { expected }, Some("conflict")) => {
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
        match self.asked.marked(mark)? {
            ((written, _), fate) if *written == key && *fate != Fate::Refused => Ok(()),
            ((written, _), fate) => Err(format!("{mark} of {written} ({fate:?}) is there as {key}")),
        }
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
        format!("{}; all that is confirmed is there, revision {revision}", self.asked.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, version: u64, revision: u64, mark: &str) -> StateEntry {
        StateEntry {
            key: key.into(),
            value: if key == COUNTER { json!({"by": mark, "count": version}) } else { json!(mark) },
            updated_by: String::new(),
            updated_at: String::new(),
            version,
            revision,
            deleted: false,
            expires_at: None,
        }
    }

    fn rows(all: &[StateEntry]) -> BTreeMap<String, StateEntry> {
        all.iter().map(|row| (row.key.clone(), row.clone())).collect()
    }

    /// Two confirmed writes of `lock`, and one that was cut off.
    fn written() -> Log {
        let mut log = Log::new(1);
        for version in 1..=2 {
            let (number, _) = log.begin(0, "lock", Act::Set);
            log.confirmed(0, number, version, version).unwrap();
        }
        log.begin(0, "lock", Act::Set);
        log.asked.cut_off();
        log
    }

    #[test]
    fn what_was_cut_off_may_be_there_or_not() {
        written().judge(2, &rows(&[row("lock", 2, 2, "w0n1")])).unwrap();
        written().judge(3, &rows(&[row("lock", 3, 3, "w0n2")])).unwrap();
    }

    #[test]
    fn what_was_lost_skipped_or_done_twice_is_found() {
        for (told, revision, there) in [
            ("lost", 1, row("lock", 1, 1, "w0n0")),
            ("a skipped version", 2, row("lock", 3, 2, "w0n1")),
            ("a skipped revision", 4, row("lock", 3, 4, "w0n2")),
            ("done twice", 3, row("lock", 3, 3, "w0n1")),
            ("no one's", 3, row("lock", 3, 3, "w0n7")),
            ("of another key", 3, row("other", 1, 3, "w0n2")),
        ] {
            assert!(written().judge(revision, &rows(&[there])).is_err(), "{told}");
        }
        let mut log = written();
        let (number, _) = log.begin(0, "lock", Act::Set);
        assert!(log.confirmed(0, number, 2, 3).is_err(), "a version given twice");
    }

    #[test]
    fn two_who_win_a_comparison_are_found() {
        let mut log = Log::new(2);
        let compare = Act::Compare { expected: 0 };
        let (first, _) = log.begin(0, COUNTER, compare);
        let (second, _) = log.begin(1, COUNTER, compare);
        log.confirmed(0, first, 1, 1).unwrap();
        assert!(log.confirmed(1, second, 1, 2).is_err());
        let lost = StateEntry { value: json!({"by": "w0n0", "count": 1}), ..row(COUNTER, 2, 2, "") };
        assert!(log.see(&lost).is_err(), "a write in between was lost");
    }
}
