//! `sql export`, `sql import`: a table as comma-separated values or as JSON, one object per line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use claudemesh_protocol::features::sql::MeshExecute;
use claudemesh_protocol::features::sql::limits::MAX_STATEMENTS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cli::{no_table, read_text, warn_of_changes};
use super::{csv, quoted};
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::{CliError, sentence};
use crate::output::{counted, word};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Rows of an export: what a database of the usual size can hold.
const MAX_ROWS: usize = 5_000_000;
/// Bytes of a file to import.
const MAX_IMPORT_BYTES: u64 = 256 << 20;
/// Bytes of the rows of one request, far below the largest frame.
const BATCH_BYTES: usize = 600_000;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values with a line of names; bytes are \x and hexadecimal digits.
    Csv,
    /// One JSON object per line; every value comes back as it was.
    Jsonl,
}

impl Format {
    /// The one that was asked for, else that of the name of the file.
    fn choose(asked: Option<Self>, file: &Path) -> Self {
        let is_csv = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
        asked.unwrap_or(if is_csv { Self::Csv } else { Self::Jsonl })
    }
}

/// Write a table or view to a file.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh sql export runs --out runs.csv\n  \
                        claudemesh sql export runs --out - --format jsonl")]
pub struct ExportArgs {
    /// The table or view.
    table: String,
    /// File to write to, which only you can read; `-` is the terminal.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How it is written [default: csv for files that end with .csv, else jsonl].
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
}

/// What was exported, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Exported {
    table: String,
    rows: u64,
    file: String,
}

impl Verb for ExportArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Exported>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Exported>>()]
    }

    /// Exit 5 when there is no such table, 10 when the file cannot be written.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let name = self.table.clone();
        let rows = ask(cx, &entry, |connection| async move { whole(&connection, &name).await })?;
        warn_of_changes(&cx.out, &rows);
        let result = rows.result;
        let text = match Format::choose(self.format, &self.out) {
            Format::Csv => csv::table(&result.columns, &result.rows),
            Format::Jsonl => result.rows.iter().map(|row| format!("{}\n", Value::Object(row.clone()))).collect(),
        };
        if self.out == Path::new("-") {
            return cx.out.write(&text).map(done);
        }
        crate::files::write_private(&self.out, text.as_bytes())
            .map_err(|error| CliError::io(sentence(&format!("{} cannot be written: {error}", self.out.display()))))?;
        let exported =
            Exported { rows: result.rows.len() as u64, table: self.table, file: self.out.display().to_string() };
        cx.out
            .answer(&InMesh::new(&entry.slug, &exported), |out| {
                let count = counted(result.rows.len(), "row");
                format!("{} {count} of {} written to {}\n", out.tick(), word(&exported.table, out), exported.file)
            })
            .map(done)
    }
}

/// All rows, in the order of the primary key if there is one.
async fn whole(connection: &Connection, table: &str) -> Result<super::Rows, CliError> {
    let (tables, _) = connection.sql_schema().await?;
    let found = tables.iter().find(|one| one.name == table).ok_or_else(|| no_table(table))?;
    Ok(connection.sql_table(found, MAX_ROWS).await?)
}

/// Insert the rows of a file into a table.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh sql import runs runs.csv\n  \
                        claudemesh sql import runs - --format jsonl < runs.jsonl\n\n\
                        Rows are inserted some thousand at a time; when some fail, those before stay.")]
pub struct ImportArgs {
    /// The table, which must exist.
    table: String,
    /// The file; `-` is the standard input. Its names are those of the columns.
    file: PathBuf,
    /// How it is written [default: csv for files that end with .csv, else jsonl].
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
}

/// What was imported, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Imported {
    table: String,
    imported: u64,
}

impl Verb for ImportArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Imported>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Imported>>()]
    }

    /// Exit 3 when a line cannot be read or a row does not fit into the table, 10 when the file cannot be read.
    fn run(self, cx: &Context) -> Ran {
        let text = read_text(&self.file, MAX_IMPORT_BYTES)?;
        let batches = match Format::choose(self.format, &self.file) {
            Format::Csv => of_csv(&self.table, &text)?,
            Format::Jsonl => of_lines(&self.table, &text)?,
        };
        let entry = cx.mesh_entry()?;
        let mut imported = Imported { table: self.table, imported: 0 };
        let count = &mut imported.imported;
        ask(cx, &entry, |connection| async move {
            for batch in batches {
                let rows = batch.batch.len() as u64;
                if let Err(error) = connection.sql_execute(batch, std::future::pending()).await {
                    let error = CliError::from(error);
                    let so_far = *count;
                    return Err(match so_far {
                        0 => error,
                        _ => error.hint(format!("The first {so_far} rows are in the table.")).field("imported", so_far),
                    });
                }
                *count += rows;
            }
            Ok(())
        })?;
        cx.out
            .answer(&InMesh::new(&entry.slug, &imported), |out| {
                let rows = counted(usize::try_from(imported.imported).unwrap_or(usize::MAX), "row");
                format!("{} {rows} inserted into {}\n", out.tick(), word(&imported.table, out))
            })
            .map(done)
    }
}

/// Collects rows of the same columns into requests.
struct Batches<'a> {
    table: &'a str,
    found: Vec<MeshExecute>,
    /// Bytes of the last one.
    bytes: usize,
    statements: HashMap<Vec<String>, String>,
}

impl<'a> Batches<'a> {
    fn new(table: &'a str) -> Self {
        Self { table, found: vec![], bytes: 0, statements: HashMap::new() }
    }

    fn add(&mut self, columns: &[String], values: Vec<Value>) {
        let table = self.table;
        let sql = self.statements.entry(columns.to_vec()).or_insert_with(|| {
            let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
            let places: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
            format!("INSERT INTO {} ({}) VALUES ({})", quoted(table), names.join(", "), places.join(", "))
        });
        let size = serde_json::to_string(&values).map_or(0, |text| text.len()) + 1;
        let goes_on = self.found.last().is_some_and(|last| {
            last.sql == *sql && self.bytes + size <= BATCH_BYTES && last.batch.len() < MAX_STATEMENTS
        });
        if !goes_on {
            self.found.push(MeshExecute { sql: sql.clone(), ..MeshExecute::default() });
            self.bytes = 0;
        }
        if let Some(last) = self.found.last_mut() {
            last.batch.push(values);
        }
        self.bytes += size;
    }
}

fn of_csv(table: &str, text: &str) -> Result<Vec<MeshExecute>, CliError> {
    let rows = csv::read(text).map_err(|wrong| CliError::invalid_args(sentence(&wrong)))?;
    let mut rows = rows.into_iter();
    let head = rows.next().ok_or_else(|| CliError::invalid_args("The file is empty; its first line has the names."))?;
    let columns: Option<Vec<String>> = head.into_iter().collect();
    let columns = columns.ok_or_else(|| CliError::invalid_args("The first line has a name that is empty."))?;
    let mut batches = Batches::new(table);
    for (number, row) in rows.enumerate() {
        // An empty line between rows.
        if row == [None] && columns.len() > 1 {
            continue;
        }
        if row.len() != columns.len() {
            let wrong =
                format!("Row {} has {} values, and there are {} columns.", number + 1, row.len(), columns.len());
            return Err(CliError::invalid_args(wrong));
        }
        batches.add(&columns, row.into_iter().map(|field| field.map_or(Value::Null, Value::String)).collect());
    }
    Ok(batches.found)
}

fn of_lines(table: &str, text: &str) -> Result<Vec<MeshExecute>, CliError> {
    let mut batches = Batches::new(table);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
            CliError::invalid_args(sentence(&format!("line {} is no JSON object: {error}", number + 1)))
        })?;
        if row.is_empty() {
            return Err(CliError::invalid_args(format!("Line {} has no values.", number + 1)));
        }
        let (columns, values): (Vec<String>, Vec<Value>) = row.into_iter().unzip();
        batches.add(&columns, values);
    }
    Ok(batches.found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_of_the_same_columns_go_together_and_names_cannot_leave_their_quotes() {
        let lines = "{\"a\":1,\"b\":null}\n\n{\"a\":2,\"b\":\"x\"}\n{\"b\\\"); DROP TABLE t --\":3}\n";
        let found = of_lines("t\"u", lines).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].sql, "INSERT INTO \"t\"\"u\" (\"a\", \"b\") VALUES ($1, $2)");
        assert_eq!(found[0].batch, [vec![json!(1), Value::Null], vec![json!(2), json!("x")]]);
        assert_eq!(found[1].sql, "INSERT INTO \"t\"\"u\" (\"b\"\"); DROP TABLE t --\") VALUES ($1)");
        let large = format!("{{\"a\":\"{}\"}}\n", "x".repeat(BATCH_BYTES / 2));
        assert_eq!(of_lines("t", &large.repeat(4)).unwrap().len(), 4);
    }

    #[test]
    fn wrong_files_are_refused_with_their_line() {
        for (text, words) in [("", "empty"), ("a,b\n1", "Row 1 has 1 values"), ("a,\n1,2", "a name that is empty")] {
            assert!(of_csv("t", text).unwrap_err().message.contains(words), "{text}");
        }
        for (text, words) in [("{}", "Line 1 has no values"), ("{\"a\":1}\n[1]", "Line 2 is no JSON object")] {
            let message = of_lines("t", text).unwrap_err().message;
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
