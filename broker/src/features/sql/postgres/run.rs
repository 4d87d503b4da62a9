//! Running statements on a connection of a mesh: pages of rows, and lists of changes in one transaction.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::Statement as Asked;
use futures_util::TryStreamExt;
use serde_json::Value;
use tokio_postgres::{Client, IsolationLevel, Row, RowStream, Statement};

use super::Trouble;
use super::values::{Param, Told, is_known};
use super::words;
use crate::db::Session;
use crate::features::sql::database::Recorder;
use crate::features::sql::limits::{BYTES_PER_MESH, TABLES_PER_MESH};
use crate::features::sql::page::Page;
use crate::features::sql::stop::Stop;
use crate::features::sql::{Done, Wanted};
use crate::quota::Quotas;
use crate::refusal::{Refusal, invalid};

/// Tables and views, bytes of all of them, and large objects, which no table holds.
const USED: &str = "SELECT count(*) FILTER (WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')), \
     COALESCE(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relkind IN ('r', 'm', 'S')), 0)::bigint, \
     (SELECT count(*) FROM pg_largeobject_metadata o WHERE o.lomowner = current_user::regrole) \
     FROM pg_class c WHERE c.relowner = current_user::regrole";

/// Rows that are asked for at once. The server makes no more of them than that, and those behind a full page are few.
const CHUNK: i32 = 256;

/// Reads a page of a query, in a transaction that cannot write and is undone anyway.
///
/// # Errors
/// The server's.
pub(super) async fn query(session: &mut Session, asked: &Asked, wanted: Wanted) -> Result<Page, Trouble> {
    let reading = session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = reading.start().await?;
    let statement = prepare(transaction.client(), asked, ErrorCode::QueryError).await?;
    check_params(&statement, asked)?;
    let portal = transaction.bind_raw(&statement, asked.params.iter().map(Param)).await?;
    let mut page = Page::new(columns(&statement), wanted.limit);
    let mut skip = wanted.skip;
    loop {
        let mut rows = std::pin::pin!(transaction.query_portal_raw(&portal, CHUNK).await?);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            count += 1;
            if skip > 0 {
                skip -= 1;
            } else if !page.push(values(&row)?)? {
                return Ok(page);
            }
        }
        if count < CHUNK {
            return Ok(page);
        }
    }
}

/// What a mesh has.
struct Used {
    tables: i64,
    bytes: i64,
    objects: i64,
    /// When the transaction began. Another time means another transaction.
    began: String,
    /// Something was written.
    wrote: bool,
}

async fn used(client: &Client) -> Result<Used, tokio_postgres::Error> {
    let row = client.query_one(USED, &[]).await?;
    let now = client.query_one("SELECT now()::text, pg_current_xact_id_if_assigned() IS NOT NULL", &[]).await?;
    Ok(Used {
        tables: row.try_get(0)?,
        bytes: row.try_get(1)?,
        objects: row.try_get(2)?,
        began: now.try_get(0)?,
        wrote: now.try_get(1)?,
    })
}

/// Runs statements in one transaction. The entry of the audit log is written before the commit, when something was changed.
///
/// # Errors
/// The server's, with the number of the statement; `limit`.
pub(super) async fn execute(
    session: &mut Session,
    list: &[Asked],
    wanted: Wanted,
    stop: &Stop,
    quotas: &Quotas,
    recorder: &Recorder,
) -> Result<Done, Trouble> {
    let client = &session.client;
    client.batch_execute("BEGIN").await?;
    let before = used(client).await?;
    let mut done = Done::default();
    run_all(client, list, wanted, &mut done).await?;
    // Constraints that wait for the end are checked now, so that nothing is left to fail.
    client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
    // A statement may have left settings behind, or temporary tables with the names of the server's own, which come last here.
    client.batch_execute("SET LOCAL search_path = pg_catalog, pg_temp").await?;
    let after = used(client).await?;
    if after.began != before.began {
        return Err(Refusal::new(ErrorCode::ExecuteError, "a statement ended the transaction of the list").into());
    }
    done.changes = after.wrote;
    if done.changes {
        quotas.growth(&TABLES_PER_MESH, before.tables, after.tables).map_err(Refusal::from)?;
        quotas.growth(&BYTES_PER_MESH, before.bytes, after.bytes).map_err(Refusal::from)?;
        if after.objects > 0 {
            return Err(
                Refusal::new(ErrorCode::ExecuteError, "large objects are not allowed; use a column bytea").into()
            );
        }
        if !stop.may_commit() {
            return Err(stop.refusal(quotas).into());
        }
        recorder.write(&done).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(done)
}

async fn run_all(client: &Client, list: &[Asked], wanted: Wanted, done: &mut Done) -> Result<(), Trouble> {
    let mut at = 0;
    while at < list.len() {
        let alike = list[at..].iter().take_while(|next| next.sql == list[at].sql).count();
        let prepared = prepare(client, &list[at], ErrorCode::ExecuteError).await;
        let statement = prepared.map_err(|trouble| trouble.at(at, list.len()))?;
        let mut number = at;
        while number < at + alike {
            let chunk = &list[number..at + alike];
            let last = at + alike == list.len();
            number += run_some(client, &statement, chunk, last.then_some(wanted), done)
                .await
                .map_err(|(trouble, failed)| trouble.at(number + failed, list.len()))?;
        }
        at += alike;
    }
    Ok(())
}

/// Runs the same statement with some sets of parameters, sent one behind the other without waiting for each answer; returns how
/// many. The last one of a list alone keeps its rows.
async fn run_some(
    client: &Client,
    statement: &Statement,
    chunk: &[Asked],
    rows_wanted: Option<Wanted>,
    done: &mut Done,
) -> Result<usize, (Trouble, usize)> {
    /// Statements on their way at once.
    const AHEAD: usize = 256;
    let some = &chunk[..chunk.len().min(AHEAD)];
    let starting = some.iter().map(|asked| start(client, statement, asked));
    // Each is sent when it is polled first, in order.
    let started = futures_util::future::join_all(starting).await;
    for (index, rows) in started.into_iter().enumerate() {
        let wanted = rows_wanted.filter(|_| index + 1 == chunk.len());
        let (page, changed) = async {
            let mut rows = rows?;
            let mut page = wanted.map(|wanted| Page::new(columns(statement), wanted.limit));
            while let Some(row) = rows.try_next().await? {
                if let Some(page) = &mut page
                    && !page.more
                {
                    page.push(values(&row)?)?;
                }
            }
            let changed = if words::reads(&some[index].sql) { 0 } else { rows.rows_affected().unwrap_or(0) };
            Ok::<_, Trouble>((page, changed))
        }
        .await
        .map_err(|trouble| (trouble, index))?;
        done.counts.push(changed);
        done.page = page.unwrap_or_default();
    }
    Ok(some.len())
}

async fn prepare(client: &Client, asked: &Asked, code: ErrorCode) -> Result<Statement, Trouble> {
    if let Some(word) = words::refused(&asked.sql) {
        return Err(Refusal::new(code, format!("not allowed in a database of a mesh: {word}")).into());
    }
    let statement = client.prepare(&asked.sql).await?;
    if let Some(column) = statement.columns().iter().find(|column| !is_known(column.type_())) {
        let message = format!("the column `{}` has the type {}; cast it to text", column.name(), column.type_().name());
        return Err(Refusal::new(code, message).into());
    }
    Ok(statement)
}

fn check_params(statement: &Statement, asked: &Asked) -> Result<(), Refusal> {
    let (wanted, given) = (statement.params().len(), asked.params.len());
    if wanted != given {
        let message = format!("`params`: expected {wanted} values for the statement, and there are {given}");
        return Err(invalid(message));
    }
    Ok(())
}

async fn start(
    client: &Client,
    statement: &Statement,
    asked: &Asked,
) -> Result<std::pin::Pin<Box<RowStream>>, Trouble> {
    check_params(statement, asked)?;
    Ok(Box::pin(client.query_raw(statement, asked.params.iter().map(Param)).await?))
}

fn columns(statement: &Statement) -> Vec<(String, String)> {
    statement.columns().iter().map(|column| (column.name().to_owned(), column.type_().name().to_owned())).collect()
}

fn values(row: &Row) -> Result<Vec<Value>, tokio_postgres::Error> {
    (0..row.len()).map(|at| row.try_get::<_, Told>(at).map(|Told(value)| value)).collect()
}
