//! Limits of `send`: per member, per pair, per trace. In memory: a restart forgives.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::Trace;
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::limits;

use super::state::MessagingMemory;
use crate::mesh::context::MeshContext;
use crate::mesh::outcome::Reject;
use crate::session::bucket::Bucket;

/// Traces and pairs remembered per mesh; beyond it the oldest windows are swept.
const MAX_REMEMBERED: usize = 65_536;
const MINUTE_MS: i64 = 60_000;

/// Takes one message from the member's budget.
///
/// # Errors
/// `rate_limited`.
pub(super) fn member(memory: &mut MessagingMemory, cx: &MeshContext<'_>) -> Result<(), Reject> {
    let rate = cx.core.limits.member_per_minute;
    if rate == 0 {
        return Ok(());
    }
    let (now, id) = (cx.mono_ms(), cx.peer()?.member.clone());
    let bucket = memory.member_rates.entry(id).or_insert_with(|| Bucket::full(rate, now));
    bucket
        .take(rate, MINUTE_MS, rate, now)
        .map_err(|wait| Reject::wait(ErrorCode::RateLimited, "too many messages from this member", wait))
}

/// Takes one message from the budget of each direct recipient.
///
/// # Errors
/// `pair_limit`.
pub(super) fn pairs(memory: &mut MessagingMemory, cx: &MeshContext<'_>, to: &[PublicKey]) -> Result<(), Reject> {
    let rate = cx.core.limits.pair_per_minute;
    if rate == 0 {
        return Ok(());
    }
    let (now, from) = (cx.mono_ms(), cx.peer()?.member.clone());
    if memory.pair_rates.len() >= MAX_REMEMBERED {
        // A bucket that had a minute to fill is as good as a new one.
        memory.pair_rates.retain(|_, bucket| !bucket.is_full(rate, MINUTE_MS, now));
    }
    for key in to {
        let bucket = memory.pair_rates.entry((from.clone(), *key)).or_insert_with(|| Bucket::full(rate, now));
        bucket
            .take(rate, MINUTE_MS, rate, now)
            .map_err(|wait| Reject::wait(ErrorCode::PairLimit, "too many messages to this recipient", wait))?;
    }
    Ok(())
}

/// Takes one message from the budget of an exchange. A message of a human starts it anew.
///
/// # Errors
/// `trace_budget`.
pub(super) fn trace(memory: &mut MessagingMemory, cx: &MeshContext<'_>, trace: &Trace) -> Result<(), Reject> {
    let budget = cx.core.limits.trace_budget;
    if budget == 0 {
        return Ok(());
    }
    let peer = cx.peer()?;
    let human = peer.peer_type.as_deref() == Some("human") || peer.channel.as_deref() == Some("cli");
    let now = cx.mono_ms();
    let window = i64::try_from(limits::TRACE_WINDOW.as_millis()).unwrap_or(i64::MAX);
    if memory.traces.len() >= MAX_REMEMBERED {
        memory.traces.retain(|_, (_, start)| now - *start < window);
    }
    let (count, start) = memory.traces.entry(trace.id.clone()).or_insert((0, now));
    if human || now - *start >= window {
        (*count, *start) = (0, now);
    }
    if *count >= budget {
        let wait = u64::try_from(*start + window - now).unwrap_or(0);
        return Err(Reject::wait(
            ErrorCode::TraceBudget,
            "this exchange used up its messages; a human's message resets it",
            wait,
        ));
    }
    *count += 1;
    Ok(())
}
