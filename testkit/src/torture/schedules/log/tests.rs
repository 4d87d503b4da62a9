use super::*;

/// A scheduler and a recipient. It has scheduled one entry, whose time is [`AT`] or far away.
const AT: i64 = 1_900_000_000_000;
const ID: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";
const MARK: &str = "w0n0";

fn begin(log: &mut Log, act: Act) -> usize {
    if let Act::Create { mark, at } = &act {
        log.known.insert(mark.clone(), Known::new(0, 0, *at));
    }
    if let Act::Move { mark, .. } | Act::Cancel { mark } = &act {
        log.known.get_mut(mark).unwrap().change = Some(act.clone());
    }
    log.asked.begin(0, act)
}

fn create(log: &mut Log, mark: &str, at: i64, id: &str) -> Result<(), String> {
    let number = begin(log, Act::Create { mark: mark.into(), at });
    log.answered(0, number, &json!({"type": "scheduled_ack", "scheduledId": id, "deliverAt": at}))
}

fn cancel(log: &mut Log, ok: bool) -> Result<(), String> {
    let number = begin(log, Act::Cancel { mark: MARK.into() });
    log.answered(0, number, &json!({"type": "cancel_scheduled_ack", "scheduledId": ID, "ok": ok}))
}

fn with_entry(at: i64) -> Log {
    let mut log = Log::new(1, vec!["key".into()]);
    log.first[0].clear();
    create(&mut log, MARK, at, ID).unwrap();
    log
}

fn push(mark: &str, id: &str, at: i64, message: &str) -> Push {
    let body = envelope::encode_public(mark, &mut rand::thread_rng());
    let push = json!({
        "messageId": message, "meshId": "m", "senderPubkey": "k", "priority": "now", "nonce": "",
        "ciphertext": body.ciphertext, "createdAt": "", "client_message_id": format!("schedule:{id}:{at}"),
    });
    serde_json::from_value(push).unwrap()
}

fn row(id: &str, at: i64, state: ScheduleState) -> ScheduledEntry {
    let row = json!({"id": id, "to": "key", "message": "", "deliverAt": at, "createdAt": 0, "state": state});
    let row: ScheduledEntry = serde_json::from_value(row).unwrap();
    ScheduledEntry { last_fired_at: (state == ScheduleState::Done).then_some(at), ..row }
}

/// The broker's answer to a list.
fn list(log: &mut Log, rows: &[ScheduledEntry]) -> Result<(), String> {
    log.cut_off();
    let number = log.asked.begin(0, Act::List { cursor: None });
    log.answered(0, number, &json!({"type": "scheduled_list", "messages": rows}))
}

#[test]
fn a_message_that_is_lost_doubled_or_too_early_is_found() {
    let mut log = with_entry(AT);
    assert!(!log.settled(), "its message is not there: {}", log.missing());
    assert!(log.judge(&[row(ID, AT, ScheduleState::Done)]).is_err(), "sent, and no one got it");
    assert!(log.arrived(0, &push(MARK, ID, AT, "a"), AT - 1).is_err(), "too early");
    for (told, recipient, wrong) in [
        ("another recipient", 1, push(MARK, ID, AT, "a")),
        ("another time", 0, push(MARK, ID, AT + 1, "a")),
        ("no one's", 0, push("w0n9", ID, AT, "a")),
        ("not of a schedule", 0, Push { client_message_id: None, ..push(MARK, ID, AT, "a") }),
    ] {
        assert!(with_entry(AT).arrived(recipient, &wrong, AT).is_err(), "{told}");
    }
    log.arrived(0, &push(MARK, ID, AT, "a"), AT).unwrap();
    log.arrived(0, &push(MARK, ID, AT, "a"), AT + 9).expect("it comes again until it is acknowledged");
    assert!(log.settled() && log.again == 1);
    log.judge(&[row(ID, AT, ScheduleState::Done)]).unwrap();
    assert!(log.arrived(0, &push(MARK, ID, AT, "b"), AT).is_err(), "one time with two messages");
    assert!(log.arrived(0, &push(MARK, OTHER, AT, "a"), AT).is_err(), "one entry with two ids");
}

#[test]
fn an_entry_that_is_lost_doubled_or_not_as_it_should_be_is_found() {
    let done = row(ID, AT, ScheduleState::Done);
    for (told, rows) in [
        ("lost", vec![]),
        ("not sent", vec![row(ID, AT, ScheduleState::Active)]),
        ("failed", vec![ScheduledEntry { last_error: Some("limit: full".into()), ..done.clone() }]),
        ("missed", vec![ScheduledEntry { missed_count: 1, ..done.clone() }]),
        ("another time", vec![row(ID, AT + 1, ScheduleState::Done)]),
        ("listed twice", vec![done.clone(), done.clone()]),
        ("one too many", vec![done, row(OTHER, AT + 1, ScheduleState::Done)]),
    ] {
        let mut log = with_entry(AT);
        log.arrived(0, &push(MARK, ID, AT, "a"), AT).unwrap();
        assert!(log.judge(&rows).is_err(), "{told}");
    }
    let mut log = with_entry(AT);
    assert!(create(&mut log, "w0n1", AT + 1, ID).is_err(), "two entries with one id");
}

#[test]
fn one_that_was_cancelled_never_comes_and_one_that_was_moved_comes_at_its_new_time_only() {
    let mut log = with_entry(FAR_MS);
    assert!(cancel(&mut log, false).is_err(), "it was there");
    let mut log = with_entry(FAR_MS);
    cancel(&mut log, true).unwrap();
    assert!(log.settled() && log.changes() == 2);
    log.judge(&[row(ID, FAR_MS, ScheduleState::Cancelled)]).unwrap();
    assert!(log.judge(&[row(ID, FAR_MS, ScheduleState::Active)]).is_err(), "it waits again");
    assert!(log.arrived(0, &push(MARK, ID, FAR_MS, "a"), FAR_MS).is_err(), "it came");

    let mut log = with_entry(FAR_MS);
    assert!(log.settled(), "it is parked");
    let number = begin(&mut log, Act::Move { mark: MARK.into(), at: AT });
    let entry = json!({"deliverAt": AT, "version": 2});
    log.answered(0, number, &json!({"type": "scheduled_result", "entry": entry})).unwrap();
    assert!(log.arrived(0, &push(MARK, ID, FAR_MS, "a"), FAR_MS).is_err(), "its old time");
    log.arrived(0, &push(MARK, ID, AT, "a"), AT).unwrap();
    assert!(log.settled());
}

#[test]
fn what_has_no_answer_is_done_once_or_not_at_all() {
    let create = || {
        let mut log = Log::new(1, vec!["key".into()]);
        log.first[0].clear();
        begin(&mut log, Act::Create { mark: MARK.into(), at: AT });
        log
    };
    let mut log = create();
    list(&mut log, &[]).unwrap();
    assert!(log.settled() && log.changes() == 0);
    assert!(log.arrived(0, &push(MARK, ID, AT, "a"), AT).is_err(), "it was never made");

    let mut log = create();
    list(&mut log, &[row(ID, AT, ScheduleState::Active)]).unwrap();
    assert!(!log.settled() && log.changes() == 1, "it is there, so it must come");
    log.arrived(0, &push(MARK, ID, AT, "a"), AT).unwrap();
    assert!(log.settled());
    let twins = [row(ID, AT, ScheduleState::Active), row(OTHER, AT, ScheduleState::Active)];
    assert!(list(&mut create(), &twins).is_err(), "made twice");

    for (act, found, changes) in [
        (Act::Move { mark: MARK.into(), at: AT }, row(ID, AT, ScheduleState::Active), 2),
        (Act::Move { mark: MARK.into(), at: AT }, row(ID, FAR_MS, ScheduleState::Active), 1),
        (Act::Cancel { mark: MARK.into() }, row(ID, FAR_MS, ScheduleState::Cancelled), 2),
        (Act::Cancel { mark: MARK.into() }, row(ID, FAR_MS, ScheduleState::Active), 1),
    ] {
        let mut log = with_entry(FAR_MS);
        begin(&mut log, act.clone());
        list(&mut log, &[found.clone()]).unwrap();
        assert_eq!((log.changes(), log.asked.open()), (changes, 0), "{act:?} {found:?}");
        let mut log = with_entry(FAR_MS);
        begin(&mut log, act);
        assert!(list(&mut log, &[]).is_err(), "an entry that was confirmed is gone");
    }
    let mut log = with_entry(FAR_MS);
    begin(&mut log, Act::Move { mark: MARK.into(), at: AT });
    assert!(list(&mut log, &[row(ID, AT + 5, ScheduleState::Active)]).is_err(), "neither the old time nor the new one");
}

#[test]
fn after_a_kill_the_list_is_asked_for_page_by_page_before_anything_else() {
    let mut log = with_entry(FAR_MS);
    assert_eq!(log.look_again(), 2);
    let mut random = rand::SeedableRng::seed_from_u64(1);
    let (number, frame) = log.ask(0, &mut random).unwrap();
    assert_eq!(frame["type"], "list_scheduled");
    let page = json!({"type": "scheduled_list", "messages": [row(ID, FAR_MS, ScheduleState::Active)], "next": "1.x"});
    log.answered(0, number, &page).unwrap();
    assert!(!log.settled(), "there is more");
    let (number, frame) = log.ask(0, &mut random).unwrap();
    assert_eq!(frame["cursor"], "1.x");
    log.answered(0, number, &json!({"type": "scheduled_list", "messages": []})).unwrap();
    assert!(log.settled());
    let (_, frame) = log.ask(0, &mut random).unwrap();
    assert_ne!(frame["type"], "list_scheduled");
}
