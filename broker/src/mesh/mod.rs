//! One mesh: the actor, its roster, and the shell around the features.

pub mod actor;
pub mod attach;
pub mod context;
pub mod directory;
pub mod dispatch;
pub mod events;
pub mod fan_out;
mod flush;
pub mod hook_statuses;
pub mod hosting;
pub mod keys;
pub mod known_sessions;
pub mod lanes;
pub mod letter;
pub mod load;
pub mod message;
pub mod messages;
pub mod outbox;
pub mod outcome;
pub mod own_limits;
pub mod own_sessions;
pub mod peers;
pub mod principal;
pub mod resolve;
mod session_key_owner;
mod step;
#[cfg(test)]
#[allow(unreachable_pub, reason = "only this crate's tests see it")]
pub(crate) mod testing;
mod tick;
pub mod timers;
pub mod topics;
