//! What was sent, promised and taken, by all connections of a run.

use std::collections::{BTreeSet, HashMap};

use super::{RECIPIENTS, SENDERS};

/// One message of a sender.
struct Entry {
    recipient: usize,
    number: u32,
    /// Broker's id, once it promised.
    promised: Option<String>,
    /// Its recipient has acknowledged it.
    taken: bool,
}

/// What was sent, promised and taken.
#[derive(Default)]
pub(in super::super) struct Ledger {
    targets: Vec<String>,
    /// Per sender, in send order.
    sent: Vec<Vec<Entry>>,
    /// (recipient, sender) -> places in `sent`, by number.
    places: HashMap<(usize, usize), Vec<usize>>,
    /// (recipient, sender) -> the next number that arrives for the first time.
    next: HashMap<(usize, usize), u32>,
    /// Per recipient: sender and number of what it has not acknowledged.
    untaken: Vec<BTreeSet<(usize, u32)>>,
    /// Per sender: places of what was not promised.
    open: Vec<BTreeSet<usize>>,
    /// What is taken may not come again: it is on disk for long.
    pub(in super::super) strict: bool,
    /// What a recipient that goes through several steps does now, for the report of what is missing.
    pub(in super::super) steps: HashMap<usize, &'static str>,
    acked: u64,
    retried: u64,
    /// Deliveries of what was not acknowledged before.
    again: u64,
    /// Deliveries of what was acknowledged.
    duplicates: u64,
}

impl Ledger {
    /// Nothing was sent to these addresses yet.
    pub(super) fn new(targets: Vec<String>) -> Self {
        Self {
            targets,
            sent: (0..SENDERS).map(|_| Vec::new()).collect(),
            untaken: vec![BTreeSet::new(); RECIPIENTS.len()],
            open: vec![BTreeSet::new(); SENDERS],
            ..Self::default()
        }
    }

    /// A message to write: its address, recipient and number.
    pub(super) fn message(&self, sender: usize, index: usize) -> (&str, usize, u32) {
        let entry = &self.sent[sender][index];
        (&self.targets[entry.recipient], entry.recipient, entry.number)
    }

    /// What was not promised, in send order; counts as retried.
    pub(super) fn retry(&mut self, sender: usize) -> BTreeSet<usize> {
        self.retried += self.open[sender].len() as u64;
        self.open[sender].clone()
    }

    /// Messages promised so far.
    pub(super) fn promised(&self) -> u64 {
        self.acked
    }
    pub(super) fn add(&mut self, sender: usize, recipient: usize) -> usize {
        let index = self.sent[sender].len();
        let places = self.places.entry((recipient, sender)).or_default();
        let number = u32::try_from(places.len()).unwrap_or(u32::MAX);
        places.push(index);
        self.untaken[recipient].insert((sender, number));
        self.open[sender].insert(index);
        self.sent[sender].push(Entry { recipient, number, promised: None, taken: false });
        index
    }

    pub(super) fn promise(&mut self, sender: usize, index: usize, id: String) -> Result<(), String> {
        let entry =
            self.sent[sender].get_mut(index).ok_or_else(|| format!("an ack of message {index}, which was not sent"))?;
        match entry.promised.replace(id.clone()) {
            None => {
                self.open[sender].remove(&index);
                self.acked += 1;
                Ok(())
            }
            Some(before) if before != id => {
                Err(format!("message t-{sender}-{index} was acknowledged as {before} and as {id}"))
            }
            Some(_) => Ok(()),
        }
    }

    fn entry(&self, recipient: usize, sender: usize, number: u32) -> Option<&Entry> {
        let place = self.places.get(&(recipient, sender))?.get(number as usize)?;
        self.sent.get(sender)?.get(*place)
    }

    /// A message that arrives has the id that was promised. Answers whether it was taken before.
    pub(super) fn named(&self, recipient: usize, sender: usize, number: u32, id: &str) -> Result<bool, String> {
        let Some(entry) = self.entry(recipient, sender, number) else {
            return Err(format!("recipient {recipient} got number {number} of sender {sender}, which was not sent"));
        };
        match &entry.promised {
            Some(promised) if promised != id => Err(format!("a message was promised as {promised} and came as {id}")),
            _ => Ok(entry.taken),
        }
    }

    /// Notes an arrival.
    pub(super) fn arrived(&mut self, recipient: usize, sender: usize, number: u32, id: &str) -> Result<(), String> {
        let (habit, taken) = (RECIPIENTS[recipient], self.named(recipient, sender, number, id)?);
        if habit.shares() && !(taken && self.strict) {
            return Ok(());
        }
        let next = self.next.entry((recipient, sender)).or_default();
        if number > *next {
            return Err(format!(
                "recipient {recipient} ({habit:?}) got number {number} of sender {sender} before number {next}"
            ));
        }
        if number == *next {
            *next += 1;
        } else if !taken {
            self.again += 1;
        } else if self.strict {
            return Err(format!("recipient {recipient} ({habit:?}) got number {number} of sender {sender} again"));
        } else {
            self.duplicates += 1;
        }
        Ok(())
    }

    /// The recipient acknowledges: from now on the message need not come again.
    pub(super) fn take(&mut self, recipient: usize, sender: usize, number: u32) {
        self.untaken[recipient].remove(&(sender, number));
        let place = self.places.get(&(recipient, sender)).and_then(|places| places.get(number as usize));
        if let Some(entry) = place.and_then(|place| self.sent[sender].get_mut(*place)) {
            entry.taken = true;
        }
    }

    /// The recipient counts as served with all that it got.
    pub(in super::super) fn served(&mut self, recipient: usize) {
        for (sender, number) in std::mem::take(&mut self.untaken[recipient]) {
            self.take(recipient, sender, number);
        }
    }

    /// Everything that the recipient has not acknowledged was promised and is among these.
    pub(super) fn all_among(&self, recipient: usize, seen: &BTreeSet<(usize, u32)>) -> bool {
        let promised = |(sender, number): &(usize, u32)| {
            self.entry(recipient, *sender, *number).is_some_and(|entry| entry.promised.is_some())
        };
        self.untaken[recipient].iter().all(|message| seen.contains(message) && promised(message))
    }

    /// Messages that the recipient has not acknowledged.
    pub(in super::super) fn owed(&self, recipient: usize) -> usize {
        self.untaken[recipient].len()
    }

    pub(in super::super) fn settled(&self) -> bool {
        self.all_promised() && self.untaken.iter().all(BTreeSet::is_empty)
    }

    pub(in super::super) fn all_promised(&self) -> bool {
        self.open.iter().all(BTreeSet::is_empty)
    }

    pub(super) fn missing(&self) -> String {
        let mut lines = vec![format!("{} without an ack", self.open.iter().map(BTreeSet::len).sum::<usize>())];
        for (recipient, untaken) in self.untaken.iter().enumerate().filter(|(_, untaken)| !untaken.is_empty()) {
            let habit = RECIPIENTS[recipient];
            let first: Vec<String> =
                untaken.iter().take(3).map(|(sender, number)| format!("number {number} of sender {sender}")).collect();
            let step = self.steps.get(&recipient).map(|step| format!("; {step}")).unwrap_or_default();
            lines.push(format!(
                "recipient {recipient} ({habit:?}): {} not there, such as {}{step}",
                untaken.len(),
                first.join(", ")
            ));
        }
        lines.join("; ")
    }

    pub(super) fn summary(&self) -> String {
        let (acked, retried, again, duplicates) = (self.acked, self.retried, self.again, self.duplicates);
        format!(
            "{acked} promised, all arrived in order ({retried} retried, {again} came again until acknowledged, {duplicates} after that)"
        )
    }
}
