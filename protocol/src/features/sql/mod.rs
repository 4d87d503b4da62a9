//! SQL: each mesh has a relational database of its own.
//!
//! A value is JSON: `null`, a number, a text, on PostgreSQL also a truth value or the JSON of a `json` column. Bytes are
//! `{"type":"Buffer","data":[0,255]}`. A whole number beyond 2^53 is a text, as is a `numeric`; [`MeshQueryResult::types`] says
//! what the column is. Parameters are written in the same way, and other JSON objects and arrays reach the database as text.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub mod limits;

/// `mesh_query`: one statement that only reads, and a page of its rows. The engine decides what only reads, not the words.
///
/// Errors: `query_error` with what the database says, `timeout`, `cancelled`, `limit` with `bound`, `rate_limited`,
/// `sql_unavailable`, `invalid_args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshQuery {
    /// The statement; at most [`limits::MAX_SQL_BYTES`].
    pub sql: String,
    /// Values of `?`, `?1` or `$1`; at most [`limits::MAX_PARAMS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Value>,
    /// Rows of the page: 1 to [`limits::MAX_PAGE`]; [`limits::USUAL_PAGE`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before, with the same statement and parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// A name for [`MeshCancel`], chosen by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_key: Option<String>,
}

/// One statement of a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The statement; at most [`limits::MAX_SQL_BYTES`].
    pub sql: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Value>,
}

/// `mesh_execute`: statements that change data or tables, in one transaction: all of them or none. The answer is given when it is
/// on stable storage.
///
/// Either `sql` with `params`, or `sql` with `batch`, or `statements`. Errors: `execute_error` with what the database says, and
/// those of [`MeshQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshExecute {
    /// One statement.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sql: String,
    /// Its parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Value>,
    /// The statement runs once for each of these lists of parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub batch: Vec<Vec<Value>>,
    /// Several statements, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<Statement>,
    /// A name for [`MeshCancel`], chosen by the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_key: Option<String>,
}

/// `mesh_query_result`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshQueryResult {
    /// Names of the columns, also when there are no rows. A name that occurs twice gets a number behind it.
    pub columns: Vec<String>,
    /// The rows of this page, by name of the column.
    pub rows: Vec<Map<String, Value>>,
    /// Of a query, the rows of this page. Of `mesh_execute`, the rows that were inserted, changed or deleted.
    pub row_count: u64,
    /// Types of the columns, as the tables declare them; empty where an expression has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// There are more rows: ask again with this as `cursor`. Of `mesh_execute`, which is not asked again: rows that a `RETURNING`
    /// gave are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The database was written between the page before and this one: rows may be missing or be there twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// Of `mesh_execute` with `statements`: the rows that each of them changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<u64>,
}

/// `mesh_schema`: tables and views with their columns, indexes and foreign keys, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshSchema {
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A column of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Its name.
    pub name: String,
    /// As declared.
    #[serde(rename = "type")]
    pub of: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// The expression behind DEFAULT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Part of the primary key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub primary_key: bool,
}

/// An index of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its columns in order; an expression is written as such.
    pub columns: Vec<String>,
    /// Whether no two rows may be equal in it.
    pub unique: bool,
}

/// A foreign key of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ForeignKey {
    /// Its columns in order.
    pub columns: Vec<String>,
    /// The table that it refers to.
    pub table: String,
    /// The columns there.
    pub references: Vec<String>,
}

/// A table or view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Its indexes by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Index>,
    /// Its foreign keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
    /// The query of a view; absent for a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

/// `mesh_schema_result`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeshSchemaResult {
    /// By name.
    pub tables: Vec<Table>,
    /// `sqlite` or `postgresql`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dialect: String,
    /// There are more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `mesh_cancel`: ends a running request of this connection that was sent with this `cancelKey`. That request fails with
/// `cancelled`, and a `mesh_execute` has changed nothing then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshCancel {
    /// The name.
    pub cancel_key: String,
}

/// `mesh_cancelled`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshCancelled {
    /// Whether such a request ran or waited.
    pub cancelled: bool,
}

crate::wire_feature! {
    requests {
        /// Rows of one statement that only reads, in pages.
        MeshQuery = "mesh_query" => answers MeshQueryResult, needs CanRunSql, repeatable;
        /// Runs statements that change data or tables, all of them or none.
        MeshExecute = "mesh_execute" => answers MeshQueryResult, needs CanRunSql, once;
        /// Tables and views of the mesh's database, in pages.
        MeshSchema = "mesh_schema" => answers MeshSchemaResult, needs CanRunSql, repeatable;
        /// Ends a running request of this connection.
        MeshCancel = "mesh_cancel" => answers MeshCancelled, needs CanRunSql, repeatable;
    }
    answers {
        MeshQueryResult = "mesh_query_result",
        MeshSchemaResult = "mesh_schema_result",
        MeshCancelled = "mesh_cancelled",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
