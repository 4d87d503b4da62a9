//! Between the mesh and the journal: batches, commits, backlogs.
//!
//! A message is pushed to everyone who is there at once and collected for the journal. A delivery that is acknowledged before
//! its batch is handed over needs no row. What cannot be pushed (recipient away, busy, window full) is read back from
//! storage when the recipient is ready, in order, and only up to what is committed.

mod backlog;
mod batch;
mod received;
mod upkeep;

pub use backlog::{attached, became_idle, left_behind, refill, waiting_for};
pub(super) use backlog::{end, pull};
pub use batch::{Ticket, collect, committed, is_settled};
pub(super) use received::settle_received;
pub use upkeep::{EXPIRY, expire, tick};
