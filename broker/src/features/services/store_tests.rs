use super::*;
use crate::audit::{Filter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

fn row(member: &str, name: &str) -> Row {
    Row {
        name: name.into(),
        member_id: member.into(),
        deployed_by: "Ada".into(),
        description: "d".into(),
        source: r#"{"type":"npx","package":"p"}"#.into(),
        config: r#"{"env":{"LANG":"C"}}"#.into(),
        sealed: "[]".into(),
        scope: r#""mesh""#.into(),
        audience: "[]".into(),
        status: "building".into(),
        tools: "[]".into(),
        revision: 1,
        size_bytes: 60,
        created_at_ms: NOW,
        updated_at_ms: NOW,
        ..Row::default()
    }
}

fn told(event: &'static str) -> Told {
    Told { by: By::member(&"ada".into(), NOW), event, payload: json!({"service": "a"}) }
}

async fn names(db: &MeshDb) -> Vec<String> {
    load(db).await.unwrap().into_iter().map(|row| row.name).collect()
}

store_suite! {
    async fn a_service_is_kept_replaced_whole_and_removed(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        put(&here, row("ada", "b"), told("mcp_deployed")).await.unwrap();
        put(&here, row("ada", "a"), told("mcp_deployed")).await.unwrap();
        assert_eq!(load(&read).await.unwrap()[0], Row { mesh_id: home.id.to_string(), ..row("ada", "a") });
        let other = Row {
            status: "failed".into(),
            error: Some("it ended".into()),
            runtime: Some("node".into()),
            pending: Some(3),
            revision: 2,
            tools: r#"[{"name":"x"}]"#.into(),
            ..row("ada", "a")
        };
        put(&here, other.clone(), told("mcp_deploy_failed")).await.unwrap();
        assert_eq!(load(&read).await.unwrap()[0], Row { mesh_id: home.id.to_string(), ..other });
        // Nothing of it stays.
        put(&here, row("ada", "a"), told("mcp_deployed")).await.unwrap();
        assert_eq!(load(&read).await.unwrap()[0], Row { mesh_id: home.id.to_string(), ..row("ada", "a") });
        let remove = |name: &str| remove(&here, name.into(), "ada".into(), By::member(&"owner".into(), NOW));
        assert!(remove("a").await.unwrap());
        assert!(!remove("a").await.unwrap(), "it is gone");
        assert_eq!(names(&read).await, ["b"]);
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        let told: Vec<&str> = log.iter().rev().skip(1).map(|entry| entry.event_type.as_str()).collect();
        assert_eq!(told, ["mcp_deployed", "mcp_deployed", "mcp_deploy_failed", "mcp_deployed", "mcp_undeployed"]);
        assert_eq!(log[0].payload, r#"{"owner":"ada","service":"a"}"#);
        assert_eq!(log[0].actor_member_id, Some("owner".into()));
    }

    async fn a_scope_is_changed_by_itself_and_stays_when_the_rest_is_replaced(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        put(&here, row("ada", "a"), told("mcp_deployed")).await.unwrap();
        let scope = |name: &str, created_at_ms: i64| {
            let texts = (r#"{"peers":["Bob"]}"#.to_owned(), r#"["bob"]"#.to_owned());
            set_scope(&here, (name.to_owned(), created_at_ms), texts, told("mcp_scope_changed"))
        };
        assert!(scope("a", NOW).await.unwrap());
        assert!(!scope("b", NOW).await.unwrap());
        assert!(!scope("a", NOW - 1).await.unwrap(), "one that was there before");
        put(&here, Row { status: "running".into(), ..row("ada", "a") }, told("mcp_deployed")).await.unwrap();
        let found = load(&read).await.unwrap().remove(0);
        assert_eq!((found.scope.as_str(), found.audience.as_str()), (r#"{"peers":["Bob"]}"#, r#"["bob"]"#));
        assert_eq!(found.status, "running");
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        assert_eq!(log.iter().filter(|entry| entry.event_type == "mcp_scope_changed").count(), 1);
    }

    async fn the_services_of_a_member_go_with_it(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for (member, name) in [("ada", "a"), ("ada", "b"), ("bob", "c")] {
            put(&here, row(member, name), told("mcp_deployed")).await.unwrap();
        }
        assert_eq!(remove_of(&here, "ada".into()).await.unwrap(), 2);
        assert_eq!(remove_of(&here, "ada".into()).await.unwrap(), 0);
        assert_eq!(names(&read).await, ["c"]);
    }
}
