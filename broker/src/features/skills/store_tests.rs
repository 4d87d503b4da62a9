use super::*;
use crate::audit::{Filter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};
use crate::features::skills::limits;

fn new(name: &str, instructions: &str) -> New {
    New {
        name: name.into(),
        description: format!("How to {name}"),
        instructions: instructions.into(),
        tags: vec!["ops".into()],
        manifest: Some(r#"{"model":"opus"}"#.into()),
        digest: format!("digest of {name} {instructions}"),
        signature: Some(("5e".repeat(64), NOW)),
        member: "ada".into(),
        author_name: "Ada".into(),
        author_key: PublicKey::from_bytes([7; 32]),
        may_all: false,
        size_bytes: 100,
        now_ms: NOW,
        quotas: Quotas::default(),
    }
}

fn by(member: &str, new: New) -> New {
    New { member: member.into(), author_name: member.to_uppercase(), ..new }
}

fn removal(name: &str, member: &str) -> Removal {
    Removal { name: name.into(), member: member.into(), may_all: false, now_ms: NOW }
}

fn refused<T: std::fmt::Debug>(done: Result<T, WriteError<Refused>>) -> Refused {
    match done {
        Err(WriteError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

async fn names(db: &MeshDb, words: &str, tags: &[&str]) -> Vec<String> {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let page = list(db, &Wanted { words: Query::parse(words), tags }, None, 50).await.unwrap();
    page.rows.into_iter().map(|row| row.name).collect()
}

store_suite! {
    async fn a_changed_skill_keeps_its_former_texts(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        assert_eq!(share(&here, new("deploy", "one")).await.unwrap(), Shared { version: 1, unchanged: false });
        let second = New { tags: vec!["ci".into()], now_ms: NOW + 9, manifest: None, ..new("deploy", "two") };
        assert_eq!(share(&here, second.clone()).await.unwrap(), Shared { version: 2, unchanged: false });
        assert_eq!(share(&here, second.clone()).await.unwrap(), Shared { version: 2, unchanged: true }, "a retry");
        let newest = get(&read, "deploy", None).await.unwrap().unwrap();
        assert_eq!((newest.text.instructions.as_str(), newest.text.version, newest.row.version), ("two", 2, 2));
        assert_eq!((newest.text.manifest, newest.row.created_at_ms, newest.row.updated_at_ms), (None, NOW, NOW + 9));
        assert_eq!(newest.versions.iter().map(|mark| mark.version).collect::<Vec<_>>(), [2, 1]);
        let first = get(&read, "deploy", Some(1)).await.unwrap().unwrap();
        assert_eq!((first.text.instructions.as_str(), first.text.tags(), first.row.version), ("one", vec!["ops".to_owned()], 2));
        assert_eq!(first.text.manifest.as_deref(), Some(r#"{"model":"opus"}"#));
        assert_eq!(first.text.signature, Some("5e".repeat(64)));
        for (name, version) in [("deploy", Some(3)), ("deploy", Some(0)), ("Deploy", None), ("", None)] {
            assert_eq!(get(&read, name, version).await.unwrap(), None, "{name} {version:?}");
        }
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        let shared = log.iter().filter(|entry| entry.event_type == "skill_shared").count();
        assert!(shared == 2 && !format!("{log:?}").contains("two"), "one entry a version, never the text: {log:?}");
    }

    async fn the_same_text_is_a_new_version_when_it_proves_more_or_another_wrote_it(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let here = store(&db, &home.id);
        let unsigned = New { signature: None, ..new("deploy", "one") };
        assert_eq!(share(&here, unsigned.clone()).await.unwrap().version, 1);
        assert_eq!(share(&here, new("deploy", "one")).await.unwrap().version, 2, "now it is signed");
        assert!(share(&here, unsigned).await.unwrap().unchanged, "and stays so");
        let other = New { may_all: true, ..by("bob", new("deploy", "one")) };
        assert_eq!(share(&here, other).await.unwrap().version, 3);
        let found = get(&of(&db, &home.id), "deploy", None).await.unwrap().unwrap();
        assert_eq!((found.row.owner_id.as_str(), found.text.author_id.as_str(), found.row.author_name.as_str()), ("ada", "bob", "BOB"));
        assert_eq!(share(&here, new("deploy", "back")).await.unwrap().version, 4, "it is still Ada's");
    }

    async fn what_is_of_another_member_is_changed_and_removed_by_those_who_may(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        share(&here, new("deploy", "one")).await.unwrap();
        assert_eq!(refused(share(&here, by("bob", new("deploy", "two"))).await), Refused::Foreign);
        assert_eq!(refused(remove(&here, removal("deploy", "bob")).await), Refused::Foreign);
        assert_eq!(get(&read, "deploy", None).await.unwrap().unwrap().text.instructions, "one", "nothing was changed");
        let gone = remove(&here, Removal { may_all: true, ..removal("deploy", "bob") }).await.unwrap();
        assert_eq!((gone.owner_id.as_str(), usage(&read, None).await.unwrap()), ("ada", Usage::default()));
        assert_eq!(refused(remove(&here, removal("deploy", "ada")).await), Refused::Missing);
        assert!(names(&read, "deploy", &[]).await.is_empty(), "nor is it in the index");
        share(&here, by("bob", new("deploy", "again"))).await.unwrap();
        let again = get(&read, "deploy", None).await.unwrap().unwrap();
        assert!(again.row.id != gone.id && again.versions.len() == 1, "what was removed does not come back");
        let log = query(&here, &Filter { event: Some("skill_removed".into()), ..Filter::default() }, 9).await.unwrap();
        assert_eq!(log.len(), 1, "{log:?}");
    }

    async fn skills_are_found_by_name_description_and_tags(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        share(&here, New { tags: vec!["Küche".into()], ..new("cook-soup", "boil water") }).await.unwrap();
        share(&here, New { description: "Deploying to production".into(), ..new("Release", "x") }).await.unwrap();
        share(&here, New { description: "Reviews".into(), tags: vec!["ops".into(), "ci".into()], ..new("a review", "x") }).await.unwrap();
        for (words, tags, expected) in [
            ("", &[][..], &["Release", "a review", "cook-soup"][..]),
            ("deploy", &[], &["Release"]),
            ("soup", &[], &["cook-soup"]),
            ("kuche", &[], &["cook-soup"]),
            ("review*", &[], &["a review"]),
            ("ops -review", &[], &["Release"]),
            ("boil", &[], &[]),
            ("", &["OPS"], &["Release", "a review"]),
            ("", &["ops", "ci"], &["a review"]),
            ("deploy", &["ci"], &[]),
        ] {
            assert_eq!(names(&read, words, tags).await, expected, "{words} {tags:?}");
        }
        share(&here, New { description: "Nothing of that".into(), now_ms: NOW + 1, ..new("Release", "y") }).await.unwrap();
        assert!(names(&read, "deploy", &[]).await.is_empty(), "the former description is not searched");
        let mut seen = Vec::new();
        let mut behind = None;
        loop {
            let page = list(&read, &Wanted::default(), behind.as_deref(), 1).await.unwrap();
            seen.extend(page.rows.into_iter().map(|row| row.name));
            behind = page.next;
            if behind.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["Release", "a review", "cook-soup"]);
    }

    async fn bounds_count_skills_bytes_and_versions(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let few = Quotas::default().with(limits::VERSIONS_PER_SKILL.name, 2);
        for text in ["1", "2", "3", "4"] {
            share(&here, New { quotas: few.clone(), ..new("deploy", text) }).await.unwrap();
        }
        let found = get(&read, "deploy", None).await.unwrap().unwrap();
        assert_eq!(found.versions.iter().map(|mark| mark.version).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(get(&read, "deploy", Some(2)).await.unwrap(), None);
        let two = Usage { skills: 1, bytes: 200 };
        assert_eq!((usage(&read, None).await.unwrap(), usage(&read, Some(&"bob".into())).await.unwrap()), (two, Usage::default()));
        for (quota, value, used, new) in [
            (limits::PER_MESH, 1, 1, by("bob", new("other", "x"))),
            (limits::PER_MEMBER, 1, 1, new("other", "x")),
            (limits::BYTES_PER_MESH, 250, 200, by("bob", new("other", "x"))),
            (limits::BYTES_PER_MEMBER, 250, 200, new("other", "x")),
            (limits::BYTES_PER_MESH, 250, 200, new("deploy", "5")),
        ] {
            let new = New { quotas: Quotas::default().with(quota.name, value), ..new };
            match refused(share(&here, new).await) {
                Refused::Limit(bound) => assert_eq!((bound.name.as_str(), bound.limit, bound.used), (quota.name, value, used)),
                other => panic!("{}: {other:?}", quota.name),
            }
        }
        assert_eq!(usage(&read, None).await.unwrap(), two, "nothing was changed");
        let full = few.with(limits::BYTES_PER_MESH.name, 200);
        share(&here, New { quotas: full, ..new("deploy", "5") }).await.unwrap();
        assert_eq!(usage(&read, None).await.unwrap(), two, "the oldest version makes room");
    }

    async fn a_deleted_mesh_takes_its_words_with_it(db: Db) {
        let (home, owner) = mesh(&db, "home", key()).await;
        let (abroad, _) = mesh(&db, "abroad", key()).await;
        let (here, there) = (store(&db, &home.id), store(&db, &abroad.id));
        for name in ["deploy", "review"] {
            share(&here, new(name, "one")).await.unwrap();
        }
        assert!(crate::db::meshes::delete(&here, &crate::audit::By::member(&owner.id, NOW)).await.unwrap());
        crate::db::erase::erase(&db, &home.id).await.unwrap();
        assert!(names(&of(&db, &home.id), "deploy", &[]).await.is_empty());
        // Its numbers are free again: they would be refused if the words of before still had them.
        for name in ["release", "review"] {
            share(&there, new(name, "two")).await.unwrap();
        }
        assert_eq!(names(&of(&db, &abroad.id), "how", &[]).await, ["release", "review"]);
    }
}
