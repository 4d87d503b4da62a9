//! The broker from outside: real sockets, both databases, a clock that moves only when told to.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod api;
mod architecture;
mod audited;
mod clock;
mod contexts;
mod delivery;
mod dialogues;
mod disk_full;
mod drain;
mod enrolment;
mod errors;
mod files;
mod gating;
mod groups;
mod hooks;
mod hostile;
mod lease;
mod lifecycle;
mod limits;
mod mcp_servers;
mod memory;
mod metrics_address;
mod moderation;
mod overview;
mod peer_files;
mod postgres_faults;
mod postgres_tls;
mod presence;
mod receipts;
mod retry;
mod schedules;
mod services;
mod skills;
mod slow_reader;
mod sql;
mod state;
mod streams;
mod tasks;
mod topics;
mod unix_socket;
mod vault;

/// A file that is not listed above would never run.
#[test]
fn every_file_of_the_folder_is_listed() {
    let source = include_str!("main.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    for entry in std::fs::read_dir(folder).expect("the folder of this file").flatten() {
        let name = entry.file_name().into_string().expect("our file names are plain");
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        assert!(module == "main" || source.contains(&format!("mod {module};")), "{name} is not listed in main.rs");
    }
}
