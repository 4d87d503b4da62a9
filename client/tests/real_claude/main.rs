//! The real Claude Code against a scripted model, without a network.
//!
//! `cargo xtask test` installs the pinned versions, names the program in `CLAUDEMESH_TEST_CLAUDE` and runs this in a
//! network namespace that has loopback only.

mod lab;
mod life;
mod live;
mod messages;
mod permissions;
mod readme;
mod routes;
mod setup;
mod terminal;
