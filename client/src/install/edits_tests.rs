use proptest::prelude::*;

use super::super::hooks::{add_hooks, our_word, remove_hooks};
use super::super::json_edit::Receipt;
use super::super::status_line;
use super::*;

/// Both files at once: the keys do not meet, so one document can stand for either.
fn install(text: &str, receipt: Option<Receipt>, mesh: bool) -> (String, Receipt) {
    let mut doc = Document::open(text, receipt).unwrap();
    add_server(&mut doc, "claudemesh", None, false).unwrap();
    add_permission(&mut doc, SERVER).unwrap();
    if mesh {
        add_server(&mut doc, "claudemesh", Some("team"), false).unwrap();
        add_permission(&mut doc, &server_name(Some("team"))).unwrap();
        status_line::add(&mut doc, "claudemesh", false).unwrap();
    }
    add_hooks(&mut doc, "/opt/my tools/claudemesh", false).unwrap();
    (doc.text().to_owned(), doc.receipt)
}

fn uninstall(text: &str, receipt: Option<Receipt>) -> String {
    let mut doc = Document::open(text, receipt).unwrap();
    let (_, names) = remove_servers(&mut doc);
    remove_permissions(&mut doc, &names);
    remove_hooks(&mut doc);
    status_line::remove(&mut doc);
    doc.text().to_owned()
}

fn round_trip(text: &str) -> String {
    round_trip_with(text, true);
    round_trip_with(text, false)
}

fn round_trip_with(text: &str, mesh: bool) -> String {
    let (installed, receipt) = install(text, None, mesh);
    let value: Value = serde_json::from_str(installed.trim_start_matches('\u{feff}'))
        .unwrap_or_else(|error| panic!("{installed}: {error}"));
    assert_eq!(value["mcpServers"]["claudemesh"]["args"][0], "mcp");
    let (again, same) = install(&installed, Some(receipt.clone()), mesh);
    assert_eq!((&again, &same), (&installed, &receipt), "a second install changes nothing");
    assert_eq!(uninstall(&installed, Some(receipt)), text, "installed: {installed}");
    installed
}

#[test]
fn a_pretty_file_stays_pretty() {
    let text = "{\n  \"model\": \"opus\",\n  \"permissions\": {\n    \"allow\": [\n      \"Bash(ls)\"\n    ]\n  }\n}\n";
    insta::assert_snapshot!(round_trip(text), @r#"
    {
      "model": "opus",
      "permissions": {
        "allow": [
          "Bash(ls)",
          "mcp__claudemesh__*"
        ]
      },
      "mcpServers": {
        "claudemesh": {
          "type": "stdio",
          "command": "claudemesh",
          "args": [
            "mcp"
          ]
        }
      },
      "hooks": {
        "SessionStart": [
          {
            "hooks": [
              {
                "type": "command",
                "command": "'/opt/my tools/claudemesh' hook session-start"
              }
            ]
          },
          {
            "hooks": [
              {
                "type": "command",
                "command": "'/opt/my tools/claudemesh' hook wait",
                "timeout": 86400,
                "asyncRewake": true
              }
            ]
          }
        ],
        "UserPromptSubmit": [
          {
            "hooks": [
              {
                "type": "command",
                "command": "'/opt/my tools/claudemesh' hook prompt"
              }
            ]
          }
        ],
        "PostToolUse": [
          {
            "matcher": "*",
            "hooks": [
              {
                "type": "command",
                "command": "'/opt/my tools/claudemesh' hook post-tool"
              }
            ]
          }
        ],
        "Stop": [
          {
            "hooks": [
              {
                "type": "command",
                "command": "'/opt/my tools/claudemesh' hook stop"
              }
            ]
          },
          {
            "hooks": [
              {
                "type": "command",
                "command": "'/opt/my tools/claudemesh' hook wait",
                "timeout": 86400,
                "asyncRewake": true
              }
            ]
          }
        ],
        "SessionEnd": [
          {
            "hooks": [
              {
                "type": "command",
                "command": "'/opt/my tools/claudemesh' hook session-end",
                "timeout": 5
              }
            ]
          }
        ]
      }
    }
    "#);
}

#[test]
fn odd_files_come_back_byte_for_byte() {
    for text in [
        "{}",
        "{ }",
        "{\n}",
        "\n {\t} \r\n",
        "\u{feff}{\"a\": 1}",
        "{\"a\":1}",
        "{ \"a\" : 1 , \"b\":[ ] }",
        "{\"mcpServers\":{}}",
        "{\"mcpServers\": {\n\n} ,\"hooks\" :{ } }",
        "{\"hooks\":{\"Stop\":[ ]}}",
        "{\r\n\t\"mcpServers\": {\r\n\t\t\"x\": {\"command\": \"x\"}\r\n\t}\r\n}",
        "{\n    \"n\": 1.0e5,\n    \"big\": 123456789012345678901234567890,\n    \"s\": \"\\u00e9\\/\"\n}",
        "{\"permissions\":{\"allow\":[],\"deny\":[\"mcp__claudemesh__x\"]}}",
        "{\"hooks\":{\"Stop\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"echo claudemesh hook idle\"}]}]}}",
        "{\"a\":{},\"a\":{\"mcpServers\":{}}}",
        "{\"mcpServers\":{\"a\":{}},\"mcpServers\":{ }}",
    ] {
        round_trip(text);
    }
}

#[test]
fn a_compact_file_stays_compact() {
    let installed = round_trip("{\"a\":1}");
    assert!(
        installed.starts_with(
            r#"{"a":1,"mcpServers":{"claudemesh":{"type":"stdio","command":"claudemesh","args":["mcp"]}}"#
        )
    );
    assert!(!installed.contains('\n') && !installed.contains(": "), "{installed}");
}

#[test]
fn uninstall_finds_ours_after_someone_else_rewrote_the_file() {
    let (installed, receipt) = install("{\n  \"theme\": \"dark\"\n}\n", None, false);
    let mut value: Value = serde_json::from_str(&installed).unwrap();
    value["mcpServers"]["later"] = json!({"command": "later"});
    value["hooks"]["Stop"].as_array_mut().unwrap().push(json!({"hooks": [{"type": "command", "command": "mine"}]}));
    value["hooks"]["Stop"][0]["hooks"].as_array_mut().unwrap().push(json!({"type": "command", "command": "merged"}));
    let rewritten = serde_json::to_string(&value).unwrap();
    let left: Value = serde_json::from_str(&uninstall(&rewritten, Some(receipt))).unwrap();
    assert_eq!(
        left,
        json!({
            "theme": "dark",
            "mcpServers": {"later": {"command": "later"}},
            "hooks": {"Stop": [
                {"hooks": [{"type": "command", "command": "merged"}]},
                {"hooks": [{"type": "command", "command": "mine"}]},
            ]},
        })
    );
}

#[test]
fn uninstall_without_a_receipt_leaves_no_empty_shells() {
    let (installed, _) = install("{\"theme\":\"dark\"}", None, true);
    assert_eq!(uninstall(&installed, None), "{\"theme\":\"dark\"}");
}

#[test]
fn old_and_foreign_entries_are_told_apart() {
    let text = json!({
        "mcpServers": {
            "claudemesh": {"command": "node", "args": ["/src/index.js", "mcp"]},
            "claudemesh:team": {"command": "/usr/bin/claudemesh", "args": ["mcp", "--mesh", "team"]},
            "claudemesh:mine": {"command": "my-wrapper"},
        },
        "allowedTools": ["mcp__claudemesh__send_message", "Bash", "mcp__claudemesh__list_peers"],
        "hooks": {
            "Stop": [{"hooks": [{"type": "command", "command": "claudemesh hook idle"}]}],
            "PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "claudemesh hook x; rm -rf /"}]}],
        },
    });
    let mut doc = Document::open(text.to_string(), None).unwrap();
    assert_eq!(add_server(&mut doc, "claudemesh", None, false).unwrap(), Change::Foreign);
    assert_eq!(remove_servers(&mut doc), (Change::Removed, vec!["claudemesh:team".to_owned()]));
    assert_eq!(remove_servers(&mut doc).0, Change::Foreign);
    assert_eq!(remove_permissions(&mut doc, &[]), 2);
    assert_eq!(remove_hooks(&mut doc), 1);
    let left: Value = serde_json::from_str(doc.text()).unwrap();
    assert_eq!(left["mcpServers"].as_object().unwrap().keys().collect::<Vec<_>>(), ["claudemesh", "claudemesh:mine"]);
    assert_eq!(left["allowedTools"], json!(["Bash"]));
    assert_eq!(left["hooks"]["PreToolUse"], text["hooks"]["PreToolUse"]);
    assert!(left["hooks"].get("Stop").is_none());
}

#[test]
fn an_existing_entry_of_ours_keeps_its_arguments_or_is_updated() {
    let own = r#"{"mcpServers":{"claudemesh":{"command":"claudemesh","args":["mcp","--mesh","x"],"env":{"A":"1"}}}}"#;
    let mut doc = Document::open(own, None).unwrap();
    assert_eq!(add_server(&mut doc, "claudemesh", None, false).unwrap(), Change::Unchanged);
    assert_eq!(doc.text(), own);
    assert_eq!(add_server(&mut doc, "/new/claudemesh", None, false).unwrap(), Change::Updated);
    assert!(doc.text().contains("/new/claudemesh"));
    let moved: Value = serde_json::from_str(doc.text()).unwrap();
    assert_eq!(
        (&moved["mcpServers"]["claudemesh"]["args"], &moved["mcpServers"]["claudemesh"]["env"]["A"]),
        (&json!(["mcp", "--mesh", "x"]), &json!("1"))
    );
}

#[test]
fn a_program_of_another_name_is_known_by_the_receipt() {
    let mut doc = Document::open("{}", None).unwrap();
    add_server(&mut doc, "/opt/mesh-nightly", None, false).unwrap();
    add_hooks(&mut doc, "/opt/mesh-nightly", false).unwrap();
    let (installed, receipt) = (doc.text().to_owned(), doc.receipt);
    assert_eq!(uninstall(&installed, Some(receipt)), "{}");
    let mut doc = Document::open(installed, None).unwrap();
    assert_eq!(
        (remove_servers(&mut doc).0, remove_hooks(&mut doc)),
        (Change::Foreign, 0),
        "without it, it is a stranger's"
    );
}

#[test]
fn wrong_shapes_are_refused() {
    for text in [r#"{"mcpServers":null}"#, r#"{"mcpServers":[]}"#, "[]", "1"] {
        let error =
            Document::open(text, None).and_then(|mut doc| add_server(&mut doc, "claudemesh", None, false)).unwrap_err();
        assert!(matches!(error, EditError::WrongShape { .. }), "{text}: {error}");
    }
    let mut doc = Document::open(r#"{"hooks":{"Stop":{}}}"#, None).unwrap();
    assert_eq!(add_hooks(&mut doc, "claudemesh", false).unwrap_err().to_string(), "its `hooks.Stop` is not a list");
}

#[test]
fn hook_commands_are_ours_only_when_they_are_nothing_else() {
    let doc = Document::open("{}", None).unwrap();
    for ours in
        ["claudemesh hook idle", "/a/claudemesh hook stop", "'/a b/claudemesh' hook prompt", " claudemesh  hook dnd "]
    {
        assert!(our_word(&doc, ours).is_some(), "{ours}");
    }
    for other in [
        "claudemesh hook",
        "claudemesh hook idle; x",
        "x claudemesh hook idle",
        "claudemesh-x hook idle",
        "claudemesh hook idle && y",
        "claudemesh hook $(x)",
        "claudemesh send a b",
        "echo claudemesh hook idle",
    ] {
        assert!(our_word(&doc, other).is_none(), "{other}");
    }
    for path in ["/usr/bin/claudemesh", "/a b/claudemesh", "/it's/claudemesh", "/$HOME/claudemesh"] {
        assert!(our_word(&doc, &format!("{} hook stop", quote(path))).is_some(), "{path}");
    }
}

#[test]
fn meshes_get_entries_of_their_own() {
    let text =
        r#"{"mcpServers":{"claudemesh-else":{"command":"else"}},"permissions":{"allow":["mcp__claudemesh-else__*"]}}"#;
    let mut doc = Document::open(text, None).unwrap();
    for slug in ["team", "my.team"] {
        assert_eq!(add_server(&mut doc, "/old/claudemesh", Some(slug), false).unwrap(), Change::Added);
        assert_eq!(add_server(&mut doc, "/old/claudemesh", Some(slug), false).unwrap(), Change::Unchanged);
        add_permission(&mut doc, &server_name(Some(slug))).unwrap();
    }
    // Another slug that would get the same name, and someone else's entry.
    assert_eq!(add_server(&mut doc, "/old/claudemesh", Some("my-team"), false).unwrap(), Change::Foreign);
    assert_eq!(add_server(&mut doc, "/old/claudemesh", Some("else"), false).unwrap(), Change::Foreign);
    assert!(move_mesh_servers(&mut doc, "/new/claudemesh") && !move_mesh_servers(&mut doc, "/new/claudemesh"));
    let value: Value = serde_json::from_str(doc.text()).unwrap();
    assert_eq!(
        value["mcpServers"]["claudemesh-my-team"],
        json!({"type": "stdio", "command": "/new/claudemesh", "args": ["mcp", "--mesh", "my.team"]})
    );
    assert_eq!(value["permissions"]["allow"][1], "mcp__claudemesh-team__*");
    // With the receipt or without it.
    for receipt in [Some(doc.receipt.clone()), None] {
        assert_eq!(uninstall(doc.text(), receipt), text);
    }
}

/// JSON text with odd white space, escapes and numbers that a serialiser would not write.
fn any_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?",
        "\"([a-z é日/]|\\\\[nt\"\\\\/]|\\\\u00[0-9a-f]{2}){0,8}\"",
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (prop::collection::vec((space(), inner.clone(), space()), 0..4), space())
                .prop_map(|(items, blank)| list(items, blank)),
            (prop::collection::vec((key(), inner, space()), 0..4), space())
                .prop_map(|(items, blank)| object(items, blank)),
        ]
    })
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 2 => Just(" ".to_owned()), 2 => Just("\n  ".to_owned()), 1 => "[ \t\r\n]{0,4}"]
}

fn key() -> impl Strategy<Value = String> {
    (space(), "\"[a-z]{1,4}\"", space(), space()).prop_map(|(a, key, b, c)| format!("{a}{key}{b}:{c}"))
}

fn list(items: Vec<(String, String, String)>, blank: String) -> String {
    let parts: Vec<String> = items.into_iter().map(|(a, item, b)| format!("{a}{item}{b}")).collect();
    if parts.is_empty() { format!("[{blank}]") } else { format!("[{}]", parts.join(",")) }
}

fn object(items: Vec<(String, String, String)>, blank: String) -> String {
    let parts: Vec<String> = items.into_iter().map(|(key, value, end)| format!("{key}{value}{end}")).collect();
    if parts.is_empty() { format!("{{{blank}}}") } else { format!("{{{}}}", parts.join(",")) }
}

/// A user's file: any members, and our containers in any state that is not ours.
fn any_file() -> impl Strategy<Value = String> {
    let objects = || {
        (prop::collection::vec((key(), any_json(), space()), 0..3), space())
            .prop_map(|(items, blank)| object(items, blank))
    };
    let lists = || {
        (prop::collection::vec((space(), any_json(), space()), 0..3), space())
            .prop_map(|(items, blank)| list(items, blank))
    };
    let named = |name: &'static str, value: BoxedStrategy<String>| {
        (space(), space(), value, space())
            .prop_map(move |(a, b, value, c)| (format!("{a}\"{name}\"{b}:"), value, c))
            .boxed()
    };
    let events = prop::collection::vec(
        (prop_oneof![Just("Stop"), Just("SessionStart"), Just("PreToolUse")], space(), lists(), space())
            .prop_map(|(event, a, value, b)| (format!("{a}\"{event}\":"), value, b)),
        0..3,
    );
    let hooks = (events, space()).prop_map(|(items, blank)| object(items, blank)).boxed();
    let allow = (named("allow", lists().boxed()), prop::bool::ANY, space())
        .prop_map(|(member, some, blank)| object(if some { vec![member] } else { vec![] }, blank))
        .boxed();
    let member = prop_oneof![
        3 => (key(), any_json(), space()).boxed(),
        1 => named("mcpServers", objects().boxed()),
        1 => named("hooks", hooks),
        1 => named("permissions", allow),
        1 => named("statusLine", prop_oneof![
            Just("{\"type\":\"command\", \"command\" :\"it's \\u0061 | 'b'\"}".to_owned()),
            Just("{\"type\":\"other\"}".to_owned()),
        ].boxed()),
        1 => named("allowedTools", lists().boxed()),
    ];
    (space(), prop::collection::vec(member, 0..5), space(), space())
        .prop_map(|(before, members, blank, after)| format!("{before}{}{after}", object(members, blank)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn install_then_uninstall_gives_back_every_byte(text in any_file()) {
        round_trip(&text);
    }

    #[test]
    fn uninstall_of_a_file_without_us_changes_nothing(text in any_file()) {
        prop_assert_eq!(uninstall(&text, None), text.clone());
        prop_assert_eq!(uninstall(&text, Some(Receipt::default())), text);
    }
}
