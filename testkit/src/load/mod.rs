//! The load generator: scenarios against the real broker binary, beside a bare relay measured in the same run.

pub mod bench;
pub mod broadcast;
pub mod client;
pub mod fleet;
pub mod idle;
pub mod ledger;
pub mod relay;
pub mod report;
pub mod screen;
mod shared_state;
mod shell;
pub mod traffic;
