use super::*;
use std::sync::Arc;

use crate::db::testing::{NOW, key, of, store_suite};
use crate::journal::{Batch, write_batch};

fn session(key: PublicKey, seen: i64) -> SessionRecord {
    SessionRecord {
        mesh_id: "m".into(),
        session_key: key,
        member_id: "ada".into(),
        session_id: "s1".into(),
        display_name: "Ada".into(),
        cwd: "/src".into(),
        hostname: Some("laptop".into()),
        groups: vec![Group { name: "a/b".into(), role: Some("lead".into()) }],
        profile: Profile { title: Some("Reviewer".into()), ..Profile::default() },
        visible: true,
        summary: None,
        status: PeerStatus::Working,
        stats: Stats { messages_in: Some(2.0), ..Stats::default() },
        first_seen_at_ms: seen,
        last_seen_at_ms: seen,
        proven: false,
        renamed_from: None,
    }
}

async fn put(db: &Db, session: SessionRecord) {
    let part = SessionsPart { sessions: vec![session], ..SessionsPart::default() };
    write_batch(db, Arc::new(Batch::of(part))).await.unwrap();
}

store_suite! {
    async fn a_session_comes_back_as_it_was_and_keeps_its_first_time(db: Db) {
        let (laptop, desk) = (key(), key());
        put(&db, session(laptop, NOW).clone()).await;
        put(&db, session(desk, NOW + 1).clone()).await;
        let changed = SessionRecord {
            visible: false,
            summary: Some("reviewing".into()),
            hostname: None,
            proven: true,
            ..session(laptop, NOW + 2)
        };
        put(&db, changed.clone()).await;
        let back = load(&of(&db, &"m".into()), &laptop).await.unwrap().unwrap();
        assert_eq!(back, SessionRecord { first_seen_at_ms: NOW, ..changed });
        assert_eq!(load(&of(&db, &"m".into()), &desk).await.unwrap(), Some(session(desk, NOW + 1)), "sessions are apart");
        assert_eq!(load(&of(&db, &"n".into()), &laptop).await.unwrap(), None);
    }

    async fn known_sessions_are_the_recent_ones(db: Db) {
        let keys = [key(), key(), key()];
        for (key, seen) in keys.iter().zip(NOW..) {
            put(&db, session(*key, seen).clone()).await;
        }
        let known = load_known(&of(&db, &"m".into()), NOW + 1).await.unwrap();
        assert_eq!(known.iter().map(|one| one.session_key).collect::<Vec<_>>(), [keys[2], keys[1]]);
        assert_eq!(newest_seen(&of(&db, &"m".into())).await.unwrap(), Some(NOW + 2));
        assert_eq!(newest_seen(&of(&db, &"n".into())).await.unwrap(), None);
        assert_eq!(forget_before(&db, NOW + 2).await.unwrap(), 2);
        assert_eq!(load_known(&of(&db, &"m".into()), 0).await.unwrap().len(), 1);
    }
}
