use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn message(id: &str) -> NewMessage {
    NewMessage {
        message_id: id.into(),
        client_message_id: Some(format!("c-{id}")),
        sender_pubkey: "ab".repeat(32),
        sender_member: "cd".repeat(32),
        sender_name: Some("alice".into()),
        sender_member_name: None,
        sender_hostname: None,
        sender_cwd: None,
        target_spec: None,
        kind: Kind::Direct.as_str().into(),
        recipient_kind: RecipientKind::Member.as_str().into(),
        recipient_pubkey: None,
        topic: None,
        reply_to_id: None,
        priority: "next".into(),
        subtype: None,
        event: None,
        event_data: None,
        trace_id: Some("t".into()),
        trace_hop: 1,
        body: Some(format!("text of {id}")),
        created_at: "2026-01-01T00:00:00.000Z".into(),
        received_at_ms: 1_000,
    }
}

fn open(dir: &Path) -> Inbox {
    Inbox::open(dir, &"mesh1".into()).unwrap()
}

/// The mail of a reader, after a rule that accepts everything.
pub(super) fn mail<'a>(inbox: &'a mut Inbox, reader: &'a str) -> Mail<'a> {
    let fresh = inbox.undecided(reader).unwrap();
    let decided: Vec<_> = fresh.iter().map(|message| (message.seq, Verdict::Accept)).collect();
    inbox.decide(reader, &decided, 0).unwrap();
    Mail::new(inbox, reader)
}

pub(super) fn up_to(limit: i64) -> Pick {
    Pick { limit, ..Pick::default() }
}

fn ids(list: &[Message]) -> Vec<&str> {
    list.iter().map(|message| message.message_id.as_str()).collect()
}

#[test]
fn a_message_is_stored_once_by_id_and_by_the_senders_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    assert_eq!(inbox.store("s1", &[message("m1"), message("m1")]).unwrap(), [true, false]);
    let retry = NewMessage { message_id: "m1-again".into(), ..message("m1") };
    assert_eq!(inbox.store("s1", std::slice::from_ref(&retry)).unwrap(), [false]);
    // Another session receives the same message: one row, a delivery of its own.
    assert_eq!(inbox.store("s2", &[retry]).unwrap(), [true]);
    assert_eq!(inbox.person().everything(10, 0).unwrap().len(), 1);
    assert_eq!(ids(&mail(&mut inbox, "s1").claim("channel", &up_to(10), 5).unwrap()), ["m1"]);
    assert_eq!(ids(&mail(&mut inbox, "s2").claim("channel", &up_to(10), 5).unwrap()), ["m1"]);
    assert!(mail(&mut inbox, "s1").claim("pull", &up_to(10), 5).unwrap().is_empty());
}

#[test]
fn only_what_the_rule_has_let_through_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s", &[message("a"), message("b")]).unwrap();
    assert_eq!(Mail::new(&mut inbox, "s").count_unshown().unwrap(), 0, "just arrived");
    let seqs: Vec<i64> = inbox.undecided("s").unwrap().iter().map(|message| message.seq).collect();
    inbox.decide("s", &[(seqs[0], Verdict::Accept), (seqs[1], Verdict::Hold)], 1).unwrap();
    assert_eq!(Mail::new(&mut inbox, "s").count_unshown().unwrap(), 1);
    Mail::new(&mut inbox, "s").claim("channel", &up_to(10), 5).unwrap();
    assert_eq!(Mail::new(&mut inbox, "s").count_unshown().unwrap(), 0);
}

#[test]
fn messages_without_an_idempotency_key_are_told_apart_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let plain = |id: &str| NewMessage { client_message_id: None, ..message(id) };
    assert_eq!(inbox.store("s", &[plain("a"), plain("b")]).unwrap(), [true, true]);
}

#[test]
fn stored_messages_survive_reopening_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).store("s", &[message("b"), message("a"), message("c")]).unwrap();
    let mut inbox = open(dir.path());
    let news = |inbox: &mut Inbox, limit: i64| -> Vec<Message> {
        inbox.person().news(limit, 0).unwrap().into_iter().map(|one| one.message).collect()
    };
    assert_eq!(ids(&news(&mut inbox, 10)), ["b", "a", "c"]);
    let oldest = news(&mut inbox, 2);
    assert_eq!(ids(&oldest), ["b", "a"]);
    inbox.mark_seen(&oldest.iter().map(|message| message.seq).collect::<Vec<_>>(), 7).unwrap();
    assert_eq!(ids(&news(&mut inbox, 2)), ["c"]);
    assert_eq!(inbox.person().everything(10, 0).unwrap()[0].message.seen_at_ms, Some(7));
}

#[test]
fn a_failed_write_gives_the_message_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s", &[message("m1")]).unwrap();
    let claimed = mail(&mut inbox, "s").claim("channel", &up_to(10), 5).unwrap();
    inbox.unclaim("s", &[claimed[0].seq]).unwrap();
    assert_eq!(mail(&mut inbox, "s").claim("channel", &up_to(10), 6).unwrap().len(), 1);
    assert_eq!(ids(&inbox.unconfirmed("s", "channel", 10).unwrap()), ["m1"]);
    inbox.mark_seen(&[claimed[0].seq], 9).unwrap();
    assert!(inbox.unconfirmed("s", "channel", 10).unwrap().is_empty());
}

#[test]
fn a_new_session_adopts_what_no_session_received() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let for_session = NewMessage { recipient_kind: RecipientKind::Session.as_str().into(), ..message("other-session") };
    inbox.store(MEMBER_READER, &[message("orphan"), message("seen")]).unwrap();
    inbox.store("s1", &[for_session, message("taken")]).unwrap();
    let seen = inbox.find("seen").unwrap().unwrap();
    inbox.mark_seen(&[seen.seq], 5).unwrap();
    assert_eq!(inbox.adopt("s2", 6).unwrap(), 1);
    assert_eq!(ids(&mail(&mut inbox, "s2").claim("channel", &up_to(10), 7).unwrap()), ["orphan"]);
}

#[test]
fn old_messages_and_their_deliveries_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s", &[message("old"), NewMessage { received_at_ms: 9_000, ..message("new") }]).unwrap();
    assert_eq!(inbox.prune(5_000).unwrap(), 1);
    assert_eq!(mail(&mut inbox, "s").count_unshown().unwrap(), 1);
    assert_eq!(
        inbox.person().everything(10, 0).unwrap().iter().map(|one| &*one.message.message_id).collect::<Vec<_>>(),
        ["new"]
    );
}

#[test]
fn find_takes_a_unique_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s", &[message("abcdefgh1"), message("abcdefgh2"), message("zbcdefgh2")]).unwrap();
    assert_eq!(inbox.find("abcdefgh").unwrap(), None);
    assert_eq!(inbox.find("zbcdefgh").unwrap().unwrap().message_id, "zbcdefgh2");
    assert_eq!(inbox.find("zbc").unwrap(), None);
    assert_eq!(inbox.find("%bcdefgh").unwrap(), None);
    assert_eq!(inbox.last_exchange(&"cd".repeat(32), 0).unwrap().unwrap().message_id, "zbcdefgh2");
    assert_eq!(inbox.last_exchange(&"cd".repeat(32), 2_000).unwrap(), None);
}

#[cfg(unix)]
#[test]
fn files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s", &[message("m")]).unwrap();
    assert_eq!(files::mode_of(&dir.path().join("inbox")), Some(0o700));
    for entry in std::fs::read_dir(dir.path().join("inbox")).unwrap().flatten() {
        assert_eq!(files::mode_of(&entry.path()), Some(0o600), "{}", entry.path().display());
    }
}

#[test]
fn a_file_that_is_no_database_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inbox/mesh1.db");
    std::fs::create_dir(dir.path().join("inbox")).unwrap();
    std::fs::write(&path, "not a database, long enough to be read as a header ........................").unwrap();
    assert!(Inbox::open(dir.path(), &"mesh1".into()).is_err());
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("not a database"));
}

#[test]
fn many_processes_that_claim_at_once_share_the_messages() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<NewMessage> = (0..200).map(|number| message(&format!("m{number}"))).collect();
    open(dir.path()).store("s", &all).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let path = dir.path().to_path_buf();
            std::thread::spawn(move || {
                let mut inbox = open(&path);
                let mut got = Vec::new();
                loop {
                    let some = mail(&mut inbox, "s").claim("channel", &up_to(7), 5).unwrap();
                    if some.is_empty() {
                        return got;
                    }
                    got.extend(some.into_iter().map(|message| message.message_id));
                }
            })
        })
        .collect();
    let shown: Vec<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(shown.len(), 200);
    assert_eq!(shown.iter().collect::<HashSet<_>>().len(), 200);
}

#[derive(Clone, Debug)]
enum Step {
    Receive { process: usize, reader: usize, message: usize },
    Claim { process: usize, reader: usize, limit: i64 },
    Restart { process: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3usize, 0..2usize, 0..12usize)
            .prop_map(|(process, reader, message)| Step::Receive { process, reader, message }),
        2 => (0..3usize, 0..2usize, 1..5i64).prop_map(|(process, reader, limit)| Step::Claim { process, reader, limit }),
        1 => (0..3usize).prop_map(|process| Step::Restart { process }),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the order of deliveries, redeliveries, restarts and claims: each reader is shown each of its messages
    /// exactly once.
    #[test]
    fn every_reader_is_shown_every_message_once(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut processes: Vec<Inbox> = (0..3).map(|_| open(dir.path())).collect();
        let readers = ["s1", "s2"];
        let mut expected: HashMap<&str, HashSet<String>> = HashMap::new();
        let mut shown: HashMap<&str, Vec<String>> = HashMap::new();
        let mut now = 0;
        let mut claim = |inbox: &mut Inbox, reader: &'static str, limit: i64, now: i64| {
            let got = mail(inbox, reader).claim("channel", &up_to(limit), now).unwrap();
            shown.entry(reader).or_default().extend(got.into_iter().map(|message| message.message_id));
        };
        for step in steps {
            now += 1;
            match step {
                Step::Receive { process, reader, message: number } => {
                    let id = format!("m{number}");
                    processes[process].store(readers[reader], &[message(&id)]).unwrap();
                    expected.entry(readers[reader]).or_default().insert(id);
                }
                Step::Claim { process, reader, limit } => claim(&mut processes[process], readers[reader], limit, now),
                Step::Restart { process } => processes[process] = open(dir.path()),
            }
        }
        for reader in readers {
            claim(&mut processes[0], reader, MAX_LIST, now + 1);
        }
        for reader in readers {
            let list = shown.remove(reader).unwrap_or_default();
            let set: HashSet<String> = list.iter().cloned().collect();
            prop_assert_eq!(list.len(), set.len(), "shown twice");
            prop_assert_eq!(&set, &expected.remove(reader).unwrap_or_default());
        }
    }
}
