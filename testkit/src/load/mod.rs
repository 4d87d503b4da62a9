//! The load generator: scenarios against the real broker binary, beside a bare relay measured in the same run.

mod asking;
pub mod bench;
mod beside;
pub mod broadcast;
mod claims;
pub mod client;
mod due;
pub mod fleet;
pub mod idle;
mod kept;
pub mod ledger;
mod publishing;
mod recall;
pub mod relay;
pub mod report;
pub mod screen;
mod shared_state;
mod shell;
pub mod traffic;
