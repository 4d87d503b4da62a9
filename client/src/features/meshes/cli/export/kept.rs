//! What the features of a mesh keep, read page by page.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::contexts::limits::MAX_PAGE as CONTEXTS_PAGE;
use claudemesh_protocol::features::memory::Conditions;
use claudemesh_protocol::features::schedules::ListScheduled;
use claudemesh_protocol::features::streams::limits::MAX_PAGE as STREAM_PAGE;
use claudemesh_protocol::features::streams::{ListStreams, Position, ReadStream};
use claudemesh_protocol::features::tasks::ListTasks;
use serde_json::{Value, json};

use super::{Parts, value};
use crate::connection::{Connection, ConnectionError};
use crate::error::CliError;

/// Rows of one list in an export.
const MAX_ROWS: usize = 1_000_000;
/// Entries of one stream in an export.
const MAX_STREAM_ENTRIES: usize = 100_000;

/// Reads memories, contexts, tasks, streams, skills, tables and schedules into their parts.
///
/// # Errors
/// Of the transport: what the mesh refuses is left out.
pub(super) async fn read(connection: &Connection, parts: &mut Parts) -> Result<(), CliError> {
    let memories = connection.list_memories(&Conditions::default(), MAX_ROWS, None).await;
    parts.put("memories", memories.map_err(CliError::from).and_then(|read| value(read.memories)))?;
    parts.put("contexts", contexts(connection).await.map_err(CliError::from).map(Value::Array))?;
    let tasks = connection.list_tasks(&ListTasks::default(), MAX_ROWS).await;
    parts.put("tasks", tasks.map_err(CliError::from).and_then(|listed| value(listed.tasks)))?;
    parts.put("streams", streams(connection).await.map_err(CliError::from).map(Value::Array))?;
    parts.put("skills", skills(connection).await.map_err(CliError::from).map(Value::Array))?;
    parts.put("tables", tables(connection).await.map_err(CliError::from).map(Value::Array))?;
    schedules(connection, parts).await
}

/// Tables and views of the mesh's database, with the rows of tables.
async fn tables(connection: &Connection) -> Result<Vec<Value>, ConnectionError> {
    let mut all = vec![];
    for table in connection.sql_schema().await?.0 {
        let rows = match table.view {
            Some(_) => vec![],
            None => connection.sql_table(&table, MAX_ROWS).await?.result.rows,
        };
        all.push(json!({"table": table, "rows": rows}));
    }
    Ok(all)
}

/// Whole contexts, the newest first.
async fn contexts(connection: &Connection) -> Result<Vec<Value>, ConnectionError> {
    let (mut all, mut cursor) = (vec![], None);
    loop {
        // Without words it is all of them, with files and findings.
        let page = connection.get_context("", CONTEXTS_PAGE, cursor).await?;
        all.extend(page.contexts.iter().map(|context| json!(context)));
        cursor = page.next;
        if cursor.is_none() || all.len() >= MAX_ROWS {
            return Ok(all);
        }
    }
}

/// Streams with the entries that are kept, oldest first.
async fn streams(connection: &Connection) -> Result<Vec<Value>, ConnectionError> {
    let mut all = vec![];
    for stream in connection.request(ListStreams {}).await?.streams {
        let (mut entries, mut from) = (vec![], stream.first);
        loop {
            let read = ReadStream {
                stream: stream.name.clone(),
                from: Some(Position::Offset(from)),
                limit: Some(STREAM_PAGE),
            };
            let page = connection.request(read).await?;
            entries.extend(page.entries.iter().map(|entry| json!(entry)));
            let done = page.next >= page.end || page.next <= from || entries.len() >= MAX_STREAM_ENTRIES;
            from = page.next;
            if done {
                break;
            }
        }
        all.push(json!({"stream": stream, "entries": entries}));
    }
    Ok(all)
}

/// Skills with their newest text, by name, and whether its author signed it.
async fn skills(connection: &Connection) -> Result<Vec<Value>, ConnectionError> {
    let mut all = vec![];
    for row in connection.skills(None, &[], MAX_ROWS, None).await?.skills {
        // One that was removed meanwhile is left out.
        if let Some(skill) = connection.skill(&row.name, None).await? {
            let signed = connection.state_of(&skill);
            all.push(json!({"skill": skill, "signature": signed}));
        }
    }
    Ok(all)
}

/// Entries that wait, are paused, or are over and still kept: of all members for those who may see them, else the own ones.
async fn schedules(connection: &Connection, parts: &mut Parts) -> Result<(), CliError> {
    let of = |everyone| ListScheduled { ended: true, everyone, ..ListScheduled::default() };
    match connection.scheduled(of(true), MAX_ROWS).await {
        Err(error) if error.code() == Some(ErrorCode::Forbidden) => {
            parts.put("schedules of others", Err(error.into()))?;
            let own = connection.scheduled(of(false), MAX_ROWS).await;
            parts.put("schedules", own.map_err(CliError::from).and_then(value))
        }
        listed => parts.put("schedules", listed.map_err(CliError::from).and_then(value)),
    }
}
