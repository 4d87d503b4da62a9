use super::*;
use crate::audit::{Filter, query};
use crate::db::sessions::{SessionRecord, SessionsPart};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};
use crate::journal::{Batch, write_batch};
use claudemesh_protocol::features::presence::{PeerStatus, Profile, Stats};
use std::sync::Arc;

fn new(session: &str, summary: &str) -> New {
    New {
        session: session.into(),
        member: "ada".into(),
        peer_name: "Ada".into(),
        session_name: session.to_uppercase(),
        summary: summary.into(),
        files: vec!["src/auth.ts".into()],
        findings: vec!["tokens live 15 minutes".into()],
        tags: vec!["login".into()],
        size_bytes: 60,
        now_ms: NOW,
        quotas: Quotas::default(),
    }
}

fn summaries(page: &Page) -> Vec<&str> {
    page.rows.iter().map(|(row, _)| row.summary.as_str()).collect()
}

store_suite! {
    async fn a_session_has_one_context_that_is_found_by_all_that_is_in_it(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let first = share(&here, new("one", "Refactoring the authentication")).await.unwrap();
        share(&here, New { files: vec!["README".into()], findings: vec![], tags: vec![], ..new("two", "Writing the manual") }).await.unwrap();
        let again = share(&here, New { now_ms: NOW + 9, ..new("one", "Testing the authentication") }).await.unwrap();
        assert_eq!(first, again, "the id stays");
        assert_eq!(summaries(&list(&read, None, 9).await.unwrap()), ["Testing the authentication", "Writing the manual"]);
        for (words, expected) in [
            ("authenticating", vec!["Testing the authentication"]),
            ("src/auth.ts", vec!["Testing the authentication"]),
            ("\"15 minutes\" login", vec!["Testing the authentication"]),
            ("readme -login", vec!["Writing the manual"]),
            ("refactoring", vec![]),
        ] {
            assert_eq!(summaries(&find(&read, Query::parse(words), 0, 9).await.unwrap()), expected, "{words}");
        }
        assert_eq!(unmatched(&read, &Query::parse("refactoring login")).await.unwrap(), ["refactoring"]);
        let page = list(&read, None, 1).await.unwrap();
        let rest = list(&read, page.next.as_deref(), 1).await.unwrap();
        assert_eq!((summaries(&rest), &rest.next), (vec!["Writing the manual"], &None));
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        assert!(log.iter().filter(|entry| entry.event_type == "context_shared").count() == 3 && !format!("{log:?}").contains("Testing"));
        let small = Quotas::default().with(PER_MEMBER.name, 2);
        let third = share(&here, New { quotas: small.clone(), ..new("three", "x") }).await;
        assert!(matches!(third, Err(WriteError::Refused(Refused::Limit(bound))) if (bound.limit, bound.used) == (2, 2)));
        share(&here, New { quotas: small, ..new("two", "in place of the one before") }).await.unwrap();
        assert_eq!((count(&read, None).await.unwrap(), count(&read, Some(&"bob".into())).await.unwrap()), (2, 0));
    }

    async fn a_context_stays_30_days_after_its_session_was_there(db: Db) {
        let (home, owner) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let living = key();
        let record = SessionRecord {
            mesh_id: home.id.clone(),
            session_key: living,
            member_id: owner.id.clone(),
            session_id: "s".into(),
            display_name: "Ada".into(),
            cwd: "/".into(),
            hostname: None,
            groups: vec![],
            profile: Profile::default(),
            visible: true,
            summary: None,
            status: PeerStatus::Idle,
            stats: Stats::default(),
            first_seen_at_ms: NOW,
            last_seen_at_ms: NOW + KEPT_MS,
            proven: true,
            renamed_from: None,
        };
        let mut batch = Batch::default();
        *batch.part() = SessionsPart { sessions: vec![record], stats: vec![], last_seen: vec![] };
        write_batch(&db, Arc::new(batch)).await.unwrap();
        share(&here, new("gone", "gone")).await.unwrap();
        share(&here, new(&living.to_hex(), "living")).await.unwrap();
        share(&here, New { now_ms: NOW + 1, ..new("younger", "younger") }).await.unwrap();
        assert_eq!(purge(&db, NOW + KEPT_MS).await.unwrap(), 0);
        assert_eq!(purge(&db, NOW + KEPT_MS + 1).await.unwrap(), 1);
        assert_eq!(summaries(&list(&read, None, 9).await.unwrap()), ["younger", "living"]);
        assert!(find(&read, Query::parse("gone"), 0, 9).await.unwrap().rows.is_empty(), "nor is it in the index");
        assert_eq!(purge(&db, NOW + 2 * KEPT_MS + 1).await.unwrap(), 2);
    }
}
