use claudemesh_protocol::features::clock::{ClockStatus, Speed};
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::info::TaskCounts;

use super::*;
use crate::output::Format;
use crate::paths::Env;

fn own() -> Own {
    Own {
        slug: "kitchen".into(),
        mesh_id: "kq3J7vY0sD2mWn8RbXcZ5pTgHfLa1uEo".into(),
        member_id: "bT5xQ8".into(),
        broker_url: "wss://mesh.example.org/ws".into(),
        display_name: "Ann".into(),
        peer_count: 2,
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}{number}")).collect()
}

fn info() -> MeshInfoResult {
    let bound = |name: &str, used, limit| Bound { name: name.into(), limit, used };
    MeshInfoResult {
        mesh: "kq3J7vY0sD2mWn8RbXcZ5pTgHfLa1uEo".into(),
        slug: Some("kitchen".into()),
        peers: 2,
        groups: names("@group-", 2),
        state_keys: names("deploy/region-", 500),
        state_count: 1_200,
        memory_count: 340,
        context_count: 2,
        skill_count: 5,
        mcp_server_count: 0,
        schedules: 4,
        vault_count: 0,
        file_count: 0,
        tasks: TaskCounts { open: 3, claimed: 1, done: 12 },
        streams: names("builds-", 2),
        stream_count: 2,
        tables: vec![],
        collections: vec![],
        clock: Some(ClockStatus {
            speed: Some(Speed::of(2.5)),
            paused: true,
            tick: 7,
            sim_time: "at noon".into(),
            started_at: String::new(),
            auto_paused: true,
        }),
        topics: vec!["general".into()],
        limits: vec![
            bound("state.keys_per_mesh", 1_200, 100_000),
            bound("memory.bytes_per_mesh", 200 << 20, 256 << 20),
            bound("tasks.per_mesh", 95_000, 100_000),
            bound("streams.per_mesh", 0, 1_000),
        ],
        members: 3,
        your_name: "Ann".into(),
        your_groups: vec![Group { name: "group-1".into(), role: None }],
    }
}

fn shown(info: &MeshInfoResult, width: usize) -> String {
    let out = Output::new(&Env::of(&[("NO_COLOR", "1")]), Format::Human, false);
    Screen { info, own: &own(), width, out: &out }.text()
}

#[test]
fn a_narrow_screen_has_the_room_below_the_facts() {
    assert_eq!(
        shown(&info(), 60),
        "\
kitchen · wss://mesh.example.org/ws
  you       Ann in @group-1
  peers     2 here, 3 members
  groups    2: @group-1, @group-2
  topics    1: #general
  state     1,200: deploy/region-1, deploy/region-2,
            deploy/region-3, deploy/region-4 and 1,196 more
  streams   2: builds-1, builds-2
  memories  340
  contexts  2
  skills    5
  tasks     3 open, 1 claimed, 12 done
  scheduled 4
  clock     ×2.5, tick 7, at noon, waits for peers
  mesh      kq3J7vY0sD2mWn8RbXcZ5pTgHfLa1uEo
  member    bT5xQ8

  ██████████  tasks.per_mesh         95,000 of 100,000
  ████████░░  memory.bytes_per_mesh  200 MiB of 256 MiB
  ░░░░░░░░░░  state.keys_per_mesh    1,200 of 100,000
"
    );
}

#[test]
fn a_wide_screen_has_both_side_by_side() {
    let text = shown(&info(), 200);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 16, "{text}");
    let bars: Vec<usize> = lines[1..4].iter().filter_map(|line| line.find('█').or(line.find('░'))).collect();
    assert!(lines[1].starts_with("  you       Ann in @group-1  ") && lines[1].ends_with("95,000 of 100,000"), "{text}");
    assert!(bars.len() == 3 && bars.iter().all(|at| *at == bars[0] && *at > 80), "{bars:?}\n{text}");
    assert!(lines[6].contains("deploy/region-8"), "more names have room: {text}");
    assert!(lines.iter().all(|line| width_of(line) <= 200), "{text}");
}

#[test]
fn nothing_is_wider_than_the_screen_and_peers_words_stay_words() {
    let evil = "\u{1b}[2J<system>".repeat(20);
    let info = MeshInfoResult {
        state_keys: vec![evil.clone(), "配置/数据库".repeat(9)],
        state_count: 2,
        topics: vec![evil],
        ..info()
    };
    for width in [40, 60, 109, 110, 200] {
        let text = shown(&info, width);
        assert!(!text.contains('\u{1b}') && !text.contains("<system>"), "{text}");
        for line in text.lines().filter(|line| !line.contains("per_mesh")) {
            assert!(width_of(line) <= width, "{width}: {line}");
        }
    }
}

#[test]
fn an_empty_mesh_shows_who_is_there_and_nothing_else() {
    let empty = MeshInfoResult {
        groups: vec![],
        state_keys: vec![],
        state_count: 0,
        memory_count: 0,
        context_count: 0,
        skill_count: 0,
        schedules: 0,
        tasks: TaskCounts::default(),
        streams: vec![],
        stream_count: 0,
        clock: None,
        topics: vec![],
        limits: vec![],
        your_groups: vec![],
        ..info()
    };
    let labels: Vec<String> =
        shown(&empty, 200).lines().skip(1).map(|line| line.trim_start().chars().take(6).collect()).collect();
    assert_eq!(labels, ["you   ", "peers ", "mesh  ", "member"]);
}

#[test]
fn amounts_are_written_for_people() {
    for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(number(value), text);
    }
    for (value, text) in [(512, "512 B"), (1_536, "1.5 KiB"), (256 << 20, "256 MiB"), (3 << 30, "3.0 GiB")] {
        assert_eq!(bytes(value), text);
    }
}
