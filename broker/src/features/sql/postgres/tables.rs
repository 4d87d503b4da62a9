//! What tables and views the schema of a mesh has, with their columns, indexes and foreign keys.

use claudemesh_protocol::features::sql::Table;
use claudemesh_protocol::features::sql::limits::MAX_PAGE_BYTES;
use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::Trouble;
use crate::db::Session;

/// One row of JSON for each table, in the form of the wire.
const TABLES: &str = "
SELECT json_strip_nulls(json_build_object(
  'name', c.relname,
  'columns', (SELECT COALESCE(json_agg(json_build_object(
      'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'nullable', NOT a.attnotnull,
      'default', pg_get_expr(d.adbin, d.adrelid),
      'primaryKey', COALESCE(a.attnum = ANY(p.indkey), false)) ORDER BY a.attnum), '[]'::json)
    FROM pg_attribute a
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_index p ON p.indrelid = a.attrelid AND p.indisprimary
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'indexes', (SELECT COALESCE(json_agg(json_build_object(
      'name', i.relname, 'unique', x.indisunique,
      'columns', (SELECT json_agg(pg_get_indexdef(x.indexrelid, n::int, true) ORDER BY n)
                  FROM generate_series(1, x.indnkeyatts) n)) ORDER BY i.relname), '[]'::json)
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid),
  'foreignKeys', (SELECT COALESCE(json_agg(json_build_object(
      'table', f.confrelid::regclass::text,
      'columns', (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY k(no, n)
                  JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.no),
      'references', (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(f.confkey) WITH ORDINALITY k(no, n)
                  JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.no)) ORDER BY f.conname), '[]'::json)
    FROM pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f'),
  'view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END))::text
FROM pg_class c
WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname > $2
ORDER BY c.relname COLLATE \"C\"";

/// Tables and views behind a name, by name, as many as an answer holds; and whether there are more.
///
/// # Errors
/// The server's.
pub(super) async fn read(session: &mut Session, after: &str) -> Result<(Vec<Table>, bool), Trouble> {
    let client = &session.client;
    // A mesh could have functions of these names in its schema.
    client.batch_execute("BEGIN READ ONLY").await?;
    let schema: String = client.query_one("SELECT current_schema()::text", &[]).await?.try_get(0)?;
    client.batch_execute("SET LOCAL search_path = pg_catalog, pg_temp").await?;
    let mut rows = std::pin::pin!(client.query_raw(TABLES, [schema.as_str(), after]).await?);
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let text: &str = row.try_get(0)?;
        bytes += text.len();
        if bytes > MAX_PAGE_BYTES && !found.is_empty() {
            return Ok((found, true));
        }
        let mut table: Table = serde_json::from_str(text)
            .map_err(|error| crate::refusal::Refusal::fault(claudemesh_protocol::error::ErrorCode::Internal, error))?;
        for key in &mut table.foreign_keys {
            // Within the schema the name alone is enough.
            key.table = key.table.strip_prefix(&format!("{schema}.")).unwrap_or(&key.table).to_owned();
        }
        found.push(table);
    }
    Ok((found, false))
}

/// Names of tables and views of a schema, and the bytes that they take. Asked by the broker's own user.
///
/// # Errors
/// The server's.
pub(super) async fn overview(own: &Client, name: &str) -> Result<(Vec<String>, u64), tokio_postgres::Error> {
    let rows = own
        .query(
            "SELECT c.relname::text, CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY c.relname COLLATE \"C\"",
            &[&name],
        )
        .await?;
    let (mut names, mut bytes) = (Vec::with_capacity(rows.len()), 0);
    for row in rows {
        names.push(row.try_get(0)?);
        bytes += row.try_get::<_, i64>(1)?.unsigned_abs();
    }
    Ok((names, bytes))
}
