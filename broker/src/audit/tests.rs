use claudemesh_protocol::crypto::keys;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MeshId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::audit_log;
use super::*;
use crate::db::schema::broker_meta;
use crate::db::testing::{NOW, store_suite};
use crate::db::{Db, DbError, MeshDb, meta};
use crate::journal::{Journal, MeshStore, WriteError};
use crate::tx_write;

fn store(db: &Db, mesh: &str) -> MeshStore {
    MeshStore::new(db.clone(), mesh.into(), Journal::start(db.clone()).0)
}

/// Notes a value with an entry; refuses the value `bad` after it was written.
async fn note(store: &MeshStore, key: &str, value: &str) -> Result<i64, WriteError<ErrorCode>> {
    let (key, value) = (key.to_owned(), value.to_owned());
    tx_write!(store, (key, value), |conn, mesh| {
        diesel::insert_into(broker_meta::table)
            .values((broker_meta::key.eq(key), broker_meta::value.eq(value)))
            .execute(conn)
            .await?;
        if value == "bad" {
            return Err(WriteError::Refused(ErrorCode::Forbidden));
        }
        if value == "panic" {
            panic!("as asked");
        }
        let count: i64 = broker_meta::table.count().get_result(conn).await?;
        let payload = json!({"key": key, "mesh": mesh.as_str()});
        Ok((count, Audit::entry("noted", Some(&"ada".into()), payload, NOW)))
    })
}

async fn tamper(db: &Db, seq: i64) -> Result<(), DbError> {
    crate::with_tx!(db, |conn| diesel::update(audit_log::table.filter(audit_log::seq.eq(seq)))
        .set(audit_log::payload.eq("{}"))
        .execute(conn)
        .await?);
    Ok(())
}

async fn cut(db: &Db, seq: i64) -> Result<(), DbError> {
    crate::with_tx!(db, |conn| diesel::delete(audit_log::table.filter(audit_log::seq.eq(seq))).execute(conn).await?);
    Ok(())
}

store_suite! {
    /// Writes that fail share transactions with writes that do not; the chain has no hole and tells of the latter only.
    async fn a_change_and_its_entry_are_written_together_or_not_at_all(db: Db) {
        let (here, there) = (store(&db, "here"), store(&db, "there"));
        let texts: Vec<(String, &str)> = (0..40)
            .map(|number| (format!("k{number}"), match number % 8 { 3 => "bad", 5 => "panic", _ => "fine" }))
            .collect();
        let notes = texts.iter().map(|(key, value)| note(&here, key, value));
        let done = futures_util::future::join_all(notes).await;
        note(&there, "other", "fine").await.unwrap();
        for ((key, value), result) in texts.iter().zip(done) {
            let stored = meta::get(&db, key).await.unwrap();
            match *value {
                "bad" => assert!(matches!(result, Err(WriteError::Refused(ErrorCode::Forbidden)))),
                "panic" => assert!(matches!(result, Err(WriteError::Db(DbError::Panicked(_))))),
                _ => assert!(result.unwrap() > 0),
            }
            assert_eq!(stored.is_some(), *value == "fine", "{key}");
        }
        assert!(matches!(note(&here, "k0", "again").await, Err(WriteError::Db(DbError::Conflict(_)))));
        let verdict = verify(&here).await.unwrap();
        assert_eq!((verdict.entries, verdict.broken_at), (30, None));
        assert_eq!(verdict.head, head(&here).await.unwrap());
        assert_eq!(verify(&there).await.unwrap().entries, 1, "a chain of its own");
        assert_eq!(verify(&MeshDb::new(db.clone(), "none".into())).await.unwrap().head.hash, "genesis");
    }

    async fn a_changed_or_missing_entry_is_found(db: Db) {
        let here = store(&db, "here");
        for number in 0..6 {
            note(&here, &format!("k{number}"), "fine").await.unwrap();
        }
        cut(&db, 5).await.unwrap();
        let verdict = verify(&here).await.unwrap();
        assert_eq!((verdict.entries, verdict.broken_at), (4, Some(5)));
        tamper(&db, 2).await.unwrap();
        let verdict = verify(&here).await.unwrap();
        assert_eq!((verdict.entries, verdict.broken_at, verdict.head.seq), (1, Some(2), 1));
    }

    async fn entries_are_paged_and_filtered_newest_first(db: Db) {
        let here = store(&db, "here");
        for number in 0..5 {
            note(&here, &format!("k{number}"), "fine").await.unwrap();
        }
        let seqs = |rows: Vec<AuditEntry>| rows.into_iter().map(|row| row.seq).collect::<Vec<_>>();
        let page = query(&here, &Filter::default(), 2).await.unwrap();
        assert_eq!(page[0].payload, r#"{"key":"k4","mesh":"here"}"#);
        assert_eq!(seqs(page), [5, 4]);
        let next = Filter { before_seq: Some(4), ..Filter::default() };
        assert_eq!(seqs(query(&here, &next, 9).await.unwrap()), [3, 2, 1]);
        let ada = Filter { actor: Some("ada".into()), event: Some("noted".into()), ..Filter::default() };
        assert_eq!(query(&here, &ada, u32::MAX).await.unwrap().len(), 5);
        let skipping = Filter { skip: 3, ..ada.clone() };
        assert_eq!(seqs(query(&here, &skipping, 9).await.unwrap()), [2, 1]);
        assert_eq!(count(&here, &skipping).await.unwrap(), 5);
        assert_eq!(seqs(super::page(&here, 2, 2).await.unwrap()), [3, 4]);
        assert_eq!(hash_at(&here, 5).await.unwrap(), Some(head(&here).await.unwrap().hash));
        assert_eq!(hash_at(&here, 6).await.unwrap(), None);
        let nobody = Filter { actor: Some("bob".into()), ..Filter::default() };
        assert!(query(&here, &nobody, 9).await.unwrap().is_empty());
        assert!(query(&MeshDb::new(db.clone(), "there".into()), &ada, 9).await.unwrap().is_empty());
    }
}

#[test]
fn the_key_is_made_once_for_its_user_only_and_signs_heads() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    let signer = HeadSigner::open(&folder).unwrap();
    assert_eq!(HeadSigner::open(&folder).unwrap().public(), signer.public());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("audit.key"))), (0o700, 0o600));
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside the key");
    let mesh: MeshId = "m".into();
    let signed = signer.sign(&mesh, Head { seq: 7, hash: "ab".into() }, NOW);
    let text = format!("audit-head|m|7|ab|{NOW}");
    assert!(keys::verify(&signer.public(), text.as_bytes(), &signed.signature).is_ok());
    std::fs::write(folder.join("audit.key"), "no key").unwrap();
    assert_eq!(HeadSigner::open(&folder).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}
