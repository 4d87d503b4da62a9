//! Running statements on a guarded connection: pages of rows, and lists of changes in one transaction.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::Statement as Asked;
use rusqlite::types::{ToSqlOutput, Value as Bound, ValueRef};
use rusqlite::{Row, Statement};
use serde_json::Value;

use super::Trouble;
use super::guard::Mode;
use super::open::Guarded;
use crate::features::sql::limits::TABLES_PER_MESH;
use crate::features::sql::page::{Page, as_bytes, bytes, real, whole};
use crate::features::sql::stop::Stop;
use crate::features::sql::{Done, Wanted};
use crate::quota::Quotas;
use crate::refusal::{Refusal, invalid};

/// Reads a page of a query.
///
/// # Errors
/// SQLite's, or `query_error` for a statement that would change something.
pub(super) fn query(on: &Guarded, asked: &Asked, wanted: Wanted) -> Result<Page, Trouble> {
    on.guard.set(Mode::Reads);
    let mut statement = prepare(on, &asked.sql)?;
    if !statement.readonly() {
        return Err(
            Refusal::new(ErrorCode::QueryError, "the statement changes something; it needs mesh_execute").into()
        );
    }
    bind(&mut statement, &asked.params)?;
    let mut page = Page::new(columns(&statement), wanted.limit);
    let width = page.columns.len();
    let mut rows = statement.raw_query();
    let mut skip = wanted.skip;
    while let Some(row) = rows.next()? {
        if skip > 0 {
            skip -= 1;
        } else if !page.push(values(row, width)?)? {
            break;
        }
    }
    Ok(page)
}

/// Runs statements in one transaction. `record` is called before the commit, when something was changed: it writes the entry of the
/// audit log. When it fails nothing is changed.
///
/// # Errors
/// SQLite's, with the number of the statement; those of `record`; `limit`.
pub(super) fn execute(
    on: &Guarded,
    list: &[Asked],
    wanted: Wanted,
    stop: &Stop,
    quotas: &Quotas,
    record: impl FnOnce(&Done) -> Result<(), Refusal>,
) -> Result<Done, Trouble> {
    on.guard.set(Mode::Own);
    let transaction = Undo::begin(on)?;
    let tables = count_tables(on)?;
    let mut done = Done::default();
    let run = run_all(on, list, wanted, &mut done);
    on.guard.set(Mode::Own);
    run?;
    if done.changes {
        let now = count_tables(on)?;
        quotas.growth(&TABLES_PER_MESH, tables, now).map_err(Refusal::from)?;
        if !stop.may_commit() {
            return Err(stop.refusal(quotas).into());
        }
        record(&done)?;
    }
    transaction.commit()?;
    Ok(done)
}

fn run_all(on: &Guarded, list: &[Asked], wanted: Wanted, done: &mut Done) -> Result<(), Trouble> {
    on.guard.set(Mode::Writes);
    let mut at = 0;
    while at < list.len() {
        let sql = &list[at].sql;
        let alike = list[at..].iter().take_while(|next| next.sql == *sql).count();
        let mut statement = prepare(on, sql).map_err(|trouble| trouble.at(at, list.len()))?;
        // A SELECT may stand in a list, and is no change.
        done.changes |= !statement.readonly();
        for (number, asked) in list[at..at + alike].iter().enumerate() {
            let last = (at + number + 1 == list.len()).then_some(wanted);
            run_one(on, &mut statement, asked, last, done).map_err(|trouble| trouble.at(at + number, list.len()))?;
        }
        at += alike;
    }
    Ok(())
}

fn run_one(
    on: &Guarded,
    statement: &mut Statement<'_>,
    asked: &Asked,
    rows_wanted: Option<Wanted>,
    done: &mut Done,
) -> Result<(), Trouble> {
    bind(statement, &asked.params)?;
    let before = on.connection.total_changes();
    let mut page = rows_wanted.map(|wanted| Page::new(columns(statement), wanted.limit));
    let width = statement.column_count();
    let mut rows = statement.raw_query();
    // All of it runs, also when no one wants the rows.
    while let Some(row) = rows.next()? {
        if let Some(page) = &mut page
            && !page.more
        {
            page.push(values(row, width)?)?;
        }
    }
    drop(rows);
    // A statement that changes no rows leaves the number of the one before.
    let changed = if on.connection.total_changes() == before { 0 } else { on.connection.changes() };
    done.counts.push(changed);
    done.page = page.unwrap_or_default();
    Ok(())
}

/// A transaction that is undone unless it is committed.
struct Undo<'a>(Option<&'a Guarded>);

impl<'a> Undo<'a> {
    fn begin(on: &'a Guarded) -> rusqlite::Result<Self> {
        on.connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Self(Some(on)))
    }

    fn commit(mut self) -> rusqlite::Result<()> {
        if let Some(on) = self.0 {
            on.connection.execute_batch("COMMIT")?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(on) = self.0 {
            on.guard.set(Mode::Own);
            // SQLite may have undone it by itself.
            let _ = on.connection.execute_batch("ROLLBACK");
        }
    }
}

fn count_tables(on: &Guarded) -> rusqlite::Result<i64> {
    on.connection.query_row("SELECT COUNT(*) FROM sqlite_schema WHERE type IN ('table', 'view')", [], |row| row.get(0))
}

fn prepare<'a>(on: &'a Guarded, sql: &str) -> Result<Statement<'a>, Trouble> {
    let statement = match on.connection.prepare(sql) {
        Err(rusqlite::Error::MultipleStatement) => {
            return Err(invalid("`sql`: expected one statement; several go into `statements`").into());
        }
        prepared => prepared?,
    };
    // Nothing but comments.
    if statement.expanded_sql().is_none() {
        return Err(invalid("`sql`: expected a statement").into());
    }
    Ok(statement)
}

/// Gives the parameters by their place; `$2` is the second, as on PostgreSQL, wherever it stands.
fn bind(statement: &mut Statement<'_>, params: &[Value]) -> Result<(), Trouble> {
    statement.clear_bindings();
    let mut wanted = 0;
    for index in 1..=statement.parameter_count() {
        let number = match statement.parameter_name(index) {
            None => index,
            Some(name) => match name.strip_prefix(['?', '$']).map(str::parse::<usize>) {
                Some(Ok(number)) if number > 0 => number,
                _ => return Err(invalid("`sql`: expected parameters written as ?, ?1 or $1").into()),
            },
        };
        wanted = wanted.max(number);
        let Some(value) = params.get(number - 1) else { continue };
        statement.raw_bind_parameter(index, bound(value))?;
    }
    if wanted != params.len() {
        let message = format!("`params`: expected {wanted} values for the statement, and there are {}", params.len());
        return Err(invalid(message).into());
    }
    Ok(())
}

fn bound(value: &Value) -> ToSqlOutput<'_> {
    match value {
        Value::Null => ToSqlOutput::Owned(Bound::Null),
        Value::Bool(truth) => ToSqlOutput::Owned(Bound::Integer(i64::from(*truth))),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => ToSqlOutput::Owned(Bound::Integer(whole)),
            None => ToSqlOutput::Owned(Bound::Real(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        other => match as_bytes(other) {
            Some(bytes) => ToSqlOutput::Owned(Bound::Blob(bytes)),
            None => ToSqlOutput::Owned(Bound::Text(other.to_string())),
        },
    }
}

fn columns(statement: &Statement<'_>) -> Vec<(String, String)> {
    let column =
        |column: rusqlite::Column<'_>| (column.name().to_owned(), column.decl_type().unwrap_or_default().to_owned());
    statement.columns().into_iter().map(column).collect()
}

fn values(row: &Row<'_>, width: usize) -> rusqlite::Result<Vec<Value>> {
    (0..width)
        .map(|at| {
            Ok(match row.get_ref(at)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => whole(number),
                ValueRef::Real(number) => real(number),
                // A text of SQLite may hold any bytes.
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
                ValueRef::Blob(blob) => bytes(blob),
            })
        })
        .collect()
}
