//! The settings of this user in `config.json`, by name.

pub mod cli;
