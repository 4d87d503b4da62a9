use std::collections::BTreeMap;

use claudemesh_protocol::id::FileId;

use super::*;
use crate::audit::{Filter, query};
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};
use crate::features::files::limits;
use crate::journal::MeshStore;
use crate::quota::Quotas;

const DAY_MS: i64 = 86_400_000;

fn new(id: &str, owner: &str, readers: &[&str]) -> New {
    let row = Row {
        id: id.into(),
        owner_id: owner.into(),
        owner_name: owner.to_uppercase(),
        client_upload_id: format!("up-{id}"),
        name: format!("{id}.TXT"),
        name_folded: format!("{id}.txt"),
        tags: r#"["plan"]"#.into(),
        targets: r#"["*"]"#.into(),
        ttl_ms: DAY_MS,
        size_bytes: 10,
        created_at_ms: NOW,
        ..Row::default()
    };
    New { row, readers: readers.iter().map(|one| (*one).to_owned()).collect(), keys: vec![], quotas: Quotas::default() }
}

fn sealed(new: New, keys: &[(&str, &str)]) -> New {
    let key =
        |(pubkey, member): &(&str, &str)| ((*pubkey).to_owned(), (*member).to_owned(), format!("sealed for {pubkey}"));
    New { row: Row { encryption: Some("stream".into()), ..new.row }, keys: keys.iter().map(key).collect(), ..new }
}

fn part(object: &str, size: u64) -> NewPart {
    NewPart { object: object.into(), size }
}

fn finishing(id: &str, member: &str, sha256: &str, now_ms: i64) -> Finishing {
    Finishing { file: id.into(), member: member.into(), sha256: sha256.into(), now_ms }
}

/// A file that can be read, shared at `now_ms`.
async fn shared(here: &MeshStore, new: New, now_ms: i64) -> Row {
    let (id, owner) = (new.row.id.clone(), new.row.owner_id.clone());
    start(here, new).await.unwrap();
    let object = format!("mesh/{id}/0");
    assert_eq!(append(here, id.as_str().into(), 0, vec![part(&object, 10)], now_ms).await.unwrap(), 10);
    complete(here, id.as_str().into(), 10, "aa".into()).await.unwrap();
    match finish(here, finishing(&id, &owner, "aa", now_ms)).await.unwrap() {
        Finished::Ready(row, false) => *row,
        other => panic!("{other:?}"),
    }
}

fn viewer(member: &str, groups: &[&str]) -> Viewer {
    let readers = ["*".to_owned(), format!("m:{member}")];
    let groups = groups.iter().map(|group| (*group).to_owned());
    Viewer { member: member.into(), readers: readers.into_iter().chain(groups).collect(), keys: vec![], manages: false }
}

fn refused<T: std::fmt::Debug>(done: Result<T, WriteError<Refused>>) -> Refused {
    match done {
        Err(WriteError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

async fn opened(here: &MeshStore, id: &str, viewer: &Viewer) -> Result<Opened, WriteError<Refused>> {
    open(here, id.into(), viewer.clone(), viewer.member.to_uppercase(), NOW).await
}

async fn names(db: &MeshDb, viewer: &Viewer, listing: Listing) -> Vec<String> {
    let listing = Listing { limit: if listing.limit == 0 { 100 } else { listing.limit }, now_ms: NOW, ..listing };
    list(db, viewer, &listing).await.unwrap().files.into_iter().map(|file| file.row.id).collect()
}

async fn events(db: &MeshDb) -> Vec<String> {
    let log = query(db, &Filter::default(), 50).await.unwrap();
    let mut events: Vec<String> = log.into_iter().map(|entry| entry.event_type).collect();
    events.retain(|event| event.starts_with("file"));
    events
}

store_suite! {
    async fn an_upload_is_no_file_before_all_its_bytes_are_there(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let first = start(&here, new("f", "ada", &["*"])).await.unwrap();
        assert_eq!((first.ready_at_ms, first.received(), first.size()), (None, 0, 10));
        let again = New { row: Row { id: "other".into(), ..new("f", "ada", &["*"]).row }, ..new("f", "ada", &["*"]) };
        assert_eq!(start(&here, again).await.unwrap(), first, "a retry finds the upload");
        let file = || FileId::from("f");
        assert_eq!(refused(finish(&here, finishing("f", "ada", "aa", NOW)).await), Refused::Incomplete);
        assert_eq!(append(&here, file(), 0, vec![part("o1", 4), part("o2", 3)], NOW).await.unwrap(), 7);
        assert_eq!(refused(append(&here, file(), 4, vec![part("o3", 3)], NOW).await), Refused::Offset(7));
        assert_eq!(refused(complete(&here, file(), 7, "aa".into()).await), Refused::Incomplete);
        let ada = viewer("ada", &[]);
        assert_eq!(names(&read, &ada, Listing::default()).await, Vec::<String>::new());
        assert_eq!(refused(opened(&here, "f", &ada).await), Refused::Missing);
        assert_eq!(append(&here, file(), 7, vec![part("o3", 3)], NOW).await.unwrap(), 10);
        assert_eq!(refused(finish(&here, finishing("f", "ada", "aa", NOW)).await), Refused::Incomplete, "no hash yet");
        complete(&here, file(), 10, "aa".into()).await.unwrap();
        assert_eq!(refused(finish(&here, finishing("f", "bob", "aa", NOW)).await), Refused::Missing, "another's upload");
        let done = finish(&here, finishing("f", "ada", "aa", NOW + 5)).await.unwrap();
        let Finished::Ready(row, false) = done else { panic!("{done:?}") };
        assert_eq!((row.ready_at_ms, row.expires_at_ms), (Some(NOW + 5), Some(NOW + 5 + DAY_MS)));
        let again = finish(&here, finishing("f", "ada", "aa", NOW + 9)).await.unwrap();
        assert_eq!(again, Finished::Ready(row, true), "the same answer to the same request");
        assert_eq!(refused(finish(&here, finishing("f", "ada", "bb", NOW)).await), Refused::OtherHash);
        assert_eq!(refused(append(&here, file(), 10, vec![part("o4", 1)], NOW).await), Refused::Missing);
        let places: Vec<_> = parts(&read, "f").await.unwrap().into_iter().map(|part| (part.start_at, part.object)).collect();
        assert_eq!(places, [(0, "o1".to_owned()), (4, "o2".to_owned()), (7, "o3".to_owned())]);
        assert_eq!(names(&read, &ada, Listing::default()).await, ["f"]);
        assert_eq!(events(&read).await, ["file_shared"]);
    }

    async fn bytes_with_another_hash_leave_nothing(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        start(&here, sealed(new("f", "ada", &["*"]), &[("aa11", "bob")])).await.unwrap();
        append(&here, "f".into(), 0, vec![part("o1", 10)], NOW).await.unwrap();
        complete(&here, "f".into(), 10, "aa".into()).await.unwrap();
        let done = finish(&here, finishing("f", "ada", "bb", NOW)).await.unwrap();
        assert_eq!(done, Finished::OtherHash(vec!["o1".into()]));
        assert_eq!(upload(&read, &"f".into(), &"ada".into()).await.unwrap(), None);
        let nothing = |usage: Usage| (usage.files, usage.uploads, usage.bytes);
        assert_eq!(nothing(usage(&read, None).await.unwrap()), (0, 0, 0));
        assert_eq!(nothing(usage(&read, Some(&"ada".into())).await.unwrap()), (0, 0, 0));
        assert_eq!(events(&read).await, Vec::<String>::new());
    }

    async fn what_was_reserved_for_more_is_given_back(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let new = new("f", "ada", &["*"]);
        start(&here, New { row: Row { at_most: true, ..new.row }, ..new }).await.unwrap();
        assert_eq!(usage(&read, None).await.unwrap().bytes, 10);
        append(&here, "f".into(), 0, vec![part("o1", 6)], NOW).await.unwrap();
        complete(&here, "f".into(), 6, "aa".into()).await.unwrap();
        let used = usage(&read, Some(&"ada".into())).await.unwrap();
        assert_eq!((used.files, used.uploads, used.bytes), (1, 1, 6));
        let Finished::Ready(row, _) = finish(&here, finishing("f", "ada", "aa", NOW)).await.unwrap() else { panic!() };
        assert_eq!(row.size(), 6);
        assert_eq!(usage(&read, None).await.unwrap().uploads, 0);
    }

    async fn no_more_is_kept_than_the_quotas_allow(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let here = store(&db, &home.id);
        shared(&here, new("a", "ada", &["*"]), NOW).await;
        start(&here, new("b", "ada", &["*"])).await.unwrap();
        for (quota, most, hit) in [
            (&limits::PER_MESH, 2, true),
            (&limits::PER_MESH, 3, false),
            (&limits::PER_MEMBER, 2, true),
            (&limits::BYTES_PER_MESH, 29, true),
            (&limits::BYTES_PER_MEMBER, 29, true),
            (&limits::UPLOADS_PER_MEMBER, 1, true),
        ] {
            let wanted = New { quotas: Quotas::default().with(quota.name, most), ..new(&format!("c{most}"), "ada", &["*"]) };
            match (start(&here, wanted).await, hit) {
                (Err(WriteError::Refused(Refused::Limit(bound))), true) => assert_eq!((bound.name.as_str(), bound.limit), (quota.name, most)),
                (Ok(row), false) => {
                    let why = Why::Cancelled("ada".into());
                    remove(&here, Removal { file: row.id.into(), why, now_ms: NOW }).await.unwrap();
                }
                (other, _) => panic!("{}: {other:?}", quota.name),
            }
        }
        let of_bob = New { quotas: Quotas::default().with(limits::PER_MEMBER.name, 1), ..new("d", "bob", &["*"]) };
        start(&here, of_bob).await.unwrap();
    }

    async fn a_file_is_seen_by_those_it_is_for(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        shared(&here, new("all", "ada", &["*"]), NOW - 4).await;
        shared(&here, new("group", "ada", &["@dev"]), NOW - 3).await;
        shared(&here, new("bob", "ada", &["m:bob"]), NOW - 2).await;
        shared(&here, new("own", "ada", &["m:ada"]), NOW - 1).await;
        let seen = [
            (viewer("ada", &[]), vec!["own", "bob", "group", "all"]),
            (viewer("bob", &["@dev"]), vec!["bob", "group", "all"]),
            (viewer("bob", &[]), vec!["bob", "all"]),
            (viewer("eve", &["@qa"]), vec!["all"]),
        ];
        for (viewer, ids) in seen {
            assert_eq!(names(&read, &viewer, Listing::default()).await, ids, "{viewer:?}");
            for id in ["own", "bob", "group", "all"] {
                let (may, got) = (ids.contains(&id), opened(&here, id, &viewer).await);
                assert_eq!(got.is_ok(), may, "{viewer:?} {id}");
                if !may {
                    assert_eq!(refused(got), Refused::NotFor);
                }
                let log = accesses(&read, &id.into(), &viewer, NOW).await;
                assert_eq!(log.is_ok(), may, "{viewer:?} {id}");
                let may_change = viewer.member == "ada";
                assert_eq!(readers(&read, &id.into(), &viewer, NOW).await.is_ok(), may_change, "{viewer:?} {id}");
            }
        }
        let manager = Viewer { manages: true, ..viewer("eve", &[]) };
        assert_eq!(names(&read, &manager, Listing { all: true, ..Listing::default() }).await.len(), 4);
        assert_eq!(refused(opened(&here, "own", &manager).await), Refused::NotFor, "to manage is not to read");
        assert!(readers(&read, &"own".into(), &manager, NOW).await.is_ok());
        let log = accesses(&read, &"all".into(), &viewer("eve", &[]), NOW).await.unwrap();
        let who: Vec<_> = log.iter().map(|access| access.peer_name.as_str()).collect();
        assert_eq!(who, ["EVE", "BOB", "BOB", "ADA"], "the newest first");
    }

    async fn lists_are_searched_and_paged(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for (number, id) in ["report", "re_port", "plan", "PLAN2"].into_iter().enumerate() {
            let owner = if number % 2 == 0 { "ada" } else { "bob" };
            let mut one = new(id, owner, &["*"]);
            one.row.name_folded = id.to_lowercase();
            one.row.tags = if number == 3 { r#"["a\"b","x_y"]"#.into() } else { one.row.tags };
            shared(&here, one, NOW - 9 + i64::try_from(number / 2).unwrap()).await;
        }
        let eve = viewer("eve", &[]);
        let query = |text: &str| Listing { query: Some(text.into()), ..Listing::default() };
        assert_eq!(names(&read, &eve, query("e_p")).await, ["re_port"], "an underscore is itself");
        assert_eq!(names(&read, &eve, query("%")).await, Vec::<String>::new());
        assert_eq!(names(&read, &eve, query("lan")).await, ["plan", "PLAN2"]);
        let from = Listing { from: Some(vec!["bob".into(), "nobody".into()]), ..Listing::default() };
        assert_eq!(names(&read, &eve, from).await, ["PLAN2", "re_port"]);
        let tag = |text: &str| Listing { tag: Some(text.into()), ..Listing::default() };
        assert_eq!(names(&read, &eve, tag("a\"b")).await, ["PLAN2"]);
        assert_eq!(names(&read, &eve, tag("plan")).await.len(), 3);
        assert_eq!(names(&read, &eve, tag("pla")).await, Vec::<String>::new(), "a whole tag");
        assert_eq!(names(&read, &eve, tag("x%y")).await, Vec::<String>::new());
        let (mut all, mut behind) = (Vec::new(), None);
        loop {
            let listing = Listing { behind, limit: 1, now_ms: NOW, ..Listing::default() };
            let page = list(&read, &eve, &listing).await.unwrap();
            all.extend(page.files.iter().map(|file| file.row.id.clone()));
            if !page.more {
                break;
            }
            behind = page.files.last().map(|file| (file.row.ready_at_ms.unwrap(), file.row.id.clone()));
        }
        assert_eq!(all, ["plan", "PLAN2", "report", "re_port"], "the newest first, each once");
    }

    async fn a_sealed_file_is_for_those_with_a_key(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        shared(&here, sealed(new("f", "ada", &["@dev"]), &[("bb", "bob"), ("b5", "bob")]), NOW).await;
        let with = |member: &str, keys: &[&str]| Viewer {
            keys: keys.iter().map(|one| (*one).to_owned()).collect(),
            ..viewer(member, &["@dev"])
        };
        let key_of = |opened: Opened| opened.sealed.map(|(key, _)| key);
        assert_eq!(key_of(opened(&here, "f", &with("bob", &["b5", "bb"])).await.unwrap()).as_deref(), Some("b5"), "its session's");
        assert_eq!(key_of(opened(&here, "f", &with("bob", &["b6", "bb"])).await.unwrap()).as_deref(), Some("bb"), "its member's");
        assert_eq!(key_of(opened(&here, "f", &with("ada", &["aa"])).await.unwrap()), None, "the owner needs none");
        assert!(matches!(refused(opened(&here, "f", &with("cyd", &["cc"])).await), Refused::NoKey(_)));
        let grant_to = |member: &str, sealed: Option<&str>| Grant {
            file: "f".into(), by: viewer("ada", &[]), member: member.into(), pubkey: "cc".into(),
            sealed_key: sealed.map(str::to_owned), now_ms: NOW,
        };
        assert_eq!(refused(grant(&here, grant_to("cyd", None)).await), Refused::KeyWanted);
        let foreign = Grant { by: viewer("bob", &["@dev"]), ..grant_to("cyd", Some("x")) };
        assert_eq!(refused(grant(&here, foreign).await), Refused::Foreign);
        assert!(grant(&here, grant_to("cyd", Some("x"))).await.unwrap().changed);
        let outside = Viewer { keys: vec!["cc".into()], ..viewer("cyd", &[]) };
        assert_eq!(opened(&here, "f", &outside).await.unwrap().sealed, Some(("cc".into(), "x".into())), "a grant is enough");
        let listed = list(&read, &outside, &Listing { limit: 9, now_ms: NOW, ..Listing::default() }).await.unwrap();
        assert_eq!(listed.files[0].sealed, Some(("cc".into(), "x".into())));
        let revocation = |from: &str, groups: &[&str]| Revocation {
            file: "f".into(), by: viewer("ada", &[]), from: viewer(from, groups), now_ms: NOW,
        };
        assert!(revoke(&here, revocation("bob", &["@dev"])).await.unwrap().1);
        assert!(!revoke(&here, revocation("bob", &["@dev"])).await.unwrap().1, "it could not any more");
        assert_eq!(refused(opened(&here, "f", &with("bob", &["bb"])).await), Refused::NotFor, "the group does not help");
        assert_eq!(names(&read, &with("bob", &["bb"]), Listing::default()).await, Vec::<String>::new());
        assert_eq!(readable(&read, &"f".into(), &"bob".into(), NOW).await.unwrap(), None);
        assert!(readable(&read, &"f".into(), &"cyd".into(), NOW).await.unwrap().is_some());
        assert_eq!(refused(revoke(&here, revocation("ada", &[])).await), Refused::OfOwner);
        let who = readers(&read, &"f".into(), &viewer("ada", &[]), NOW).await.unwrap();
        assert_eq!((who.readers, who.keys), (vec!["!bob".into(), "@dev".into(), "m:cyd".into()], vec![("cyd".into(), "cc".into())]));
        let back = Grant { pubkey: "bb".into(), ..grant_to("bob", Some("again")) };
        assert!(grant(&here, back).await.unwrap().changed);
        assert_eq!(key_of(opened(&here, "f", &with("bob", &["bb"])).await.unwrap()).as_deref(), Some("bb"));
        assert_eq!(refused(grant(&here, Grant { file: "nothing".into(), ..grant_to("cyd", Some("x")) }).await), Refused::Missing);
        shared(&here, new("plain", "ada", &["m:bob"]), NOW).await;
        assert_eq!(refused(grant(&here, Grant { file: "plain".into(), ..grant_to("cyd", Some("x")) }).await), Refused::NotSealed);
        assert!(grant(&here, Grant { file: "plain".into(), ..grant_to("cyd", None) }).await.unwrap().changed);
        let told = events(&read).await;
        let count = |event: &str| told.iter().filter(|one| *one == event).count();
        assert_eq!((count("file_shared"), count("file_granted"), count("file_revoked")), (2, 3, 1));
    }

    async fn what_is_removed_leaves_no_row(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let removal = |id: &str, why: Why, now_ms: i64| Removal { file: id.into(), why, now_ms };
        shared(&here, sealed(new("f", "ada", &["m:bob"]), &[("bb", "bob")]), NOW).await;
        let bob = Viewer { keys: vec!["bb".into()], ..viewer("bob", &[]) };
        opened(&here, "f", &bob).await.unwrap();
        let deleted = |member: &str, may: bool| Why::Deleted(member.into(), may);
        assert_eq!(refused(remove(&here, removal("f", deleted("bob", false), NOW)).await), Refused::Foreign);
        assert_eq!(refused(remove(&here, removal("f", Why::Cancelled("ada".into()), NOW)).await), Refused::Missing, "it is no upload");
        assert_eq!(refused(remove(&here, removal("f", Why::Expired, NOW)).await), Refused::Missing, "it has time left");
        let gone = remove(&here, removal("f", deleted("cyd", true), NOW)).await.unwrap();
        assert_eq!((gone.objects, gone.readers), (vec!["mesh/f/0".to_owned()], vec!["m:bob".to_owned()]));
        assert_eq!(refused(remove(&here, removal("f", deleted("ada", false), NOW)).await), Refused::Missing);
        start(&here, new("up", "ada", &["*"])).await.unwrap();
        append(&here, "up".into(), 0, vec![part("o1", 4)], NOW).await.unwrap();
        assert_eq!(refused(remove(&here, removal("up", Why::Cancelled("bob".into()), NOW)).await), Refused::Missing);
        assert_eq!(refused(remove(&here, removal("up", deleted("ada", true), NOW)).await), Refused::Missing, "no one sees it");
        assert_eq!(remove(&here, removal("up", Why::Cancelled("ada".into()), NOW)).await.unwrap().objects, ["o1"]);
        assert_eq!(objects_of(&db, home.id.as_str()).await.unwrap(), BTreeMap::new());
        assert_eq!(meshes(&db).await.unwrap(), Vec::<String>::new());
        let used = usage(&read, None).await.unwrap();
        assert_eq!((used.files, used.uploads, used.bytes), (0, 0, 0));
        assert_eq!(events(&read).await, ["file_deleted", "file_shared"]);
    }

    async fn files_and_uploads_end_by_themselves(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        assert_eq!(next_end(&read).await.unwrap(), None);
        let kept = new("kept", "ada", &["*"]);
        shared(&here, New { row: Row { persistent: true, ..kept.row }, ..kept }, NOW).await;
        assert_eq!(next_end(&read).await.unwrap(), None);
        shared(&here, new("day", "ada", &["*"]), NOW).await;
        start(&here, New { row: Row { created_at_ms: NOW - 5, ..new("up", "ada", &["*"]).row }, ..new("up", "ada", &["*"]) }).await.unwrap();
        assert_eq!(next_end(&read).await.unwrap(), Some(NOW - 5 + UPLOAD_IDLE_MS));
        append(&here, "up".into(), 0, vec![part("o1", 4)], NOW + 7).await.unwrap();
        assert_eq!(due(&read, NOW + DAY_MS - 1, 9).await.unwrap(), Vec::<FileId>::new());
        assert_eq!(due(&read, NOW + DAY_MS, 9).await.unwrap(), [FileId::from("day")]);
        assert_eq!(due(&read, NOW + 7 + DAY_MS, 9).await.unwrap().len(), 2, "an upload that goes on lives on");
        assert!(meshes_due(&db, NOW + DAY_MS - 1).await.unwrap().is_empty());
        assert_eq!(meshes_due(&db, NOW + DAY_MS).await.unwrap(), [home.id.clone()]);
        let late = Listing { limit: 9, now_ms: NOW + DAY_MS, ..Listing::default() };
        let seen = list(&read, &viewer("eve", &[]), &late).await.unwrap();
        assert_eq!(seen.files.iter().map(|file| file.row.id.as_str()).collect::<Vec<_>>(), ["kept"], "gone for readers at once");
        for id in ["day", "up"] {
            let gone = remove(&here, Removal { file: id.into(), why: Why::Expired, now_ms: NOW + 7 + DAY_MS }).await.unwrap();
            assert_eq!(gone.objects.len(), 1);
        }
        assert_eq!(events(&read).await, ["file_deleted", "file_shared", "file_shared"], "no one saw the upload");
    }

    async fn a_file_whose_bytes_are_lost_is_no_file(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        shared(&here, new("f", "ada", &["*"]), NOW).await;
        let rows = objects_of(&db, home.id.as_str()).await.unwrap();
        assert_eq!(rows, BTreeMap::from([("mesh/f/0".to_owned(), "f".to_owned())]));
        assert_eq!(set_lost(&db, home.id.as_str(), &["f".into(), "g".into()]).await.unwrap(), 1);
        assert_eq!(refused(opened(&here, "f", &viewer("ada", &[])).await), Refused::Missing);
        assert_eq!(names(&read, &viewer("ada", &[]), Listing::default()).await, Vec::<String>::new());
        assert_eq!(readable(&read, &"f".into(), &"ada".into(), NOW).await.unwrap(), None);
        assert_eq!(meshes_due(&db, NOW).await.unwrap(), [home.id.clone()], "its mesh removes it");
        remove(&here, Removal { file: "f".into(), why: Why::Expired, now_ms: NOW }).await.unwrap();
    }

    async fn an_access_log_keeps_the_newest(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        shared(&here, new("f", "ada", &["*"]), NOW).await;
        let most = claudemesh_protocol::features::files::limits::MAX_ACCESSES;
        let numbers: Vec<usize> = (0..most + 3).collect();
        // As many at once as the journal takes.
        for together in numbers.chunks(100) {
            let opened = together.iter().map(|number| {
                open(&here, "f".into(), viewer("bob", &[]), format!("n{number}"), NOW)
            });
            assert!(futures_util::future::join_all(opened).await.iter().all(Result::is_ok));
        }
        let log = accesses(&read, &"f".into(), &viewer("bob", &[]), NOW).await.unwrap();
        assert_eq!(log.len(), most);
    }
}
