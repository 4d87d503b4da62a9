//! Launching without any server: the mesh of this machine comes and goes with its sessions.

use crate::home::Home;

/// Asks the mesh who is there, from inside the session.
const CLAUDE: &str = "#!/bin/sh\n\"$PROGRAM\" info --json=slug > \"$HOME/info\" || exit 9\ncp \"$HOME/.claudemesh/run/up.json\" \"$HOME/up.json\"\n";

fn pid_of_broker(home: &Home) -> (u32, u64) {
    let started: serde_json::Value = serde_json::from_str(&home.read("up.json")).unwrap();
    (started["pid"].as_u64().unwrap() as u32, started["start_time"].as_u64().unwrap())
}

#[test]
fn a_launch_with_nothing_joined_serves_a_mesh_of_its_own() {
    let home = Home::new();
    home.script("claude", CLAUDE);
    let variables = [("PROGRAM", env!("CARGO_BIN_EXE_claudemesh"))];
    let mut brokers = vec![];
    // The second launch finds the mesh joined, but nobody who serves it.
    for _ in 0..2 {
        home.run_with(&["launch", "--name", "Ann"], &variables).exits(0);
        let info: serde_json::Value = serde_json::from_str(&home.read("info")).unwrap();
        assert_eq!(info["slug"], "local");
        let (pid, started) = pid_of_broker(&home);
        assert!(!claudemesh::config::session_dir::is_alive(pid, started), "it ended with the last session");
        assert!(!home.path(".claudemesh/run/up.json").exists());
        brokers.push(pid);
    }
    assert_ne!(brokers[0], brokers[1]);
    assert_eq!(home.run(&["list", "--json=slug"]).exits(0).json(), serde_json::json!([{"slug": "local"}]));
}

#[test]
fn the_broker_stays_while_another_session_needs_it() {
    let home = Home::new();
    // The outer session starts an inner one, which must not take the broker with it.
    home.script(
        "claude",
        "#!/bin/sh\nif [ -n \"$INNER\" ]; then exit 0; fi\nINNER=1 \"$PROGRAM\" launch --name Bob --quiet || exit 8\n\"$PROGRAM\" info --json=slug > \"$HOME/info\" || exit 9\n",
    );
    home.run_with(&["launch", "--name", "Ann"], &[("PROGRAM", env!("CARGO_BIN_EXE_claudemesh"))]).exits(0);
    assert!(home.read("info").contains("local"));
}
