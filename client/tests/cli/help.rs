use std::fmt::Write;

use crate::home::Home;

/// The words of every verb, its own verbs after it.
fn walk(command: &clap::Command, path: &str, out: &mut Vec<String>) {
    out.push(path.to_owned());
    for verb in command.get_subcommands() {
        walk(verb, format!("{path} {}", verb.get_name()).trim(), out);
    }
}

#[test]
fn help_of_every_verb() {
    let home = Home::new();
    let mut text = String::new();
    let mut verbs = vec![];
    walk(&claudemesh::cli::command(), "", &mut verbs);
    for verb in verbs {
        let mut args: Vec<&str> = verb.split_whitespace().collect();
        args.push("--help");
        let ran = home.run(&args).exits(0);
        assert_eq!(ran.stderr, "");
        writeln!(text, "$ claudemesh {}\n{}", args.join(" "), ran.stdout).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn bad_command_lines_exit_3_with_a_sentence_and_a_hint() {
    let home = Home::new();
    let mut text = String::new();
    for args in [
        &["bogus"][..],
        &["peer"],
        &["send", "--bogus"],
        &["send", "Bob", "hi", "there"],
        &["send", "Bob", "-test"],
        &["leave"],
        &["status", "set", "busy"],
        &["invite", "--uses", "0"],
        &["kick"],
        &["launch", "--message-mode", "loud"],
        &["launch", "--groups", "a b"],
        &["inbox", "--wait", "x", "--json"],
    ] {
        let ran = home.run(args).exits(3);
        writeln!(text, "$ claudemesh {}\n{}{}", args.join(" "), ran.stdout, ran.stderr).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn version_in_three_spellings() {
    let home = Home::new();
    for args in [&["--version"][..], &["-V"], &["version"], &["--quiet", "--version"]] {
        assert_eq!(home.redact(&home.run(args).exits(0).stdout), "claudemesh [VERSION]\n");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_help_text_that_cannot_be_written_is_a_failure() {
    let home = Home::new();
    for args in [&["--help"][..], &["send", "--help"], &["--version"], &["--quiet", "--version"], &["list"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = home.command(args).stdout(full).stderr(std::process::Stdio::piped()).output().unwrap();
        let text = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(10), "{args:?}: {text}");
        assert!(text.starts_with("Error: Standard output cannot be written"), "{args:?}: {text}");
    }
}

#[test]
fn bare_command_tells_the_next_step_in_every_state() {
    let home = Home::new();
    let state = |home: &Home| home.run(&["--json=state,next"]).exits(0).json();
    assert_eq!(state(&home), serde_json::json!({"state": "no-install", "next": "claudemesh install"}));
    home.run(&["install"]).exits(0);
    assert_eq!(state(&home)["state"], "no-meshes");
    home.join(&[("team", "ws://127.0.0.1:1/ws"), ("other", "ws://127.0.0.1:1/ws")]);
    assert_eq!(state(&home)["state"], "ready");
    insta::assert_snapshot!(home.redact(&home.run(&[]).exits(0).stdout), @r"
    claudemesh [VERSION]
    Joined: team, other
    Next: claudemesh launch   (all commands: claudemesh help)
    ");
    home.write(".claudemesh/config.json", "{");
    assert_eq!(state(&home)["state"], "broken-config");
}

#[test]
fn completions_and_manual_pages_cover_every_verb() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(&["completions", shell]).exits(0).stdout;
        assert!(script.contains("msg-status") && script.contains("uninstall"), "{shell}");
    }
    let bash = home.write("completions.bash", &home.run(&["completions", "bash"]).stdout);
    let checked = std::process::Command::new("bash").arg("-n").arg(bash).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    // Read before `compinit`, it is no error.
    let zsh = home.run(&["completions", "zsh"]).stdout;
    assert!(zsh.contains("(( ! $+functions[compdef] )) || compdef _claudemesh claudemesh"), "{zsh}");
    assert!(home.run(&["man"]).exits(0).stdout.contains(".TH claudemesh 1"));
    let dir = home.path("man1");
    home.run(&["man", "--dir", dir.to_str().unwrap()]).exits(0);
    assert!(home.read("man1/claudemesh-send.1").contains("priority"));
    assert!(home.read("man1/claudemesh-group-join.1").contains("lead"));
    home.run(&["man", "--dir", "/proc/none"]).exits(10);
}

#[test]
fn help_is_a_word_as_well() {
    let home = Home::new();
    assert_eq!(home.run(&["help"]).exits(0).stdout, home.run(&["--help"]).exits(0).stdout);
    assert_eq!(home.run(&["help", "send"]).exits(0).stdout, home.run(&["send", "--help"]).exits(0).stdout);
    let joining = home.run(&["help", "group", "join"]).exits(0).stdout;
    assert!(joining.contains("Usage: claudemesh group join"), "{joining}");
    home.run(&["help", "bogus"]).exits(3);
    assert!(home.run(&["man"]).exits(0).stdout.contains(".SH EXAMPLES"));
    // A wrong argument leads to the help of its own command.
    let wrong = home.run(&["create", "Not A Slug"]).exits(3);
    assert!(wrong.stderr.contains("`claudemesh create --help`") || wrong.stderr.contains("Hint: "), "{wrong:?}");
    let wrong = home.run(&["invite", "--expires", "soon"]).exits(3);
    assert!(wrong.stderr.contains("claudemesh invite --help"), "{wrong:?}");
}

#[test]
fn a_verb_that_wants_another_word_shows_its_usage() {
    let home = Home::new();
    let bare = home.run(&["group"]).exits(3);
    assert!(bare.stderr.contains("Usage: claudemesh group") && !bare.stderr.contains("Error:"), "{bare:?}");
    let bare = home.run(&["group", "--json"]).exits(3).json();
    assert!(bare["hint"].as_str().unwrap().starts_with("Usage: claudemesh group"), "{bare}");
}

/// Names and ids come from local files, and bash offers them where they belong.
#[test]
fn the_shell_offers_meshes_peers_and_groups() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    let config: serde_json::Value = serde_json::from_str(&home.read(".claudemesh/config.json")).unwrap();
    let id = config["meshes"][0]["meshId"].as_str().unwrap();
    let known = serde_json::json!({id: {"peers": ["Bob", "two words"], "groups": ["qa"]}});
    home.write(".claudemesh/known-names.json", &known.to_string());
    let offered = |kind: &str| home.run(&["__complete", kind]).exits(0).stdout;
    assert_eq!((offered("meshes").as_str(), offered("peers").as_str()), ("team\n", "@qa\nBob\n"));
    assert_eq!(
        (offered("groups").as_str(), offered("messages").as_str(), offered("bogus").as_str()),
        ("@qa\n", "", "")
    );
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_claudemesh"), home.path("bin/claudemesh")).unwrap();
    let script = home.write("claudemesh.bash", &home.run(&["completions", "bash"]).stdout);
    let ask = |line: &str| {
        let text = format!(
            "source '{}'; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); \
             _claudemesh claudemesh \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let like = home.command(&[]);
        let mut bash = std::process::Command::new("bash");
        bash.arg("-c").arg(text).env_clear().envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        String::from_utf8(bash.output().unwrap().stdout).unwrap()
    };
    for (line, word) in
        [("claudemesh send B", "Bob"), ("claudemesh group join @", "@qa"), ("claudemesh --mesh t", "team")]
    {
        assert!(ask(line).lines().any(|offer| offer == word), "{line}: {}", ask(line));
    }
    for shell in ["zsh", "fish"] {
        let script = home.run(&["completions", shell]).exits(0).stdout;
        assert!(script.contains("claudemesh __complete peers"), "{shell}");
    }
    if let Ok(checked) = std::process::Command::new("zsh")
        .args(["-n"])
        .arg(home.write("_claudemesh", &home.run(&["completions", "zsh"]).stdout))
        .output()
    {
        assert!(checked.status.success(), "{checked:?}");
    }
}
