use std::collections::BTreeMap;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::meshes::{PatchSelfEditable, PatchSettings};
use diesel::deserialize::QueryableByName;
use diesel::sql_types::{Bool, Text};
use diesel_async::RunQueryDsl;

use super::testing::{NOW, key, mesh, store, store_suite};
use super::{Db, DbError, DbOptions, Scheme, meta, migrate};
use crate::audit::By;
use crate::db::meshes;

#[derive(QueryableByName, Debug)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    required: bool,
}

pub(super) type Tables = BTreeMap<String, BTreeMap<String, (String, bool)>>;

/// Tables, columns, their types and whether they are required; the catalogue differs per backend, hence the raw SQL.
async fn tables(db: &Db) -> Tables {
    let columns: Vec<Column> = match db {
        #[cfg(feature = "sqlite")]
        Db::Sqlite(backend) => diesel::sql_query(
            "SELECT m.name AS table_name, c.name AS column_name, lower(c.type) AS kind, c.\"notnull\" AS required \
             FROM sqlite_master m JOIN pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '\\_\\_%' ESCAPE '\\'",
        )
        .load(&mut *backend.get().await.unwrap())
        .await
        .unwrap(),
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => diesel::sql_query(
            "SELECT table_name::text, column_name::text, data_type::text AS kind, is_nullable = 'NO' AS required \
             FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_\\_%'",
        )
        .load(&mut *backend.get().await.unwrap())
        .await
        .unwrap(),
    };
    let mut found = Tables::new();
    for column in columns {
        found.entry(column.table_name).or_default().insert(column.column_name, (column.kind, column.required));
    }
    found
}

/// How many migrations there are: the folders of one database, and the other has the same ones.
fn migrations() -> usize {
    std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/sqlite")).unwrap().count()
}

/// What all files called `schema.rs` say, read from their text: `table (keys) { column -> Type, }`.
pub(crate) fn declared() -> Tables {
    let mut found = Tables::new();
    let mut table = String::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == "schema.rs" {
                text.push_str(&std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    for line in text.lines().map(str::trim) {
        if let Some((column, kind)) = line.split_once(" -> ") {
            let kind = kind.trim_end_matches(',');
            let inner = kind.strip_prefix("Nullable<").map(|rest| rest.trim_end_matches('>'));
            let kind_name = match inner.unwrap_or(kind) {
                "Text" => "text",
                "BigInt" => "bigint",
                "Integer" => "integer",
                "Bool" => "boolean",
                other => panic!("schema.rs uses the unexpected type {other}"),
            };
            found.get_mut(&table).unwrap().insert(column.into(), (kind_name.into(), inner.is_none()));
        } else if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            table = name.into();
            found.insert(table.clone(), BTreeMap::new());
        }
    }
    found
}

store_suite! {
    /// Both backends are compared with the hand-written schemas of all features, hence with each other.
    async fn migrations_make_what_the_schema_declares(db: Db) {
        assert_eq!(tables(&db).await, declared());
    }

    /// Public keys and signatures only: there is no column that a secret key of an owner, member or mesh could be in.
    async fn no_table_has_a_place_for_a_secret(db: Db) {
        let tables = tables(&db).await;
        let keys: Vec<String> = tables
            .iter()
            .flat_map(|(table, columns)| columns.keys().map(move |column| format!("{table}.{column}")))
            .filter(|name| ["key", "secret", "seed", "private", "token"].iter().any(|word| name.contains(word)))
            .collect();
        assert_eq!(
            keys,
            [
                "api_keys.capabilities",
                "api_keys.created_at_ms",
                "api_keys.expires_at_ms",
                "api_keys.id",
                "api_keys.label",
                "api_keys.last_used_at_ms",
                "api_keys.member_id",
                "api_keys.mesh_id",
                "api_keys.prefix",
                "api_keys.revoked_at_ms",
                // The SHA-256 of a secret of 32 random bytes.
                "api_keys.secret_hash",
                "api_keys.topic_scopes",
                "broker_meta.key",
                "deliveries.recipient_key",
                "file_keys.file_id",
                "file_keys.member_id",
                "file_keys.mesh_id",
                "file_keys.pubkey",
                // Sealed for a member: the broker cannot open it.
                "file_keys.sealed_key",
                "invites.created_by_key",
                "invites.token_hash",
                "members.pubkey",
                "meshes.owner_pubkey",
                "messages.sender_key",
                "messages.sender_member_key",
                "sessions.session_key",
                "skill_versions.author_pubkey",
                // Sealed by its client, which alone can open it.
                "vault_entries.sealed_key",
            ]
        );
    }

    async fn up_down_up_leaves_the_same_schema(db: Db) {
        let before = tables(&db).await;
        assert_eq!(migrate::down(&db).await.unwrap().len(), migrations());
        assert_eq!(tables(&db).await, Tables::new());
        assert_eq!(db.migrate().await.unwrap().len(), migrations());
        assert_eq!(tables(&db).await, before);
    }

    async fn migrating_at_the_same_time_applies_once(db: Db) {
        migrate::down(&db).await.unwrap();
        let (first, second, third) = tokio::join!(db.migrate(), db.migrate(), db.migrate());
        let applied: usize = [first, second, third].into_iter().map(|run| run.unwrap().len()).sum();
        assert_eq!(applied, migrations());
    }

    async fn a_newer_schema_is_refused(db: Db) {
        async fn pretend(db: &Db) -> Result<(), DbError> {
            crate::with_tx!(db, |conn| diesel::sql_query(
                "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')"
            ).execute(conn).await?);
            Ok(())
        }
        pretend(&db).await.unwrap();
        let error = db.migrate().await.unwrap_err();
        assert!(matches!(&error, DbError::TooNew(version) if version == "99990101000000"), "{error:?}");
    }

    async fn meta_values_are_set_and_first_one_wins(db: Db) {
        assert_eq!(meta::get(&db, "a").await.unwrap(), None);
        assert_eq!(meta::get_or_set(&db, "a", "1").await.unwrap(), "1");
        assert_eq!(meta::get_or_set(&db, "a", "2").await.unwrap(), "1");
        meta::set(&db, "a", "3").await.unwrap();
        assert_eq!(meta::get(&db, "a").await.unwrap().as_deref(), Some("3"));
    }

    async fn a_mesh_is_created_found_and_archived_once(db: Db) {
        let owner_key = key();
        let (stored, owner) = mesh(&db, "team", owner_key).await;
        let here = store(&db, &stored.id);
        assert_eq!(meshes::load(&db, &stored.id).await.unwrap(), Some(stored.clone()));
        assert_eq!(meshes::by_slug(&db, "team").await.unwrap(), Some(stored.clone()));
        let again = meshes::create(&store(&db, &"other".into()), &stored, &owner).await;
        assert!(matches!(again, Err(DbError::Conflict(_))));
        assert_eq!(again.unwrap_err().code(), ErrorCode::AlreadyExists);
        assert_eq!(meshes::list_ids(&db).await.unwrap(), vec![stored.id.clone()]);
        assert!(meshes::archive(&here, &By::nobody(NOW)).await.unwrap());
        assert!(!meshes::archive(&here, &By::nobody(NOW + 1)).await.unwrap());
        assert_eq!(meshes::load(&db, &stored.id).await.unwrap().unwrap().archived_at_ms, Some(NOW));
        assert!(meshes::list_ids(&db).await.unwrap().is_empty());
        assert!(!meshes::archive(&store(&db, &"none".into()), &By::nobody(NOW)).await.unwrap());
        let policy = PatchSelfEditable { groups: Some(false), ..PatchSelfEditable::default() };
        let change = PatchSettings { self_editable: Some(policy), ..PatchSettings::default() };
        assert_eq!(meshes::change_settings(&here, &change, &By::nobody(NOW)).await.unwrap(), None, "it is archived");
        assert!(meshes::restore(&here, &By::nobody(NOW)).await.unwrap());
        let changed = meshes::change_settings(&here, &change, &By::nobody(NOW)).await.unwrap().unwrap();
        assert!(!changed.self_editable.groups && changed.self_editable.role_tag);
        assert_eq!(meshes::load(&db, &stored.id).await.unwrap(), Some(changed));
    }

    /// A request that goes away in the middle of a transaction must neither commit half of it nor poison the pool.
    async fn a_dropped_transaction_is_rolled_back(db: Db) {
        async fn stuck(db: &Db) -> Result<(), DbError> {
            crate::with_tx!(db, |conn| {
                diesel::sql_query("INSERT INTO broker_meta (key, value) VALUES ('half', '1')").execute(conn).await?;
                std::future::pending::<()>().await;
            });
            Ok(())
        }
        for _ in 0..8 {
            let task = tokio::time::timeout(std::time::Duration::from_millis(30), stuck(&db));
            assert!(task.await.is_err());
        }
        assert_eq!(meta::get(&db, "half").await.unwrap(), None);
        meta::set(&db, "whole", "1").await.unwrap();
    }
}

#[test]
fn urls_choose_the_backend_and_unknown_schemes_are_refused() {
    let sqlite = |path: &str| Scheme::Sqlite(path.into());
    assert_eq!(Scheme::parse("sqlite:/var/x.db").unwrap(), sqlite("/var/x.db"));
    assert_eq!(Scheme::parse("sqlite:///var/x.db").unwrap(), sqlite("/var/x.db"));
    assert_eq!(Scheme::parse("data/x.db").unwrap(), sqlite("data/x.db"));
    assert!(matches!(Scheme::parse("postgresql://h/db").unwrap(), Scheme::Postgres(_)));
    assert!(matches!(Scheme::parse("mysql://h/db"), Err(DbError::UnknownScheme(scheme)) if scheme == "mysql"));
    assert!(matches!(Scheme::parse(""), Err(DbError::UnknownScheme(_))));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_the_text_hides_its_address() {
    let error = match Db::open("postgres://who:secret@127.0.0.1:1/none", DbOptions::default()).await {
        Err(error) => error,
        Ok(_) => panic!("nothing listens on port 1"),
    };
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(!error.to_string().contains("secret") && !error.to_string().contains("127"));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_full_disk_is_storage_full_and_the_database_stays_usable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.db");
    let options = DbOptions { max_bytes: Some(900_000), ..DbOptions::default() };
    let db = Db::open(path.to_str().unwrap(), options).await.unwrap();
    db.migrate().await.unwrap();
    let text = "x".repeat(50_000);
    let mut stored = 0;
    let error = loop {
        match meta::set(&db, &format!("key{stored}"), &text).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::StorageFull, "{error:?}");
    assert!((1..18).contains(&stored), "{stored}");
    assert_eq!(meta::get(&db, "key0").await.unwrap().as_deref(), Some(&*text));
    meta::set(&db, "key0", "small").await.unwrap();
    meta::set(&db, "fits again", &text).await.unwrap();
}

/// Two migrations of one number are one for diesel, which runs only the first.
#[test]
fn every_migration_has_a_number_of_its_own_and_both_databases_have_the_same() {
    let names = |backend: &str| -> Vec<String> {
        let folder = format!("{}/../migrations/{backend}", env!("CARGO_MANIFEST_DIR"));
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort_unstable();
        names
    };
    let sqlite = names("sqlite");
    assert_eq!(sqlite, names("postgres"));
    let numbers: std::collections::BTreeSet<&str> = sqlite.iter().filter_map(|name| name.split('_').next()).collect();
    assert_eq!(numbers.len(), sqlite.len(), "{sqlite:?}");
}
