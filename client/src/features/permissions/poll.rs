//! Counting answers: pure rules, no clock, no I/O.

use std::collections::BTreeSet;

use claudemesh_protocol::crypto::signed::PermissionWord;
use claudemesh_protocol::id::{MeshId, PublicKey};

use super::wire::{Answer, Behavior};

/// One question in one mesh, as the asker remembers it: nothing of it is taken from an answer.
#[derive(Clone, Debug)]
pub struct Poll {
    /// Row id of the mesh.
    pub mesh: MeshId,
    /// Five letters.
    pub id: String,
    /// Key of the asking session.
    pub session: PublicKey,
    /// SHA-256 of the call.
    pub digest: String,
    /// Unix ms.
    pub expires_at_ms: i64,
    /// Who was asked.
    pub approvers: BTreeSet<PublicKey>,
    /// Approvals that are needed.
    pub quorum: usize,
    /// Who has allowed it.
    pub allowed: BTreeSet<PublicKey>,
}

/// What an answer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One more approval, not enough yet.
    Counted,
    /// Enough approvals.
    Allow,
    /// Denied: one is enough.
    Deny,
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No question is open under this id: never asked, settled, or of another session.
    Unknown,
    /// The member may not decide in this mesh.
    NotApprover,
    /// The signature is not the member's over this very call.
    BadSignature,
    /// Too late.
    Expired,
    /// The member has allowed it before.
    Repeated,
    /// Not sealed, or not of the shape of an answer.
    Malformed,
}

impl Refusal {
    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown_request",
            Self::NotApprover => "not_an_approver",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::Repeated => "repeated",
            Self::Malformed => "malformed",
        }
    }
}

impl Poll {
    /// Whether an answer counts, and what it would change. Changes nothing: it is written down first.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn judge(&self, answer: &Answer, now_ms: i64) -> Result<Step, Refusal> {
        if answer.id != self.id {
            return Err(Refusal::Unknown);
        }
        if !self.approvers.contains(&answer.member) {
            return Err(Refusal::NotApprover);
        }
        let word = PermissionWord {
            mesh: &self.mesh,
            request: &self.id,
            session: &self.session,
            digest: &self.digest,
            behavior: answer.behavior.as_str(),
            expires_at_ms: self.expires_at_ms,
            signed_at_ms: answer.signed_at_ms,
        };
        if !answer.proves(&word) {
            return Err(Refusal::BadSignature);
        }
        if now_ms > self.expires_at_ms {
            return Err(Refusal::Expired);
        }
        match answer.behavior {
            // Who has allowed may think better of it while the question is open.
            Behavior::Deny => Ok(Step::Deny),
            Behavior::Allow if self.allowed.contains(&answer.member) => Err(Refusal::Repeated),
            Behavior::Allow if self.allowed.len() + 1 >= self.quorum => Ok(Step::Allow),
            Behavior::Allow => Ok(Step::Counted),
        }
    }

    /// Counts an answer that was judged.
    pub fn count(&mut self, answer: &Answer) {
        if answer.behavior == Behavior::Allow {
            self.allowed.insert(answer.member);
        }
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::keys::SecretKey;

    use super::super::wire::{self, Request};
    use super::*;

    const END: i64 = 1_000_000;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    fn poll(quorum: usize, approvers: &[u8]) -> Poll {
        Poll {
            mesh: "m".into(),
            id: "abcde".into(),
            session: key(99).public(),
            digest: wire::digest("Bash", &serde_json::json!({"command": "make deploy"})),
            expires_at_ms: END,
            approvers: approvers.iter().map(|seed| key(*seed).public()).collect(),
            quorum,
            allowed: BTreeSet::new(),
        }
    }

    fn request(poll: &Poll) -> Request {
        Request {
            id: poll.id.clone(),
            mesh_id: poll.mesh.clone(),
            session: poll.session,
            tool: "Bash".into(),
            preview: String::new(),
            digest: poll.digest.clone(),
            expires_at_ms: poll.expires_at_ms,
            ttl_ms: 1_000,
            quorum: 1,
            of: 1,
        }
    }

    fn answer(poll: &Poll, seed: u8, behavior: Behavior) -> Answer {
        Answer::sign(&request(poll), behavior, None, &key(seed), 5)
    }

    #[test]
    fn a_quorum_allows_and_one_denial_denies() {
        let mut poll = poll(2, &[1, 2, 3]);
        let first = answer(&poll, 1, Behavior::Allow);
        assert_eq!(poll.judge(&first, 1), Ok(Step::Counted));
        poll.count(&first);
        assert_eq!(poll.judge(&first, 1), Err(Refusal::Repeated), "a replay does not count twice");
        let again = Answer::sign(&request(&poll), Behavior::Allow, None, &key(1), 6);
        assert_eq!(poll.judge(&again, 1), Err(Refusal::Repeated), "nor does a second word of the same member");
        assert_eq!(poll.judge(&answer(&poll, 2, Behavior::Allow), 1), Ok(Step::Allow));
        assert_eq!(poll.judge(&answer(&poll, 3, Behavior::Deny), 1), Ok(Step::Deny));
        assert_eq!(poll.judge(&answer(&poll, 1, Behavior::Deny), 1), Ok(Step::Deny), "a change of mind");
    }

    #[test]
    fn only_a_signature_of_an_approver_over_this_very_call_counts() {
        let poll = poll(1, &[1]);
        assert_eq!(poll.judge(&answer(&poll, 2, Behavior::Allow), 1), Err(Refusal::NotApprover));
        // Someone else's signature under an approver's name.
        let mut forged = answer(&poll, 2, Behavior::Allow);
        forged.member = key(1).public();
        assert_eq!(poll.judge(&forged, 1), Err(Refusal::BadSignature));
        let mut turned = answer(&poll, 1, Behavior::Deny);
        turned.behavior = Behavior::Allow;
        assert_eq!(poll.judge(&turned, 1), Err(Refusal::BadSignature));
        let mut moved = answer(&poll, 1, Behavior::Allow);
        moved.signed_at_ms += 1;
        assert_eq!(poll.judge(&moved, 1), Err(Refusal::BadSignature));
        // An answer that was given for another call, session, mesh or time under the same id.
        let others: [fn(&mut Poll); 4] = [
            |poll| poll.digest = "00".repeat(32),
            |poll| poll.session = key(98).public(),
            |poll| poll.mesh = "n".into(),
            |poll| poll.expires_at_ms += 1,
        ];
        for change in others {
            let mut other = poll.clone();
            change(&mut other);
            assert_eq!(poll.judge(&answer(&other, 1, Behavior::Allow), 1), Err(Refusal::BadSignature));
        }
        let mut other = poll.clone();
        other.id = "vwxyz".into();
        assert_eq!(poll.judge(&answer(&other, 1, Behavior::Allow), 1), Err(Refusal::Unknown));
    }

    #[test]
    fn an_answer_after_the_end_is_too_late() {
        let poll = poll(1, &[1]);
        let answer = answer(&poll, 1, Behavior::Allow);
        assert_eq!(poll.judge(&answer, END), Ok(Step::Allow));
        assert_eq!(poll.judge(&answer, END + 1), Err(Refusal::Expired));
    }
}
