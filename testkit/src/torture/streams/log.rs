//! All that is known of the entries of the streams, from anyone who learned it: no two may differ.

use std::collections::{BTreeMap, HashMap};

use claudemesh_protocol::features::streams::StreamPage;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::asked::{Asked, Book, Fate, mark_of};
use super::super::audit::Mark;
use super::{STREAMS, create};

/// What a request is for: the stream by its place in [`STREAMS`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    Create(usize),
    Publish(usize),
}

#[derive(Default)]
struct Known {
    created: bool,
    /// Offset -> who published it.
    entries: BTreeMap<u64, String>,
    /// Behind the newest entry that was confirmed.
    end: u64,
    /// Everything up to here was read at rest.
    read: u64,
    /// The highest offset of a hole that a reader was told of.
    gap: Option<u64>,
    confirmed: u64,
}

pub(super) struct Log {
    pub(super) asked: Asked<Act>,
    streams: [Known; STREAMS.len()],
    /// Who published it -> stream and offset.
    marks: HashMap<String, (usize, u64)>,
    fresh: Vec<Mark>,
    gaps: u64,
}

impl Log {
    pub(super) fn new(publishers: usize) -> Self {
        Self {
            asked: Asked::new(publishers),
            streams: Default::default(),
            marks: HashMap::new(),
            fresh: Vec::new(),
            gaps: 0,
        }
    }

    /// Someone was told what is at an offset.
    pub(super) fn see(&mut self, stream: usize, offset: u64, data: &Value) -> Result<(), String> {
        let name = STREAMS[stream].0;
        let mark = data.as_str().ok_or_else(|| format!("no one published {data} in {name}"))?;
        let (act, fate) = self.asked.marked(mark)?;
        if *act != Act::Publish(stream) || *fate == Fate::Refused {
            return Err(format!("{mark} ({act:?}, {fate:?}) is at {offset} in {name}"));
        }
        if let Some(known) = self.marks.insert(mark.into(), (stream, offset)).filter(|known| *known != (stream, offset))
        {
            return Err(format!("{mark} is there twice: {known:?}, and at {offset} in {name}"));
        }
        match self.streams[stream].entries.insert(offset, mark.into()) {
            Some(known) if known != mark => Err(format!("{offset} in {name} is {known} and {mark}")),
            _ => Ok(()),
        }
    }

    /// A reader was told of a hole.
    pub(super) fn gap(&mut self, stream: usize, from: u64, to: u64) -> Result<(), String> {
        if to < from {
            return Err(format!("a hole from {from} to {to}"));
        }
        let known = &mut self.streams[stream];
        known.gap = known.gap.max(Some(to));
        self.gaps += 1;
        Ok(())
    }

    /// A page that was read from `from` on.
    pub(super) fn read(&mut self, stream: usize, from: u64, page: &StreamPage) -> Result<(), String> {
        for (offset, entry) in (from..).zip(&page.entries) {
            if entry.offset != offset {
                return Err(format!("{} follows {} in a page of {}", entry.offset, offset - 1, page.stream));
            }
            self.see(stream, offset, &entry.data)?;
        }
        let next = from + page.entries.len() as u64;
        if page.next != next || (page.entries.is_empty() && next < page.end) {
            return Err(format!("a page of {} from {from} ends at {} of {}", page.stream, page.next, page.end));
        }
        self.streams[stream].read = next;
        Ok(())
    }

    /// Everything before this was read at rest.
    pub(super) fn read_up_to(&self, stream: usize) -> u64 {
        self.streams[stream].read
    }

    /// Behind the newest entry that was confirmed.
    pub(super) fn end(&self, stream: usize) -> u64 {
        self.streams[stream].end
    }

    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Compares a stream at rest, which was read to its end, with what is known.
    pub(super) fn judge(&self, stream: usize, first: u64, end: u64) -> Result<(), String> {
        let (known, name) = (&self.streams[stream], STREAMS[stream].0);
        if end < known.end {
            return Err(format!("{name} ends at {end}, and {} was confirmed", known.end - 1));
        }
        if known.read != end {
            return Err(format!("{name} was read up to {} of {end}", known.read));
        }
        if let Some(gap) = known.gap.filter(|gap| *gap >= first) {
            return Err(format!("a reader of {name} was told that {gap} is gone, and it is there"));
        }
        if let Some(offset) = (first..end).find(|offset| !known.entries.contains_key(offset)) {
            return Err(format!("{offset} of {name} is nowhere"));
        }
        let unknown = |worker| {
            let cut_off = |(act, fate): &&(Act, Fate)| (*act, *fate) == (Act::Publish(stream), Fate::Unknown);
            self.asked.of(worker).iter().filter(cut_off).count() as u64
        };
        let unknown: u64 = (0..self.asked.workers()).map(unknown).sum();
        if !(known.confirmed..=known.confirmed + unknown).contains(&end) {
            return Err(format!("{name} has {end} entries; {} were confirmed and {unknown} cut off", known.confirmed));
        }
        Ok(())
    }

    pub(super) fn take_confirmed(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.fresh)
    }
}

impl Book for Log {
    const NAME: &'static str = "streams";

    fn ask(&mut self, worker: usize, random: &mut StdRng) -> Option<(usize, Value)> {
        let missing = self.streams.iter().position(|known| !known.created);
        let act = match missing {
            Some(stream) if worker == 0 => Act::Create(stream),
            // With the bounds that the first publisher gives it.
            Some(_) => return None,
            None => Act::Publish(random.gen_range(0..STREAMS.len())),
        };
        let number = self.asked.begin(worker, act);
        let frame = match act {
            Act::Create(stream) => create(stream),
            Act::Publish(stream) => {
                let mark = mark_of(worker, number);
                json!({"type": "publish", "stream": STREAMS[stream].0, "data": mark, "confirm": true})
            }
        };
        Some((number, frame))
    }

    fn answered(&mut self, worker: usize, number: usize, answer: &Value) -> Result<(), String> {
        let fate = if answer["type"] == "error" { Fate::Refused } else { Fate::Confirmed };
        match self.asked.end(worker, number, fate)? {
            act if fate == Fate::Refused => Err(format!("{act:?} was refused: {answer}")),
            Act::Create(stream) => {
                self.streams[stream].created = true;
                self.fresh.push(Mark::new("stream_created", [json!(STREAMS[stream].0)]));
                Ok(())
            }
            Act::Publish(stream) => {
                let offset = answer["offset"].as_u64().ok_or_else(|| format!("no offset: {answer}"))?;
                let known = &mut self.streams[stream];
                known.end = known.end.max(offset + 1);
                known.confirmed += 1;
                self.see(stream, offset, &mark_of(worker, number).into())
            }
        }
    }

    fn cut_off(&mut self) {
        self.asked.cut_off();
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::streams::PageEntry;

    use super::*;

    /// A log of two entries at 0 and 1 of the first stream, and one that was cut off.
    fn published() -> Log {
        let mut log = Log::new(1);
        for offset in 0..2 {
            let number = log.asked.begin(0, Act::Publish(0));
            log.answered(0, number, &json!({"type": "done", "offset": offset})).unwrap();
        }
        log.asked.begin(0, Act::Publish(0));
        log.cut_off();
        log
    }

    fn page(marks: &[(u64, &str)], end: u64) -> StreamPage {
        let entry = |(offset, mark): &(u64, &str)| PageEntry {
            offset: *offset,
            data: json!(mark),
            published_by: String::new(),
            at: String::new(),
        };
        let next = marks.last().map_or(0, |(offset, _)| offset + 1);
        StreamPage { entries: marks.iter().map(entry).collect(), next, end, ..StreamPage::default() }
    }

    fn at_rest(mut log: Log, marks: &[(u64, &str)], end: u64) -> Result<(), String> {
        log.read(0, 0, &page(marks, end))?;
        log.judge(0, 0, end)
    }

    #[test]
    fn what_is_whole_is_right_with_or_without_what_was_cut_off() {
        at_rest(published(), &[(0, "w0n0"), (1, "w0n1")], 2).unwrap();
        at_rest(published(), &[(0, "w0n0"), (1, "w0n1"), (2, "w0n2")], 3).unwrap();
    }

    #[test]
    fn what_was_lost_moved_or_came_twice_is_found() {
        for (told, marks, end) in [
            ("lost", &[(0, "w0n0")][..], 1),
            ("a hole", &[(0, "w0n0"), (2, "w0n2")], 3),
            ("another order", &[(0, "w0n1"), (1, "w0n0")], 2),
            ("twice", &[(0, "w0n0"), (1, "w0n1"), (2, "w0n1")], 3),
            ("no one's", &[(0, "w0n0"), (1, "w0n1"), (2, "w0n9")], 3),
            ("the end is elsewhere", &[(0, "w0n0"), (1, "w0n1")], 3),
        ] {
            assert!(at_rest(published(), marks, end).is_err(), "{told}");
        }
        let mut log = published();
        assert!(log.see(1, 0, &json!("w0n2")).is_err(), "in another stream");
        let number = log.asked.begin(0, Act::Publish(0));
        assert!(log.answered(0, number, &json!({"type": "done", "offset": 1})).is_err(), "an offset given twice");
    }

    #[test]
    fn a_hole_that_was_told_and_is_none_is_found() {
        let mut log = published();
        log.gap(0, 0, 0).unwrap();
        assert!(at_rest(log, &[(0, "w0n0"), (1, "w0n1")], 2).is_err());
        assert!(published().gap(0, 3, 2).is_err());
    }

    #[test]
    fn more_entries_than_were_published_are_found() {
        let mut log = Log::new(1);
        let number = log.asked.begin(0, Act::Publish(0));
        log.answered(0, number, &json!({"type": "done", "offset": 1})).unwrap();
        // Something no one wrote is before it.
        log.streams[0].read = 2;
        assert!(log.judge(0, 1, 2).is_err());
    }
}
