use super::*;
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

fn row(id: &str, member: &str) -> Row {
    Row {
        mesh_id: String::new(),
        id: id.into(),
        member_id: member.into(),
        label: "ci".into(),
        prefix: "cm_12345678".into(),
        secret_hash: format!("hash of {id}"),
        capabilities: r#"["read","unheard_of"]"#.into(),
        topic_scopes: Some(r#"["plans"]"#.into()),
        created_at_ms: NOW,
        expires_at_ms: Some(NOW + 9),
        last_used_at_ms: None,
        revoked_at_ms: None,
    }
}

store_suite! {
    async fn a_key_is_found_by_its_hash_until_it_is_revoked(db: Db) {
        let (here, _) = mesh(&db, "here", key()).await;
        let (own, by) = (store(&db, &here.id), By::nobody(NOW + 5));
        for id in ["one", "two", "three"] {
            create(&own, &row(id, if id == "three" { "eve" } else { "ada" }), &by).await.unwrap();
        }
        assert!(create(&own, &row("one", "ada"), &by).await.is_err(), "ids are unique");
        let double = Row { secret_hash: "hash of one".into(), ..row("four", "ada") };
        assert!(create(&own, &double, &by).await.is_err(), "secrets are unique");
        let found = by_hash(&db, "hash of one").await.unwrap();
        assert_eq!(found, Some((here.id.clone(), "one".to_owned())));
        assert_eq!(by_hash(&db, "one").await.unwrap(), None);
        assert!(revoke(&own, "one", &by).await.unwrap());
        assert!(!revoke(&own, "one", &by).await.unwrap());
        assert_eq!(by_hash(&db, "hash of one").await.unwrap(), None);
        note_uses(&own, vec![("two".into(), NOW + 7)]).await.unwrap();
        let rows = list(&of(&db, &here.id), Some(&"ada".into())).await.unwrap();
        let told: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.last_used_at_ms, row.revoked_at_ms)).collect();
        assert_eq!(told, [("one", None, Some(NOW + 5)), ("two", Some(NOW + 7), None)]);
        assert_eq!(revoke_all(&own, &"ada".into(), &by).await.unwrap(), 1);
        assert_eq!(list(&of(&db, &here.id), None).await.unwrap().len(), 3);
        let state = rows[1].state();
        assert_eq!((state.capabilities, state.scopes), (vec![KeyCapability::Read], Some(vec!["plans".to_owned()])));
    }
}
