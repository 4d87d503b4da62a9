use claudemesh_protocol::crypto::keys::SecretKey;

use super::*;

fn reader(seed: u8, session: &str, verified: bool) -> Reader {
    Reader {
        mesh: "m".into(),
        slug: "team".into(),
        member: SecretKey::from_seed([seed; 32]).public(),
        session: session.into(),
        name: "Ann".into(),
        verified,
    }
}

fn file(path: &str) -> Access {
    Access { list: false, path: path.into() }
}

fn asked(folder: &Folder, reader: &Reader, path: &str) -> OpenQuestion {
    match folder.look(reader, &file(path), Instant::now()) {
        Verdict::Asked(question) => question,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_consent_holds_for_what_was_said_and_no_longer() {
    let folder = Folder::default();
    let (ann, ann_2, ben) = (reader(1, "s1", true), reader(1, "s2", true), reader(2, "s3", true));
    let look = |who: &Reader, path: &str| folder.look(who, &file(path), Instant::now());
    let question = asked(&folder, &ann, "a");
    // One question for each member, whichever file.
    assert!(matches!(look(&ann_2, "b"), Verdict::Waits));
    folder.apply(&question, Decision::Allow(Scope::Once), Instant::now());
    assert!(matches!(look(&ann, "a"), Verdict::Allowed), "all parts of it");
    let list = Access { list: true, path: "a".into() };
    assert!(matches!(folder.look(&ann, &list, Instant::now()), Verdict::Asked(_)));
    tokio::time::advance(ONCE_TTL).await;
    assert!(matches!(look(&ann, "a"), Verdict::Waits));
    let question = folder.state().open[0].clone();
    folder.apply(&question, Decision::Allow(Scope::Session), Instant::now());
    assert!(matches!(look(&ann, "whatever"), Verdict::Allowed));
    let second = asked(&folder, &ann_2, "a");
    folder.apply(&second, Decision::Deny, Instant::now());
    assert!(matches!(look(&ann_2, "b"), Verdict::Denied));
    assert!(matches!(look(&ann, "b"), Verdict::Allowed), "who may read still may");
    assert!(matches!(look(&ben, "b"), Verdict::Asked(_)));
    tokio::time::advance(DENIED_TTL).await;
    assert!(matches!(look(&ann_2, "b"), Verdict::Asked(_)), "a denial is not for ever");
    assert_eq!(folder.revoke(&ann.member), 1);
    assert!(!matches!(look(&ann, "b"), Verdict::Allowed));
}

#[tokio::test(start_paused = true)]
async fn the_brokers_word_is_never_taken_for_a_members() {
    let folder = Folder::default();
    let (sealed, plain) = (reader(1, "s1", true), reader(1, "s1", false));
    let question = asked(&folder, &sealed, "a");
    folder.apply(&question, Decision::Allow(Scope::Session), Instant::now());
    assert!(matches!(folder.look(&plain, &file("a"), Instant::now()), Verdict::Asked(_)));
    let other = Reader { mesh: "n".into(), ..sealed };
    assert!(matches!(folder.look(&other, &file("a"), Instant::now()), Verdict::Asked(_)), "nor in another mesh");
}

#[tokio::test(start_paused = true)]
async fn questions_are_bounded_and_end() {
    let folder = Folder::default();
    let now = Instant::now();
    for seed in 0..16 {
        asked(&folder, &reader(seed, "s", true), "a");
    }
    assert!(matches!(folder.look(&reader(99, "s", true), &file("a"), now), Verdict::Full));
    tokio::time::advance(QUESTION_TTL).await;
    asked(&folder, &reader(99, "s", true), "a");
    assert_eq!(folder.state().open.len(), 1);
    assert!(folder.is_fresh("x") && !folder.is_fresh("x"));
    for number in 0..MAX_SEEN {
        assert!(folder.is_fresh(&number.to_string()));
    }
    assert_eq!(folder.state().seen.len(), MAX_SEEN);
}
