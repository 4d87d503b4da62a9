//! Runs the real program in a throw-away home.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod doctor;
mod flags;
mod help;
mod home;
mod hook;
mod install;
mod language;
mod launch;
#[cfg(feature = "local-broker")]
mod local;
mod meshes;
mod notify;
mod plugin;
mod server;
#[cfg(target_os = "linux")]
mod service;
mod status_line;
mod wizard;
