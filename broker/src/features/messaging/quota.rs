//! Limits of `send`: per member, per pair, per trace. In memory: a restart forgives.

use std::collections::HashMap;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::Trace;
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::limits;
use claudemesh_protocol::target::Target;

use super::state::MessagingMemory;
use crate::mesh::context::MeshContext;
use crate::mesh::resolve::Routed;
use crate::refusal::Refusal;
use crate::session::bucket::Bucket;

/// Traces and pairs remembered per mesh before the first sweep of what is over.
const MAX_REMEMBERED: usize = 65_536;
const MINUTE_MS: i64 = 60_000;

/// Takes one message from the budgets of the member in whose name it is sent, by itself or by a feature.
///
/// # Errors
/// `rate_limited`, `pair_limit`, both with the time to wait.
pub(super) fn message(
    memory: &mut MessagingMemory,
    cx: &MeshContext<'_>,
    from: &MemberId,
    targets: &[Target],
    routed: &[Routed],
) -> Result<(), Refusal> {
    member(memory, cx, from)?;
    if targets.iter().any(Target::is_direct) {
        pairs(memory, cx, from, routed.iter().map(|routed| routed.recipient.key))?;
    }
    Ok(())
}

/// Takes one message from the member's budget.
///
/// # Errors
/// `rate_limited`.
fn member(memory: &mut MessagingMemory, cx: &MeshContext<'_>, from: &MemberId) -> Result<(), Refusal> {
    let rate = cx.limits().member_per_minute;
    if rate == 0 {
        return Ok(());
    }
    let now = cx.mono_ms();
    let bucket = memory.member_rates.entry(from.clone()).or_insert_with(|| Bucket::full(rate, now));
    bucket
        .take(rate, MINUTE_MS, rate, now)
        .map_err(|wait| Refusal::wait(ErrorCode::RateLimited, "too many messages from this member", wait))
}

/// Takes one message from the budget of each direct recipient.
///
/// # Errors
/// `pair_limit`.
fn pairs(
    memory: &mut MessagingMemory,
    cx: &MeshContext<'_>,
    from: &MemberId,
    to: impl ExactSizeIterator<Item = PublicKey>,
) -> Result<(), Refusal> {
    let rate = cx.limits().pair_per_minute;
    if rate == 0 {
        return Ok(());
    }
    let now = cx.mono_ms();
    // A bucket that had a minute to fill is as good as a new one.
    sweep(&mut memory.pair_rates, &mut memory.pairs_left, |bucket| !bucket.is_full(rate, MINUTE_MS, now));
    let mut taken = Vec::with_capacity(to.len());
    for key in to {
        let pair = (from.clone(), key);
        let mut bucket = memory.pair_rates.get(&pair).copied().unwrap_or_else(|| Bucket::full(rate, now));
        bucket
            .take(rate, MINUTE_MS, rate, now)
            .map_err(|wait| Refusal::wait(ErrorCode::PairLimit, "too many messages to this recipient", wait))?;
        taken.push((pair, bucket));
    }
    // A message that is refused for one recipient costs nothing with the others.
    memory.pair_rates.extend(taken);
    Ok(())
}

/// Forgets what is over once a map has doubled since the last sweep, so that each entry pays for a bounded number of looks,
/// however many names a sender invents. `left` is what the last sweep left.
fn sweep<K, V, S>(map: &mut HashMap<K, V, S>, left: &mut usize, keep: impl Fn(&V) -> bool) {
    if map.len() >= MAX_REMEMBERED.max(left.saturating_mul(2)) {
        map.retain(|_, value| keep(value));
        *left = map.len();
    }
}

/// Takes one message from the budget of an exchange. A message of a human starts it anew.
///
/// # Errors
/// `trace_budget`.
pub(super) fn trace(memory: &mut MessagingMemory, cx: &MeshContext<'_>, trace: &Trace) -> Result<(), Refusal> {
    let budget = cx.limits().trace_budget;
    if budget == 0 {
        return Ok(());
    }
    let peer = cx.asker()?;
    let human = peer.peer_type.as_deref() == Some("human") || peer.channel.as_deref() == Some("cli");
    let now = cx.mono_ms();
    let window = i64::try_from(limits::TRACE_WINDOW.as_millis()).unwrap_or(i64::MAX);
    sweep(&mut memory.traces, &mut memory.traces_left, |(_, start)| now - *start < window);
    let (count, start) = memory.traces.entry(trace.id.clone()).or_insert((0, now));
    if human || now - *start >= window {
        (*count, *start) = (0, now);
    }
    if *count >= budget {
        let wait = u64::try_from(*start + window - now).unwrap_or(0);
        return Err(Refusal::wait(
            ErrorCode::TraceBudget,
            "this exchange used up its messages; a human's message resets it",
            wait,
        ));
    }
    *count += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_comes_when_the_map_has_doubled() {
        let (mut map, mut left) = (HashMap::new(), 0);
        let looked = std::cell::Cell::new(0_usize);
        for number in 0..4 * MAX_REMEMBERED {
            // Nothing is over yet: the case in which every look is for nothing.
            sweep(&mut map, &mut left, |_: &usize| {
                looked.set(looked.get() + 1);
                true
            });
            map.insert(number, number);
        }
        assert_eq!((map.len(), looked.get()), (4 * MAX_REMEMBERED, 3 * MAX_REMEMBERED));
        sweep(&mut map, &mut left, |number| number % 2 == 0);
        assert_eq!((map.len(), left), (2 * MAX_REMEMBERED, 2 * MAX_REMEMBERED));
    }
}
