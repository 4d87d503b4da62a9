//! `sql shell`: statements one by one, with a history and the names of tables behind the tab key.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use claudemesh_protocol::error::ErrorCode;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Editor, Helper};

use super::cli::{listed, page, schema};
use super::{needs_execute, split};
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::CliError;
use crate::files;
use crate::output::{columns, counted};
use crate::verb::{Effect, Ran, Verb, done};

/// Rows that are shown of a query.
const MAX_ROWS: usize = 1_000;
/// Statements that are remembered.
const HISTORY: usize = 1_000;
/// Words that are completed beside names.
const WORDS: &[&str] = &[
    "ALTER",
    "AND",
    "AS",
    "BEGIN",
    "BY",
    "CASE",
    "COLUMN",
    "CREATE",
    "DEFAULT",
    "DELETE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXISTS",
    "FROM",
    "GROUP",
    "HAVING",
    "INDEX",
    "INNER",
    "INSERT",
    "INTO",
    "JOIN",
    "KEY",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "ORDER",
    "PRIMARY",
    "REFERENCES",
    "RETURNING",
    "SELECT",
    "SET",
    "TABLE",
    "TEXT",
    "THEN",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];
const HELP: &str = "A statement ends with a semicolon, on as many lines as it takes.\n\
     .tables       tables and views\n\
     .schema       the same with their columns\n\
     .quit         leave, as Ctrl-D\n";

/// Type statements one by one. Ctrl-C gives up a line or the statement that runs, Ctrl-D ends.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh sql shell\n  claudemesh sql shell < statements.sql\n\n\
                        The tab key completes names of tables and columns. The history is in the config folder.")]
pub struct ShellArgs {}

impl Verb for ShellArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    /// Exit 1 when the last statement failed; in a file the first one that fails is the last.
    fn run(self, cx: &Context) -> Ran {
        if cx.out.is_json() {
            let error = CliError::invalid_args("The shell is for people and has no JSON.");
            return Err(error.hint("`claudemesh sql query` and `execute` have."));
        }
        let entry = cx.mesh_entry()?;
        ask(cx, &entry, |connection| async move { Shell::new(cx, connection)?.run().await }).map(done)
    }
}

/// Names for the tab key.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    fn behind(&self, beginning: &str) -> Vec<String> {
        let lower = beginning.to_lowercase();
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<String> =
            names.iter().filter(|name| name.to_lowercase().starts_with(&lower)).cloned().collect();
        let words = WORDS.iter().filter(|word| !lower.is_empty() && word.to_lowercase().starts_with(&lower));
        found.extend(words.map(|word| (*word).to_owned()));
        found
    }
}

/// What the line editor asks.
struct Asked(Names);

impl Completer for Asked {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let begin = line[..at]
            .rfind(|sign: char| !sign.is_alphanumeric() && sign != '_')
            .map_or(0, |place| place + line[place..].chars().next().map_or(1, char::len_utf8));
        let pair = |name: String| Pair { display: name.clone(), replacement: name };
        Ok((begin, self.0.behind(&line[begin..at]).into_iter().map(pair).collect()))
    }
}

impl Validator for Asked {
    /// A line goes on until its statement has ended.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        let complete = input.trim_start().starts_with('.') || split::statements(input).1.is_empty();
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Asked {
    type Hint = String;
}

impl Highlighter for Asked {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Helper for Asked {}

struct Shell<'a> {
    cx: &'a Context,
    connection: Connection,
    names: Names,
    /// Away while someone types.
    editor: Option<Editor<Asked, FileHistory>>,
    history: std::path::PathBuf,
    failed: Option<CliError>,
}

impl<'a> Shell<'a> {
    fn new(cx: &'a Context, connection: Connection) -> Result<Self, CliError> {
        let unusable = |error: ReadlineError| CliError::io(format!("The terminal cannot be used: {error}."));
        let config = rustyline::Config::builder().max_history_size(HISTORY).map_err(unusable)?.build();
        let mut editor = Editor::with_config(config).map_err(unusable)?;
        let names = Names::default();
        editor.set_helper(Some(Asked(names.clone())));
        let history = cx.store.dir().join("sql-history");
        // The first time there is none.
        let _ = editor.load_history(&history);
        Ok(Self { cx, connection, names, editor: Some(editor), history, failed: None })
    }

    async fn run(mut self) -> Result<(), CliError> {
        self.refresh().await?;
        let people = std::io::IsTerminal::is_terminal(&std::io::stdin());
        if people {
            self.cx.out.write("A statement ends with a semicolon; .help says what else there is.\n")?;
        }
        let mut pending = String::new();
        loop {
            let prompt = if pending.is_empty() { "sql> " } else { "...> " };
            match self.line(if people { prompt } else { "" }).await? {
                Ok(line) => {
                    pending += &line;
                    pending.push('\n');
                }
                Err(ReadlineError::Interrupted) => {
                    pending.clear();
                    continue;
                }
                // The last statement of a file may lack its semicolon.
                Err(_) if !pending.trim().is_empty() => {
                    self.statement(pending.trim()).await?;
                    break;
                }
                Err(_) => break,
            }
            if pending.trim_start().starts_with('.') {
                if !self.command(pending.trim()).await? {
                    break;
                }
                pending.clear();
                continue;
            }
            let (complete, left) = split::statements(&pending);
            let left = left.to_owned();
            for statement in complete.into_iter().map(str::to_owned).collect::<Vec<_>>() {
                self.statement(&statement).await?;
                // What follows in a file may build on it.
                if self.failed.is_some() && !people {
                    return self.ended();
                }
            }
            pending = left;
        }
        self.ended()
    }

    fn ended(self) -> Result<(), CliError> {
        self.failed.map_or(Ok(()), Err)
    }

    /// A line, read on a thread of its own: the connection lives on meanwhile.
    async fn line(&mut self, prompt: &str) -> Result<Result<String, ReadlineError>, CliError> {
        if prompt.is_empty() {
            return self.piped_line().await;
        }
        let Some(mut editor) = self.editor.take() else { return Ok(Err(ReadlineError::Eof)) };
        let (prompt, history) = (prompt.to_owned(), self.history.clone());
        let read = tokio::task::spawn_blocking(move || {
            let line = editor.readline(&prompt);
            if let Ok(line) = &line
                && !line.trim().is_empty()
            {
                let _ = editor.add_history_entry(line.as_str());
                keep(&mut editor, &history);
            }
            (line, editor)
        });
        let (line, editor) =
            read.await.map_err(|error| CliError::internal(format!("The terminal failed: {error}.")))?;
        self.editor = Some(editor);
        Ok(line)
    }

    /// A line of a file or a pipe, which the editor would hold back until its statement has ended.
    async fn piped_line(&self) -> Result<Result<String, ReadlineError>, CliError> {
        let read = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            match std::io::stdin().read_line(&mut line) {
                Ok(0) => Err(ReadlineError::Eof),
                Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => Err(error.into()),
            }
        });
        read.await.map_err(|error| CliError::internal(format!("The standard input failed: {error}.")))
    }

    /// `false` ends the shell.
    async fn command(&mut self, word: &str) -> Result<bool, CliError> {
        let out = &self.cx.out;
        match word {
            ".quit" | ".exit" => return Ok(false),
            ".help" => out.write(HELP)?,
            ".tables" | ".schema" => match self.connection.sql_schema().await {
                Ok((tables, _)) if word == ".tables" => {
                    let names = tables.iter().map(|table| crate::output::word(&table.name, out) + "\n");
                    out.write(&names.collect::<String>())?;
                }
                Ok((tables, dialect)) => out.write(&schema(&tables, &dialect, out))?,
                Err(error) => self.fail(error)?,
            },
            _ => out.write(&format!("There is no such command.\n{HELP}"))?,
        }
        Ok(true)
    }

    /// Runs a statement: as a query, and when the database says that it changes something, as a change.
    async fn statement(&mut self, sql: &str) -> Result<(), CliError> {
        let out = &self.cx.out;
        let width = usize::from(columns(&self.cx.env));
        self.failed = None;
        match self.connection.sql_rows_unless(sql, &[], MAX_ROWS, interrupted()).await {
            Ok(rows) => {
                let more = if rows.result.next.is_some() { "; there are more" } else { "" };
                let count = counted(rows.result.rows.len(), "row");
                out.write(&format!("{}({count}{more})\n", page(&rows.result.columns, &rows.result.rows, width, out)))
            }
            Err(error) if needs_execute(&error) => {
                match self.connection.sql_execute(listed(sql, vec![])?, interrupted()).await {
                    Ok(result) => {
                        let count = counted(usize::try_from(result.row_count).unwrap_or(usize::MAX), "row");
                        let rows = page(&result.columns, &result.rows, width, out);
                        out.write(&format!("{rows}{} executed: {count}\n", out.tick()))?;
                        self.refresh().await
                    }
                    Err(error) => self.fail(error),
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Reads the names for the tab key again.
    async fn refresh(&mut self) -> Result<(), CliError> {
        match self.connection.sql_schema().await {
            Ok((tables, _)) => {
                let mut names: Vec<String> = tables
                    .iter()
                    .flat_map(|table| {
                        std::iter::once(&table.name).chain(table.columns.iter().map(|column| &column.name))
                    })
                    .cloned()
                    .collect();
                names.sort_unstable();
                names.dedup();
                *self.names.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    /// Says what failed and goes on, unless nothing else can work.
    fn fail(&mut self, error: ConnectionError) -> Result<(), CliError> {
        let ends = matches!(error.code(), None | Some(ErrorCode::Forbidden | ErrorCode::SqlUnavailable));
        let error = CliError::from(error);
        if ends {
            return Err(error);
        }
        self.cx.out.fail(&error);
        self.failed = Some(CliError::cancelled("The last statement failed."));
        Ok(())
    }
}

/// Ctrl-C while a statement runs: it ends the statement and not the shell.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Writes the history, for this user only: values stand in it.
fn keep(editor: &mut Editor<Asked, FileHistory>, path: &std::path::Path) {
    if !path.exists() {
        let _ = files::write_private(path, b"");
    }
    // Without it the shell works as well.
    let _ = editor.save_history(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tab_key_completes_names_and_words() {
        let names = Names::default();
        *names.0.lock().unwrap() = vec!["people".into(), "Peers".into(), "teams".into()];
        let asked = Asked(names);
        let history = rustyline::history::DefaultHistory::new();
        let context = rustyline::Context::new(&history);
        let complete = |line: &str| {
            let (begin, found) = asked.complete(line, line.len(), &context).unwrap();
            (begin, found.into_iter().map(|pair| pair.replacement).collect::<Vec<_>>())
        };
        assert_eq!(complete("SELECT * FROM pe"), (14, vec!["people".to_owned(), "Peers".into()]));
        assert_eq!(complete("sel"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(complete("SELECT ä.te"), (10, vec!["teams".to_owned(), "TEXT".into()]));
    }
}
