//! Messages that are sent later: at the shell, by tools and in a session, against a real broker.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_testkit::host::Host;
use serde_json::{Value, json};

use super::in_process::Session;
use super::team::{Team, options, session, stderr, stdout};

/// A time that has passed: what is for it is sent at once.
const PAST: &str = "2020-01-01T00:00:00Z";
const LATER: &str = "2099-01-01T09:30:00Z";
const LATER_MS: i64 = 4_070_943_000_000;

/// Whether the broker has these bytes on its disk.
fn on_disk(team: &Team, bytes: &str) -> Result<bool> {
    for file in std::fs::read_dir(team.broker.data_dir())? {
        let path = file?.path();
        let held = path.is_file().then(|| std::fs::read(&path)).transpose()?.unwrap_or_default();
        if memchr::memmem::find(&held, bytes.as_bytes()).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test]
async fn a_reminder_comes_to_oneself_and_the_broker_cannot_read_it() -> Result<()> {
    let team = Team::start().await?;
    team.ann.json(&["remind", "secret words", "--at", LATER, "--json"])?;
    team.ann.json(&["remind", "to Bob alone", "--at", LATER, "--to", "Bob", "--json"])?;
    team.ann.json(&["remind", "open words", "--at", LATER, "--to", "*", "--json"])?;
    for (text, seen) in [("secret words", false), ("to Bob alone", false), ("open words", true)] {
        assert!(!on_disk(&team, text)?, "{text}");
        assert_eq!(on_disk(&team, &STANDARD.encode(text))?, seen, "{text}");
    }
    let list = team.ann.json(&["remind", "list", "--json"])?;
    let texts: Vec<&str> = list.as_array().into_iter().flatten().filter_map(|row| row["message"].as_str()).collect();
    assert_eq!(texts.len(), 3, "{list}");
    assert!(["secret words", "to Bob alone", "open words"].iter().all(|text| texts.contains(text)), "{list}");
    team.ann.json(&["remind", "now for me", "--at", PAST, "--json"])?;
    let inbox = team.ann.json(&["inbox", "--wait", "20", "--json"])?;
    let row = &inbox[0];
    assert_eq!((&row["plaintext"], &row["subtype"]), (&json!("now for me"), &json!("reminder")), "{inbox}");
    team.ann.json(&["remind", "now for Bob", "--at", PAST, "--to", "bob", "--json"])?;
    let inbox = team.bob.json(&["inbox", "--wait", "20", "--json"])?;
    let row = &inbox[0];
    assert_eq!(
        (&row["plaintext"], &row["kind"], &row["from"]),
        (&json!("now for Bob"), &json!("direct"), &json!("Ann")),
        "{inbox}"
    );
    assert_eq!(row["subtype"], Value::Null, "it is a message, no reminder");
    Ok(())
}

#[tokio::test]
async fn the_shell_schedules_lists_edits_pauses_and_cancels() -> Result<()> {
    let team = Team::start().await?;
    for verb in [&["remind"][..], &["schedule", "msg"]] {
        let words = |rest: &[&'static str]| -> Vec<&str> { verb.iter().copied().chain(rest.iter().copied()).collect() };
        // The flags may stand on either side of the text.
        let told = team.ann.json(&words(&["--in", "2h", "look at the build", "--json"]))?;
        let wait = told["deliverAt"].as_i64().context("a time")? - claudemesh_testkit::clock::now_ms();
        assert!((7_100_000..=7_200_000).contains(&wait), "{told}");
        assert_eq!((&told["to"], &told["message"]), (&json!("self"), &json!("look at the build")));
        let cron = words(&[
            "stand-up",
            "--to",
            "@frontend",
            "--cron",
            "30 9 * * mon-fri",
            "--tz",
            "Asia/Tokyo",
            "--misfire",
            "skip",
            "--json",
        ]);
        let told = team.ann.json(&cron)?;
        assert_eq!((&told["cron"], &told["to"]), (&json!("30 9 * * mon-fri"), &json!("@frontend")));
        let next = told["nextTimes"].as_array().context("times")?.clone();
        assert_eq!(
            (next.len(), next[0].as_i64().context("a time")? % 86_400_000),
            (3, 30 * 60_000),
            "09:30 in Tokyo: {told}"
        );
        let simulated = team.ann.json(&words(&["by the clock", "--in", "5m", "--clock", "mesh", "--json"]))?;
        assert!(simulated["deliverAt"].is_i64(), "{simulated}");
        for (bad, code, words_of_it) in [
            (&["x"][..], 3, "--in 2h"),
            (&["x", "--in", "0"], 3, "out of range"),
            (&["x", "--at", "noon"], 3, "is not a time"),
            (&["x", "--in", "1h", "--at", "12:00"], 3, "cannot be used with"),
            (&["x", "--cron", "*/0 * * * *"], 3, "a step of 0"),
            (&["x", "--cron", "0 0 31 2 *"], 3, "none of these months"),
            (&["x", "--in", "1h", "--to", "nobody-here"], 5, "nobody-here"),
            (&["--in", "1h"], 3, "message"),
        ] {
            let output = team.ann.run(&words(bad))?;
            let said = stderr(&output);
            assert!(output.status.code() == Some(code) && said.contains(words_of_it), "{bad:?}: {code} {said}");
        }
    }
    let list = team.ann.json(&["remind", "list", "--json"])?;
    assert_eq!(list.as_array().map(Vec::len), Some(6));
    let id = |row: &Value| row["id"].as_str().map(str::to_owned).context("an id");
    let standup =
        list.as_array().into_iter().flatten().find(|row| row["message"] == "stand-up").context("the stand-up")?;
    assert_eq!(
        (&standup["tz"], &standup["misfire"], &standup["state"]),
        (&json!("Asia/Tokyo"), &json!("skip"), &json!("active"))
    );
    let id = id(standup)?;
    let short = &id[..8];
    assert_eq!(team.ann.json(&["schedule", "list", "--limit", "1", "--json"])?.as_array().map(Vec::len), Some(1));
    assert_eq!(team.ann.json(&["remind", "list", "--limit", "1", "--json"])?.as_array().map(Vec::len), Some(1));
    let shown = stdout(&team.ann.run(&["remind", "list"])?);
    assert!(
        shown.contains(&format!("[{short}] → @frontend at "))
            && shown.contains("stand-up  30 9 * * mon-fri · Asia/Tokyo · then "),
        "{shown}"
    );
    for (noun, other) in [("remind", "schedule"), ("schedule", "remind")] {
        let paused = stdout(&team.ann.run(&[noun, "pause", short])?);
        assert!(
            paused.starts_with(&format!("✓ paused: [{short}] → @frontend")) && paused.contains("  paused · "),
            "{paused}"
        );
        assert_eq!(team.ann.json(&[other, "resume", short, "--json"])?["state"], "active");
    }
    for noun in ["remind", "schedule"] {
        let edited =
            team.ann.json(&[noun, "edit", short, "--message", "stand-up in room 2", "--to", "Bob", "--json"])?;
        assert_eq!(
            (&edited["message"], edited["ciphertext"].is_string()),
            (&json!("stand-up in room 2"), true),
            "{edited}"
        );
        let edited = team.ann.json(&[
            noun,
            "edit",
            short,
            "--cron",
            "@daily",
            "--tz",
            "UTC",
            "--misfire",
            "all",
            "--clock",
            "mesh",
            "--json",
        ])?;
        assert_eq!((&edited["cron"], &edited["tz"]), (&json!("@daily"), &json!("UTC")));
        assert_eq!((&edited["misfire"], &edited["clock"]), (&json!("all"), &json!("mesh")));
        assert_eq!(edited["message"], "stand-up in room 2", "sealed for Bob still");
        let edited = team.ann.json(&[noun, "edit", short, "--clock", "wall", "--at", LATER, "--json"])?;
        assert_eq!((&edited["deliverAt"], &edited["cron"]), (&json!(LATER_MS), &Value::Null));
        let edited = team.ann.json(&[noun, "edit", short, "--in", "1h", "--json"])?;
        assert!(edited["deliverAt"].as_i64() < Some(LATER_MS), "{edited}");
        team.ann.json(&[noun, "edit", short, "--to", "@frontend", "--cron", "0 9 * * *", "--json"])?;
        assert_eq!(team.ann.run(&[noun, "edit", short])?.status.code(), Some(3), "nothing to change");
        assert_eq!(team.bob.run(&[noun, "edit", short, "--message", "x"])?.status.code(), Some(5), "it is not Bob's");
    }
    assert_eq!(team.bob.json(&["remind", "list", "--json"])?, json!([]));
    assert_eq!(team.bob.run(&["remind", "list", "--everyone"])?.status.code(), Some(7));
    team.bob.json(&["schedule", "msg", "of Bob", "--at", LATER, "--json"])?;
    for noun in ["remind", "schedule"] {
        let all = team.ann.json(&[noun, "list", "--everyone", "--json"])?;
        let bobs = all.as_array().into_iter().flatten().find(|row| row["by"] == "Bob").context("Bob's")?;
        assert_eq!((&bobs["message"], bobs["ciphertext"].is_string()), (&json!(""), true), "sealed: {bobs}");
    }
    assert_eq!(team.ann.json(&["info", "--json"])?["schedules"], 7);
    assert_eq!(stdout(&team.ann.run(&["remind", "cancel", short])?), format!("✓ cancelled {short}\n"));
    assert_eq!(team.ann.run(&["remind", "cancel", "ffffffff"])?.status.code(), Some(5));
    for noun in ["remind", "schedule"] {
        let ended = team.ann.json(&[noun, "list", "--ended", "--json=id,state"])?;
        assert!(
            ended.as_array().into_iter().flatten().any(|row| row["id"] == id.as_str() && row["state"] == "cancelled"),
            "{ended}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn tools_schedule_list_and_cancel() -> Result<()> {
    let team = Team::start().await?;
    let (ann, bob) = (Session::start(&team.ann, "AnnS").await?, Session::start(&team.bob, "BobS").await?);
    assert_eq!(ann.call("list_scheduled", json!({})).await?.text, "Nothing is scheduled.");
    for bad in [
        json!({"message": "x"}),
        json!({"message": "x", "in_seconds": 5, "cron": "@daily"}),
        json!({"message": "x", "in_seconds": -1}),
    ] {
        assert!(ann.call("schedule_reminder", bad).await?.is_error);
    }
    let wrong = ann.call("schedule_reminder", json!({"message": "x", "cron": "61 * * * *"})).await?;
    assert!(wrong.is_error && wrong.text.contains("minute: `61`: expected 0 to 59"), "{}", wrong.text);
    let made = ann.call("schedule_reminder", json!({"message": "for me", "deliver_at": LATER_MS})).await?;
    assert_eq!((&made.structured["to"], &made.structured["deliverAt"]), (&json!("self"), &json!(LATER_MS)));
    let id = made.structured["scheduledId"].as_str().context("an id")?.to_owned();
    let short = &id[..8];
    assert!(made.text.starts_with(&format!("Scheduled {short} → self at 2099-01-01 ")), "{}", made.text);
    let weekly = json!({"message": "week </channel> report", "cron": "0 16 * * fri", "tz": "Europe/Berlin", "misfire": "skip", "to": "BobS"});
    let weekly = ann.call("schedule_reminder", weekly).await?;
    assert_eq!(weekly.structured["to"], "Bob", "a session may be gone by then: its member is meant");
    ann.call("schedule_reminder", json!({"message": "soon", "in_seconds": 3600, "clock": "wall", "to": "*"})).await?;
    let listed = ann.call("list_scheduled", json!({"mesh_slug": "team"})).await?;
    assert_eq!(listed.structured["messages"].as_array().map(Vec::len), Some(3), "{}", listed.structured);
    assert!(listed.text.contains(&format!("[{short}] → self at 2099-01-01 ")), "{}", listed.text);
    assert!(listed.text.contains("(0 16 * * fri): week [/channel] report (team)"), "{}", listed.text);
    assert!(bob.call("cancel_scheduled", json!({"id": short})).await?.is_error, "it is not Bob's");
    assert_eq!(ann.call("cancel_scheduled", json!({"id": short})).await?.text, format!("Cancelled {short} (team)"));
    assert!(ann.call("cancel_scheduled", json!({"id": "nope-nope"})).await?.is_error);
    Ok(())
}

#[tokio::test]
async fn a_session_is_shown_its_reminder() -> Result<()> {
    let team = Team::start().await?;
    let mut ann = session(&team.ann, "ann-1", "AnnS").await?;
    team.ann.json(&["remind", "look at the build", "--at", PAST, "--json"])?;
    let note = ann.channel_with("look at the build").await?;
    assert_eq!((note.meta["subtype"].as_str(), note.meta["priority"].as_str()), ("reminder", "now"), "{:?}", note.meta);
    ann.end().await?;
    Ok(())
}

#[tokio::test]
async fn in_mode_off_only_ones_own_reminder_comes() -> Result<()> {
    let team = Team::start().await?;
    let mut settings = options(&team.ann, "ann-1", "AnnS");
    settings.args.extend(["--message-mode".into(), "off".into()]);
    let mut ann = Host::start(settings).await?;
    let listed = ann.tool("list_scheduled", json!({})).await?;
    assert!(!listed.is_error, "{}", listed.text);
    team.bob.json(&["send", "AnnS", "quiet", "--priority", "now", "--json"])?;
    team.bob.json(&["remind", "of Bob", "--to", "Ann", "--at", PAST, "--json"])?;
    team.ann.json(&["remind", "look at the build", "--at", PAST, "--json"])?;
    let note = ann.channel_with("look at the build").await?;
    assert_eq!(note.meta["subtype"], "reminder");
    assert!(ann.untaken().is_empty(), "nothing of others");
    ann.end().await?;
    Ok(())
}
