//! Samples of every message of SQL.

use serde_json::{Map, Value, json};

use super::{
    Column, ForeignKey, Index, MeshCancel, MeshCancelled, MeshExecute, MeshQuery, MeshQueryResult, MeshSchema,
    MeshSchemaResult, Request, Response, Statement, Table,
};

/// SQL knows NULL.
pub(crate) const NULLS: &[(&str, &str)] =
    &[("mesh_query/full", "/params/1"), ("mesh_query_result/full", "/rows/0/age")];

fn key() -> Option<String> {
    Some("q1".to_owned())
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let query = MeshQuery { sql: "SELECT * FROM people".into(), ..MeshQuery::default() };
    let full = MeshQuery {
        params: vec![json!(7), Value::Null, json!("Ann")],
        limit: Some(50),
        cursor: Some("50".into()),
        cancel_key: key(),
        ..query.clone()
    };
    let insert = "INSERT INTO people VALUES (?, ?)";
    let execute = MeshExecute { sql: insert.into(), params: vec![json!(1), json!("Ann")], ..MeshExecute::default() };
    let batch = MeshExecute {
        params: vec![],
        batch: vec![vec![json!(1), json!("Ann")], vec![json!(2), json!("Bob")]],
        ..execute.clone()
    };
    let statements = MeshExecute {
        statements: vec![
            Statement { sql: "CREATE TABLE people (id INTEGER, name TEXT)".into(), params: vec![] },
            Statement { sql: insert.into(), params: vec![json!(1), json!("Ann")] },
        ],
        cancel_key: key(),
        ..MeshExecute::default()
    };
    vec![
        ("", query.into()),
        ("full", full.into()),
        ("", execute.into()),
        ("batch", batch.into()),
        ("statements", statements.into()),
        ("", MeshSchema::default().into()),
        ("full", MeshSchema { cursor: Some("people".into()) }.into()),
        ("", MeshCancel { cancel_key: "q1".into() }.into()),
    ]
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let row: Map<String, Value> =
        [("id".to_owned(), json!("9007199254740993")), ("age".to_owned(), Value::Null)].into_iter().collect();
    let full = MeshQueryResult {
        columns: vec!["id".into(), "age".into()],
        rows: vec![row],
        row_count: 1,
        types: vec!["INTEGER".into(), "".into()],
        next: Some("1".into()),
        changed: true,
        counts: vec![0, 1],
    };
    let table = Table {
        name: "people".into(),
        columns: vec![Column { name: "id".into(), of: "INTEGER".into(), nullable: true, ..Column::default() }],
        ..Table::default()
    };
    let whole = Table {
        columns: vec![Column {
            name: "id".into(),
            of: "INTEGER".into(),
            nullable: false,
            default: Some("0".into()),
            primary_key: true,
        }],
        indexes: vec![Index { name: "people_id".into(), columns: vec!["id".into()], unique: true }],
        foreign_keys: vec![ForeignKey {
            columns: vec!["id".into()],
            table: "teams".into(),
            references: vec!["id".into()],
        }],
        view: Some("SELECT id FROM people".into()),
        ..table.clone()
    };
    vec![
        ("", MeshQueryResult::default().into()),
        ("full", full.into()),
        ("", MeshSchemaResult { tables: vec![table], ..MeshSchemaResult::default() }.into()),
        (
            "full",
            MeshSchemaResult { tables: vec![whole], dialect: "sqlite".into(), next: Some("people".into()) }.into(),
        ),
        ("", MeshCancelled { cancelled: true }.into()),
    ]
}
