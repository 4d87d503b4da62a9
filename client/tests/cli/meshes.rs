use crate::home::Home;

#[test]
fn list_shows_meshes_and_leave_forgets_one() {
    let home = Home::new();
    let none = home.run(&["list"]).exits(0);
    assert_eq!(
        none.stdout,
        "No mesh is joined. Sessions on this machine find each other without one.\nFor other people: claudemesh join <link>, or claudemesh up\n"
    );
    assert_eq!(home.run(&["list", "--json"]).exits(0).json(), serde_json::json!([]));
    home.join(&[("team", "ws://127.0.0.1:1/ws"), ("evil\u{1b}[31m", "ws://h/ws")]);
    let listed = home.run(&["ls"]).exits(0);
    assert!(listed.stdout.contains("evil␛[31m") && !listed.stdout.contains('\u{1b}'), "{listed:?}");
    let slugs = home.run(&["list", "--json=slug"]).exits(0).json();
    assert_eq!(slugs[0], serde_json::json!({"slug": "team"}));
    assert!(!home.run(&["list", "--json"]).stdout.contains("secretKey"));

    let left = home.run(&["leave", "team", "--json"]).exits(0).json();
    let expected = serde_json::json!({
        "ok": true, "mesh": "team", "slug": "team", "meshId": "mesh-team", "left": 1, "canRejoin": true
    });
    assert_eq!(left, expected);
    let error = home.run(&["leave", "team", "--json"]).exits(5).json();
    assert_eq!((error["ok"].as_bool(), error["error"].as_str()), (Some(false), Some("unknown_mesh")));
}

#[test]
fn config_dir_flag_and_variable_choose_the_folder() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    std::fs::rename(home.path(".claudemesh"), home.path("elsewhere")).unwrap();
    let elsewhere = home.path("elsewhere");
    let dir = elsewhere.to_str().unwrap();
    assert_eq!(home.run(&["list", "--json"]).json(), serde_json::json!([]));
    assert_eq!(home.run(&["--config-dir", dir, "list", "--json=slug"]).json()[0]["slug"], "team");
    assert_eq!(home.run_with(&["list", "--json=slug"], &[("CLAUDEMESH_CONFIG_DIR", dir)]).json()[0]["slug"], "team");
    // A wrong one is named where nothing is found.
    let wrong = home.path("wrong").display().to_string();
    let variables = [("CLAUDEMESH_CONFIG_DIR", wrong.as_str()), ("CLAUDEMESH_LOCAL", "0")];
    let ran = home.run_with(&["inbox"], &variables).exits(5);
    assert!(ran.stderr.contains("No mesh is joined.") && ran.stderr.contains(&wrong), "{}", ran.stderr);
}

#[test]
fn damaged_config_is_told_and_kept() {
    let home = Home::new();
    for text in ["{\"meshes\":", "{}", "[1]"] {
        home.write(".claudemesh/config.json", text);
        let ran = home.run(&["leave", "x"]).exits(10);
        assert!(ran.stderr.contains(".claudemesh/config.json") && ran.stderr.contains("Hint: "), "{ran:?}");
        assert_eq!(home.read(".claudemesh/config.json"), text);
        let error = home.run(&["list", "--json"]).exits(10).json();
        assert_eq!(error["error"], "broken_config");
    }
    home.write(".claudemesh/config.json", "{");
    insta::assert_snapshot!(home.redact(&home.run(&["list"]).exits(10).stderr), @r"
    Error: [HOME]/.claudemesh/config.json is damaged: EOF while parsing an object at line 1 column 1.
    Hint: Nothing was changed. Fix the file by hand, or move it away (mv [HOME]/.claudemesh/config.json [HOME]/.claudemesh/config.json.broken) and join again.
    ");
}

#[test]
fn no_colours_without_a_terminal() {
    let home = Home::new();
    for args in [&["doctor"][..], &["install"], &["list"], &["--help"], &["bogus"]] {
        let ran = home.run_with(args, &[("TERM", "xterm-256color")]);
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{args:?} {ran:?}");
    }
}
