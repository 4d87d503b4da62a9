use super::*;
use crate::db::testing::{NOW, key, store_suite};

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
    }
}

store_suite! {
    async fn a_session_comes_back_as_it_was_and_keeps_its_first_time(db: Db) {
        let (laptop, desk) = (key(), key());
        upsert(&db, &session(laptop, NOW)).await.unwrap();
        upsert(&db, &session(desk, NOW + 1)).await.unwrap();
        let changed = SessionRecord {
            visible: false,
            summary: Some("reviewing".into()),
            hostname: None,
            proven: true,
            ..session(laptop, NOW + 2)
        };
        upsert(&db, &changed).await.unwrap();
        let back = load(&db, &"m".into(), &laptop).await.unwrap().unwrap();
        assert_eq!(back, SessionRecord { first_seen_at_ms: NOW, ..changed });
        assert_eq!(load(&db, &"m".into(), &desk).await.unwrap(), Some(session(desk, NOW + 1)), "sessions are apart");
        assert_eq!(load(&db, &"n".into(), &laptop).await.unwrap(), None);
    }

    async fn known_sessions_are_the_recent_ones(db: Db) {
        let keys = [key(), key(), key()];
        for (key, seen) in keys.iter().zip(NOW..) {
            upsert(&db, &session(*key, seen)).await.unwrap();
        }
        let known = load_known(&db, &"m".into(), NOW + 1).await.unwrap();
        assert_eq!(known.iter().map(|one| one.session_key).collect::<Vec<_>>(), [keys[2], keys[1]]);
        assert_eq!(newest_seen(&db, &"m".into()).await.unwrap(), Some(NOW + 2));
        assert_eq!(newest_seen(&db, &"n".into()).await.unwrap(), None);
        assert_eq!(forget_before(&db, NOW + 2).await.unwrap(), 2);
        assert_eq!(load_known(&db, &"m".into(), 0).await.unwrap().len(), 1);
    }
}
