//! Half a minute: a client of before that never acknowledges is served when a frame has left and its socket stayed open that long;
//! one that acknowledged once is not. Both hold over a kill.

use std::time::Duration;

use anyhow::{Result, ensure};
use claudemesh_protocol::limits::STAYED_OPEN;
use serde_json::json;

use super::messages::{Acks, Habit, Messages, Plan};
use super::{Run, older};

/// Beyond half a minute: the broker looks once a second, then writes.
const MORE: Duration = Duration::from_secs(4);

/// Runs it once, at the end of a run.
///
/// # Errors
/// A promise was broken.
pub(super) async fn run(run: &mut Run) -> Result<()> {
    let (silent, acknowledges) = (Messages::who(Habit::OlderSilent), Messages::who(Habit::OlderAcknowledges));
    let ledger = run.messages.ledger();
    let member = |recipient: usize| run.messages.session(recipient).member.clone();
    let (one, other) = (member(silent), member(acknowledges));
    // Signed anew each time.
    let hellos = || [older::hello(&one, "silent", json!({})), older::daemon(&other)];

    let mut cast = run.cast();
    let readers = [run.messages.reader(silent, Acks::None), run.messages.reader(acknowledges, Acks::First)];
    let got = readers.each_ref().map(|reader| reader.got.clone());
    for (hello, reader) in hellos().into_iter().zip(readers) {
        cast.connect(hello, reader);
    }
    run.messages.add_sender(&mut cast, 0, Plan::To(vec![silent, acknowledges, silent, acknowledges]));
    cast.all_ready().await?;
    cast.begin();
    cast.until(|| ledger.borrow().all_promised() && got.iter().all(|got| got.borrow().len() == 2)).await?;
    run.ground.board.check()?;
    cast.go_on_for(STAYED_OPEN + MORE).await?;
    run.broker.kill()?;
    cast.drained().await;
    let owed = ledger.borrow().owed(acknowledges);
    ensure!(owed == 1, "{owed} messages are open for the one that acknowledges, not 1");
    {
        let mut ledger = ledger.borrow_mut();
        ledger.served(silent);
        // What was acknowledged or served has been on disk for long.
        ledger.strict = true;
    }
    run.broker.restart()?;

    for (hello, waits) in hellos().into_iter().zip([0, 1]) {
        let asking = run.quiet().connect(&hello).await?;
        let waiting = asking.welcome["waiting"]["now"].clone();
        ensure!(waiting == json!(waits), "after half a minute {waiting} messages wait, not {waits}");
        asking.leave().await?;
    }
    run.settle().await
}
