use super::*;
use crate::audit::{Filter, query};
use crate::db::Db;
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

fn new(content: &str, tags: &[&str]) -> New {
    New {
        content: content.into(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        member: "ada".into(),
        author_name: "Ada".into(),
        now_ms: NOW,
        quotas: Quotas::default(),
    }
}

fn by(member: &str, content: &str) -> New {
    New { member: member.into(), author_name: member.to_uppercase(), ..new(content, &[]) }
}

fn removal(id: &str) -> Removal {
    Removal { id: id.into(), member: "ada".into(), may_all: false, now_ms: NOW }
}

async fn put(store: &MeshStore, new: New) -> String {
    remember(store, new).await.unwrap().id
}

async fn found(db: &MeshDb, words: &str) -> Vec<String> {
    found_only(db, words, &Only::default()).await
}

async fn found_only(db: &MeshDb, words: &str, only: &Only) -> Vec<String> {
    let page = recall(db, Query::parse(words), only, 0, 50).await.unwrap();
    page.rows.into_iter().map(|(row, _)| row.content).collect()
}

async fn listed(db: &MeshDb, only: &Only) -> Vec<String> {
    let page = list(db, only, None, 50).await.unwrap();
    page.rows.into_iter().map(|(row, _)| row.content).collect()
}

fn refused<T: std::fmt::Debug>(done: Result<T, WriteError<Refused>>) -> Refused {
    match done {
        Err(WriteError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

/// Texts of several languages, and what is found by which words, the best first. The same on both databases.
const TEXTS: &[(&str, &[&str])] = &[
    ("Deploying to production happens on Fridays at noon", &["ops"]),
    ("The deploy script lives in tools/deploy.sh and deploys to eu-west-1", &["ops", "Script"]),
    ("Blue green deployments need two clusters", &[]),
    ("Green blue is another order", &[]),
    ("Crème brûlée is served in the CAFÉ", &["küche"]),
    ("Die Straße nach Łódź ist gesperrt", &[]),
    ("Ответы лежат в базе", &[]),
    ("我们使用数据库保存消息", &["数据"]),
    ("データベースは東京にあります", &[]),
    ("API文档v2 is the newest", &[]),
    ("tokens expire after 15 minutes; call `refresh_token()`", &["auth"]),
    ("nothing of interest", &["deploy notes"]),
    ("O'Reilly said \"it's fine\" \\o/ 'quoted' & | ! ( ) : * <->", &["it's", "a:b*c"]),
];

const FINDS: &[(&str, &[usize])] = &[
    ("deploy", &[1, 11, 2, 0]),
    ("deploying", &[1, 11, 0, 2]),
    ("DEPLOYS production", &[0]),
    ("deplo*", &[1, 11, 2, 0]),
    ("deploym*", &[2]),
    ("\"blue green\"", &[2]),
    ("\"green blue\"", &[3]),
    ("blue green", &[3, 2]),
    ("deploy -production -script", &[11, 2]),
    ("deploy -\"blue green\" -ops", &[11]),
    ("-deploy -is -token -nothing -quoted", &[8, 7, 6, 5]),
    ("creme BRULEE café", &[4]),
    ("kuche", &[4]),
    ("strasse lodz", &[5]),
    ("ответ", &[6]),
    ("数据", &[7]),
    ("据库保", &[7]),
    ("库", &[7]),
    ("東京", &[8]),
    ("ベース", &[8]),
    ("文档", &[9]),
    ("api文档", &[9]),
    ("where do the tokens expire?", &[10]),
    ("refresh_token", &[10]),
    ("tools/deploy.sh", &[1]),
    ("eu-west-1", &[1]),
    ("script", &[1]),
    ("it's", &[12]),
    ("o'reilly", &[12]),
    ("a:b*c", &[12]),
    ("\"ops deploying\"", &[]),
    ("\"noon ops\"", &[]),
    ("kubernetes", &[]),
    ("deploy kubernetes", &[]),
    ("数库", &[]),
    ("'; DROP TABLE memories; --", &[]),
    ("\" OR 1 \" NEAR(a b) {tokens}: ^x", &[]),
];

store_suite! {
    async fn words_find_the_same_in_the_same_order_on_both_databases(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (abroad, _) = mesh(&db, "abroad", key()).await;
        let (here, there) = (store(&db, &home.id), store(&db, &abroad.id));
        for (content, tags) in TEXTS {
            put(&here, new(content, tags)).await;
            put(&there, new(&format!("{content} elsewhere"), tags)).await;
        }
        let mut wrong = Vec::new();
        for (words, numbers) in FINDS {
            let expected: Vec<&str> = numbers.iter().map(|number| TEXTS[*number].0).collect();
            let texts = found(&of(&db, &home.id), words).await;
            if texts != expected {
                wrong.push((words, texts, expected));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(found(&of(&db, &home.id), "elsewhere").await.is_empty(), "that is in another mesh");
        let none = async |words: &str| unmatched(&of(&db, &home.id), &Query::parse(words)).await.unwrap();
        assert_eq!(none("deploy kubernetes \"deploy green\" elsewhere").await, ["kubernetes", "\"deploy green\"", "elsewhere"]);
        assert_eq!(none("production clusters").await, Vec::<String>::new());
        let page = recall(&of(&db, &home.id), Query::parse("deploy"), &Only::default(), 0, 2).await.unwrap();
        assert_eq!((page.rows.len(), page.next.as_deref()), (2, Some("2")));
        let snippet = |page: &Page, at: usize| page.rows[at].1.as_ref().unwrap().snippet.clone();
        assert_eq!(snippet(&page, 0), "The **deploy** script lives in tools/**deploy**.sh and **deploys** to eu-west-1");
        let rest = recall(&of(&db, &home.id), Query::parse("deploy"), &Only::default(), 2, 2).await.unwrap();
        assert_eq!((rest.rows.len(), rest.next), (2, None));
    }

    async fn conditions_are_tags_authors_and_times(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for (content, tags, member, at) in [
            ("one deploy", vec!["ops", "on call"], "ada", 0),
            ("two deploy", vec!["OPS"], "bob", 10),
            ("three deploy", vec![], "bob", 20),
            // The clock was put back: it is no older than the one before.
            ("four deploy", vec!["Öps"], "ada", 5),
        ] {
            put(&here, New { now_ms: NOW + at, tags: tags.into_iter().map(str::to_owned).collect(), ..by(member, content) }).await;
        }
        let tags = |tags: &[&str]| Only { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..Only::default() };
        let members = |members: &[&str]| Only { members: Some(members.iter().map(|one| (*one).into()).collect()), ..Only::default() };
        let times = |since: Option<i64>, until: Option<i64>| Only {
            since_ms: since.map(|at| NOW + at),
            until_ms: until.map(|at| NOW + at),
            ..Only::default()
        };
        for (only, expected) in [
            (Only::default(), vec!["four", "three", "two", "one"]),
            (tags(&["ops"]), vec!["four", "two", "one"]),
            (tags(&["ops", "On Call"]), vec!["one"]),
            (tags(&["on"]), vec![]),
            (members(&["bob"]), vec!["three", "two"]),
            (members(&["bob", "ada"]), vec!["four", "three", "two", "one"]),
            (members(&[]), vec![]),
            (times(Some(10), None), vec!["four", "three", "two"]),
            (times(None, Some(10)), vec!["one"]),
            (times(Some(20), Some(21)), vec!["four", "three"]),
            (times(Some(21), None), vec![]),
            (times(None, Some(0)), vec![]),
            (Only { members: Some(vec!["ada".into()]), ..times(Some(1), None) }, vec!["four"]),
        ] {
            let first = |texts: Vec<String>| texts.iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
            assert_eq!(first(listed(&read, &only).await), expected, "list {only:?}");
            let mut by_words = first(found_only(&read, "deploy", &only).await);
            let mut expected = expected;
            by_words.sort();
            expected.sort_unstable();
            assert_eq!(by_words, expected, "recall {only:?}");
        }
    }

    async fn a_list_is_read_page_by_page_although_memories_come_and_go(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (other, _) = mesh(&db, "other", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        for number in 0..7 {
            put(&here, new(&format!("n{number}"), &["all"])).await;
            put(&store(&db, &other.id), new("noise", &["all"])).await;
        }
        for only in [Only::default(), Only { tags: vec!["all".into()], ..Only::default() }] {
            let (mut seen, mut behind) = (Vec::new(), None);
            loop {
                let page = list(&read, &only, behind, 3).await.unwrap();
                seen.extend(page.rows.iter().map(|(row, _)| row.content.clone()));
                let Some(next) = page.next else { break };
                let (at, id) = next.split_once('.').unwrap();
                behind = Some(Place { at_ms: at.parse().unwrap(), id: id.into() });
            }
            assert_eq!(seen, ["n6", "n5", "n4", "n3", "n2", "n1", "n0"]);
        }
        // The memory of the cursor is gone: it goes on before its time.
        let gone = Place { at_ms: NOW + 1, id: "gone".into() };
        assert_eq!(list(&read, &Only::default(), Some(gone), 9).await.unwrap().rows.len(), 7);
    }

    async fn the_same_of_the_same_member_is_one_memory(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let here = store(&db, &home.id);
        let first = remember(&here, new("fact", &["a"])).await.unwrap();
        let again = remember(&here, New { now_ms: NOW + 9, ..new("fact", &["a"]) }).await.unwrap();
        assert_eq!((again.id.as_str(), again.duplicate, first.duplicate), (first.id.as_str(), true, false));
        for other in [new("fact", &[]), new("fact", &["a", "b"]), by("bob", "fact")] {
            assert!(!remember(&here, other).await.unwrap().duplicate);
        }
        forget(&here, removal(&first.id)).await.unwrap();
        assert!(!remember(&here, new("fact", &["a"])).await.unwrap().duplicate);
        let log = query(&here, &Filter::default(), 9).await.unwrap();
        let stored = log.iter().filter(|entry| entry.event_type == "memory_stored").count();
        assert_eq!(stored, 5, "a repetition changes nothing");
    }

    async fn forgetting_is_for_the_author_and_who_may_all(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let (own, foreign) = (put(&here, new("own secret", &["x"])).await, put(&here, by("bob", "foreign secret")).await);
        assert_eq!(refused(forget(&here, removal("nothingofthat")).await), Refused::Missing);
        assert_eq!(refused(forget(&here, removal(&own.to_lowercase().replace(|c: char| c.is_ascii_digit(), "a"))).await), Refused::Missing);
        assert_eq!(refused(forget(&here, removal(&foreign)).await), Refused::Foreign);
        assert_eq!(refused(forget(&here, removal("")).await), Refused::Ambiguous);
        forget(&here, removal(&own[..8])).await.unwrap();
        forget(&here, Removal { may_all: true, ..removal(&foreign) }).await.unwrap();
        assert_eq!(refused(forget(&here, removal(&own)).await), Refused::Missing);
        assert!(found(&read, "secret").await.is_empty() && listed(&read, &Only::default()).await.is_empty());
        for member in [None, Some("ada".into()), Some("bob".into())] {
            let total = total(&read, member.as_ref()).await.unwrap();
            assert_eq!((total.memories, total.bytes), (0, 0), "{member:?}");
        }
        let log = query(&here, &Filter::default(), 2).await.unwrap();
        assert!(log[0].payload.contains(r#""author":"bob""#), "{:?}", log[0]);
        assert!(!format!("{log:?}").contains("secret"), "never the text");
    }

    async fn bounds_hold_in_the_transaction(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let here = store(&db, &home.id);
        let quotas = [(&PER_MESH, 3), (&PER_MEMBER, 2), (&BYTES_PER_MESH, 30), (&BYTES_PER_MEMBER, 20)];
        let quotas = quotas.iter().fold(Quotas::default(), |all, (quota, value)| all.with(quota.name, *value));
        let small = |new: New| New { quotas: quotas.clone(), ..new };
        put(&here, small(new("12345", &[]))).await;
        let hit = async |new: New| match refused(remember(&here, small(new)).await) {
            Refused::Limit(bound) => (bound.name, bound.limit, bound.used),
            other => panic!("{other:?}"),
        };
        assert_eq!(hit(new("1234567890123456", &[])).await, (BYTES_PER_MEMBER.name.into(), 20, 5));
        put(&here, small(new("67890", &[]))).await;
        assert_eq!(hit(new("3", &[])).await, (PER_MEMBER.name.into(), 2, 2));
        assert_eq!(hit(by("bob", "123456789012345678901")).await, (BYTES_PER_MESH.name.into(), 30, 10));
        put(&here, small(by("bob", "4"))).await;
        assert_eq!(hit(by("eve", "5")).await, (PER_MESH.name.into(), 3, 3));
        let whole = total(&here, None).await.unwrap();
        assert_eq!((whole.memories, whole.bytes), (3, 11));
    }

    /// Written beside each other, as sessions do.
    async fn many_at_once_are_all_there_and_counted(db: Db) {
        let (home, _) = mesh(&db, "home", key()).await;
        let (here, read) = (store(&db, &home.id), of(&db, &home.id));
        let texts: Vec<String> = (0..60).map(|number| format!("fact number{number} common")).collect();
        let ids = futures_util::future::join_all(texts.iter().map(|text| put(&here, new(text, &["t"])))).await;
        futures_util::future::join_all(ids.iter().take(20).map(|id| forget(&here, removal(id)))).await;
        assert_eq!(recall(&read, Query::parse("common"), &Only::default(), 0, 100).await.unwrap().rows.len(), 40);
        assert!(found(&read, "number3").await.is_empty());
        assert_eq!(found(&read, "number30").await, ["fact number30 common"]);
        assert_eq!(total(&read, None).await.unwrap().memories, 40);
        assert_eq!(total(&read, Some(&"ada".into())).await.unwrap().memories, 40);
    }
}

/// Every file that storage has, its log among them, is searched for the words of what was forgotten.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn what_is_forgotten_is_in_no_page_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let db = Db::open(path.to_str().unwrap(), crate::db::DbOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    let (home, _) = mesh(&db, "home", key()).await;
    let here = store(&db, &home.id);
    let files = || -> Vec<u8> {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect()
    };
    let holds = |text: &str| memchr::memmem::find(&files(), text.as_bytes()).is_some();
    let mut secrets = Vec::new();
    for number in 0..300 {
        // Some fit on a page, some do not.
        let filler = format!("filler{number} ").repeat(if number % 7 == 0 { 900 } else { 3 });
        put(&here, new(&format!("fact {number} {filler}"), &["kept"])).await;
        if number % 50 == 17 {
            let secret = format!("xyzzy{number}ing plugh{number} {filler}");
            secrets.push((number, put(&here, new(&secret, &["quux"])).await));
        }
    }
    let marks = |number: usize| [format!("xyzzy{number}ing"), format!("xyzzy{number}"), format!("plugh{number}")];
    assert!(db.scrub().await.unwrap());
    for (number, _) in &secrets {
        assert!(marks(*number).iter().all(|mark| holds(mark)), "the search of the file finds what is there: {number}");
    }
    for (_, id) in &secrets {
        forget(&here, removal(id)).await.unwrap();
    }
    assert!(db.scrub().await.unwrap(), "nobody reads");
    for (number, _) in &secrets {
        for mark in marks(*number) {
            assert!(!holds(&mark), "{mark} is still in the file");
        }
    }
    assert!(!holds("quux"));
    assert!(holds("filler299"), "the others are there");
    assert_eq!(found(&of(&db, &home.id), "filler117").await.len(), 1, "and found");
}
