use super::*;

const ID: &str = "task-of-the-test";

/// Ann (0) and Bob (1).
fn log() -> Log {
    Log { names: vec!["Ann".into(), "Bob".into()], ..Log::new(2) }
}

fn asked(log: &mut Log, worker: usize, act: Act) -> usize {
    log.asked.begin(worker, act)
}

/// A request that is confirmed with the task as it is afterwards.
fn confirmed(log: &mut Log, worker: usize, act: Act, version: u64) -> Result<(), String> {
    let number = asked(log, worker, act.clone());
    let holder = log.names[worker].clone();
    let answer = match act {
        Act::Create => json!({"type": "task_created", "id": ID}),
        Act::Next | Act::Claim(_) => {
            json!({"type": "done", "task": {"id": ID, "version": version, "status": "claimed", "claimedBy": holder}})
        }
        Act::Complete(_) => json!({"type": "done", "task": {"id": ID, "version": version, "status": "done"}}),
        _ => json!({"type": "done", "task": {"id": ID, "version": version, "status": "open"}}),
    };
    log.answered(worker, number, &answer)
}

fn steps(all: &[(&str, &str)]) -> Vec<TaskStep> {
    let step = |(by, what): &(&str, &str)| TaskStep {
        at: String::new(),
        by: (*by).into(),
        what: (*what).into(),
        detail: None,
    };
    all.iter().map(step).collect()
}

fn task(version: u64, status: TaskStatus, holder: Option<&str>) -> TaskEntry {
    let result = (status == TaskStatus::Done).then(|| "w0n2".to_owned());
    let claimed_by = holder.map(str::to_owned);
    TaskEntry { id: ID.into(), title: "w0n0".into(), version, status, claimed_by, result, ..TaskEntry::default() }
}

/// Ann creates, claims and completes one task.
fn finished() -> Log {
    let mut log = log();
    confirmed(&mut log, 0, Act::Create, 1).unwrap();
    confirmed(&mut log, 0, Act::Claim(ID.into()), 2).unwrap();
    confirmed(&mut log, 0, Act::Complete(ID.into()), 3).unwrap();
    log
}

const WHOLE: [(&str, &str); 3] = [("Ann", "created"), ("Ann", "claimed"), ("Ann", "completed")];

#[test]
fn a_history_that_is_whole_is_right() {
    let mut log = finished();
    log.judge(&task(3, TaskStatus::Done, Some("Ann")), &steps(&WHOLE)).unwrap();
    assert_eq!((log.changes(), log.judged(ID), log.won()), (3, 3, 1));
    assert_eq!(log.take_confirmed().len(), 3);
}

#[test]
fn what_was_lost_or_came_twice_is_found() {
    for (told, version, history, status, holder) in [
        ("the completion is lost", 2, &WHOLE[..2], TaskStatus::Claimed, Some("Ann")),
        ("a step is missing in the history", 3, &WHOLE[1..], TaskStatus::Done, Some("Ann")),
        ("another one did it", 3, &[WHOLE[0], ("Bob", "claimed"), WHOLE[2]], TaskStatus::Done, Some("Bob")),
        ("it was done again", 4, &[WHOLE[0], WHOLE[1], WHOLE[2], WHOLE[2]], TaskStatus::Done, Some("Ann")),
        ("the row is not what the history says", 3, &WHOLE, TaskStatus::Open, Some("Ann")),
        ("the row names another holder", 3, &WHOLE, TaskStatus::Done, Some("Bob")),
        ("it was created twice", 4, &[WHOLE[0], WHOLE[0], WHOLE[1], WHOLE[2]], TaskStatus::Done, Some("Ann")),
    ] {
        let judged = finished().judge(&task(version, status, holder), &steps(history));
        assert!(judged.is_err(), "{told}");
    }
}

#[test]
fn a_task_with_two_winners_is_found() {
    let mut log = log();
    confirmed(&mut log, 0, Act::Create, 1).unwrap();
    confirmed(&mut log, 0, Act::Claim(ID.into()), 2).unwrap();
    confirmed(&mut log, 0, Act::Claim(ID.into()), 2).expect("asked for again by the one that holds it");
    let fault = confirmed(&mut log, 1, Act::Claim(ID.into()), 2).unwrap_err();
    assert!(fault.contains("version 2"), "{fault}");
    // Two winners one behind the other.
    let mut log = finished();
    let number = asked(&mut log, 1, Act::Claim(ID.into()));
    log.cut_off();
    let two = [WHOLE[0], WHOLE[1], ("Bob", "claimed"), WHOLE[2]];
    assert!(log.judge(&task(4, TaskStatus::Done, Some("Bob")), &steps(&two)).is_err(), "{number}");
}

#[test]
fn what_was_cut_off_may_be_there_once() {
    let mut log = log();
    confirmed(&mut log, 0, Act::Create, 1).unwrap();
    asked(&mut log, 1, Act::Next);
    log.cut_off();
    let once = [WHOLE[0], ("Bob", "claimed")];
    log.judge(&task(2, TaskStatus::Claimed, Some("Bob")), &steps(&once)).unwrap();
    // Given back by Ann, who created it, and won again without a request.
    confirmed(&mut log, 0, Act::Unclaim(ID.into()), 3).unwrap();
    let twice = [WHOLE[0], ("Bob", "claimed"), ("Ann", "unclaimed"), ("Bob", "claimed")];
    let fault = log.judge(&task(4, TaskStatus::Claimed, Some("Bob")), &steps(&twice)).unwrap_err();
    assert!(fault.contains("2 times claimed"), "{fault}");
}

#[test]
fn tasks_that_are_gone_or_back_are_found() {
    let mut log = finished();
    let row = BTreeMap::from([(ID.to_owned(), task(3, TaskStatus::Done, Some("Ann")))]);
    assert!(log.all_there(&BTreeMap::new()).is_err(), "gone");
    log.all_there(&row).unwrap();
    log.deleted(ID, 3);
    assert!(log.all_there(&row).is_err(), "back");
    log.all_there(&BTreeMap::new()).unwrap();
}

#[test]
fn refusals_without_a_reason_are_found() {
    let mut log = log();
    for (act, code, fine) in [
        (Act::Create, "conflict", false),
        (Act::Next, "task_not_claimable", false),
        (Act::Claim(ID.into()), "task_not_claimable", true),
        (Act::Claim(ID.into()), "internal", false),
        (Act::Complete(ID.into()), "conflict", true),
    ] {
        let number = asked(&mut log, 0, act.clone());
        let told = log.answered(0, number, &json!({"type": "error", "code": code}));
        assert_eq!(told.is_ok(), fine, "{act:?} {code}");
    }
}
