//! What SQLite's planner is told of our tables.
//!
//! Without statistics it takes any first column of an index for a good choice, `mesh_id` among them, and then reads all rows of a
//! mesh to find a hundred by their numbers. `ANALYZE` would tell it what a file holds on one day, which for a new file is nothing.
//! So every index gets the same description in every file: a mesh has many rows, and one value of any other column has few.
//! (<https://www.sqlite.org/optoverview.html#manual_control_of_query_plans_using_sqlite_stat_tables>)

use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;

use super::DbError;

/// Numbers of `sqlite_stat1`: rows of a table, then for each column of the index the rows that share a value up to there.
const DESCRIBE: &str = "
    ANALYZE __diesel_schema_migrations;
    DELETE FROM sqlite_stat1;
    INSERT INTO sqlite_stat1 (tbl, idx, stat)
    SELECT tbl, idx, '1000000' || group_concat(' ' || rows, '') FROM (
        SELECT m.name AS tbl, l.name AS idx, c.seqno AS seqno, CASE
            WHEN l.[unique] AND c.seqno = (SELECT max(seqno) FROM pragma_index_info(l.name)) THEN 1
            WHEN c.seqno = 0 AND c.name = 'mesh_id' THEN 10000
            ELSE 10 END AS rows
        FROM sqlite_master m JOIN pragma_index_list(m.name) l JOIN pragma_index_info(l.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND m.name NOT LIKE '\\_\\_%' ESCAPE '\\'
        ORDER BY tbl, idx, seqno)
    GROUP BY tbl, idx;
    ANALYZE sqlite_schema;";

/// Describes every index that the file has. Connections that are open notice by themselves when the schema changed with it.
///
/// # Errors
/// Storage fails.
pub(super) fn describe(conn: &mut SqliteConnection) -> Result<(), DbError> {
    Ok(conn.batch_execute(DESCRIBE)?)
}

#[cfg(test)]
mod tests {
    use diesel::sql_types::Text;
    use diesel::{QueryableByName, RunQueryDsl};

    use crate::db::{Db, testing};

    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Text)]
        detail: String,
    }

    async fn plan(db: &Db, query: &str) -> String {
        let Db::Sqlite(backend) = db else { unreachable!("a file") };
        let query = format!("EXPLAIN QUERY PLAN {query}");
        let mut conn = backend.get().await.unwrap();
        let steps = conn.spawn_blocking(move |conn| diesel::sql_query(query).load::<Step>(conn)).await.unwrap();
        steps.into_iter().map(|step| step.detail).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn rows_are_found_by_their_numbers_and_not_by_reading_the_mesh() {
        testing::on_sqlite(async |db: Db| {
            for table in ["contexts", "memories", "skills"] {
                let numbers = ["?"; 16].join(", ");
                let rows = format!("SELECT * FROM {table} WHERE mesh_id = ? AND row_no IN ({numbers})");
                let plan = plan(&db, &rows).await;
                assert!(plan.contains("row_no=?"), "{table}: {plan}");
            }
            let newest = "SELECT * FROM memories WHERE mesh_id = ? ORDER BY created_at_ms DESC, row_no DESC LIMIT 50";
            assert_eq!(plan(&db, newest).await, "SEARCH memories USING INDEX memories_by_time (mesh_id=?)");
        })
        .await;
    }
}
