//! Removes what belonged to a deleted mesh, bit by bit, so that no one waits long for the write lock.
//!
//! The tables are read from the database itself: every one with a column `mesh_id` is emptied of the mesh, so a feature has to
//! do nothing for it, unless its rows have words in an index, which [`OF_TABLES`] lists. The mesh's row and its audit log stay.

use std::collections::BTreeMap;

use claudemesh_protocol::id::MeshId;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::{Db, DbError};
use crate::search::index::{Index, IndexConnection, OF_TABLES};
use crate::with_tx;

/// Tables that keep what they have of a deleted mesh.
pub(crate) const KEPT: [&str; 1] = ["audit_log"];
/// Rows per transaction.
const CHUNK: i64 = 500;

/// A column of a primary key.
#[derive(QueryableByName)]
struct KeyColumn {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
}

/// Tables with a column `mesh_id`, and the columns of their primary keys. The catalogue differs per backend.
async fn tables(db: &Db) -> Result<BTreeMap<String, Vec<String>>, DbError> {
    let columns: Vec<KeyColumn> = match db {
        #[cfg(feature = "sqlite")]
        Db::Sqlite(backend) => {
            diesel::sql_query(
                "SELECT m.name AS table_name, k.name AS column_name \
                 FROM sqlite_master m JOIN pragma_table_info(m.name) k \
                 WHERE m.type = 'table' AND k.pk > 0 \
                 AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) c WHERE c.name = 'mesh_id') ORDER BY m.name, k.pk",
            )
            .load(&mut *backend.get().await?)
            .await?
        }
        #[cfg(feature = "postgres")]
        Db::Postgres(backend) => {
            diesel::sql_query(
                "SELECT t.relname::text AS table_name, a.attname::text AS column_name \
                 FROM pg_class t JOIN pg_index i ON i.indrelid = t.oid AND i.indisprimary \
                 JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY(i.indkey) \
                 WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind = 'r' \
                 AND EXISTS (SELECT 1 FROM pg_attribute c WHERE c.attrelid = t.oid AND c.attname = 'mesh_id') \
                 ORDER BY 1, a.attnum",
            )
            .load(&mut *backend.get().await?)
            .await?
        }
    };
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for column in columns.into_iter().filter(|column| !KEPT.contains(&column.table_name.as_str())) {
        found.entry(column.table_name).or_default().push(format!("\"{}\"", column.column_name));
    }
    Ok(found)
}

/// Whether the mesh was deleted. Nothing is erased of any other.
async fn is_deleted(db: &Db, mesh: &MeshId) -> Result<bool, DbError> {
    Ok(super::meshes::load(db, mesh).await?.is_some_and(|mesh| mesh.deleted_at_ms.is_some()))
}

/// Removes the rows of a deleted mesh from every table but its own and the audit log; returns how many there were.
///
/// # Errors
/// Storage fails; what was done stays done, and the next call goes on.
pub async fn erase(db: &Db, mesh: &MeshId) -> Result<usize, DbError> {
    if !is_deleted(db, mesh).await? {
        return Ok(0);
    }
    let tables = tables(db).await?;
    let mut total = 0;
    loop {
        let (mut round, mut held) = (0, None);
        for (table, key) in &tables {
            match erase_table(db, mesh, table, &key.join(", ")).await {
                Ok(count) => round += count,
                // Rows of another table refer to these: they go first, and these in the next round.
                Err(error @ DbError::Conflict(_)) => held = Some(error),
                Err(error) => return Err(error),
            }
        }
        total += round;
        match held {
            None => return Ok(total),
            Some(error) if round == 0 => return Err(error),
            Some(_) => {}
        }
    }
}

/// The number of a row in its index.
#[derive(QueryableByName)]
struct RowNumber {
    #[diesel(sql_type = BigInt)]
    row_no: i64,
}

/// Removes rows together with their words. Words that stayed could be read on disk, and their numbers could not be given again.
async fn erase_indexed(db: &Db, mesh: &MeshId, table: &str, index: Index) -> Result<usize, DbError> {
    let select = format!("SELECT row_no FROM \"{table}\" WHERE mesh_id = $1 ORDER BY row_no LIMIT $2");
    let delete = format!("DELETE FROM \"{table}\" WHERE row_no = $1");
    let mut total = 0;
    loop {
        // Unaudited: the entry `mesh_deleted` tells of all of it.
        let count = with_tx!(db, |conn| {
            let rows: Vec<RowNumber> = diesel::sql_query(select.as_str())
                .bind::<Text, _>(mesh.as_str())
                .bind::<BigInt, _>(CHUNK)
                .load(conn)
                .await?;
            for row in &rows {
                conn.erasing().await?;
                diesel::sql_query(delete.as_str()).bind::<BigInt, _>(row.row_no).execute(conn).await?;
                conn.erased(index, row.row_no).await?;
            }
            rows.len()
        });
        total += count;
        if count < CHUNK as usize {
            return Ok(total);
        }
    }
}

async fn erase_table(db: &Db, mesh: &MeshId, table: &str, key: &str) -> Result<usize, DbError> {
    let query =
        format!("DELETE FROM \"{table}\" WHERE ({key}) IN (SELECT {key} FROM \"{table}\" WHERE mesh_id = $1 LIMIT $2)");
    if let Some((_, index)) = OF_TABLES.iter().find(|(name, _)| *name == table) {
        return erase_indexed(db, mesh, table, *index).await;
    }
    let mut total = 0;
    loop {
        // Unaudited: the entry `mesh_deleted` tells of all of it.
        let count = with_tx!(db, |conn| diesel::sql_query(query.as_str())
            .bind::<Text, _>(mesh.as_str())
            .bind::<BigInt, _>(CHUNK)
            .execute(conn)
            .await?);
        total += count;
        if count < CHUNK as usize {
            return Ok(total);
        }
    }
}

/// Erases again what was deleted since `since_ms`: a broker that was stopped in the middle goes on, and a request that was under
/// way while a mesh was deleted leaves nothing.
///
/// # Errors
/// Storage fails.
pub async fn erase_since(db: &Db, since_ms: i64) -> Result<usize, DbError> {
    let mut total = 0;
    for mesh in super::meshes::deleted_since(db, since_ms).await? {
        total += erase(db, &mesh).await?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::By;
    use crate::db::meshes;
    use crate::db::testing::{NOW, key, mesh, store, store_suite};
    use crate::db::tests::declared;

    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }

    async fn count(db: &Db, table: &str, mesh: &MeshId) -> Result<i64, DbError> {
        let query = format!("SELECT COUNT(*) AS count FROM \"{table}\" WHERE mesh_id = $1");
        let rows: Vec<Count> = crate::with_conn!(db, |conn| diesel::sql_query(query.as_str())
            .bind::<Text, _>(mesh.as_str())
            .load(conn)
            .await?);
        Ok(rows[0].count)
    }

    store_suite! {
        async fn a_deleted_mesh_leaves_its_log_and_nothing_else_and_its_slug_is_free(db: Db) {
            let (home, owner) = mesh(&db, "home", key()).await;
            let (abroad, _) = mesh(&db, "abroad", key()).await;
            let storage = store(&db, &home.id);
            let by = By::member(&owner.id, NOW);
            assert_eq!(erase(&db, &home.id).await.unwrap(), 0, "a live mesh keeps everything");
            for number in 0..3 {
                let id = format!("member-{number}");
                let more = crate::db::members::Member::new(
                    id.into(), &home.id, key(), "Bob", crate::db::members::Role::Member, NOW,
                );
                crate::db::members::insert(&storage, &more).await.unwrap();
            }
            assert!(meshes::delete(&storage, &by).await.unwrap());
            assert!(!meshes::delete(&storage, &by).await.unwrap(), "once");
            assert!(!meshes::restore(&storage, &by).await.unwrap(), "for good");
            assert_eq!(erase_since(&db, NOW).await.unwrap(), 4);
            for (table, columns) in declared() {
                if columns.contains_key("mesh_id") && !KEPT.contains(&table.as_str()) {
                    assert_eq!(count(&db, &table, &home.id).await.unwrap(), 0, "{table}");
                }
            }
            assert!(count(&db, "audit_log", &home.id).await.unwrap() >= 5);
            assert_eq!(count(&db, "members", &abroad.id).await.unwrap(), 1, "another mesh has what it had");
            let (again, _) = mesh(&db, "home", key()).await;
            assert_ne!(again.id, home.id);
        }

        async fn every_table_of_meshes_is_found(db: Db) {
            let found = tables(&db).await.unwrap();
            for (table, columns) in declared() {
                if columns.contains_key("mesh_id") && !KEPT.contains(&table.as_str()) {
                    assert!(found.contains_key(&table), "{table} has no primary key");
                }
            }
        }
    }
}
