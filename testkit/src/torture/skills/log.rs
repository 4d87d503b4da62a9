//! All that is known of the skills of a mesh. Each belongs to one sharer, which asks one thing at a time about it, so it is known which
//! version a text must get.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use claudemesh_protocol::features::skills::{Skill, SkillEntry};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::asked::{Asked, Book, Fate, mark_of};
use super::super::audit::Mark;

/// Skills of one sharer.
const SKILLS: usize = 4;
/// Versions of a skill that a broker keeps when no one says otherwise.
const KEPT: u32 = 20;

/// What a request is for. A text is the request that shared it first: its worker and its number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Share {
        name: String,
        text: (usize, usize),
        /// It was asked for before, without an answer.
        again: bool,
    },
    Remove {
        name: String,
        again: bool,
    },
    Read {
        name: String,
        version: Option<u32>,
    },
}

impl Act {
    fn name(&self) -> &str {
        match self {
            Self::Share { name, .. } | Self::Remove { name, .. } | Self::Read { name, .. } => name,
        }
    }
}

/// What is known of one skill.
#[derive(Default)]
struct Known {
    /// The texts since it was shared first, or anew: that of version 1, and so on.
    texts: Vec<(usize, usize)>,
    /// A request about it has no answer yet.
    busy: bool,
}

impl Known {
    fn version(&self) -> u32 {
        u32::try_from(self.texts.len()).unwrap_or(u32::MAX)
    }

    fn text(&self, version: u32) -> Option<(usize, usize)> {
        self.texts.get(version.checked_sub(1)? as usize).copied()
    }

    /// The versions that are kept, the newest first.
    fn kept(&self) -> impl Iterator<Item = u32> {
        let newest = self.version();
        (newest.saturating_sub(KEPT) + 1..=newest).rev()
    }
}

pub(super) struct Log {
    pub(super) asked: Asked<Act>,
    known: BTreeMap<String, Known>,
    /// Per sharer: what was cut off and is asked for again.
    again: Vec<VecDeque<Act>>,
    /// Names of what changed since the last look.
    changed: BTreeSet<String>,
    fresh: Vec<Mark>,
    versions: u64,
    removed: u64,
}

/// What it says about itself: a search finds its mark.
fn description_of((worker, number): (usize, usize)) -> String {
    format!("What the torture does for {}", mark_of(worker, number))
}

/// No two texts of a sharer have the same size, by which the audit log and the list of versions tell them apart.
fn instructions_of((worker, number): (usize, usize)) -> String {
    format!("Do {} times what {} says.{}", number, mark_of(worker, number), "!".repeat(number))
}

fn size_of(text: (usize, usize)) -> usize {
    description_of(text).len() + instructions_of(text).len() + "torture".len()
}

impl Log {
    pub(super) fn new(sharers: usize) -> Self {
        let names = (0..sharers).flat_map(|sharer| (0..SKILLS).map(move |skill| format!("skill-{sharer}-{skill}")));
        Self {
            asked: Asked::new(sharers),
            known: names.map(|name| (name, Known::default())).collect(),
            again: vec![VecDeque::new(); sharers],
            changed: BTreeSet::new(),
            fresh: Vec::new(),
            versions: 0,
            removed: 0,
        }
    }

    /// The next request about a skill of which nothing is asked at the moment.
    fn choose(&mut self, sharer: usize, number: usize, random: &mut StdRng) -> Option<Act> {
        if let Some(act) = self.again[sharer].pop_front() {
            return Some(act);
        }
        let prefix = format!("skill-{sharer}-");
        let own = self.known.iter().filter(|(name, known)| name.starts_with(&prefix) && !known.busy);
        let own: Vec<(&String, &Known)> = own.collect();
        let (name, known) = own.get(random.gen_range(0..own.len().max(1)))?;
        let name = (*name).clone();
        Some(match random.gen_range(0..20) {
            0 if known.version() > 0 => Act::Remove { name, again: false },
            1..=4 => {
                let kept: Vec<u32> = known.kept().collect();
                let version = kept.get(random.gen_range(0..=kept.len())).copied();
                Act::Read { name, version }
            }
            _ => Act::Share { name, text: (sharer, number), again: false },
        })
    }

    fn shared(&mut self, name: &str, text: (usize, usize), again: bool, answer: &Value) -> Result<(), String> {
        let known = self.known.get_mut(name).ok_or_else(|| format!("{name} is no one's"))?;
        let expected = known.version() + 1;
        if answer["action"] != "shared" || answer["name"] != name || answer["version"] != expected {
            return Err(format!("{name} should have version {expected}: {answer}"));
        }
        if answer["unchanged"] == true && !again {
            return Err(format!("{name} has had this text before, and it is new: {answer}"));
        }
        known.texts.push(text);
        self.versions += 1;
        self.fresh.push(Mark::new("skill_shared", [json!(name), json!(expected), json!(size_of(text))]));
        self.changed.insert(name.to_owned());
        Ok(())
    }

    fn gone(&mut self, name: &str, again: bool, answer: &Value) -> Result<(), String> {
        // Done by the request that was cut off, if that was not found.
        if answer["action"] != "removed" && !(again && answer["action"] == "not_found") {
            return Err(format!("{name} could not be removed: {answer}"));
        }
        let known = self.known.get_mut(name).ok_or_else(|| format!("{name} is no one's"))?;
        known.texts.clear();
        self.removed += 1;
        self.changed.insert(name.to_owned());
        Ok(())
    }

    /// Compares a skill, or a version of it, with what was shared.
    pub(super) fn shown(&self, name: &str, version: Option<u32>, skill: Option<&Skill>) -> Result<(), String> {
        let known = self.known.get(name).ok_or_else(|| format!("{name} is no one's"))?;
        let wanted = version.unwrap_or_else(|| known.version());
        let text = known.kept().any(|kept| kept == wanted).then(|| known.text(wanted)).flatten();
        let (Some(text), Some(skill)) = (text, skill) else {
            return if text.is_none() && skill.is_none() {
                Ok(())
            } else {
                Err(format!("version {wanted} of {name} should be {text:?}, and it is {skill:?}"))
            };
        };
        let (description, instructions) = (description_of(text), instructions_of(text));
        if (skill.version, skill.latest) != (wanted, known.version())
            || (&skill.name[..], &skill.description, &skill.instructions) != (name, &description, &instructions)
        {
            return Err(format!("version {wanted} of {name} with {} versions is {skill:?}", known.version()));
        }
        let size = |version| known.text(version).map_or(0, size_of) as u64;
        let kept: Vec<(u32, u64)> = known.kept().map(|version| (version, size(version))).collect();
        let listed: Vec<(u32, u64)> = skill.versions.iter().map(|kept| (kept.version, kept.bytes)).collect();
        if listed != kept {
            return Err(format!("{name} lists the versions {listed:?}, and there should be {kept:?}"));
        }
        Ok(())
    }

    /// Compares the list of a broker at rest with what was shared.
    pub(super) fn judge(&self, listed: &BTreeMap<String, SkillEntry>) -> Result<(), String> {
        for (name, known) in &self.known {
            let row = listed.get(name).map(|row| (row.version, row.description.clone()));
            let newest = known.texts.last().map(|text| (known.version(), description_of(*text)));
            if row != newest {
                return Err(format!("{name} is listed as {row:?}, and it should be {newest:?}"));
            }
        }
        match listed.keys().find(|name| !self.known.contains_key(*name)) {
            Some(name) => Err(format!("{name} is there, and no one shared it")),
            None => Ok(()),
        }
    }

    /// Words of its newest text and of the one before, and whether a search finds them.
    pub(super) fn searches(&self, name: &str) -> Vec<(String, bool)> {
        let texts = self.known.get(name).map(|known| &known.texts[..]).unwrap_or_default();
        let newest = texts.iter().rev().take(2).zip([true, false]);
        newest.map(|((worker, number), there)| (mark_of(*worker, *number), there)).collect()
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn take_confirmed(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.fresh)
    }

    /// Versions that were shared and skills that were removed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.versions, self.removed)
    }

    /// All that was changed.
    pub(super) fn changes(&self) -> u64 {
        self.versions + self.removed
    }
}

impl Book for Log {
    const NAME: &'static str = "skills";

    fn ask(&mut self, sharer: usize, random: &mut StdRng) -> Option<(usize, Value)> {
        let act = self.choose(sharer, self.asked.of(sharer).len(), random)?;
        let frame = match &act {
            Act::Share { name, text, .. } => json!({
                "type": "share_skill", "name": name, "description": description_of(*text),
                "instructions": instructions_of(*text), "tags": ["torture"],
            }),
            Act::Remove { name, .. } => json!({"type": "remove_skill", "name": name}),
            Act::Read { name, version } => json!({"type": "get_skill", "name": name, "version": version}),
        };
        if let Some(known) = self.known.get_mut(act.name()) {
            known.busy = true;
        }
        Some((self.asked.begin(sharer, act), frame))
    }

    fn answered(&mut self, sharer: usize, number: usize, answer: &Value) -> Result<(), String> {
        let fate = if answer["type"] == "error" { Fate::Refused } else { Fate::Confirmed };
        let act = self.asked.end(sharer, number, fate)?;
        if fate == Fate::Refused {
            return Err(format!("{act:?} was refused: {answer}"));
        }
        if let Some(known) = self.known.get_mut(act.name()) {
            known.busy = false;
        }
        match act {
            Act::Share { name, text, again } => self.shared(&name, text, again, answer),
            Act::Remove { name, again } => self.gone(&name, again, answer),
            Act::Read { name, version } => {
                let skill = serde_json::from_value(answer["skill"].clone());
                let skill: Option<Skill> = skill.map_err(|error| format!("{error}: {answer}"))?;
                self.shown(&name, version, skill.as_ref())
            }
        }
    }

    fn to_repeat(&self) -> usize {
        self.again.iter().map(VecDeque::len).max().unwrap_or_default()
    }

    fn cut_off(&mut self) {
        for (sharer, _, act) in self.asked.cut_off() {
            let act = match act {
                Act::Share { name, text, .. } => Act::Share { name, text, again: true },
                Act::Remove { name, .. } => Act::Remove { name, again: true },
                Act::Read { name, .. } => {
                    if let Some(known) = self.known.get_mut(&name) {
                        known.busy = false;
                    }
                    continue;
                }
            };
            self.again[sharer].push_back(act);
        }
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::skills::SkillVersion;

    use super::*;

    const NAME: &str = "skill-0-0";

    /// Shares once more, with that version in the answer.
    fn share(log: &mut Log, version: u32, again: bool, unchanged: bool) -> Result<(), String> {
        let text = (0, log.asked.of(0).len());
        let number = log.asked.begin(0, Act::Share { name: NAME.into(), text, again });
        let ack =
            json!({"type": "skill_ack", "name": NAME, "action": "shared", "version": version, "unchanged": unchanged});
        log.answered(0, number, &ack)
    }

    fn remove(log: &mut Log, action: &str, again: bool) -> Result<(), String> {
        let number = log.asked.begin(0, Act::Remove { name: NAME.into(), again });
        log.answered(0, number, &json!({"type": "skill_ack", "name": NAME, "action": action}))
    }

    /// A skill with three versions.
    fn shared() -> Log {
        let mut log = Log::new(1);
        (1..=3).for_each(|version| share(&mut log, version, false, false).unwrap());
        log
    }

    fn skill(version: u32, versions: &[u32]) -> Skill {
        let text = (0, version as usize - 1);
        let kept = |version: &u32| SkillVersion {
            version: *version,
            bytes: size_of((0, *version as usize - 1)) as u64,
            ..SkillVersion::default()
        };
        Skill {
            name: NAME.into(),
            description: description_of(text),
            instructions: instructions_of(text),
            version,
            latest: 3,
            versions: versions.iter().map(kept).collect(),
            ..Skill::default()
        }
    }

    fn row(version: u32, text: usize) -> (String, SkillEntry) {
        let description = description_of((0, text));
        (NAME.into(), SkillEntry { name: NAME.into(), version, description, ..SkillEntry::default() })
    }

    #[test]
    fn versions_that_are_lost_doubled_or_changed_are_found() {
        let (log, whole) = (shared(), skill(3, &[3, 2, 1]));
        log.shown(NAME, None, Some(&whole)).unwrap();
        log.shown(NAME, Some(2), Some(&skill(2, &[3, 2, 1]))).unwrap();
        log.shown(NAME, Some(7), None).unwrap();
        for (told, version, wrong) in [
            ("lost", None, None),
            ("an older one", None, Some(Skill { latest: 2, ..skill(2, &[2, 1]) })),
            ("one is left out", None, Some(skill(3, &[3, 1]))),
            ("one is there twice", None, Some(skill(3, &[3, 2, 2, 1]))),
            ("one too many", None, Some(Skill { latest: 4, version: 4, ..skill(3, &[3, 2, 1]) })),
            ("another text", None, Some(Skill { instructions: instructions_of((0, 1)), ..whole.clone() })),
            ("another description", None, Some(Skill { description: description_of((0, 1)), ..whole.clone() })),
            ("another version", Some(2), Some(whole.clone())),
            ("of no one", Some(7), Some(whole)),
        ] {
            assert!(log.shown(NAME, version, wrong.as_ref()).is_err(), "{told}");
        }
    }

    #[test]
    fn a_list_has_each_skill_with_its_newest_version_and_no_other() {
        let log = shared();
        log.judge(&BTreeMap::from([row(3, 2)])).unwrap();
        let other = SkillEntry { name: "other".into(), ..SkillEntry::default() };
        for (told, listed) in [
            ("lost", vec![]),
            ("an older one", vec![row(2, 1)]),
            ("another text", vec![row(3, 1)]),
            ("one that no one shared", vec![row(3, 2), ("other".into(), other)]),
        ] {
            assert!(log.judge(&listed.into_iter().collect()).is_err(), "{told}");
        }
        assert_eq!(log.searches(NAME), [("w0n2".to_owned(), true), ("w0n1".to_owned(), false)]);
    }

    #[test]
    fn numbers_that_are_left_out_or_given_twice_are_found() {
        for version in [3, 5] {
            assert!(share(&mut shared(), version, false, false).is_err(), "{version} after 3");
        }
        assert!(share(&mut shared(), 4, false, true).is_err(), "a text that is new cannot be there");
        let mut log = shared();
        share(&mut log, 4, true, true).expect("the request that was cut off did it");
        assert_eq!((log.changes(), log.take_confirmed().len()), (4, 4));
        let sizes: BTreeSet<usize> = (0..200).map(|number| size_of((0, number))).collect();
        assert_eq!(sizes.len(), 200, "no two texts have the same size");
    }

    #[test]
    fn what_was_removed_is_gone_and_begins_anew() {
        let mut log = shared();
        assert!(remove(&mut log, "not_found", false).is_err(), "it was there");
        let mut log = shared();
        remove(&mut log, "not_found", true).expect("the request that was cut off did it");
        assert!(log.shown(NAME, None, Some(&skill(3, &[3, 2, 1]))).is_err(), "it is there again");
        assert!(log.judge(&BTreeMap::from([row(3, 2)])).is_err(), "it is listed again");
        log.judge(&BTreeMap::new()).unwrap();
        assert!(share(&mut log, 4, false, false).is_err(), "a skill that is shared anew begins with version 1");
        assert_eq!((log.counts(), log.changes()), ((3, 1), 4));
    }

    #[test]
    fn older_versions_than_are_kept_are_gone() {
        let mut log = Log::new(1);
        (1..=22).for_each(|version| share(&mut log, version, false, false).unwrap());
        let kept: Vec<u32> = (3..=22).rev().collect();
        let newest = Skill { latest: 22, ..skill(22, &kept) };
        log.shown(NAME, None, Some(&newest)).unwrap();
        log.shown(NAME, Some(2), None).unwrap();
        assert!(log.shown(NAME, Some(3), None).is_err(), "a kept one is gone");
        assert!(log.shown(NAME, Some(2), Some(&Skill { latest: 22, ..skill(2, &kept) })).is_err(), "it should be gone");
    }

    #[test]
    fn what_was_cut_off_is_asked_for_again_before_anything_else_about_it() {
        let mut log = Log::new(1);
        let mut random = rand::SeedableRng::seed_from_u64(1);
        let asked: Vec<Value> = (0..4).map(|_| log.ask(0, &mut random).unwrap().1).collect();
        assert!(log.ask(0, &mut random).is_none(), "one thing at a time about each skill");
        log.cut_off();
        let shares: Vec<&Value> = asked.iter().filter(|frame| frame["type"] == "share_skill").collect();
        assert_eq!(log.to_repeat(), shares.len());
        for frame in shares {
            assert_eq!(&log.ask(0, &mut random).unwrap().1, frame);
        }
    }
}
