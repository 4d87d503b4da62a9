//! All that is known of the memories of a mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use claudemesh_protocol::features::memory::{Memory as Row, MemoryResults};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::asked::{Asked, Book, Fate, mark_of};
use super::super::audit::Mark;

/// What a request is for. A memory is its mark, which is a word of its text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Remember {
        mark: String,
        /// It was asked for before, without an answer.
        again: bool,
    },
    Forget {
        mark: String,
        id: String,
        again: bool,
    },
    Recall {
        mark: String,
        /// Whether it must be found.
        lives: bool,
    },
}

/// What is known of one memory.
struct Known {
    id: String,
    author: usize,
    forgotten: bool,
    /// Someone is asked to forget it.
    leaving: bool,
}

pub(super) struct Log {
    pub(super) asked: Asked<Act>,
    /// By mark.
    known: BTreeMap<String, Known>,
    /// Id -> mark.
    marks: HashMap<String, String>,
    /// Per author: what was cut off and is asked for again.
    again: Vec<VecDeque<Act>>,
    /// Marks of what changed since the last look.
    changed: BTreeSet<String>,
    fresh: Vec<Mark>,
}

fn text_of(mark: &str) -> String {
    format!("The torture remembers {mark} until it is told to forget it")
}

/// What a search for one mark must find.
pub(super) fn recalled(mark: &str, lives: bool, found: &MemoryResults) -> Result<(), String> {
    let texts: Vec<&str> = found.memories.iter().map(|row| row.content.as_str()).collect();
    let expected = if lives { vec![text_of(mark)] } else { vec![] };
    if texts != expected || found.next.is_some() {
        return Err(format!(
            "recall of {mark} finds {texts:?}, and it is {}",
            if lives { "there" } else { "forgotten" }
        ));
    }
    Ok(())
}

impl Log {
    pub(super) fn new(authors: usize) -> Self {
        Self {
            asked: Asked::new(authors),
            known: BTreeMap::new(),
            marks: HashMap::new(),
            again: vec![VecDeque::new(); authors],
            changed: BTreeSet::new(),
            fresh: Vec::new(),
        }
    }

    fn choose(&mut self, author: usize, number: usize, random: &mut StdRng) -> Act {
        if let Some(act) = self.again[author].pop_front() {
            return act;
        }
        let what = random.gen_range(0..10);
        let own = self.known.iter().filter(|(_, known)| known.author == author && !known.leaving);
        let own: Vec<&String> = own.filter(|(_, known)| what >= 8 || !known.forgotten).map(|(mark, _)| mark).collect();
        let mark = own.get(random.gen_range(0..own.len().max(1))).map(|mark| (*mark).clone());
        match mark {
            Some(mark) if what >= 8 => Act::Recall { lives: !self.known[&mark].forgotten, mark },
            Some(mark) if what >= 5 => Act::Forget { id: self.known[&mark].id.clone(), mark, again: false },
            _ => Act::Remember { mark: mark_of(author, number), again: false },
        }
    }

    fn stored(&mut self, author: usize, mark: String, again: bool, answer: &Value) -> Result<(), String> {
        let id = answer["id"].as_str().ok_or_else(|| format!("no id: {answer}"))?.to_owned();
        if answer["duplicate"] == true && !again {
            return Err(format!("{mark} was stored for the first time, and it is a duplicate: {answer}"));
        }
        if let Some(other) = self.marks.insert(id.clone(), mark.clone()) {
            return Err(format!("{id} is {other} and {mark}"));
        }
        let known = Known { id: id.clone(), author, forgotten: false, leaving: false };
        if let Some(before) = self.known.insert(mark.clone(), known) {
            return Err(format!("{mark} was stored as {} and as {id}", before.id));
        }
        self.fresh.push(Mark::new("memory_stored", [json!(id)]));
        self.changed.insert(mark);
        Ok(())
    }

    fn forgotten(&mut self, mark: String, again: bool, answer: &Value) -> Result<(), String> {
        // Done by the request that was cut off, if that was not found.
        if answer["type"] != "ack" || !(answer["code"].is_null() || (again && answer["code"] == "not_found")) {
            return Err(format!("{mark} could not be forgotten: {answer}"));
        }
        let known = self.known.get_mut(&mark).ok_or_else(|| format!("{mark} is not known"))?;
        (known.forgotten, known.leaving) = (true, false);
        self.fresh.push(Mark::new("memory_forgotten", [json!(known.id)]));
        self.changed.insert(mark);
        Ok(())
    }

    /// Compares all memories of a broker at rest with what is known.
    pub(super) fn judge(&self, listed: &BTreeMap<String, Row>) -> Result<(), String> {
        for (mark, known) in &self.known {
            match (listed.get(&known.id), known.forgotten) {
                (None, false) => return Err(format!("{mark} is gone")),
                (Some(_), true) => return Err(format!("{mark} was forgotten and is listed")),
                (Some(row), false) if row.content != text_of(mark) => return Err(format!("{mark} is {row:?}")),
                _ => {}
            }
        }
        match listed.values().find(|row| !self.marks.contains_key(&row.id)) {
            Some(row) => Err(format!("{row:?} is there once more, or no one's")),
            None => Ok(()),
        }
    }

    /// What was stored or forgotten since the last call, and whether it must be found.
    pub(super) fn take_changed(&mut self) -> Vec<(String, bool)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(|mark| (!self.known[&mark].forgotten, mark)).map(|(lives, mark)| (mark, lives)).collect()
    }

    pub(super) fn take_confirmed(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.fresh)
    }

    /// Memories that are there, and that were forgotten.
    pub(super) fn counts(&self) -> (usize, usize) {
        let forgotten = self.known.values().filter(|known| known.forgotten).count();
        (self.known.len() - forgotten, forgotten)
    }

    /// All that was stored, and all that was forgotten.
    pub(super) fn changes(&self) -> u64 {
        (self.known.len() + self.counts().1) as u64
    }
}

impl Book for Log {
    const NAME: &'static str = "memory";

    fn ask(&mut self, author: usize, random: &mut StdRng) -> Option<(usize, Value)> {
        let act = self.choose(author, self.asked.of(author).len(), random);
        let frame = match &act {
            Act::Remember { mark, .. } => json!({"type": "remember", "content": text_of(mark), "tags": ["torture"]}),
            Act::Forget { id, .. } => json!({"type": "forget", "memoryId": id}),
            Act::Recall { mark, .. } => json!({"type": "recall", "query": mark}),
        };
        if let Act::Forget { mark, .. } = &act
            && let Some(known) = self.known.get_mut(mark)
        {
            known.leaving = true;
        }
        Some((self.asked.begin(author, act), frame))
    }

    fn answered(&mut self, author: usize, number: usize, answer: &Value) -> Result<(), String> {
        let fate = if answer["type"] == "error" { Fate::Refused } else { Fate::Confirmed };
        match self.asked.end(author, number, fate)? {
            act if fate == Fate::Refused => Err(format!("{act:?} was refused: {answer}")),
            Act::Remember { mark, again } => self.stored(author, mark, again, answer),
            Act::Forget { mark, again, .. } => self.forgotten(mark, again, answer),
            Act::Recall { mark, lives } => {
                let found = serde_json::from_value(answer.clone()).map_err(|error| format!("{error}: {answer}"))?;
                recalled(&mark, lives, &found)
            }
        }
    }

    fn to_repeat(&self) -> usize {
        self.again.iter().map(VecDeque::len).max().unwrap_or_default()
    }

    fn cut_off(&mut self) {
        for (author, _, act) in self.asked.cut_off() {
            let act = match act {
                Act::Remember { mark, .. } => Act::Remember { mark, again: true },
                Act::Forget { mark, id, .. } => Act::Forget { mark, id, again: true },
                Act::Recall { .. } => continue,
            };
            self.again[author].push_back(act);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remember(log: &mut Log, id: &str, more: &Value) -> Result<String, String> {
        let number = log.asked.of(0).len();
        let mark = mark_of(0, number);
        log.asked.begin(0, Act::Remember { mark: mark.clone(), again: *more == true });
        log.answered(0, number, &json!({"type": "memory_stored", "id": id, "duplicate": more})).map(|()| mark)
    }

    fn forget(log: &mut Log, mark: &str, again: bool, code: &Value) -> Result<(), String> {
        let id = log.known[mark].id.clone();
        let number = log.asked.begin(0, Act::Forget { mark: mark.into(), id, again });
        log.answered(0, number, &json!({"type": "ack", "code": code}))
    }

    fn row(id: &str, mark: &str) -> (String, Row) {
        (id.into(), Row { id: id.into(), content: text_of(mark), ..Row::default() })
    }

    #[test]
    fn what_was_lost_came_back_or_is_there_twice_is_found() {
        let mut log = Log::new(1);
        let (kept, gone) =
            (remember(&mut log, "a", &json!(null)).unwrap(), remember(&mut log, "b", &json!(null)).unwrap());
        forget(&mut log, &gone, false, &json!(null)).unwrap();
        log.judge(&BTreeMap::from([row("a", &kept)])).unwrap();
        for (told, listed) in [
            ("lost", vec![]),
            ("back", vec![row("a", &kept), row("b", &gone)]),
            ("twice", vec![row("a", &kept), row("c", &kept)]),
            ("another text", vec![row("a", &gone)]),
        ] {
            assert!(log.judge(&listed.into_iter().collect()).is_err(), "{told}");
        }
        assert_eq!((log.changes(), log.counts()), (3, (1, 1)));
    }

    #[test]
    fn a_recall_finds_a_memory_once_and_a_forgotten_one_never() {
        let found = |marks: &[&str]| MemoryResults {
            memories: marks.iter().map(|mark| row("a", mark).1).collect(),
            ..MemoryResults::default()
        };
        recalled("w0n1", true, &found(&["w0n1"])).unwrap();
        recalled("w0n1", false, &found(&[])).unwrap();
        for (lives, marks) in [(true, &[][..]), (true, &["w0n1", "w0n1"]), (true, &["w0n2"]), (false, &["w0n1"])] {
            assert!(recalled("w0n1", lives, &found(marks)).is_err(), "{lives} {marks:?}");
        }
    }

    #[test]
    fn what_is_done_twice_is_found() {
        let mut log = Log::new(1);
        let mark = remember(&mut log, "a", &json!(null)).unwrap();
        assert!(remember(&mut log, "a", &json!(null)).is_err(), "two memories with one id");
        let number = log.asked.begin(0, Act::Remember { mark: mark.clone(), again: false });
        let stored = json!({"type": "memory_stored", "id": "z", "duplicate": true});
        assert!(log.answered(0, number, &stored).is_err(), "a duplicate of nothing");
        let number = log.asked.begin(0, Act::Remember { mark: mark.clone(), again: true });
        assert!(
            log.answered(0, number, &json!({"type": "memory_stored", "id": "y"})).is_err(),
            "one memory with two ids"
        );
        assert!(forget(&mut log, &mark, false, &json!("not_found")).is_err(), "it was there");
        forget(&mut log, &mark, true, &json!("not_found")).expect("the request that was cut off did it");
    }

    #[test]
    fn what_was_cut_off_is_asked_for_again() {
        let mut log = Log::new(1);
        let number = log.asked.begin(0, Act::Remember { mark: "w0n0".into(), again: false });
        log.cut_off();
        assert!(log.to_repeat() == 1);
        assert!(log.answered(0, number, &json!({"type": "memory_stored", "id": "a"})).is_err(), "too late");
        let mut random = rand::SeedableRng::seed_from_u64(1);
        let (again, frame) = log.ask(0, &mut random).unwrap();
        assert_eq!(frame["content"], text_of("w0n0"));
        log.answered(0, again, &json!({"type": "memory_stored", "id": "a", "duplicate": true})).unwrap();
        assert!(log.to_repeat() == 0 && log.take_changed() == [("w0n0".to_owned(), true)]);
    }
}
