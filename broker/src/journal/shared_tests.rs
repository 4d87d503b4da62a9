use std::cell::Cell;
use std::rc::Rc;

use claudemesh_protocol::id::MeshId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::*;
use crate::audit::{self, Audit};
use crate::db::meta;
use crate::db::schema::broker_meta;
use crate::db::testing::{NOW, of, store_suite};
use crate::features::messaging::store::testing::message;
use crate::features::messaging::store::types::MessagingPart;
use crate::tx_write;

async fn note(store: &MeshStore, key: &str) -> Result<i64, WriteError> {
    let key = key.to_owned();
    tx_write!(store, (key), |conn, _mesh| {
        diesel::insert_into(broker_meta::table)
            .values((broker_meta::key.eq(key), broker_meta::value.eq("")))
            .execute(conn)
            .await?;
        let count: i64 = broker_meta::table.filter(broker_meta::value.eq("")).count().get_result(conn).await?;
        Ok((count, Audit::entry("noted", None, json!({}), NOW)))
    })
}

/// A write that fails when it runs twice.
struct Counting;

impl TxWrite for Counting {
    type Output = usize;
    type Refusal = Never;

    #[cfg(feature = "sqlite")]
    fn sqlite<'a>(
        &'a self,
        conn: &'a mut crate::db::JournalSqlite,
        _: &'a MeshId,
    ) -> futures_util::future::BoxFuture<'a, Written<usize, Never>> {
        Box::pin(async move {
            let row = (broker_meta::key.eq("counting"), broker_meta::value.eq("1"));
            let done = diesel::insert_into(broker_meta::table).values(row).execute(conn).await?;
            Ok((done, Audit::entry("counted", None, json!({}), NOW)))
        })
    }

    #[cfg(feature = "postgres")]
    fn postgres<'a>(
        &'a self,
        conn: &'a mut diesel_async::AsyncPgConnection,
        _: &'a MeshId,
    ) -> futures_util::future::BoxFuture<'a, Written<usize, Never>> {
        Box::pin(async move {
            let row = (broker_meta::key.eq("counting"), broker_meta::value.eq("1"));
            let done = diesel::insert_into(broker_meta::table).values(row).execute(conn).await?;
            Ok((done, Audit::entry("counted", None, json!({}), NOW)))
        })
    }
}

store_suite! {
    /// As after a connection that broke during the commit: the transaction is on disk, and run again.
    async fn a_transaction_whose_outcome_was_unknown_happens_once_and_keeps_its_answer(db: Db) {
        let (job, answer) = TypedJob::new("m".into(), Counting);
        let job: Arc<dyn Job> = Arc::new(job);
        let transaction = |id: &str| {
            let mut batch = Batch::default();
            batch.id = id.into();
            Transaction { batch: Arc::new(batch), writes: vec![Arc::clone(&job)], ..Transaction::default() }
        };
        write::run(&db, &transaction("one")).await.unwrap();
        write::run(&db, &transaction("one")).await.unwrap();
        job.finish(Ok(()));
        assert_eq!(answer.await.unwrap().unwrap(), 1);
        assert_eq!(audit::verify(&of(&db, &"m".into())).await.unwrap().entries, 1);
        write::run(&db, &transaction("two")).await.unwrap();
        let entries = audit::verify(&of(&db, &"m".into())).await.unwrap().entries;
        assert_eq!(entries, 1, "another transaction: the key is taken, and the savepoint undone");
    }

    /// However many shared things wait, a message waits for what is being written and for one share more.
    async fn a_flood_of_shared_things_delays_a_message_by_a_fixed_share(db: Db) {
        let (journal, _) = Journal::start(db.clone());
        let done = Rc::new(Cell::new(0_usize));
        let local = tokio::task::LocalSet::new();
        for mesh in 0..10 {
            for number in 0..100 {
                let store = MeshStore::new(db.clone(), format!("m{mesh}").into(), journal.clone());
                let done = Rc::clone(&done);
                local.spawn_local(async move {
                    note(&store, &format!("{mesh}.{number}")).await.unwrap();
                    done.set(done.get() + 1);
                });
            }
        }
        let message = async {
            while done.get() == 0 {
                tokio::task::yield_now().await;
            }
            let before = done.get();
            let part = MessagingPart { messages: vec![Arc::new(message(&"m0".into(), 1))], ..MessagingPart::default() };
            journal.commit(Batch::of(part)).await.unwrap();
            let between = done.get() - before;
            // The rest of the first transaction is counted late, the second was under way, the third carried the message.
            assert!(between <= 3 * queue::TRANSACTION_ROWS, "{between} writes went first");
        };
        local.run_until(message).await;
        local.await;
        assert_eq!(done.get(), 1_000);
        assert!(meta::get(&db, "9.99").await.unwrap().is_some());
    }

    async fn a_mesh_with_too_much_waiting_is_busy_and_the_others_are_not(db: Db) {
        let (journal, _) = Journal::start(db.clone());
        let store = |mesh: &str| MeshStore::new(db.clone(), mesh.into(), journal.clone());
        let (flood, calm) = (store("flood"), store("calm"));
        let keys: Vec<String> = (0..3 * queue::MESH_WAITING).map(|number| format!("f{number}")).collect();
        let floods = futures_util::future::join_all(keys.iter().map(|key| note(&flood, key)));
        let (floods, calm) = tokio::join!(floods, note(&calm, "calm"));
        calm.unwrap();
        let (mut kept, mut busy) = (0_i64, 0);
        for result in floods {
            match result {
                Ok(_) => kept += 1,
                Err(error) => {
                    assert_eq!(DbError::from(error).code(), ErrorCode::Busy);
                    busy += 1;
                }
            }
        }
        assert!(busy > 0 && kept >= queue::MESH_WAITING as i64, "{kept} kept, {busy} refused");
        assert_eq!(audit::verify(&of(&db, &"flood".into())).await.unwrap().entries, kept);
    }
}
