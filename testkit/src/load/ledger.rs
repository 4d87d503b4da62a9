//! Who sent what to which recipient, and whether it arrived once and in order.

/// Counts per sender and recipient.
pub struct Ledger {
    recipients: usize,
    sent: Vec<u32>,
    next: Vec<u32>,
    seen: Vec<Vec<u64>>,
    /// Messages handed to the broker.
    pub sent_total: u64,
    /// First arrivals.
    pub received_total: u64,
    /// Second and later arrivals of a message.
    pub twice: u64,
    /// Arrivals after a later message of the same pair.
    pub out_of_order: u64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(senders: usize, recipients: usize) -> Self {
        let pairs = senders * recipients;
        Self {
            recipients,
            sent: vec![0; pairs],
            next: vec![0; pairs],
            seen: vec![Vec::new(); pairs],
            sent_total: 0,
            received_total: 0,
            twice: 0,
            out_of_order: 0,
        }
    }

    /// The number of the next message of that pair.
    pub fn send(&mut self, sender: usize, recipient: usize) -> u32 {
        let pair = sender * self.recipients + recipient;
        let number = self.sent[pair];
        self.sent[pair] += 1;
        self.sent_total += 1;
        number
    }

    /// Notes an arrival; `false` when it had arrived before.
    pub fn receive(&mut self, sender: usize, recipient: usize, number: u32) -> bool {
        let pair = sender * self.recipients + recipient;
        let (word, bit) = (number as usize / 64, 1u64 << (number % 64));
        let seen = &mut self.seen[pair];
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        if seen[word] & bit != 0 {
            self.twice += 1;
            return false;
        }
        seen[word] |= bit;
        self.received_total += 1;
        if number < self.next[pair] {
            self.out_of_order += 1;
        } else {
            self.next[pair] = number + 1;
        }
        true
    }

    /// Messages sent that never arrived.
    pub fn lost(&self) -> u64 {
        self.sent_total - self.received_total
    }

    /// Whether every message sent so far arrived.
    pub fn complete(&self) -> bool {
        self.sent_total == self.received_total
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn every_fault_is_counted() {
        let mut ledger = Ledger::new(2, 2);
        for _ in 0..4 {
            ledger.send(0, 1);
        }
        assert!(ledger.receive(0, 1, 0));
        assert!(ledger.receive(0, 1, 2));
        assert!(ledger.receive(0, 1, 1));
        assert!(!ledger.receive(0, 1, 1));
        assert_eq!((ledger.lost(), ledger.twice, ledger.out_of_order), (1, 1, 1));
    }
}
