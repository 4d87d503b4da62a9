//! SQL: the mesh's own relational database.

use std::future::Future;
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::limits::MAX_PAGE;
use claudemesh_protocol::features::sql::{
    MeshCancel, MeshExecute, MeshQuery, MeshQueryResult, MeshSchema, MeshSchemaResult, Table,
};
use futures_util::FutureExt as _;
use serde_json::{Map, Value};

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod csv;
mod shell;
pub mod split;
mod table;
pub mod tools;
mod transfer;

/// Longer than a broker lets a statement run, its own grace included.
const PATIENCE: Duration = Duration::from_secs(28);

/// Rows of one query, over as many pages as it takes.
#[derive(Debug, Default)]
pub struct Rows {
    /// Those of the last page, of which there is one at least. Its rows are all.
    pub result: MeshQueryResult,
    /// The database was written between two pages.
    pub changed: bool,
}

impl Connection {
    /// One page of a query. When `unwanted` ends first, the statement is ended as well.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn sql_page(
        &self,
        query: MeshQuery,
        unwanted: impl Future<Output = ()>,
    ) -> Result<MeshQueryResult, ConnectionError> {
        let key = uuid::Uuid::new_v4().to_string();
        let query = MeshQuery { cancel_key: Some(key.clone()), ..query };
        self.cancelling(key, self.request_within(query, PATIENCE), unwanted).await
    }

    /// The rows of a query, at most so many.
    ///
    /// # Errors
    /// As [`Connection::sql_page`].
    pub async fn sql_rows(&self, sql: &str, params: &[Value], most: usize) -> Result<Rows, ConnectionError> {
        self.sql_rows_unless(sql, params, most, std::future::pending()).await
    }

    /// As [`Connection::sql_rows`]; the request is cancelled when `unwanted` comes first.
    ///
    /// # Errors
    /// As [`Connection::sql_page`].
    pub async fn sql_rows_unless(
        &self,
        sql: &str,
        params: &[Value],
        most: usize,
        unwanted: impl Future<Output = ()>,
    ) -> Result<Rows, ConnectionError> {
        let mut unwanted = std::pin::pin!(unwanted.fuse());
        let mut all = Rows::default();
        loop {
            let left = most - all.result.rows.len();
            let query = MeshQuery {
                sql: sql.to_owned(),
                params: params.to_vec(),
                limit: Some(u32::try_from(left).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE)),
                cursor: all.result.next.take(),
                cancel_key: None,
            };
            let mut page = self.sql_page(query, unwanted.as_mut()).await?;
            all.changed |= page.changed;
            let mut rows = std::mem::take(&mut all.result.rows);
            rows.append(&mut page.rows);
            page.row_count = rows.len() as u64;
            all.result = MeshQueryResult { rows, ..page };
            if all.result.next.is_none() || all.result.rows.len() >= most {
                return Ok(all);
            }
        }
    }

    /// The rows of a table, at most so many, in the order of its primary key if there is one.
    ///
    /// # Errors
    /// As [`Connection::sql_page`].
    pub async fn sql_table(&self, table: &Table, most: usize) -> Result<Rows, ConnectionError> {
        let keys = table.columns.iter().filter(|column| column.primary_key).map(|column| quoted(&column.name));
        let mut order: Vec<String> = keys.collect();
        if order.is_empty() {
            // Without an order, pages could overlap.
            order = (1..=table.columns.len()).map(|number| number.to_string()).collect();
        }
        let sql = format!("SELECT * FROM {} ORDER BY {}", quoted(&table.name), order.join(", "));
        self.sql_rows(&sql, &[], most).await
    }

    /// Runs statements in one transaction. When `unwanted` ends first, they are ended and nothing is changed, unless it is done.
    ///
    /// # Errors
    /// As [`Connection::sql_page`].
    pub async fn sql_execute(
        &self,
        execute: MeshExecute,
        unwanted: impl Future<Output = ()>,
    ) -> Result<MeshQueryResult, ConnectionError> {
        let key = uuid::Uuid::new_v4().to_string();
        let execute = MeshExecute { cancel_key: Some(key.clone()), ..execute };
        self.cancelling(key, self.request_within(execute, PATIENCE), unwanted).await
    }

    /// All tables and views, and the dialect.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn sql_schema(&self) -> Result<(Vec<Table>, String), ConnectionError> {
        let (mut all, mut cursor) = (vec![], None);
        loop {
            let page = self.sql_tables(cursor).await?;
            all.extend(page.tables);
            cursor = page.next;
            if cursor.is_none() {
                return Ok((all, page.dialect));
            }
        }
    }

    /// One page of tables and views.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn sql_tables(&self, cursor: Option<String>) -> Result<MeshSchemaResult, ConnectionError> {
        self.request_within(MeshSchema { cursor }, PATIENCE).await
    }

    /// Waits for a request, and asks the broker to end it when no one wants its answer any more; then for what it says.
    async fn cancelling<T>(
        &self,
        key: String,
        request: impl Future<Output = Result<T, ConnectionError>>,
        unwanted: impl Future<Output = ()>,
    ) -> Result<T, ConnectionError> {
        let mut request = std::pin::pin!(request);
        tokio::select! {
            answer = &mut request => return answer,
            () = unwanted => {}
        }
        // Its own failure shows in the answer of the request.
        let _ = self.request(MeshCancel { cancel_key: key }).await;
        request.await
    }
}

/// Whether a query was refused because it changes something: the database has decided that, so it can be run as a change.
fn needs_execute(error: &ConnectionError) -> bool {
    error.code() == Some(ErrorCode::QueryError) && error.to_string().contains("it needs mesh_execute")
}

/// A name as SQL has it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The value of a column; what a row does not have is NULL.
fn cell<'a>(row: &'a Map<String, Value>, name: &str) -> &'a Value {
    row.get(name).unwrap_or(&Value::Null)
}

/// A value as people read it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::String(text) => text.clone(),
        other => bytes_of(other).map_or_else(|| other.to_string(), |bytes| format!("\\x{}", hex::encode(bytes))),
    }
}

/// The bytes of a value that stands for some.
fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    let object = value.as_object().filter(|object| object.len() == 2 && object["type"] == "Buffer")?;
    let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
    object.get("data")?.as_array()?.iter().map(byte).collect()
}

/// `id INTEGER, name TEXT (nullable)` and what else a table has, as lines.
fn described(table: &Table) -> String {
    let column = |column: &claudemesh_protocol::features::sql::Column| {
        let of = if column.of.is_empty() { "any" } else { &column.of };
        let mut facts = vec![of.to_owned()];
        facts.extend(column.primary_key.then(|| "primary key".to_owned()));
        facts.extend(column.nullable.then(|| "nullable".to_owned()));
        facts.extend(column.default.as_ref().map(|value| format!("default {value}")));
        format!("{} ({})", column.name, facts.join(", "))
    };
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    let mut text = columns.join(", ");
    for index in &table.indexes {
        let kind = if index.unique { "unique index" } else { "index" };
        text += &format!("\n{kind} {} on {}", index.name, index.columns.join(", "));
    }
    for key in &table.foreign_keys {
        let there = if key.references.is_empty() { String::new() } else { format!(" ({})", key.references.join(", ")) };
        text += &format!("\n{} refers to {}{there}", key.columns.join(", "), key.table);
    }
    if let Some(view) = &table.view {
        text += &format!("\nview: {}", view.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}
