//! Clients of before: a plain hello without a word of what it can do.
//!
//! The promise: what a client that never acknowledges has got comes again on every connection of its member, until it has stayed for
//! half a minute ([`super::stay`]) or someone acknowledges; whatever comes and goes in between takes nothing with it. From the first
//! acknowledgement of a client on, only what it acknowledges counts.

use std::time::Duration;

use claudemesh_protocol::crypto::keys::SecretKey;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::cast::{Cast, Stage};
use super::messages::{Acks, Habit, Messages, Reader};
use crate::identity::{Member, merged};

/// Longest stay of a connection that comes and goes.
const BRIEF_MS: u64 = 20;

/// A hello as clients of before say it.
pub(super) fn hello(member: &Member, session_id: &str, extra: Value) -> Value {
    merged(member.hello(session_id, json!({"protocolVersion": null, "capabilities": null})), extra)
}

/// What a daemon of before says: it acknowledges, and does not announce it.
pub(super) fn daemon(member: &Member) -> Value {
    hello(member, "daemon-1", json!({"channel": "claudemesh-daemon"}))
}

/// What a session or a shell verb of before says: it never acknowledges.
pub(super) fn verb(member: &Member, session_id: &str) -> Value {
    let key = SecretKey::random(&mut rand::thread_rng()).public().to_hex();
    hello(member, session_id, json!({ "sessionPubkey": key }))
}

/// Adds what is there of a recipient while the broker is under load.
pub(super) fn load(messages: &Messages, cast: &mut Cast, recipient: usize, habit: Habit) {
    let member = messages.session(recipient).member.clone();
    match habit {
        Habit::OlderAcknowledges => {
            let half = Acks::Some(SmallRng::seed_from_u64(rand::thread_rng().r#gen()));
            cast.connect(daemon(&member), messages.reader(recipient, half));
        }
        Habit::OlderSilent => {
            cast.connect(hello(&member, "silent", json!({})), messages.reader(recipient, Acks::None));
            come_and_go(messages, cast, recipient);
        }
        _ => come_and_go(messages, cast, recipient),
    }
}

/// One connection after the other: some leave at once, some with and some without a goodbye.
fn come_and_go(messages: &Messages, cast: &mut Cast, recipient: usize) {
    let member = messages.session(recipient).member.clone();
    let (ledger, board) = (messages.ledger(), messages.board());
    let reader = move || Reader::new(recipient, Acks::None, &ledger, &board).in_passing();
    cast.add(move |mut stage: Stage| async move {
        stage.ready();
        stage.begun().await?;
        for number in 0_u32.. {
            let (mut socket, _) = stage.join(&verb(&member, &format!("verb-{number}"))).await?;
            let stay = Duration::from_millis(rand::thread_rng().gen_range(0..BRIEF_MS));
            let mut reader = reader();
            tokio::select! {
                ended = socket.drive(&mut reader, None, stage.phases.clone()) => return ended,
                () = tokio::time::sleep(stay) => {}
            }
            if number % 2 == 0 {
                socket.leave().await?;
            }
        }
        Ok(())
    });
}

/// Adds what is there of a recipient after the restart.
pub(super) fn settle(messages: &Messages, cast: &mut Cast, recipient: usize, habit: Habit) {
    let member = messages.session(recipient).member.clone();
    if habit == Habit::OlderAcknowledges {
        return cast.connect(daemon(&member), messages.reader(recipient, Acks::All));
    }
    // First as one that never acknowledges: everything comes. Then as one that does: everything comes again.
    let (mut silent, mut last) = (messages.reader(recipient, Acks::None), messages.reader(recipient, Acks::All));
    let complete = messages.complete(recipient, &silent.got);
    let (session, board, ledger) = (messages.session(recipient).clone(), messages.board(), messages.ledger());
    cast.add(move |mut stage: Stage| async move {
        let step = |name: &'static str| {
            ledger.borrow_mut().steps.insert(recipient, name);
        };
        step("the silent one joins");
        let (mut socket, _) = stage.join(&hello(&member, "silent", json!({}))).await?;
        step("the silent one reads");
        stage.ready();
        stage.begun().await?;
        tokio::select! {
            ended = socket.drive(&mut silent, None, stage.phases.clone()) => return ended,
            () = board.until(complete) => {}
        }
        step("the silent one leaves");
        socket.leave().await?;
        step("the last one joins");
        let (mut socket, _) = stage.join(&session.hello(json!({}))).await?;
        step("the last one reads");
        socket.drive(&mut last, None, stage.phases).await
    });
}
