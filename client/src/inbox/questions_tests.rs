use std::path::Path;

use super::answers::AnswerClaim;
use super::pending_waits::{Asked, Taken};
use super::questions::{MAX_STOP_BLOCKS, QUESTION, QUESTION_TTL_MS, Question, QuestionState, REPLY};
use super::tests::{mail, up_to};
use super::*;

const ANN: &str = "aa";
const BOB: &str = "bb";

fn message(id: &str, subtype: Option<&str>, reply_to: Option<&str>, from: &str, now_ms: i64) -> NewMessage {
    NewMessage {
        message_id: id.into(),
        client_message_id: None,
        sender_pubkey: from.into(),
        sender_member: format!("{from}-member"),
        sender_name: None,
        sender_member_name: None,
        sender_hostname: None,
        sender_cwd: None,
        target_spec: None,
        kind: Kind::Direct.as_str().into(),
        recipient_kind: RecipientKind::Session.as_str().into(),
        recipient_pubkey: None,
        topic: None,
        reply_to_id: reply_to.map(Into::into),
        priority: "now".into(),
        subtype: subtype.map(Into::into),
        event: None,
        event_data: None,
        trace_id: None,
        trace_hop: 0,
        body: Some(format!("text of {id}")),
        created_at: "2026-01-01T00:00:00.000Z".into(),
        received_at_ms: now_ms,
    }
}

fn question(id: &str, now_ms: i64) -> NewMessage {
    message(id, Some(QUESTION), None, ANN, now_ms)
}

fn open(dir: &Path) -> Inbox {
    Inbox::open(dir, &"mesh1".into()).unwrap()
}

fn ids(list: &[Question]) -> Vec<&str> {
    list.iter().map(|question| question.message.message_id.as_str()).collect()
}

fn states(inbox: &mut Inbox, now_ms: i64) -> Vec<QuestionState> {
    inbox.person().questions(true, now_ms).unwrap().iter().map(|question| question.state).collect()
}

#[test]
fn only_readable_direct_questions_of_this_reader_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let now = crate::clock::now_ms();
    let broadcast = NewMessage { kind: Kind::Broadcast.as_str().into(), ..question("q-all", now) };
    let sealed = NewMessage { body: None, ..question("q-sealed", now) };
    let all = [question("q1", now), message("m1", None, None, ANN, now), broadcast, sealed, question("q2", now)];
    inbox.store("s1", &all).unwrap();
    inbox.store("s2", &[question("q3", now), question("q2", now)]).unwrap();
    assert_eq!(ids(&mail(&mut inbox, "s1").pending_questions(10).unwrap()), ["q1", "q2"]);
    assert_eq!(ids(&mail(&mut inbox, "s1").pending_questions(1).unwrap()), ["q1"]);
    assert_eq!(ids(&mail(&mut inbox, "s2").pending_questions(10).unwrap()), ["q2", "q3"]);
    assert_eq!(ids(&inbox.person().questions(false, now).unwrap()), ["q1", "q2", "q3"]);
    // Asking for the list marks nothing.
    assert_eq!(mail(&mut inbox, "s1").count_unshown().unwrap(), 5);
}

#[test]
fn what_the_rule_has_not_looked_at_or_holds_asks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let now = crate::clock::now_ms();
    inbox.store("s1", &[question("q1", now), question("q2", now)]).unwrap();
    let shown = |inbox: &mut Inbox| {
        let mut mail = Mail::new(inbox, "s1");
        let newest = mail.newest_unshown().unwrap().map(|message| message.message_id);
        (mail.pending_questions(10).unwrap().len(), mail.questions(true, now).unwrap().len(), newest)
    };
    assert_eq!(shown(&mut inbox), (0, 0, None));
    assert_eq!(Mail::new(&mut inbox, "s1").poll_questions(true, 10, "pull", now).unwrap(), (vec![], 0));
    assert!(Mail::new(&mut inbox, "s1").block_for_questions(now).unwrap().blocking.is_empty());
    assert!(Mail::new(&mut inbox, "s1").claim("channel", &up_to(10), now).unwrap().is_empty());
    let seqs: Vec<i64> = inbox.undecided("s1").unwrap().iter().map(|message| message.seq).collect();
    inbox.decide("s1", &[(seqs[0], Verdict::Accept), (seqs[1], Verdict::Hold)], now).unwrap();
    assert_eq!(shown(&mut inbox), (1, 1, Some("q1".into())));
}

#[test]
fn a_question_blocks_twice_and_is_declined_then_for_that_reader_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s1", &[question("q1", 0)]).unwrap();
    inbox.store("s2", &[question("q1", 0)]).unwrap();
    for round in 1..=MAX_STOP_BLOCKS {
        let blocking = mail(&mut inbox, "s1").block_for_questions(10).unwrap().blocking;
        assert_eq!((ids(&blocking), blocking[0].stop_blocks), (vec!["q1"], round));
    }
    // It was in the reason, so the channel does not show it too.
    assert!(mail(&mut inbox, "s1").claim("channel", &up_to(10), 11).unwrap().is_empty());
    inbox.store("s1", &[question("q2", 0)]).unwrap();
    assert_eq!(ids(&mail(&mut inbox, "s1").block_for_questions(10).unwrap().blocking), ["q2"]);
    assert_eq!(ids(&mail(&mut inbox, "s1").block_for_questions(10).unwrap().blocking), ["q2"]);
    assert!(mail(&mut inbox, "s1").block_for_questions(10).unwrap().blocking.is_empty());
    assert_eq!(states(&mut inbox, 10), [QuestionState::Declined, QuestionState::Declined]);
    assert_eq!(ids(&mail(&mut inbox, "s2").block_for_questions(10).unwrap().blocking), ["q1"]);
    // Declined is not closed: it can still be answered.
    let seq = inbox.find("q1").unwrap().unwrap().seq;
    assert!(matches!(inbox.begin_answer(seq, 20).unwrap(), AnswerClaim::Granted(_)));
}

#[test]
fn a_flood_of_questions_cannot_hold_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let flood: Vec<NewMessage> = (0..500).map(|number| question(&format!("q{number}"), 0)).collect();
    inbox.store("s1", &flood).unwrap();
    assert_eq!(mail(&mut inbox, "s1").block_for_questions(10).unwrap().blocking.len(), 500);
    assert_eq!(mail(&mut inbox, "s1").block_for_questions(10).unwrap().blocking.len(), 500);
    assert!(mail(&mut inbox, "s1").block_for_questions(10).unwrap().blocking.is_empty());
}

#[test]
fn questions_expire() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s1", &[question("q1", 1_000)]).unwrap();
    assert_eq!(states(&mut inbox, QUESTION_TTL_MS), [QuestionState::Pending]);
    assert_eq!(states(&mut inbox, QUESTION_TTL_MS + 1_000), [QuestionState::Expired]);
    assert!(mail(&mut inbox, "s1").block_for_questions(QUESTION_TTL_MS + 1_000).unwrap().blocking.is_empty());
    assert!(mail(&mut inbox, "s1").pending_questions(10).unwrap().is_empty(), "1970 is long ago");
}

#[test]
fn polling_gives_each_text_once_and_counts_what_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    inbox.store("s1", &[question("q1", 0), question("q2", 0)]).unwrap();
    let (first, others) = mail(&mut inbox, "s1").poll_questions(false, 1, "pull", 10).unwrap();
    assert_eq!((ids(&first), others), (vec!["q1"], 1));
    let (second, others) = mail(&mut inbox, "s1").poll_questions(false, 10, "pull", 10).unwrap();
    assert_eq!((ids(&second), others), (vec!["q2"], 1));
    assert_eq!(mail(&mut inbox, "s1").poll_questions(false, 10, "pull", 10).unwrap(), (vec![], 2));
    assert_eq!(mail(&mut inbox, "s1").poll_questions(true, 10, "pull", 10).unwrap().0.len(), 2);
    assert!(mail(&mut inbox, "s1").claim("channel", &up_to(10), 11).unwrap().is_empty());
    assert_eq!(states(&mut inbox, 10), [QuestionState::Delivered, QuestionState::Delivered]);
    // The channel showed it, but channels lose notes without a word: a poll gives it all the same.
    inbox.store("s1", &[question("q3", 0)]).unwrap();
    assert_eq!(mail(&mut inbox, "s1").claim("channel", &up_to(10), 11).unwrap().len(), 1);
    assert_eq!(ids(&mail(&mut inbox, "s1").poll_questions(false, 10, "pull", 12).unwrap().0), ["q3"]);
}

#[test]
fn one_answer_per_question_over_processes_and_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (open(dir.path()), open(dir.path()));
    one.store("s1", &[question("q1", 0)]).unwrap();
    let seq = one.person().questions(true, 0).unwrap()[0].message.seq;
    let AnswerClaim::Granted(key) = one.begin_answer(seq, 1_000).unwrap() else { panic!("no one has answered") };
    assert_eq!(two.begin_answer(seq, 2_000).unwrap(), AnswerClaim::UnderWay);
    // The first process died: the next one takes over, under the same key.
    assert_eq!(two.begin_answer(seq, 40_000).unwrap(), AnswerClaim::Granted(key.clone()));
    // The outcome is open: at once again, same key. Refused: at once again, a new message.
    two.give_up_answer(seq, true).unwrap();
    assert_eq!(one.begin_answer(seq, 40_001).unwrap(), AnswerClaim::Granted(key.clone()));
    one.give_up_answer(seq, false).unwrap();
    let AnswerClaim::Granted(fresh) = one.begin_answer(seq, 40_002).unwrap() else { panic!("given up") };
    assert_ne!(fresh, key);
    // A clock that goes back does not lock it.
    assert_eq!(two.begin_answer(seq, 10).unwrap(), AnswerClaim::Granted(fresh));
    one.finish_answer(seq, false, 50_000).unwrap();
    assert_eq!(two.begin_answer(seq, 60_000).unwrap(), AnswerClaim::Answered(50_000));
    two.give_up_answer(seq, false).unwrap();
    assert_eq!(two.begin_answer(seq, 60_000).unwrap(), AnswerClaim::Answered(50_000), "an answer stays given");
    assert_eq!(states(&mut two, 60_000), [QuestionState::Answered]);
    assert!(mail(&mut one, "s1").block_for_questions(10).unwrap().blocking.is_empty());
}

#[test]
fn a_wait_takes_the_answer_of_whom_it_asked_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let asked = Asked { key: BOB.into(), member: format!("{BOB}-member") };
    let take = |inbox: &mut Inbox| inbox.take_for_wait("s1", "q1", &asked, false, "ask", 5).unwrap();
    let next = |inbox: &mut Inbox| inbox.take_for_wait("s1", "q9", &asked, false, "ask", 5).unwrap();
    inbox
        .store(
            "s1",
            &[
                message("forged", Some(REPLY), Some("q1"), ANN, 0),
                message("other", Some(REPLY), Some("q2"), BOB, 0),
                message("plain", None, None, BOB, 0),
                question("of-ann", 0),
            ],
        )
        .unwrap();
    assert_eq!(take(&mut inbox), None);
    inbox.store("s1", &[message("counter", Some(QUESTION), None, BOB, 0)]).unwrap();
    inbox.store("s1", &[message("answer", None, Some("q1"), BOB, 0)]).unwrap();
    inbox.store("s2", &[message("answer", None, Some("q1"), BOB, 0)]).unwrap();
    // The answer goes before the question that came with it.
    let Some(Taken::Answer(answer)) = take(&mut inbox) else { panic!("there is an answer") };
    assert_eq!(answer.message_id, "answer");
    assert!(matches!(next(&mut inbox), Some(Taken::CounterQuestion(message)) if message.message_id == "counter"));
    assert_eq!(next(&mut inbox), None);
    assert!(
        mail(&mut inbox, "s1")
            .poll_questions(false, 10, "pull", 6)
            .unwrap()
            .0
            .iter()
            .all(|one| one.message.message_id != "counter")
    );
    inbox.give_back("s1", answer.seq).unwrap();
    let left: Vec<String> = mail(&mut inbox, "s1")
        .claim("channel", &up_to(10), 6)
        .unwrap()
        .into_iter()
        .map(|message| message.message_id)
        .collect();
    assert_eq!(left, ["forged", "other", "plain", "answer"], "the rest arrives like any message");
    assert_eq!(mail(&mut inbox, "s2").count_unshown().unwrap(), 1);
}

#[test]
fn no_route_shows_what_a_wait_of_this_process_may_end_with() {
    let dir = tempfile::tempdir().unwrap();
    let (mut inbox, mut hook) = (open(dir.path()), open(dir.path()));
    let claim = |inbox: &mut Inbox| -> Vec<String> {
        let claimed = mail(inbox, "s1").claim("channel", &up_to(10), 6).unwrap();
        claimed.into_iter().map(|message| message.message_id).collect()
    };
    let asked = Asked { key: BOB.into(), member: format!("{BOB}-member") };
    let awaits = inbox.pending_waits();
    // The question is being sent, its id is not known: every question and answer of that peer may concern it.
    let number = awaits.add(asked.clone());
    let news = [
        message("answer", Some(REPLY), Some("q1"), BOB, 0),
        message("other", Some(REPLY), Some("q2"), BOB, 0),
        message("plain", None, None, BOB, 0),
        message("of-ann", Some(REPLY), Some("q1"), ANN, 0),
    ];
    inbox.store("s1", &news).unwrap();
    assert_eq!(claim(&mut inbox), ["plain", "of-ann"]);
    awaits.name(number, "q1");
    assert_eq!(claim(&mut inbox), ["other"]);
    // Another process does not know of the wait and shows the answer; it ends the wait all the same.
    assert_eq!(claim(&mut hook), ["answer"]);
    assert!(matches!(inbox.take_for_wait("s1", "q1", &asked, false, "ask", 7).unwrap(), Some(Taken::Answer(_))));
    inbox.store("s1", &[message("late", Some(REPLY), Some("q1"), BOB, 0)]).unwrap();
    assert!(claim(&mut inbox).is_empty());
    awaits.remove(number);
    assert_eq!(claim(&mut inbox), ["late"]);
}

#[test]
fn what_the_rule_holds_or_has_not_seen_ends_no_wait_of_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let asked = Asked { key: BOB.into(), member: format!("{BOB}-member") };
    let take = |inbox: &mut Inbox, ruled: bool| inbox.take_for_wait("s1", "q1", &asked, ruled, "ask", 5).unwrap();
    inbox.store("s1", &[message("answer", Some(REPLY), Some("q1"), BOB, 0)]).unwrap();
    let seq = inbox.undecided("s1").unwrap()[0].seq;
    assert_eq!(take(&mut inbox, true), None, "not looked at yet");
    inbox.decide("s1", &[(seq, Verdict::Hold)], 1).unwrap();
    assert_eq!((take(&mut inbox, true), take(&mut inbox, false)), (None, None));
    inbox.settle_held(&[seq], Verdict::Accept, 2).unwrap();
    assert!(matches!(take(&mut inbox, true), Some(Taken::Answer(_))));
}

#[test]
fn the_member_may_answer_from_anywhere_but_only_the_asked_peer_interrupts() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbox = open(dir.path());
    let session = Asked { key: "another-session".into(), member: format!("{BOB}-member") };
    let member = Asked { key: format!("{BOB}-member"), member: format!("{BOB}-member") };
    inbox.store("s1", &[message("counter", Some(QUESTION), None, BOB, 0)]).unwrap();
    assert_eq!(inbox.take_for_wait("s1", "q1", &session, false, "ask", 5).unwrap(), None);
    assert!(matches!(
        inbox.take_for_wait("s1", "q1", &member, false, "ask", 5).unwrap(),
        Some(Taken::CounterQuestion(_))
    ));
    inbox.store("s1", &[message("answer", Some(REPLY), Some("q1"), BOB, 0)]).unwrap();
    assert!(matches!(inbox.take_for_wait("s1", "q1", &session, false, "ask", 5).unwrap(), Some(Taken::Answer(_))));
}
