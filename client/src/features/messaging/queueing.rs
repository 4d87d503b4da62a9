//! What `send` and `send_message` put into the outbox when the broker is away: the same messages that were tried, so that one
//! that arrived after all is not sent again.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::target::Target;

use super::outbox::{Parcel, Step, steps};
use super::{Draft, Outcome, check_length};
use crate::connection::ConnectionError;
use crate::error::{CliError, ExitCode};

/// What a person reads about a queued message.
pub const QUEUED_WORDS: &str =
    "queued here: the broker cannot be reached; it is sent as soon as it can (claudemesh outbox list)";

/// Whether a message that failed so is queued: the broker was not reached, or was gone before it answered.
pub fn is_away(error: &ConnectionError) -> bool {
    CliError::from(error.clone()).exit == ExitCode::Network
}

/// What can be known of a message without a broker: its length, and the form of its targets.
///
/// # Errors
/// `payload_too_large`, `invalid_args`.
pub fn check(text: &str, targets: &[String]) -> Result<(), ConnectionError> {
    check_length(text)?;
    for target in targets {
        Target::parse(target)
            .map_err(|error| ErrorFrame::new(ErrorCode::InvalidArgs, format!("'{target}': {error}")))?;
    }
    Ok(())
}

/// A command none of whose messages was tried.
pub fn parcel_of_all(draft: &Draft, batch: &str, targets: &[String], to_self: bool) -> Parcel {
    Parcel::new(draft, batch, steps(targets), to_self)
}

/// The messages that were on their way when the broker went; `None` when each got an answer.
pub fn parcel_of_open(draft: &Draft, batch: &str, outcomes: &[Outcome], to_self: bool) -> Option<Parcel> {
    let open: Vec<String> = outcomes.iter().filter(|one| is_open(one)).map(|one| one.target.clone()).collect();
    if open.is_empty() {
        return None;
    }
    let mut rest: Vec<Step> = steps(&open);
    for step in &mut rest {
        let tried = outcomes.iter().find(|one| step.targets.first() == Some(&one.target));
        step.sealed_for = tried.and_then(key_of);
    }
    // Who has it already is left out of the audiences.
    let reached = outcomes.iter().filter_map(|one| {
        let ack = one.result.as_ref().ok()?;
        let (sealed_for, message_id) = (Some(key_of(one)?), Some(ack.message_id.clone()));
        Some(Step { targets: vec![one.target.clone()], sealed_for, message_id, failed: None })
    });
    let mut all: Vec<Step> = reached.collect();
    all.extend(rest);
    Some(Parcel::new(draft, batch, all, to_self))
}

/// Whether the message to this target goes into the outbox.
pub fn is_open(outcome: &Outcome) -> bool {
    outcome.result.as_ref().err().is_some_and(is_away)
}

fn key_of(outcome: &Outcome) -> Option<PublicKey> {
    outcome.resolved.as_ref().map(|found| found.pubkey).or_else(|| PublicKey::parse(&outcome.target))
}
