use super::*;
use crate::audit::{Filter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};
use crate::features::vault::limits;

fn row(member: &str, name: &str, ciphertext: &str) -> Row {
    Row {
        mesh_id: "not looked at".into(),
        member_id: member.into(),
        name: name.into(),
        entry_type: EntryType::File.as_str().into(),
        mount_path: Some("/run/x".into()),
        description: Some("for tests".into()),
        ciphertext: ciphertext.into(),
        nonce: "nonce".into(),
        sealed_key: "sealed".into(),
        signature: Some("5e".repeat(64)),
        signed_at_ms: Some(NOW),
        size_bytes: i64::try_from(ciphertext.len()).unwrap(),
        updated_at_ms: NOW,
    }
}

fn new(member: &str, name: &str, ciphertext: &str) -> New {
    New { row: row(member, name, ciphertext), quotas: Quotas::default() }
}

fn removal(of: &str, name: &str, by: &str) -> Removal {
    Removal { of: of.into(), name: name.into(), member: by.into(), now_ms: NOW }
}

fn names(found: &Found) -> Vec<&str> {
    found.rows.iter().map(|row| row.name.as_str()).collect()
}

fn asked(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

store_suite! {
    async fn an_entry_is_kept_as_it_was_given_and_replaced_whole(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        set(&here, new("ada", "TOKEN", "c2VjcmV0")).await.unwrap();
        set(&here, new("bob", "TOKEN", "b2Y=")).await.unwrap();
        let found = get(&read, &"ada".into(), &asked(&["TOKEN", "nope"])).await.unwrap();
        assert_eq!(found.rows, [Row { mesh_id: home.id.to_string(), ..row("ada", "TOKEN", "c2VjcmV0") }]);
        // Nothing of the one before stays.
        let plain = Row { mount_path: None, description: None, signature: None, signed_at_ms: None, ..row("ada", "TOKEN", "bmV3") };
        set(&here, New { row: Row { entry_type: "env".into(), ..plain.clone() }, quotas: Quotas::default() }).await.unwrap();
        let found = get(&read, &"ada".into(), &asked(&["TOKEN"])).await.unwrap();
        assert_eq!(found.rows, [Row { mesh_id: home.id.to_string(), entry_type: "env".into(), ..plain }]);
        assert_eq!(usage(&read, None).await.unwrap(), Usage { entries: 2, bytes: 8 });
        assert_eq!(usage(&read, Some(&"bob".into())).await.unwrap(), Usage { entries: 1, bytes: 4 });
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        let stored: Vec<&str> = log.iter().filter(|entry| entry.event_type == "vault_stored").map(|entry| entry.payload.as_str()).collect();
        assert_eq!(stored.len(), 3, "{log:?}");
        assert!(stored.iter().all(|payload| payload.contains("TOKEN") && !payload.contains("c2Vj") && !payload.contains("tests")), "{stored:?}");
    }

    async fn what_is_deleted_is_gone_and_only_that(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for (member, name) in [("ada", "A"), ("ada", "B"), ("bob", "A")] {
            set(&here, new(member, name, "eHg=")).await.unwrap();
        }
        assert!(delete(&here, removal("ada", "A", "owner")).await.unwrap());
        assert!(!delete(&here, removal("ada", "A", "owner")).await.unwrap(), "it is gone");
        assert!(!delete(&here, removal("ada", "a", "owner")).await.unwrap(), "case counts");
        assert_eq!(names(&get(&read, &"ada".into(), &asked(&["A", "B"])).await.unwrap()), ["B"]);
        assert_eq!(names(&get(&read, &"bob".into(), &asked(&["A", "B"])).await.unwrap()), ["A"]);
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        let deleted: Vec<_> = log.iter().filter(|entry| entry.event_type == "vault_deleted").collect();
        assert_eq!(deleted.len(), 1);
        assert_eq!(deleted[0].actor_member_id.as_ref().map(MemberId::as_str), Some("owner"));
        assert!(deleted[0].payload.contains("ada"), "whose it was: {deleted:?}");
    }

    async fn lists_are_paged_in_the_order_of_members_and_names(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for (member, name) in [("bob", "A"), ("ada", "b.c"), ("ada", "B"), ("Zoe", "x"), ("ada", "a")] {
            set(&here, new(member, name, "eHg=")).await.unwrap();
        }
        let (mut seen, mut behind) = (Vec::new(), None);
        loop {
            let page = list(&read, None, behind.as_ref(), 2).await.unwrap();
            assert!(page.rows.len() <= 2);
            seen.extend(page.rows.into_iter().map(|row| format!("{} {}", row.member_id, row.name)));
            behind = page.next;
            if behind.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["Zoe x", "ada B", "ada a", "ada b.c", "bob A"], "by bytes, on both databases");
        let own = list(&read, Some(&"ada".into()), None, 9).await.unwrap();
        assert_eq!(own.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["B", "a", "b.c"]);
        assert_eq!((own.rows[0].description.as_deref(), own.rows[0].mount_path.as_deref()), (Some("for tests"), Some("/run/x")));
    }

    async fn values_that_do_not_fit_are_named(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let large = "x".repeat(49_152);
        let all: Vec<String> = (0..20).map(|number| format!("K{number:02}")).collect();
        for name in &all {
            set(&here, new("ada", name, &large)).await.unwrap();
        }
        let first = get(&read, &"ada".into(), &all).await.unwrap();
        assert!(!first.rows.is_empty() && !first.more.is_empty());
        let (mut seen, mut more) = (asked(&names(&first)), first.more);
        while !more.is_empty() {
            let next = get(&read, &"ada".into(), &more).await.unwrap();
            seen.extend(asked(&names(&next)));
            more = next.more;
        }
        assert_eq!(seen, all, "each once");
    }

    async fn bounds_hold_and_a_smaller_value_may_always_replace_a_larger_one(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let here = store(&db, &home.id);
        let with = |name: &str, value: &str, bounds: &[(&crate::quota::Quota, u64)]| {
            let put = |quotas: Quotas, (quota, value): &(&crate::quota::Quota, u64)| quotas.with(quota.name, *value);
            New { quotas: bounds.iter().fold(Quotas::default(), put), ..new("ada", name, value) }
        };
        let bound = |done: Result<(), WriteError<Refused>>| match done {
            Err(WriteError::Refused(Refused::Limit(bound))) => (bound.name, bound.limit, bound.used),
            other => panic!("not refused: {other:?}"),
        };
        set(&here, new("ada", "A", "aaaa")).await.unwrap();
        set(&here, new("bob", "A", "bbbb")).await.unwrap();
        for (quota, most, used) in [
            (&limits::PER_MEMBER, 1, 1),
            (&limits::PER_MESH, 2, 2),
            (&limits::BYTES_PER_MEMBER, 7, 4),
            (&limits::BYTES_PER_MESH, 11, 8),
        ] {
            let refused = bound(set(&here, with("B", "cccc", &[(quota, most)])).await);
            assert_eq!(refused, (quota.name.to_owned(), most, used));
            set(&here, with("A", "aa", &[(quota, 1)])).await.unwrap();
            set(&here, with("A", "aaaa", &[])).await.unwrap();
        }
    }
}
