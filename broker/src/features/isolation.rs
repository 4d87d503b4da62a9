//! No store function that works on one mesh reads or changes another one: each is run here as a foreign mesh with the ids of a
//! mesh that has one of everything. A function that is missing here fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::capabilities::Overrides;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::meshes::{PatchMesh, PatchSettings};
use claudemesh_protocol::features::messaging::{Priority, Stage};
use claudemesh_protocol::features::presence::{PeerStatus, Profile, Stats};
use claudemesh_protocol::features::schedules::ScheduleClock;
use claudemesh_protocol::features::topics::Visibility;
use claudemesh_protocol::id::FileId;
use diesel::deserialize::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use crate::audit::{self, By};
use crate::db::members::{self as members, MemberPatch, Role};
use crate::db::rights::{self, EditError, Rights, Subject};
use crate::db::sessions::{self as presence, SessionRecord, SessionsPart, StatsDelta};
use crate::db::testing::{NOW, key, member, mesh, of, store, store_suite};
use crate::db::tests::declared;
use crate::db::{Db, DbError};
use crate::db::{former_names, member_groups, membership, meshes};
use crate::features::api_keys::store as api_keys;
use crate::features::clock::store as clock;
use crate::features::contexts::store as contexts;
use crate::features::enrolment::store::{self as enrolment, Invite};
use crate::features::files::store as files;
use crate::features::mcp_servers::store as mcp_servers;
use crate::features::memory::store as memory;
use crate::features::messaging::store::testing::message;
use crate::features::messaging::store::types::{MessagingPart, NewDelivery, NewMessage, RecipientKind};
use crate::features::messaging::store::{self as messaging, BacklogCursor, Queues};
use crate::features::schedules::store as schedules;
use crate::features::services::store as services;
use crate::features::skills::store as skills;
use crate::features::state::store::{self as state, Act, Entry, Page, Refused, Write};
use crate::features::streams::store::{self as streams, Stream};
use crate::features::tasks::store::{self as tasks, Task};
use crate::features::topics::store::{self as topics, Topic};
use crate::features::vault::store as vault;
use crate::journal::{Batch, WriteError, write_batch};
use crate::quota::Quotas;
use crate::refusal::Refusal;
use crate::search::query::Query;

/// `feature::function` of every public async function in a store that takes one mesh's storage.
fn scoped() -> BTreeSet<String> {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut found = BTreeSet::new();
    // The stores that a mesh itself has, then those of its features.
    let own = [
        ("audit", "audit"),
        ("former_names", "db/former_names.rs"),
        ("member_groups", "db/member_groups.rs"),
        ("membership", "db/membership.rs"),
        ("members", "db/members.rs"),
        ("meshes", "db/meshes.rs"),
        ("presence", "db/sessions"),
        ("rights", "db/rights.rs"),
    ];
    let mut stores: Vec<(String, PathBuf)> = own.map(|(name, path)| (name.to_owned(), source.join(path))).into();
    for feature in std::fs::read_dir(source.join("features")).unwrap().map(Result::unwrap) {
        let name = feature.file_name().into_string().unwrap();
        stores.extend(["store", "store.rs"].map(|store| (name.clone(), feature.path().join(store))));
    }
    for (feature, path) in stores {
        for file in files(&path) {
            let text = std::fs::read_to_string(file).unwrap();
            for declaration in text.split("pub async fn ").skip(1) {
                let (name, rest) = declaration.split_once('(').unwrap();
                let parameters = rest.split_once("->").unwrap().0;
                if parameters.contains("MeshDb") || parameters.contains("MeshStore") {
                    found.insert(format!("{feature}::{name}"));
                }
            }
        }
    }
    found
}

fn files(path: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flat_map(|entry| files(&entry.unwrap().path())).collect(),
        Err(_) if path.is_file() => vec![path.to_owned()],
        Err(_) => vec![],
    }
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// Every row of a mesh in every table.
async fn rows_of(db: &Db, mesh: &str, topic: &str) -> Result<BTreeMap<String, Vec<String>>, DbError> {
    let mut found = BTreeMap::new();
    for (table, columns) in declared() {
        let condition = match table.as_str() {
            "broker_meta" => format!("key LIKE '%{mesh}%'"),
            "meshes" => format!("id = '{mesh}'"),
            "topic_members" => format!("topic_id = '{topic}'"),
            other => {
                assert!(columns.contains_key("mesh_id"), "{other}: whose rows are these?");
                format!("mesh_id = '{mesh}'")
            }
        };
        let columns: Vec<_> =
            columns.keys().map(|column| format!("COALESCE(CAST(\"{column}\" AS TEXT), '~')")).collect();
        let query = format!("SELECT {} AS line FROM {table} WHERE {condition} ORDER BY 1", columns.join(" || '|' || "));
        let lines: Vec<Line> = crate::with_conn!(db, |conn| diesel::sql_query(query.as_str()).load(conn).await?);
        found.insert(table, lines.into_iter().map(|line| line.line).collect());
    }
    Ok(found)
}

store_suite! {
    async fn a_store_function_sees_and_changes_its_own_mesh_only(db: Db) {
        let (home, owner) = mesh(&db, "home", key()).await;
        let (abroad, stranger) = mesh(&db, "abroad", key()).await;
        let here = store(&db, &home.id);
        let (bob, banned) = (member(&home.id, "bob", Role::Member), member(&home.id, "eve", Role::Member));
        let by = By::member(&owner.id, NOW);
        members::insert(&here, &bob).await.unwrap();
        members::insert(&here, &banned).await.unwrap();
        members::revoke(&here, &banned.id, None, &by).await.unwrap();
        let changes = [(Capability::CanInvite, Some(true))].into();
        rights::edit(&here, &Subject::Member(bob.id.clone()), &changes, &by).await.unwrap();
        let group = Group { name: "dev".into(), role: None };
        member_groups::put(&here, &owner.id, &group, &by).await.unwrap();
        let patch = MemberPatch { display_name: Some("Bob".into()), ..MemberPatch::default() };
        members::update(&here, &bob.id, &patch, &by).await.unwrap();
        let topic = Topic {
            id: "topic-of-home".into(),
            mesh_id: home.id.clone(),
            name: "general".into(),
            description: None,
            visibility: Visibility::Public,
            created_by: owner.id.clone(),
            created_at_ms: NOW,
            retention_ms: None,
        };
        topics::create(&here, &topic).await.unwrap();
        let invite = Invite {
            id: "invite-of-home".into(),
            mesh_id: home.id.clone(),
            version: 2,
            code: Some("CODE2222".into()),
            token_hash: Some("hash".into()),
            role: Role::Member,
            max_uses: 9,
            used_count: 0,
            expires_at_ms: NOW + 1_000,
            created_at_ms: NOW,
            created_by_key: home.owner_pubkey,
            revoked_at_ms: None,
            canonical: "canonical".into(),
            signature: "signature".into(),
            preset: None,
        };
        enrolment::create_invite(&here, &invite, &By::nobody(NOW)).await.unwrap();
        let removal = Write {
            key: "key-of-home".into(),
            act: Act::Delete,
            expected_version: None,
            by: Some((owner.id.clone(), "Ada".into())),
            now_ms: NOW,
            believed_ms: NOW,
            quotas: Quotas::default(),
        };
        let begin = clock::Act::Set { speed: None, sim_ms: None };
        clock::act(&here, begin, NOW, Some(owner.id.clone())).await.unwrap();
        let value = Act::Set { value: "1".into(), expires_at_ms: Some(NOW + 1) };
        state::write(&here, Write { act: value, ..removal.clone() }).await.unwrap();
        let planned = schedules::Asked {
            member: owner.id.clone(),
            manages: true,
            now_ms: NOW,
            sim_ms: None,
            quotas: Quotas::default(),
        };
        for clock in ["wall", "mesh"] {
            let entry = schedules::Row {
                id: format!("entry-of-home-{clock}"),
                member_id: owner.id.to_string(),
                cron: Some("@daily".into()),
                zone: "UTC".into(),
                clock: clock.into(),
                state: "active".into(),
                ..schedules::Row::default()
            };
            schedules::change(&here, schedules::Change::Create(Box::new(entry)), planned.clone()).await.unwrap();
        }
        let task = |act| tasks::Change {
            act,
            by: tasks::By { member: owner.id.to_string(), name: "Ada".into(), manages: true, ..tasks::By::default() },
            now_ms: NOW,
            quotas: Default::default(),
        };
        for (id, needed) in [("task-of-home", None), ("second-of-home", Some("task-of-home".to_owned()))] {
            let (tags, assignee) = (vec!["tag".into()], needed.as_ref().map(|_| "bob".to_owned()));
            let depends_on = needed.into_iter().collect();
            let new = tasks::New { id: id.into(), tags, assignee, depends_on, ..tasks::New::default() };
            tasks::change(&here, task(tasks::Act::Create(Box::new(new)))).await.unwrap();
        }
        let stream = Stream {
            name: "stream-of-home".into(),
            id: "id-of-stream".into(),
            created_by: owner.id.to_string(),
            keep_entries: 9,
            keep_bytes: 99,
            keep_ms: i64::MAX,
            ..Stream::default()
        };
        let entry = streams::NewEntry {
            data: "1".into(),
            by: owner.id.to_string(),
            by_name: "Ada".into(),
            session_id: "s".into(),
        };
        streams::append(&here, stream.clone(), vec![entry.clone(), entry], (NOW, NOW), Default::default()).await.unwrap();
        let (name, reader) = (stream.name.clone(), "reader".to_owned());
        let opened = streams::open_consumer(&here, name.clone(), owner.id.clone(), reader.clone(), 0, NOW, Default::default());
        assert_eq!(opened.await.unwrap(), 0);
        let moved = streams::Consumer {
            mesh_id: home.id.to_string(),
            stream_id: stream.id.clone(),
            member_id: owner.id.to_string(),
            name: reader.clone(),
            next_offset: 2,
            updated_at_ms: NOW,
        };
        let new = memory::New {
            content: "a memory of home".into(),
            tags: vec!["home".into()],
            member: owner.id.clone(),
            author_name: "Ada".into(),
            now_ms: NOW,
            quotas: Quotas::default(),
        };
        let remembered = memory::remember(&here, new.clone()).await.unwrap().id;
        let skill = skills::New {
            name: "skill-of-home".into(),
            description: "a skill of home".into(),
            instructions: "do it".into(),
            tags: vec!["home".into()],
            manifest: Some("{}".into()),
            digest: "digest".into(),
            signature: None,
            member: owner.id.clone(),
            author_name: "Ada".into(),
            author_key: owner.pubkey,
            may_all: true,
            size_bytes: 20,
            now_ms: NOW,
            quotas: Quotas::default(),
        };
        skills::share(&here, skill.clone()).await.unwrap();
        let secret = vault::New {
            row: vault::Row {
                member_id: owner.id.to_string(),
                name: "secret-of-home".into(),
                entry_type: "env".into(),
                ciphertext: "c2VhbGVk".into(),
                updated_at_ms: NOW,
                ..vault::Row::default()
            },
            quotas: Quotas::default(),
        };
        vault::set(&here, secret.clone()).await.unwrap();
        let server = mcp_servers::Registration {
            row: mcp_servers::Row {
                name: "server-of-home".into(),
                member_id: owner.id.to_string(),
                tools: "[]".into(),
                ..mcp_servers::Row::default()
            },
            persistent: true,
            again: false,
            tools: 0,
        };
        mcp_servers::register(&here, server.clone()).await.unwrap();
        let service = services::Row {
            name: "service-of-home".into(),
            member_id: owner.id.to_string(),
            source: "{}".into(),
            config: "{}".into(),
            sealed: "[]".into(),
            scope: "\"mesh\"".into(),
            audience: "[]".into(),
            status: "running".into(),
            tools: "[]".into(),
            created_at_ms: NOW,
            ..services::Row::default()
        };
        let told = services::Told { by: by.clone(), event: "mcp_deployed", payload: serde_json::json!({}) };
        services::put(&here, service.clone(), told.clone()).await.unwrap();
        let sharer = files::Viewer {
            member: owner.id.to_string(),
            readers: vec!["*".into()],
            keys: vec!["aa".into()],
            manages: true,
        };
        let upload = |id: &str| files::New {
            row: files::Row {
                id: id.into(),
                owner_id: owner.id.to_string(),
                client_upload_id: id.into(),
                encryption: Some("stream".into()),
                persistent: true,
                size_bytes: 3,
                created_at_ms: NOW,
                ..files::Row::default()
            },
            readers: vec!["*".into()],
            keys: vec![("aa".into(), owner.id.to_string(), "sealed".into())],
            quotas: Quotas::default(),
        };
        let finishing = |id: &str| files::Finishing {
            file: id.into(),
            member: owner.id.clone(),
            sha256: "hash".into(),
            now_ms: NOW,
        };
        for id in ["file-of-home", "upload-of-home"] {
            files::start(&here, upload(id)).await.unwrap();
            let part = files::NewPart { object: format!("object of {id}"), size: 3 };
            files::append(&here, id.into(), 0, vec![part], NOW).await.unwrap();
            files::complete(&here, id.into(), 3, "hash".into()).await.unwrap();
        }
        files::finish(&here, finishing("file-of-home")).await.unwrap();
        files::open(&here, "file-of-home".into(), sharer.clone(), "Ada".into(), NOW).await.unwrap();
        let shared = contexts::New {
            session: "session-of-home".into(),
            member: owner.id.clone(),
            peer_name: "Ada".into(),
            session_name: "Ada".into(),
            summary: "a context of home".into(),
            files: vec![],
            findings: vec![],
            tags: vec![],
            size_bytes: 17,
            now_ms: NOW,
            quotas: Quotas::default(),
        };
        let context = contexts::share(&here, shared.clone()).await.unwrap();
        let session = key();
        let text = NewMessage {
            client_message_id: Some("again".into()),
            topic_id: Some(topic.id.clone()),
            ..message(&home.id, 1)
        };
        let delivery = |recipient_key, kind| NewDelivery {
            mesh_id: home.id.clone(),
            seq: 1,
            recipient_key,
            kind,
            member_id: bob.id.clone(),
            priority: text.priority,
            size_bytes: 9,
        };
        let mut batch = Batch::of(MessagingPart {
            messages: vec![Arc::new(text.clone())],
            deliveries: vec![
                delivery(session, RecipientKind::Session),
                delivery(bob.pubkey, RecipientKind::Member),
            ],
            stages: vec![],
        });
        *batch.part() = topics::NotificationsPart(vec![topics::NewNotification {
            mesh_id: home.id.to_string(),
            member_id: owner.id.to_string(),
            seq: 1,
            message_id: text.id.to_string(),
            topic_id: topic.id.to_string(),
            kind: "mention".into(),
            created_at_ms: NOW,
        }]);
        *batch.part() = SessionsPart {
            sessions: vec![SessionRecord {
                mesh_id: home.id.clone(),
                session_key: session,
                member_id: bob.id.clone(),
                session_id: "s".into(),
                display_name: "Bob".into(),
                cwd: "/".into(),
                hostname: None,
                groups: vec![],
                profile: Profile::default(),
                visible: true,
                summary: None,
                status: PeerStatus::Idle,
                stats: Stats::default(),
                first_seen_at_ms: NOW,
                last_seen_at_ms: NOW,
                proven: true,
                renamed_from: None,
            }],
            stats: vec![StatsDelta {
                mesh_id: home.id.clone(),
                member_id: bob.id.clone(),
                messages_in: 1,
                messages_out: 1,
                tool_calls: 1,
                errors: 1,
            }],
            last_seen: vec![],
        };
        write_batch(&db, Arc::new(batch)).await.unwrap();

        let change = |act| topics::Change {
            topic: topic.id.clone(),
            seq: 1,
            act,
            member: owner.id.clone(),
            leads: true,
            now_ms: NOW,
            quotas: Quotas::default(),
        };
        let react = change(topics::Act::React { emoji: "+".into(), remove: false });
        for one in [react.clone(), change(topics::Act::Pin { remove: false })] {
            topics::change(&here, one).await.unwrap();
        }

        let key_row = |id: &str| api_keys::Row {
            mesh_id: String::new(),
            id: id.into(),
            member_id: owner.id.to_string(),
            label: "ci".into(),
            prefix: "cm_12345678".into(),
            secret_hash: format!("hash of {id}"),
            capabilities: "[]".into(),
            topic_scopes: None,
            created_at_ms: NOW,
            expires_at_ms: None,
            last_used_at_ms: None,
            revoked_at_ms: None,
        };
        api_keys::create(&here, &key_row("key-of-home"), &by).await.unwrap();

        let before = rows_of(&db, home.id.as_str(), topic.id.as_str()).await.unwrap();
        for (table, rows) in &before {
            assert!(!rows.is_empty() || table == "broker_meta", "{table} has a row to protect");
        }
        let (db_there, there) = (of(&db, &abroad.id), store(&db, &abroad.id));
        let mut run = BTreeSet::new();
        // Runs one function, looks at what it gave back, and at all that the other mesh has.
        macro_rules! check {
            ($name:literal, $call:expr, $fine:expr) => {
                let fine: fn(_) -> bool = $fine;
                // Made in a frame of its own: all of these futures in one frame are more than a test's stack holds.
                let call = || -> Pin<Box<dyn Future<Output = _> + '_>> { Box::pin(async { $call.await }) };
                assert!(fine(call().await), "{} gave back something of another mesh", $name);
                let look = || -> Pin<Box<dyn Future<Output = _> + '_>> {
                    Box::pin(rows_of(&db, home.id.as_str(), topic.id.as_str()))
                };
                let after = look().await.unwrap();
                assert_eq!(after, before, "{} changed another mesh", $name);
                run.insert($name.to_owned());
            };
        }
        check!("audit::query", audit::query(&db_there, &audit::Filter::default(), 9), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().len() == 1
        });
        check!("audit::head", audit::head(&db_there), |head: Result<audit::Head, DbError>| head.unwrap().seq == 1);
        let nothing = audit::Audit::Unaudited("nothing happened");
        check!("audit::append", audit::append(&there, nothing), |done: Result<(), DbError>| done.is_ok());
        check!("audit::count", audit::count(&db_there, &audit::Filter::default()), |count: Result<i64, DbError>| {
            count.unwrap() == 1
        });
        check!("audit::page", audit::page(&db_there, 0, 9), |rows: Result<Vec<_>, DbError>| rows.unwrap().len() == 1);
        check!("audit::hash_at", audit::hash_at(&db_there, 2), |hash: Result<Option<String>, DbError>| {
            hash.unwrap().is_none()
        });
        check!("audit::verify", audit::verify(&db_there), |found: Result<audit::Verdict, DbError>| {
            found.unwrap().entries == 1
        });
        check!(
            "audit::verify_on",
            audit::verify_on(&db_there, audit::Head::genesis(), 9),
            |found: Result<audit::Verdict, DbError>| found.unwrap().entries == 1
        );
        let another = key_row("key-of-strangers");
        check!("api_keys::create", api_keys::create(&there, &another, &by), |done: Result<(), DbError>| done.is_ok());
        check!("api_keys::list", api_keys::list(&db_there, Some(&owner.id)), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().len() == 1
        });
        check!("api_keys::revoke", api_keys::revoke(&there, "key-of-home", &by), |done: Result<bool, DbError>| !done.unwrap());
        check!("api_keys::revoke_all", api_keys::revoke_all(&there, &owner.id, &by), |count: Result<usize, DbError>| {
            count.unwrap() == 1
        });
        let uses = vec![("key-of-home".to_owned(), NOW + 1)];
        check!("api_keys::note_uses", api_keys::note_uses(&there, uses.clone()), |done: Result<(), DbError>| done.is_ok());
        check!("enrolment::create_invite", enrolment::create_invite(&there, &invite, &by), |done: Result<(), DbError>| {
            matches!(done, Err(DbError::Conflict(_)))
        });
        check!("enrolment::list_invites", enrolment::list_invites(&db_there, 9), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("enrolment::count_usable", enrolment::count_usable(&db_there, NOW), |count: Result<u32, DbError>| {
            count.unwrap() == 0
        });
        check!("enrolment::may_invite", enrolment::may_invite(&db_there, &owner.pubkey, Role::Member), |may: Result<bool, DbError>| {
            !may.unwrap()
        });
        check!("enrolment::revoke_invite", enrolment::revoke_invite(&there, &invite.id, &by), |found: Result<Option<_>, DbError>| {
            found.unwrap().is_none()
        });
        check!("members::load_all", members::load_all(&db_there), |rows: Result<Vec<members::Member>, DbError>| {
            rows.unwrap().len() == 1
        });
        check!("members::load", members::load(&db_there, &bob.id), |found: Result<Option<_>, DbError>| {
            found.unwrap().is_none()
        });
        check!("members::by_key", members::by_key(&db_there, &bob.pubkey), |found: Result<Option<_>, DbError>| {
            found.unwrap().is_none()
        });
        let own = async {
            let owner = members::owner(&db_there).await?;
            Ok(owner.is_some_and(|owner| owner.id == stranger.id))
        };
        check!("members::owner", own, |own: Result<bool, DbError>| own.unwrap());
        check!("members::insert", members::insert(&there, &bob), |done: Result<(), DbError>| {
            matches!(done, Err(DbError::Conflict(_)))
        });
        let patch = MemberPatch { role: Some(Role::Admin), ..MemberPatch::default() };
        check!("members::update", members::update(&there, &bob.id, &patch, &by), |found: Result<Option<_>, Refusal>| {
            found.unwrap().is_none()
        });
        check!("members::revoke", members::revoke(&there, &bob.id, None, &by), |done: Result<bool, DbError>| !done.unwrap());
        check!("members::unrevoke", members::unrevoke(&there, &banned.id, &by), |done: Result<Option<String>, DbError>| {
            done.unwrap().is_none()
        });
        let grants = BTreeMap::from([(stranger.pubkey, Some(vec![]))]);
        check!(
            "members::update_grants",
            members::update_grants(&there, &bob.id, &grants, &by),
            |found: Result<Option<_>, members::GrantsError>| found.unwrap().is_none()
        );
        check!("rights::load", rights::load(&db_there), |rights: Result<Rights, DbError>| rights.unwrap() == Rights::default());
        let subject = Subject::Member(bob.id.clone());
        check!(
            "rights::edit",
            rights::edit(&there, &subject, &changes, &By::nobody(NOW)),
            |done: Result<Overrides, WriteError<EditError>>| matches!(done, Err(WriteError::Refused(EditError::NoMember)))
        );
        check!(
            "messaging::load_queue_class",
            messaging::load_queue_class(&db_there, &session, text.priority, 0, 9),
            |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty()
        );
        check!(
            "messaging::load_copies_class",
            messaging::load_copies_class(&db_there, &[session], text.priority, 0, 9),
            |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty()
        );
        check!(
            "messaging::taken_by_member",
            messaging::taken_by_member(&db_there, &bob.id, &[1]),
            |seqs: Result<Vec<i64>, DbError>| seqs.unwrap().is_empty()
        );
        check!("messaging::pending_copies", messaging::pending_copies(&db_there), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        let lanes = Priority::ALL.map(|priority| BacklogCursor { priority, after: 0 });
        let queues =
            Queues { own: session, member: bob.pubkey, member_id: bob.id.clone(), left: vec![stranger.pubkey] };
        check!(
            "messaging::load_backlog",
            messaging::load_backlog(&db_there, &queues, &lanes, 9),
            |found: Result<(Vec<_>, Vec<_>), DbError>| found.unwrap().0.is_empty()
        );
        check!("messaging::recent_repeatable", messaging::recent_repeatable(&db_there, 9), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!(
            "messaging::pending_counts",
            messaging::pending_counts(&db_there),
            |found: Result<std::collections::HashMap<_, _>, DbError>| found.unwrap().is_empty()
        );
        check!(
            "messaging::message_by_id_prefix",
            messaging::message_by_id_prefix(&db_there, text.id.as_str(), 9),
            |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty()
        );
        let ids = [text.id.to_string()];
        check!(
            "messaging::below_stage",
            messaging::below_stage(&db_there, &ids, (&session, &bob.id), Stage::Seen),
            |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty()
        );
        check!("messaging::deliveries_of", messaging::deliveries_of(&db_there, 1), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("messaging::max_seq", messaging::max_seq(&db_there), |seq: Result<i64, DbError>| seq.unwrap() == 0);
        let part = messaging::TopicPart::newest(topic.id.clone(), 9);
        check!("messaging::topic_history", messaging::topic_history(&db_there, &part), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("messaging::topic_after", messaging::topic_after(&db_there, &part), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!(
            "messaging::topic_replies",
            messaging::topic_replies(&db_there, &part, text.id.as_str()),
            |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty()
        );
        check!("messaging::topic_at", messaging::topic_at(&db_there, &part, &[1]), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("presence::load", presence::load(&db_there, &session), |found: Result<Option<_>, DbError>| {
            found.unwrap().is_none()
        });
        check!("presence::load_known", presence::load_known(&db_there, 0), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("presence::forget", presence::forget(&db_there, &[session]), |done: Result<(), DbError>| done.is_ok());
        check!("presence::totals", presence::totals(&db_there), |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty());
        check!("presence::newest_seen", presence::newest_seen(&db_there), |seen: Result<Option<i64>, DbError>| {
            seen.unwrap().is_none()
        });
        let cancel = schedules::Change::Cancel("entry-of-home-wall".into());
        check!("schedules::change", schedules::change(&there, cancel, planned), |done: Result<_, WriteError<schedules::Refused>>| {
            matches!(done, Err(WriteError::Refused(schedules::Refused::Missing)))
        });
        check!(
            "schedules::due",
            schedules::due(&db_there, ScheduleClock::Wall, i64::MAX, &Default::default(), 9, 99),
            |found: Result<(Vec<_>, Option<i64>), DbError>| found.unwrap() == (vec![], None)
        );
        check!("schedules::list", schedules::list(&db_there, &schedules::Filter::default(), 9), |page: Result<schedules::Page, DbError>| {
            page.unwrap() == schedules::Page::default()
        });
        check!("schedules::used", schedules::used(&db_there, None), |used: Result<schedules::Weight, DbError>| {
            used.unwrap() == schedules::Weight::default()
        });
        check!("schedules::end_all", schedules::end_all(&there, &owner.id, NOW), |done: Result<usize, DbError>| done.unwrap() == 0);
        check!("schedules::rearm", schedules::rearm(&there, 0, true), |done: Result<(), DbError>| done.is_ok());
        let entries = schedules::list(&of(&db, &home.id), &schedules::Filter::default(), 9).await.unwrap().rows;
        let sent = |row| schedules::Sent { row, fired: 1, missed: 0, error: None, next_ms: None, now_ms: NOW };
        let sent: Vec<_> = entries.into_iter().map(sent).collect();
        check!("schedules::advance", schedules::advance(&there, sent), |done: Result<(), DbError>| done.is_ok());
        check!("clock::act", clock::act(&there, clock::Act::Stop, NOW, None), |done: Result<_, WriteError<_>>| {
            matches!(done, Err(WriteError::Refused(clock::NoClock)))
        });
        check!("clock::find", clock::find(&db_there), |found: Result<Option<_>, DbError>| found.unwrap().is_none());
        // Of the session with the same name, which the other mesh has, too.
        check!("contexts::share", contexts::share(&there, shared), |done: Result<String, WriteError<contexts::Refused>>| {
            done.is_ok()
        });
        check!("contexts::count", contexts::count(&db_there, None), |count: Result<i64, DbError>| count.unwrap() == 1);
        check!(
            "contexts::find",
            contexts::find(&db_there, Query::parse("context home"), 0, 9),
            |page: Result<contexts::Page, DbError>| page.unwrap().rows.len() == 1
        );
        check!("contexts::list", contexts::list(&db_there, Some(&context), 9), |page: Result<contexts::Page, DbError>| {
            page.unwrap().rows.is_empty()
        });
        check!(
            "contexts::unmatched",
            contexts::unmatched(&db_there, &Query::parse("home abroad")),
            |words: Result<Vec<String>, DbError>| words.unwrap() == ["abroad"]
        );
        // Its own memory with the same words, which the log of the other mesh then holds.
        check!("memory::remember", memory::remember(&there, new), |done: Result<memory::Stored, WriteError<memory::Refused>>| {
            !done.unwrap().duplicate
        });
        let forgetting =
            memory::Removal { id: remembered.clone(), member: owner.id.clone(), may_all: true, now_ms: NOW };
        check!("memory::forget", memory::forget(&there, forgetting), |done: Result<memory::Row, WriteError<memory::Refused>>| {
            matches!(done, Err(WriteError::Refused(memory::Refused::Missing)))
        });
        check!("memory::total", memory::total(&db_there, None), |total: Result<memory::Total, DbError>| {
            total.unwrap().memories == 1
        });
        let only = memory::Only::default();
        check!(
            "memory::recall",
            memory::recall(&db_there, Query::parse("memory home"), &only, 0, 9),
            |page: Result<memory::Page, DbError>| page.unwrap().rows.len() == 1
        );
        let place = memory::Place { at_ms: NOW + 1, id: remembered.clone() };
        check!("memory::list", memory::list(&db_there, &only, Some(place), 9), |page: Result<memory::Page, DbError>| {
            page.unwrap().rows.len() == 1
        });
        check!(
            "memory::unmatched",
            memory::unmatched(&db_there, &Query::parse("home abroad")),
            |words: Result<Vec<String>, DbError>| words.unwrap() == ["abroad"]
        );
        let removing =
            skills::Removal { name: skill.name.clone(), member: owner.id.clone(), may_all: true, now_ms: NOW };
        check!("skills::remove", skills::remove(&there, removing), |done: Result<skills::Row, WriteError<skills::Refused>>| {
            matches!(done, Err(WriteError::Refused(skills::Refused::Missing)))
        });
        check!("skills::get", skills::get(&db_there, &skill.name, None), |found: Result<Option<skills::Found>, DbError>| {
            found.unwrap().is_none()
        });
        for words in ["", "skill home"] {
            let wanted = skills::Wanted { words: Query::parse(words), tags: vec!["home".into()] };
            check!("skills::list", skills::list(&db_there, &wanted, None, 9), |page: Result<skills::Page, DbError>| {
                page.unwrap() == skills::Page::default()
            });
        }
        check!("skills::usage", skills::usage(&db_there, None), |usage: Result<skills::Usage, DbError>| {
            usage.unwrap() == skills::Usage::default()
        });
        // Its own skill with the same name and text, which is no new version of the other mesh's.
        let servers = || vec!["server-of-home".to_owned()];
        check!("mcp_servers::load", mcp_servers::load(&db_there), |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty());
        check!("mcp_servers::set_offline", mcp_servers::set_offline(&there, servers(), Some(7)), |done: Result<(), DbError>| {
            done.is_ok()
        });
        check!("mcp_servers::remove_of", mcp_servers::remove_of(&there, owner.id.clone()), |gone: Result<usize, DbError>| {
            gone.unwrap() == 0
        });
        let (server_name, of) = ("server-of-home".to_owned(), owner.id.clone());
        check!("mcp_servers::unregister", mcp_servers::unregister(&there, server_name, of, by.clone()), |done: Result<(), DbError>| {
            done.is_ok()
        });
        check!("services::load", services::load(&db_there), |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty());
        let texts = || ("\"peer\"".to_owned(), "[]".to_owned());
        let place = || ("service-of-home".to_owned(), NOW);
        check!("services::set_scope", services::set_scope(&there, place(), texts(), told.clone()), |done: Result<bool, DbError>| {
            !done.unwrap()
        });
        check!("services::remove_of", services::remove_of(&there, owner.id.clone()), |gone: Result<usize, DbError>| {
            gone.unwrap() == 0
        });
        let removing = services::remove(&there, "service-of-home".into(), owner.id.clone(), by.clone());
        check!("services::remove", removing, |done: Result<bool, DbError>| !done.unwrap());
        check!("services::put", services::put(&there, service, told), |done: Result<(), DbError>| done.is_ok());
        check!("mcp_servers::register", mcp_servers::register(&there, server), |done: Result<(), DbError>| done.is_ok());
        check!("skills::share", skills::share(&there, skill), |done: Result<skills::Shared, WriteError<skills::Refused>>| {
            done.unwrap() == skills::Shared { version: 1, unchanged: false }
        });
        let secrets = [secret.row.name.clone()];
        let gone = vault::Removal { of: owner.id.clone(), name: secrets[0].clone(), member: owner.id.clone(), now_ms: NOW };
        check!("vault::delete", vault::delete(&there, gone), |done: Result<bool, DbError>| !done.unwrap());
        check!("vault::get", vault::get(&db_there, &owner.id, &secrets), |found: Result<vault::Found, DbError>| {
            found.unwrap() == vault::Found::default()
        });
        check!("vault::list", vault::list(&db_there, None, None, 9), |page: Result<vault::Page, DbError>| {
            page.unwrap() == vault::Page::default()
        });
        check!("vault::usage", vault::usage(&db_there, None), |usage: Result<vault::Usage, DbError>| {
            usage.unwrap() == vault::Usage::default()
        });
        // Its own entry of the same member and name, which replaces nothing.
        check!("vault::set", vault::set(&there, secret), |done: Result<(), WriteError<vault::Refused>>| done.is_ok());
        type FileDone<T> = Result<T, WriteError<files::Refused>>;
        let (file, unfinished) = (FileId::from("file-of-home"), FileId::from("upload-of-home"));
        check!(
            "files::open",
            files::open(&there, file.clone(), sharer.clone(), "Ada".into(), NOW),
            |done: FileDone<files::Opened>| matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        );
        check!(
            "files::readable",
            files::readable(&db_there, &file, &owner.id, NOW),
            |found: Result<Option<files::Row>, DbError>| found.unwrap().is_none()
        );
        check!("files::accesses", files::accesses(&db_there, &file, &sharer, NOW), |done: FileDone<Vec<files::Access>>| {
            matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        });
        check!("files::readers", files::readers(&db_there, &file, &sharer, NOW), |done: FileDone<files::Readers>| {
            matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        });
        let grant = files::Grant {
            file: file.clone(),
            by: sharer.clone(),
            member: bob.id.clone(),
            pubkey: "bb".into(),
            sealed_key: Some("sealed".into()),
            now_ms: NOW,
        };
        check!("files::grant", files::grant(&there, grant), |done: FileDone<files::Granted>| {
            matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        });
        let from = files::Viewer { member: bob.id.to_string(), ..sharer.clone() };
        let revocation = files::Revocation { file: file.clone(), by: sharer.clone(), from, now_ms: NOW };
        check!("files::revoke", files::revoke(&there, revocation), |done: FileDone<(files::Row, bool)>| {
            matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        });
        let all = files::Listing { all: true, limit: 9, now_ms: NOW, ..files::Listing::default() };
        check!("files::list", files::list(&db_there, &sharer, &all), |page: Result<files::Page, DbError>| {
            page.unwrap() == files::Page::default()
        });
        let removal_of_file =
            files::Removal { file: file.clone(), why: files::Why::Deleted(owner.id.clone(), true), now_ms: NOW };
        check!("files::remove", files::remove(&there, removal_of_file), |done: FileDone<files::Gone>| {
            matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        });
        check!("files::due", files::due(&db_there, i64::MAX, 9), |ids: Result<Vec<FileId>, DbError>| ids.unwrap().is_empty());
        check!("files::next_end", files::next_end(&db_there), |next: Result<Option<i64>, DbError>| next.unwrap().is_none());
        check!("files::parts", files::parts(&db_there, file.as_str()), |parts: Result<Vec<files::Part>, DbError>| {
            parts.unwrap().is_empty()
        });
        check!("files::usage", files::usage(&db_there, Some(&owner.id)), |usage: Result<files::Usage, DbError>| {
            usage.unwrap() == files::Usage::default()
        });
        check!(
            "files::upload",
            files::upload(&db_there, &unfinished, &owner.id),
            |found: Result<Option<files::Row>, DbError>| found.unwrap().is_none()
        );
        let part = files::NewPart { object: "of abroad".into(), size: 3 };
        check!(
            "files::append",
            files::append(&there, unfinished.clone(), 3, vec![part], NOW),
            |done: FileDone<u64>| matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        );
        check!(
            "files::complete",
            files::complete(&there, unfinished.clone(), 3, "hash".into()),
            |done: FileDone<()>| matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        );
        check!("files::finish", files::finish(&there, finishing("upload-of-home")), |done: FileDone<files::Finished>| {
            matches!(done, Err(WriteError::Refused(files::Refused::Missing)))
        });
        // Its own upload under the same ids, which has nothing of the other mesh's.
        check!("files::start", files::start(&there, upload("upload-of-home")), |done: FileDone<files::Row>| {
            done.unwrap().received() == 0
        });
        check!("state::write", state::write(&there, removal), |done: Result<Entry, WriteError<Refused>>| {
            matches!(done, Err(WriteError::Refused(Refused::Missing)))
        });
        check!("state::head", state::head(&db_there), |head: Result<state::Head, DbError>| head.unwrap().revision == 0);
        check!("state::usage", state::usage(&db_there, &owner.id), |usage: Result<state::Usage, DbError>| {
            usage.unwrap().entries == 0
        });
        check!("state::get", state::get(&db_there, "key-of-home", NOW), |found: Result<Option<Entry>, DbError>| {
            found.unwrap().is_none()
        });
        check!("state::page", state::page(&db_there, "", None, 9, NOW), |page: Result<Page<String>, DbError>| {
            page.unwrap() == Page::default()
        });
        check!("state::changes", state::changes(&db_there, "", 0, 9, NOW), |page: Result<Page<i64>, DbError>| {
            page.unwrap() == Page::default()
        });
        check!("state::names", state::names(&db_there, 9), |names: Result<Vec<String>, DbError>| names.unwrap().is_empty());
        check!("state::next_expiry", state::next_expiry(&db_there), |next: Result<Option<i64>, DbError>| {
            next.unwrap().is_none()
        });
        check!("state::expired", state::expired(&db_there, NOW + 9, 9), |keys: Result<Vec<String>, DbError>| {
            keys.unwrap().is_empty()
        });
        check!("streams::load", streams::load(&db_there), |rows: Result<Vec<Stream>, DbError>| rows.unwrap().is_empty());
        check!("streams::page", streams::page(&db_there, &name, 0, 9), |page: Result<Option<_>, DbError>| page.unwrap().is_none());
        check!("streams::place_at", streams::place_at(&db_there, &name, 0), |place: Result<Option<i64>, DbError>| {
            place.unwrap().is_none()
        });
        check!(
            "streams::open_consumer",
            streams::open_consumer(&there, name.clone(), owner.id.clone(), reader, 0, NOW, Default::default()),
            |done: Result<i64, WriteError<streams::Refused>>| matches!(done, Err(WriteError::Refused(streams::Refused::Missing)))
        );
        check!("streams::move_consumers", streams::move_consumers(&there, vec![moved]), |done: Result<usize, DbError>| {
            done.unwrap() == 0
        });
        check!(
            "streams::delete",
            streams::delete(&there, name.clone(), owner.id.clone(), true, NOW),
            |done: Result<Stream, WriteError<streams::Refused>>| matches!(done, Err(WriteError::Refused(streams::Refused::Missing)))
        );
        let own = Stream { id: "id-of-another".into(), ..stream };
        check!(
            "streams::create",
            streams::create(&there, own.clone(), Default::default()),
            |done: Result<(Stream, bool), WriteError<streams::Refused>>| done.unwrap().1
        );
        check!(
            "streams::append",
            streams::append(&there, own, vec![], (NOW, NOW), Default::default()),
            |done: Result<streams::Appended, WriteError<streams::Refused>>| done.unwrap().stream.next_offset == 0
        );
        let taken = task(tasks::Act::Delete("task-of-home".into()));
        check!("tasks::change", tasks::change(&there, taken), |done: Result<tasks::Changed, WriteError<tasks::Refused>>| {
            matches!(done, Err(WriteError::Refused(tasks::Refused::Missing)))
        });
        check!("tasks::head", tasks::head(&db_there), |head: Result<tasks::Head, DbError>| head.unwrap().tasks() == 0);
        check!("tasks::created_by", tasks::created_by(&db_there, owner.id.as_str()), |used: Result<(i64, i64), DbError>| {
            used.unwrap() == (0, 0)
        });
        check!("tasks::get", tasks::get(&db_there, "task-of-home"), |found: Result<Result<_, tasks::Refused>, DbError>| {
            found.unwrap().is_err()
        });
        check!("tasks::list", tasks::list(&db_there, &tasks::Filter::default(), 9), |page: Result<tasks::Page, DbError>| {
            page.unwrap() == tasks::Page::default()
        });
        let tagged = tasks::Filter { tag: Some("tag".into()), ready: true, ..tasks::Filter::default() };
        check!("tasks::list", tasks::list(&db_there, &tagged, 9), |page: Result<tasks::Page, DbError>| {
            page.unwrap() == tasks::Page::default()
        });
        let names = ["bob".to_owned()];
        let waiting = tasks::waiting(&db_there, &names, None, 9);
        check!("tasks::waiting", waiting, |found: Result<(Vec<Task>, i64), DbError>| found.unwrap() == (vec![], 0));
        check!("tasks::next", tasks::next(&db_there, &[]), |found: Result<Option<Task>, DbError>| found.unwrap().is_none());
        check!("topics::create", topics::create(&there, &topic), |done: Result<(Topic, bool), DbError>| {
            matches!(done, Err(DbError::Conflict(_)))
        });
        check!("topics::load_all", topics::load_all(&db_there), |rows: Result<Vec<_>, DbError>| rows.unwrap().is_empty());
        check!("topics::load_subscriptions", topics::load_subscriptions(&db_there), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("topics::members", topics::members(&db_there, &topic.id), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("topics::join", topics::join(&there, &topic.id, &stranger.id, Some("lead"), 0, NOW), |done: Result<(), DbError>| {
            matches!(done, Err(DbError::NotFound))
        });
        check!("topics::leave", topics::leave(&there, &topic.id, &owner.id), |done: Result<bool, DbError>| !done.unwrap());
        check!("topics::mark_read", topics::mark_read(&there, &topic.id, &owner.id, 9, NOW), |done: Result<bool, DbError>| {
            !done.unwrap()
        });
        let other = Topic { description: Some("of strangers".into()), ..topic.clone() };
        check!("topics::update", topics::update(&there, &other, &by), |done: Result<Option<Topic>, DbError>| {
            done.unwrap().is_none()
        });
        check!(
            "topics::set_member",
            topics::set_member(&there, &topic.id, &stranger.id, "lead", 0, &by),
            |done: Result<(), DbError>| matches!(done, Err(DbError::NotFound))
        );
        check!(
            "topics::remove_member",
            topics::remove_member(&there, &topic.id, &owner.id, &by),
            |done: Result<bool, DbError>| !done.unwrap()
        );
        check!("topics::unread", topics::unread(&db_there, &owner.id, NOW), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("topics::change", topics::change(&there, react.clone()), |done: Result<bool, WriteError<topics::Refused>>| {
            matches!(done, Err(WriteError::Refused(topics::Refused::NotFound)))
        });
        check!("topics::decorations", topics::decorations(&db_there, &ids), |found: Result<topics::Decorations, DbError>| {
            found.unwrap() == topics::Decorations::default()
        });
        check!("topics::pinned", topics::pinned(&db_there, &topic.id, 9), |rows: Result<Vec<i64>, DbError>| {
            rows.unwrap().is_empty()
        });
        let wanted = topics::Wanted {
            member: owner.id.clone(),
            unread: false,
            since_ms: 0,
            before: None,
            limit: 9,
        };
        check!("topics::notified", topics::notified(&db_there, &wanted), |rows: Result<Vec<_>, DbError>| {
            rows.unwrap().is_empty()
        });
        check!("topics::unread_notified", topics::unread_notified(&db_there, &owner.id), |count: Result<i64, DbError>| {
            count.unwrap() == 0
        });
        check!(
            "topics::notified_by",
            topics::notified_by(&db_there, text.id.as_str()),
            |count: Result<i64, DbError>| count.unwrap() == 0
        );
        check!(
            "topics::mark_notified",
            topics::mark_notified(&there, &owner.id, None, NOW),
            |count: Result<usize, DbError>| count.unwrap() == 0
        );
        check!("meshes::create", meshes::create(&there, &home, &owner), |done: Result<(), DbError>| {
            matches!(done, Err(DbError::Conflict(_)))
        });
        let to = PatchSettings { limits: [("topics.per_mesh".into(), Some(1))].into(), ..PatchSettings::default() };
        check!("meshes::change_settings", meshes::change_settings(&there, &to, &by), |done: Result<Option<_>, DbError>| {
            done.unwrap().is_some()
        });
        let to = PatchMesh { slug: None, name: Some("Far away".into()) };
        check!("meshes::rename", meshes::rename(&there, &to, &by), |done: Result<Option<_>, DbError>| done.unwrap().is_some());
        check!("members::rejoin", members::rejoin(&there, &member(&abroad.id, "back", Role::Owner)), |done: Result<members::Rejoined, DbError>| {
            done.unwrap().former.len() == 1
        });
        check!("former_names::load", former_names::load(&db_there), |names: Result<former_names::FormerNames, DbError>| {
            names.unwrap().of_name("bobby").count() == 0
        });
        check!(
            "former_names::session_renamed",
            former_names::session_renamed(&there, &session, ("api", "web"), &by),
            |done: Result<(), DbError>| done.is_ok()
        );
        check!("member_groups::load", member_groups::load(&db_there), |groups: Result<member_groups::MemberGroups, DbError>| groups.unwrap().is_empty());
        check!("member_groups::put", member_groups::put(&there, &bob.id, &group, &by), |done: Result<(), DbError>| done.is_ok());
        check!("member_groups::remove", member_groups::remove(&there, &owner.id, "dev", &by), |done: Result<bool, DbError>| {
            !done.unwrap()
        });
        check!("membership::remove", membership::remove(&there, &bob.id, &by), |done: Result<bool, DbError>| !done.unwrap());
        check!("membership::transfer", membership::transfer(&there, &bob.id, &by), |done: Result<membership::Transferred, Refusal>| {
            done.unwrap_err().code == ErrorCode::Forbidden
        });
        check!("meshes::archive", meshes::archive(&there, &by), |done: Result<bool, DbError>| done.unwrap());
        check!("meshes::restore", meshes::restore(&there, &by), |done: Result<bool, DbError>| done.unwrap());
        check!("meshes::delete", meshes::delete(&there, &by), |done: Result<bool, DbError>| done.unwrap());
        assert_eq!(scoped(), run, "every store function of one mesh is tried here");
    }
}

/// A change that a feature writes past the journal has no audit entry; the line above says why it needs none.
#[test]
fn no_store_changes_shared_things_without_a_word_for_the_audit_log() {
    let mut silent = Vec::new();
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let stores = [
        "features",
        "db/former_names.rs",
        "db/member_groups.rs",
        "db/membership.rs",
        "db/members.rs",
        "db/meshes.rs",
        "db/rights.rs",
        "db/sessions",
    ];
    for file in stores.iter().flat_map(|path| files(&source.join(path))) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let said = at > 0 && lines[at - 1].trim_start().starts_with("// Unaudited: ");
            if line.contains(concat!("with_tx", "!(")) && !said {
                silent.push(format!("{}:{}", file.display(), at + 1));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:?}");
}
