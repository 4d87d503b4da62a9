use crate::home::Home;

#[test]
fn it_is_off_until_it_is_set_and_can_be_tried() {
    let home = Home::new();
    home.join(&[("team", "ws://127.0.0.1:1/ws")]);
    assert_eq!(home.run(&["notify"]).exits(0).stdout, "notify: off\n");
    home.run(&["notify", "--test"]).exits(3);
    home.script(
        "notify-send",
        "#!/bin/sh\nfor word in \"$@\"; do echo \"$word\"; done > \"$HOME/shown\"\nenv >> \"$HOME/shown\"\n",
    );
    let ran = home.run_with(&["notify", "desktop", "--test"], &[("ANTHROPIC_API_KEY", "secret"), ("KEPT", "yes")]);
    assert_eq!(ran.exits(0).stdout, "notify: desktop\n");
    let shown = home.read("shown");
    assert!(
        shown.starts_with("--app-name=claudemesh\n--\nclaudemesh\nThis is what a question looks like.\n"),
        "{shown}"
    );
    assert!(shown.contains("KEPT=yes") && !shown.contains("secret"), "keys are not for a notifier: {shown}");
    home.run(&["notify", "printf '%s|' \"$1\" \"$2\" > \"$HOME/line\"", "--test"]).exits(0);
    assert_eq!(home.read("line"), "claudemesh|This is what a question looks like.|");
    assert_eq!(home.run(&["notify", "exit 3", "--test", "--json"]).exits(1).json()["error"], "notifier_failed");
    let variable = [("CLAUDEMESH_NOTIFY", "off")];
    assert!(home.run_with(&["notify"], &variable).exits(0).stdout.contains("CLAUDEMESH_NOTIFY is set"));
    home.run(&["notify", "off"]).exits(0);
    assert!(!home.read(".claudemesh/config.json").contains("notify"));
    std::fs::remove_file(home.path("bin/notify-send")).unwrap();
    let ran = home.command(&["notify", "desktop"]).env("PATH", home.path("bin")).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("neither notify-send nor osascript is on the PATH"), "{said}");
    let ran = home.command(&["notify", "--test"]).env("PATH", home.path("bin")).output().unwrap();
    assert_eq!(ran.status.code(), Some(10));
}
