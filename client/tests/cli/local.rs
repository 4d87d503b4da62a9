//! Launching without any server: the mesh of this machine is there when a session needs it.

use crate::home::Home;

/// Asks the mesh who is there, from inside the session.
const CLAUDE: &str = "#!/bin/sh\n\"$PROGRAM\" info --json=slug > \"$HOME/info\" || exit 9\n";

#[test]
fn a_launch_with_nothing_joined_serves_a_mesh_of_its_own() {
    let home = Home::new();
    home.script("claude", CLAUDE);
    let variables = [("PROGRAM", env!("CARGO_BIN_EXE_claudemesh"))];
    // The second launch finds the mesh joined, but no one who serves it.
    for _ in 0..2 {
        home.run_with(&["launch", "--name", "Ann"], &variables).exits(0);
        let info: serde_json::Value = serde_json::from_str(&home.read("info")).unwrap();
        assert_eq!(info["slug"], "local");
        // Neither the launch nor the verb left a process behind.
        let store = claudemesh::local::store::Store::at(&home.path(".claudemesh/broker"));
        assert_eq!(store.holder(), None);
    }
    assert_eq!(home.run(&["list", "--json=slug"]).exits(0).json(), serde_json::json!([{"slug": "local"}]));
}

#[test]
fn a_launch_makes_no_mesh_when_it_is_switched_off() {
    let home = Home::new();
    home.script("claude", CLAUDE);
    let variables = [("PROGRAM", env!("CARGO_BIN_EXE_claudemesh")), ("CLAUDEMESH_LOCAL", "0")];
    let ran = home.run_with(&["launch", "--name", "Ann"], &variables).exits(5);
    assert!(ran.stderr.contains("No mesh is joined."), "{}", ran.stderr);
    assert!(!home.path(".claudemesh/broker").exists());
}

#[test]
fn a_foreign_broker_at_the_usual_port_is_not_taken_for_ours() {
    // Two homes, each with a mesh of its own, one after the other at the same port: what the config says of the address is
    // a hint, the store's own socket decides.
    let (ann, bob) = (Home::new(), Home::new());
    for home in [&ann, &bob, &ann, &bob] {
        let info = home.run_with(&["info", "--json=slug"], &[("CLAUDEMESH_LOCAL", "1")]).exits(0).json();
        assert_eq!(info["slug"], "local");
    }
}

#[test]
fn an_invite_of_a_mesh_that_nobody_serves_says_so() {
    let home = Home::new();
    home.run_with(&["info"], &[("CLAUDEMESH_LOCAL", "1")]).exits(0);
    let invite = home.run(&["invite"]).exits(0);
    assert!(invite.stderr.contains("the link works while `claudemesh up` or a session runs"), "{invite:?}");
}
