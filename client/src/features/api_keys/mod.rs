//! API keys: programs that are no sessions come in with one, over HTTP.

pub mod cli;
