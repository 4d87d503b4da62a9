//! `sql query`, `execute`, `schema`, `export`, `import`, `shell`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use claudemesh_protocol::features::sql::{MeshExecute, Statement, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::shell::ShellArgs;
use super::transfer::{ExportArgs, ImportArgs};
use super::{Rows, csv, described, split, table};
use crate::context::Context;
use crate::context::connect::in_mesh;
use crate::error::{CliError, sentence};
use crate::output::{Output, Style, columns, counted, word};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

/// Bytes of a file with statements: some times what the broker takes at once.
const MAX_FILE_BYTES: u64 = 8 << 20;

verbs! {
    /// Query and change the SQL database of the mesh, which all its members share.
    #[command(
        after_help = "Examples:\n  claudemesh sql execute 'CREATE TABLE runs (id INTEGER PRIMARY KEY, ok BOOLEAN)'\n  \
                            claudemesh sql query 'SELECT * FROM runs WHERE id > ?' --param 7\n  claudemesh sql shell"
    )]
    pub struct SqlArgs: enum SqlAction {
        Query => QueryArgs,
        Execute => ExecuteArgs,
        Schema => SchemaArgs,
        Export => ExportArgs,
        Import => ImportArgs,
        Shell => ShellArgs,
    }
}

/// Read rows: one statement that changes nothing.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh sql query 'SELECT * FROM runs'\n  \
                        claudemesh sql query --file report.sql --csv > report.csv")]
pub struct QueryArgs {
    /// The statement; from the standard input when neither it nor --file is there.
    sql: Option<String>,
    /// Value of the next ?, or of $1, $2 …: JSON, else a text. Once for each.
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true, value_parser = parse_value)]
    params: Vec<Value>,
    /// Read the statement from a file; `-` is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// At most this many rows.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Comma-separated values, with a line of names before them.
    #[arg(long)]
    csv: bool,
}

/// Rows, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Found {
    columns: Vec<String>,
    types: Vec<String>,
    rows: Vec<Map<String, Value>>,
    row_count: u64,
    /// There are more rows; --limit raises their number.
    more: bool,
    /// The database was written meanwhile: rows may be missing or be there twice.
    changed: bool,
}

impl Verb for QueryArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Found>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Found>>()]
    }

    /// Exit 3 when the database refuses the statement, 4 when it takes too long, 7 when a bound is hit.
    fn run(self, cx: &Context) -> Ran {
        let sql = text_of(self.sql, self.file.as_deref())?;
        let (params, most) = (self.params, self.limit as usize);
        let (mesh, rows) = in_mesh(cx, |connection| async move { connection.sql_rows(&sql, &params, most).await })?;
        warn_of_changes(&cx.out, &rows);
        if self.csv && !cx.out.is_json() {
            return cx.out.write(&csv::table(&rows.result.columns, &rows.result.rows)).map(done);
        }
        let width = usize::from(columns(&cx.env));
        let found = Found {
            row_count: rows.result.rows.len() as u64,
            more: rows.result.next.is_some(),
            changed: rows.changed,
            columns: rows.result.columns,
            types: rows.result.types,
            rows: rows.result.rows,
        };
        cx.out.answer(&InMesh::new(&mesh, &found), |out| told(&found, width, out)).map(done)
    }
}

/// The rows as a table, with a line about them.
fn told(found: &Found, width: usize, out: &Output) -> String {
    let mut text = page(&found.columns, &found.rows, width, out);
    let more = if found.more { "; there are more, --limit raises their number" } else { "" };
    let count = format!("({}{more})", counted(found.rows.len(), "row"));
    text += &format!("{}\n", out.paint(Style::Dim, &count));
    text
}

/// The rows as a table: for a model in a block of its own.
pub(super) fn page(columns: &[String], rows: &[Map<String, Value>], width: usize, out: &Output) -> String {
    if columns.is_empty() {
        return String::new();
    }
    if out.is_for_model() {
        return out.preamble() + &out.block(&table::markdown(columns, rows));
    }
    table::fitted(columns, rows, width, out)
}

pub(super) fn warn_of_changes(out: &Output, rows: &Rows) {
    if rows.changed {
        out.warn("The database was written meanwhile: rows may be missing or be there twice.");
    }
}

/// Change data or tables. All statements are one transaction: all of them are done, or none.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh sql execute 'INSERT INTO runs VALUES (?, ?)' --param 7 --param true\n  \
                        claudemesh sql execute --file tables.sql"
)]
pub struct ExecuteArgs {
    /// Statements, with semicolons between them; from the standard input when neither they nor --file are there.
    sql: Option<String>,
    /// Value of the next ?, or of $1, $2 …, of a single statement: JSON, else a text. Once for each.
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true, value_parser = parse_value)]
    params: Vec<Value>,
    /// Read the statements from a file; `-` is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
}

/// What was done, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Executed {
    executed: bool,
    /// Rows that were inserted, changed or deleted.
    row_count: u64,
    /// The same for each statement.
    counts: Vec<u64>,
    /// What RETURNING of the last statement gave.
    columns: Vec<String>,
    rows: Vec<Map<String, Value>>,
}

impl Verb for ExecuteArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Executed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Executed>>()]
    }

    /// Exit 3 when the database refuses a statement, 4 when it takes too long, 7 when a bound is hit. Nothing is changed then.
    fn run(self, cx: &Context) -> Ran {
        let text = text_of(self.sql, self.file.as_deref())?;
        let execute = listed(&text, self.params)?;
        let several = !execute.statements.is_empty();
        let run = |connection: crate::connection::Connection| async move {
            connection.sql_execute(execute, std::future::pending()).await
        };
        let (mesh, result) = in_mesh(cx, run)?;
        let width = usize::from(columns(&cx.env));
        let executed = Executed {
            executed: true,
            row_count: result.row_count,
            counts: if several { result.counts } else { vec![result.row_count] },
            columns: result.columns,
            rows: result.rows,
        };
        cx.out
            .answer(&InMesh::new(&mesh, &executed), |out| {
                let rows = page(&executed.columns, &executed.rows, width, out);
                let count = counted(usize::try_from(executed.row_count).unwrap_or(usize::MAX), "row");
                format!("{rows}{} executed: {count}\n", out.tick())
            })
            .map(done)
    }
}

/// One statement with its parameters, or a list of them.
pub(super) fn listed(text: &str, params: Vec<Value>) -> Result<MeshExecute, CliError> {
    let (complete, last) = split::statements(text);
    let all: Vec<&str> = complete.into_iter().chain((!last.is_empty()).then_some(last.trim())).collect();
    match all[..] {
        [] => Err(CliError::invalid_args("There is no statement.")),
        [one] => Ok(MeshExecute { sql: one.to_owned(), params, ..MeshExecute::default() }),
        _ if !params.is_empty() => Err(CliError::invalid_args("--param is for a single statement.")),
        _ => {
            let statement = |sql: &&str| Statement { sql: (*sql).to_owned(), params: vec![] };
            Ok(MeshExecute { statements: all.iter().map(statement).collect(), ..MeshExecute::default() })
        }
    }
}

/// Show tables and views with their columns, indexes and foreign keys.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh sql schema\n  claudemesh sql schema runs --json=name,columns")]
pub struct SchemaArgs {
    /// Only this table.
    table: Option<String>,
}

impl Verb for SchemaArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Table>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<Table>>()]
    }

    /// Exit 5 when there is no such table.
    fn run(self, cx: &Context) -> Ran {
        let (mesh, (mut tables, dialect)) = in_mesh(cx, |connection| async move { connection.sql_schema().await })?;
        if let Some(name) = &self.table {
            tables.retain(|table| table.name == *name);
            if tables.is_empty() {
                return Err(no_table(name));
            }
        }
        cx.out.answer(&InMesh::all(&mesh, &tables), |out| schema(&tables, &dialect, out)).map(done)
    }
}

pub(super) fn no_table(name: &str) -> CliError {
    CliError::not_found(format!("There is no table {name}.")).hint("`claudemesh sql schema` lists them.")
}

/// Tables with a line for each thing they have.
pub(super) fn schema(tables: &[Table], dialect: &str, out: &Output) -> String {
    if tables.is_empty() {
        return format!("there are no tables ({dialect}); `claudemesh sql execute` makes some\n");
    }
    let mut text = out.preamble();
    for table in tables {
        text += &format!("{}\n{}", out.paint(Style::Cyan, &word(&table.name, out)), out.block(&described(table)));
    }
    text + &format!("{}\n", out.paint(Style::Dim, &format!("({}, {dialect})", counted(tables.len(), "table"))))
}

/// JSON, else a text.
///
/// # Errors
/// None: every text is one.
fn parse_value(text: &str) -> Result<Value, String> {
    Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

/// The text of a command: its argument, a file, or the standard input.
fn text_of(argument: Option<String>, file: Option<&Path>) -> Result<String, CliError> {
    match (argument, file) {
        (Some(text), _) => Ok(text),
        (None, Some(path)) => read_text(path, MAX_FILE_BYTES),
        (None, None) if std::io::stdin().is_terminal() => {
            let error = CliError::invalid_args("There is no statement.");
            Err(error.hint("Write it behind the command, or use --file; `claudemesh sql shell` takes them one by one."))
        }
        (None, None) => read_text(Path::new("-"), MAX_FILE_BYTES),
    }
}

/// A file, or the standard input for `-`.
///
/// # Errors
/// Exit 10 when it cannot be read, 3 when it is too large or no UTF-8.
pub(super) fn read_text(path: &Path, most: u64) -> Result<String, CliError> {
    let unreadable =
        |error: std::io::Error| CliError::io(sentence(&format!("{} cannot be read: {error}", path.display())));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() as u64 > most {
        return Err(CliError::invalid_args(format!("{} has more than {most} bytes.", path.display())));
    }
    String::from_utf8(bytes).map_err(|_| CliError::invalid_args(format!("{} is not UTF-8.", path.display())))
}
