//! The real program over pipes. Where the tests run as root, services have users of their own; elsewhere they do not, and what
//! depends on it is left out.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails the test")]
mod calls;
mod egress;
mod harness;
mod installing;
mod lifecycle;
mod peer;
mod walls;
mod wire;
