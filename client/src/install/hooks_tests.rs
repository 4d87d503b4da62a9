use super::*;

fn wanted() -> Value {
    all("claudemesh", false)
}

fn hooks_of(doc: &Document) -> Value {
    doc.value(&doc.find(&["hooks"]).unwrap())
}

#[test]
fn the_table_says_what_claude_code_runs() {
    insta::assert_snapshot!(all("/opt/a b/claudemesh", true), @r#"{"SessionStart":[{"hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook session-start"}]},{"hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook wait","timeout":86400,"asyncRewake":true}]}],"UserPromptSubmit":[{"hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook prompt"}]}],"PermissionRequest":[{"hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook permission","timeout":600}]}],"PostToolUse":[{"matcher":"*","hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook post-tool"}]}],"Stop":[{"hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook stop"}]},{"hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook wait","timeout":86400,"asyncRewake":true}]}],"SessionEnd":[{"hooks":[{"type":"command","command":"'/opt/a b/claudemesh' hook session-end","timeout":5}]}]}"#);
    assert!(wanted().get("PermissionRequest").is_none());
}

#[test]
fn an_empty_file_gets_the_table() {
    let mut doc = Document::open("{}", None).unwrap();
    assert_eq!(add_hooks(&mut doc, "claudemesh", false).unwrap(), Change::Added);
    assert_eq!(hooks_of(&doc), wanted());
    assert_eq!(add_hooks(&mut doc, "claudemesh", false).unwrap(), Change::Unchanged);
}

#[test]
fn older_installs_are_brought_up_to_date_in_their_place() {
    let old = json!({"hooks": {
        "Stop": [
            {"hooks": [{"type": "command", "command": "mine"}, {"type": "command", "command": "claudemesh hook idle"}]},
            {"hooks": [{"type": "command", "command": "claudemesh hook idle"}]},
        ],
        "UserPromptSubmit": [{"hooks": [{"type": "command", "command": "/old/claudemesh hook working"}]}],
        "SessionEnd": [{"hooks": [{"type": "command", "command": "claudemesh hook session-end", "timeout": 9, "x": 1}]}],
        "Notification": [{"hooks": [{"type": "command", "command": "claudemesh hook dnd"}]}],
    }});
    let mut doc = Document::open(old.to_string(), None).unwrap();
    assert_eq!(add_hooks(&mut doc, "claudemesh", false).unwrap(), Change::Added);
    let hooks = hooks_of(&doc);
    assert_eq!(hooks["Stop"][0]["hooks"][0]["command"], "mine");
    assert_eq!(hooks["Stop"][0]["hooks"][1]["command"], "claudemesh hook stop");
    assert_eq!(
        hooks["Stop"][1]["hooks"],
        json!([{"type": "command", "command": "claudemesh hook wait", "timeout": 86400, "asyncRewake": true}])
    );
    assert_eq!(hooks["Stop"].as_array().unwrap().len(), 2);
    assert_eq!(hooks["UserPromptSubmit"], wanted()["UserPromptSubmit"]);
    // A time limit of the user's own and what else stands there is kept; other events are the user's.
    assert_eq!(
        hooks["SessionEnd"][0]["hooks"][0],
        json!({"type": "command", "command": "claudemesh hook session-end", "timeout": 9, "x": 1})
    );
    assert_eq!(hooks["Notification"], old["hooks"]["Notification"]);
    let once = doc.text().to_owned();
    assert_eq!(add_hooks(&mut doc, "claudemesh", false).unwrap(), Change::Unchanged);
    assert_eq!(doc.text(), once);
    remove_hooks(&mut doc);
    let left: Value = serde_json::from_str(doc.text()).unwrap();
    assert_eq!(left, json!({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "mine"}]}]}}));
}

#[test]
fn second_copies_and_forgotten_words_go() {
    let twice = json!({"hooks": {"Stop": [
        {"hooks": [{"type": "command", "command": "claudemesh hook stop"}, {"type": "command", "command": "claudemesh hook stop"}]},
        {"hooks": [{"type": "command", "command": "claudemesh hook idle"}]},
        {"hooks": [{"type": "command", "command": "claudemesh hook bogus"}]},
    ]}});
    let mut doc = Document::open(twice.to_string(), None).unwrap();
    add_hooks(&mut doc, "claudemesh", false).unwrap();
    let words: Vec<String> =
        installed_hooks(&doc).into_iter().map(|found| format!("{} {}", found.event, found.word)).collect();
    let table: Vec<String> =
        HOOKS.iter().filter(|hook| !hook.optional).map(|hook| format!("{} {}", hook.event, hook.word)).collect();
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(sorted(words), sorted(table));
}

#[test]
fn an_optional_hook_stays_once_it_was_asked_for() {
    let mut doc = Document::open("{}", None).unwrap();
    add_hooks(&mut doc, "claudemesh", true).unwrap();
    assert_eq!(hooks_of(&doc), all("claudemesh", true));
    assert_eq!(add_hooks(&mut doc, "/new/claudemesh", false).unwrap(), Change::Updated);
    assert_eq!(hooks_of(&doc), all("/new/claudemesh", true));
    assert_eq!(remove_hooks(&mut doc), HOOKS.len());
    assert_eq!(doc.text(), "{}");
}
