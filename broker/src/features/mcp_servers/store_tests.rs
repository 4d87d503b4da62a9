use super::*;
use crate::audit::{Filter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

fn row(name: &str) -> Row {
    Row {
        name: name.into(),
        member_id: "ada".into(),
        hosted_by: "Ada".into(),
        session_ref: "5e".repeat(32),
        description: "d".into(),
        tools: r#"[{"name":"add"}]"#.into(),
        size_bytes: 17,
        created_at_ms: NOW,
        updated_at_ms: NOW,
        ..Row::default()
    }
}

fn kept(row: Row) -> Registration {
    Registration { row, persistent: true, again: false, tools: 1 }
}

async fn names(db: &MeshDb) -> Vec<(String, Option<i64>)> {
    load(db).await.unwrap().into_iter().map(|row| (row.name, row.offline_since_ms)).collect()
}

store_suite! {
    async fn a_server_is_kept_replaced_and_removed(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        register(&here, kept(row("b"))).await.unwrap();
        register(&here, kept(row("a"))).await.unwrap();
        assert_eq!(load(&read).await.unwrap()[0], Row { mesh_id: home.id.to_string(), ..row("a") });
        let other = Row { description: "other".into(), hosted_by: "Bob".into(), updated_at_ms: NOW + 1, ..row("a") };
        register(&here, kept(other.clone())).await.unwrap();
        assert_eq!(load(&read).await.unwrap()[0], Row { mesh_id: home.id.to_string(), ..other });
        set_offline(&here, vec!["a".into(), "none".into()], Some(NOW + 5)).await.unwrap();
        assert_eq!(names(&read).await, [("a".into(), Some(NOW + 5)), ("b".into(), None)]);
        // It runs again, and is no longer kept.
        register(&here, Registration { again: true, ..kept(row("a")) }).await.unwrap();
        assert_eq!(names(&read).await, [("a".into(), None), ("b".into(), None)]);
        register(&here, Registration { persistent: false, ..kept(row("a")) }).await.unwrap();
        unregister(&here, "b".into(), "ada".into(), By::member(&"bob".into(), NOW)).await.unwrap();
        assert_eq!(names(&read).await, []);
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        let told: Vec<_> = log.iter().rev().skip(1).map(|entry| (entry.event_type.as_str(), entry.payload.as_str())).collect();
        let registered = |name: &str, kept: bool| format!(r#"{{"persistent":{kept},"server":"{name}","tools":1}}"#);
        assert_eq!(told, [
            ("mcp_registered", registered("b", true).as_str()),
            ("mcp_registered", registered("a", true).as_str()),
            ("mcp_registered", registered("a", true).as_str()),
            ("mcp_registered", registered("a", false).as_str()),
            ("mcp_unregistered", r#"{"owner":"ada","server":"b"}"#),
        ]);
    }

    async fn the_servers_of_a_member_go_with_it(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for name in ["a", "b"] {
            register(&here, kept(row(name))).await.unwrap();
        }
        register(&here, kept(Row { member_id: "bob".into(), ..row("c") })).await.unwrap();
        assert_eq!(remove_of(&here, "ada".into()).await.unwrap(), 2);
        assert_eq!(remove_of(&here, "ada".into()).await.unwrap(), 0);
        assert_eq!(names(&read).await, [("c".into(), None)]);
    }
}
