use super::*;
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

fn topic(mesh: &MeshId, id: &str, name: &str) -> Topic {
    Topic {
        id: id.into(),
        mesh_id: mesh.clone(),
        name: name.into(),
        description: Some("talk".into()),
        visibility: Visibility::Private,
        created_by: "ada".into(),
        created_at_ms: NOW,
        retention_ms: None,
    }
}

store_suite! {
    async fn a_topic_is_created_once_per_name_and_mesh(db: Db) {
        let (here, _) = mesh(&db, "here", key()).await;
        let (there, _) = mesh(&db, "there", key()).await;
        let general = topic(&here.id, "t1", "general");
        assert_eq!(create(&store(&db, &general.mesh_id), &general).await.unwrap(), (general.clone(), true));
        assert_eq!(create(&store(&db, &here.id), &topic(&here.id, "t2", "general")).await.unwrap(), (general.clone(), false));
        assert!(create(&store(&db, &there.id), &topic(&there.id, "t3", "general")).await.unwrap().1);
        create(&store(&db, &here.id), &topic(&here.id, "t4", "Build")).await.unwrap();
        let names = load_all(&of(&db, &here.id)).await.unwrap().into_iter().map(|topic| topic.name).collect::<Vec<_>>();
        assert_eq!(names, ["Build", "general"]);
        let leads = members(&of(&db, &here.id), &general.id).await.unwrap();
        assert_eq!((leads.len(), leads[0].role.as_str()), (1, "lead"));
    }

    async fn subscribers_join_once_and_read_forward(db: Db) {
        let (mesh, _) = mesh(&db, "here", key()).await;
        let (id, bob): (TopicId, MemberId) = ("t".into(), "bob".into());
        create(&store(&db, &mesh.id), &topic(&mesh.id, "t", "general")).await.unwrap();
        join(&store(&db, &mesh.id), &id, &bob, None, 7, NOW + 1).await.unwrap();
        assert!(mark_read(&store(&db, &mesh.id), &id, &bob, 9, NOW + 2).await.unwrap());
        assert!(mark_read(&store(&db, &mesh.id), &id, &bob, 8, NOW + 3).await.unwrap());
        join(&store(&db, &mesh.id), &id, &bob, Some("observer"), 0, NOW + 4).await.unwrap();
        join(&store(&db, &mesh.id), &id, &bob, None, 0, NOW + 5).await.unwrap();
        let found = load_subscriptions(&of(&db, &mesh.id)).await.unwrap();
        let expected = Subscription {
            topic_id: id.clone(),
            member_id: bob.clone(),
            role: "observer".into(),
            joined_at_ms: NOW + 1,
            last_read_seq: 9,
            last_read_at_ms: Some(NOW + 3),
        };
        assert_eq!(found[1], expected);
        assert!(load_subscriptions(&of(&db, &"other".into())).await.unwrap().is_empty());
        assert!(leave(&store(&db, &mesh.id), &id, &bob).await.unwrap());
        assert!(!leave(&store(&db, &mesh.id), &id, &bob).await.unwrap());
        assert!(!mark_read(&store(&db, &mesh.id), &id, &bob, 9, NOW).await.unwrap());
    }
}
