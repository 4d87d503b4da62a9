//! What tables and views a SQLite database has, with their columns, indexes and foreign keys.

use std::collections::BTreeMap;

use claudemesh_protocol::features::sql::limits::MAX_PAGE_BYTES;
use claudemesh_protocol::features::sql::{Column, ForeignKey, Index, Table};
use rusqlite::Row;

use super::guard::Mode;
use super::open::Guarded;

/// Tables that SQLite keeps for virtual tables, and its own, are left out.
const VISIBLE: &str = "SELECT s.name, s.type = 'view', s.sql FROM sqlite_schema s \
     JOIN pragma_table_list l ON l.name = s.name AND l.schema = 'main' \
     WHERE l.type IN ('table', 'view', 'virtual') AND s.type IN ('table', 'view') AND s.name NOT LIKE 'sqlite!_%' ESCAPE '!'";

/// Names of tables and views.
///
/// # Errors
/// Of SQLite.
pub(super) fn names(on: &Guarded) -> rusqlite::Result<Vec<String>> {
    on.guard.set(Mode::Own);
    let mut statement = on.connection.prepare(&format!("{VISIBLE} ORDER BY s.name"))?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Tables and views behind a name, by name, as many as an answer holds; and whether there are more.
///
/// # Errors
/// Of SQLite.
pub(super) fn read(on: &Guarded, after: &str) -> rusqlite::Result<(Vec<Table>, bool)> {
    on.guard.set(Mode::Own);
    let mut statement = on.connection.prepare(&format!("{VISIBLE} AND s.name > ?1 ORDER BY s.name"))?;
    let mut rows = statement.query([after])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let (name, is_view, sql): (String, bool, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let table = Table {
            columns: columns(on, &name)?,
            indexes: indexes(on, &name)?,
            foreign_keys: foreign_keys(on, &name)?,
            view: sql.filter(|_| is_view),
            name,
        };
        bytes += serde_json::to_string(&table).map_or(0, |text| text.len());
        if bytes > MAX_PAGE_BYTES && !found.is_empty() {
            return Ok((found, true));
        }
        found.push(table);
    }
    Ok((found, false))
}

fn list<T>(
    on: &Guarded,
    sql: &str,
    of: &str,
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = on.connection.prepare(sql)?;
    statement.query_map([of], row)?.collect()
}

fn columns(on: &Guarded, table: &str) -> rusqlite::Result<Vec<Column>> {
    let sql =
        "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid";
    list(on, sql, table, |row| {
        Ok(Column {
            name: row.get(0)?,
            of: row.get(1)?,
            nullable: !row.get::<_, bool>(2)?,
            default: row.get(3)?,
            primary_key: row.get::<_, i64>(4)? > 0,
        })
    })
}

fn indexes(on: &Guarded, table: &str) -> rusqlite::Result<Vec<Index>> {
    let sql = "SELECT name, \"unique\" FROM pragma_index_list(?1) ORDER BY name";
    let names: Vec<(String, bool)> = list(on, sql, table, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let index = |(name, unique): (String, bool)| {
        // Without a name it is an expression.
        let sql = "SELECT COALESCE(name, '(expression)') FROM pragma_index_info(?1) ORDER BY seqno";
        Ok(Index { columns: list(on, sql, &name, |row| row.get(0))?, name, unique })
    };
    names.into_iter().map(index).collect()
}

fn foreign_keys(on: &Guarded, table: &str) -> rusqlite::Result<Vec<ForeignKey>> {
    let sql = "SELECT id, \"table\", \"from\", COALESCE(\"to\", '') FROM pragma_foreign_key_list(?1) ORDER BY id, seq";
    let parts: Vec<(i64, String, String, String)> =
        list(on, sql, table, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let mut keys: BTreeMap<i64, ForeignKey> = BTreeMap::new();
    for (id, table, from, to) in parts {
        let key = keys.entry(id).or_default();
        key.table = table;
        key.columns.push(from);
        // Without names it is the primary key there.
        key.references.extend((!to.is_empty()).then_some(to));
    }
    // SQLite numbers them from the last one on.
    Ok(keys.into_values().rev().collect())
}
