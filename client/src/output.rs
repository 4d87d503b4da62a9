//! What commands print: colours only on a terminal, JSON when asked, other people's text made harmless.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{CliError, ExitCode};
use crate::paths::Env;
use crate::session::notes::{BRACKETS, harmless, harmless_value, without_tags};
use crate::wrap::wrapped;

/// How the answer is printed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// Pretty JSON; only these fields of each object when the list is not empty.
    Json(Vec<String>),
}

impl Format {
    /// From `--json` (`Some("")`) or `--json=a,b`.
    pub fn of_flag(flag: Option<&str>) -> Self {
        match flag {
            None => Self::Human,
            Some(fields) => Self::Json(
                fields.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            ),
        }
    }
}

/// A colour or weight; all are in the basic set that every terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Weight.
    Bold,
    /// Less important.
    Dim,
    /// Good.
    Green,
    /// Attention.
    Yellow,
    /// Bad.
    Red,
    /// Names.
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Cyan => "36",
        }
    }
}

/// Where and how a command prints.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    quiet: bool,
    colour: bool,
    /// A model reads it: the shell belongs to a session.
    for_model: bool,
    /// The asked fields were found among those of the verb.
    fields_checked: bool,
    /// Of the terminal that people read failures and warnings on; `None` when it is none.
    stderr_columns: Option<u16>,
}

/// What a peer wrote, within a line: for people without line ends and control characters, for a model also harmless.
pub fn word(text: &str, out: &Output) -> String {
    if out.is_for_model() { harmless_value(text) } else { one_line(text).into_owned() }
}

impl Output {
    /// Output of a command. Whether it has colours is decided as for help texts, which are not printed here: `NO_COLOR`,
    /// `CLICOLOR_FORCE`, `CLICOLOR` in this order, then a terminal whose `TERM` is told and not `dumb`.
    pub fn new(env: &Env, format: Format, quiet: bool) -> Self {
        let colour = has_colour(env, io::stdout().is_terminal());
        let for_model = env.flag("CLAUDECODE") || env.is_set("CLAUDE_CODE_SESSION_ID");
        let stderr_columns = if for_model || !io::stderr().is_terminal() { None } else { known_columns(env) };
        Self { format, quiet, colour, for_model, fields_checked: false, stderr_columns }
    }

    /// Checks the fields of `--json=FIELDS` before the verb runs. Without `known` ones the answer is looked at.
    ///
    /// # Errors
    /// Exit 3 for a field that the verb does not have.
    pub fn expect_fields(&mut self, known: &[&str]) -> Result<(), CliError> {
        if let Format::Json(fields) = &self.format
            && !known.is_empty()
        {
            if let Some(unknown) = fields.iter().find(|field| !known.contains(&field.as_str())) {
                return Err(unknown_field(unknown, known));
            }
            self.fields_checked = true;
        }
        Ok(())
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        matches!(self.format, Format::Json(_))
    }

    /// Whether only the essential was asked for.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether a model reads the text: this shell belongs to a session.
    pub fn is_for_model(&self) -> bool {
        self.for_model
    }

    /// Prints the answer of a command: `value` as JSON, else what `human` makes of it.
    ///
    /// # Errors
    /// Exit 3 for an asked field that nothing in the answer has, 10 when stdout cannot be written; a closed pipe is no error.
    pub fn answer(
        &self,
        value: &(impl Serialize + ?Sized),
        human: impl FnOnce(&Self) -> String,
    ) -> Result<(), CliError> {
        self.write(&self.render(value, human)?)
    }

    /// The answer of a command as it is printed, for verbs that note what was read once [`Output::print`] has said that it
    /// is out.
    ///
    /// # Errors
    /// Exit 3 for an asked field that nothing in the answer has.
    pub fn render(
        &self,
        value: &(impl Serialize + ?Sized),
        human: impl FnOnce(&Self) -> String,
    ) -> Result<String, CliError> {
        match &self.format {
            Format::Json(fields) => {
                let no_json = |error| CliError::internal(format!("The answer cannot be written as JSON: {error}."));
                let value = serde_json::to_value(value).map_err(no_json)?;
                if !self.fields_checked {
                    check_fields(&value, fields)?;
                }
                let text = serde_json::to_string_pretty(&project(&value, fields)).map_err(no_json)?;
                Ok(format!("{text}\n"))
            }
            Format::Human => Ok(human(self)),
        }
    }

    /// As [`Output::render`], with JSON in one line: for verbs that answer again and again.
    ///
    /// # Errors
    /// As [`Output::render`].
    pub fn render_line(
        &self,
        value: &(impl Serialize + ?Sized),
        human: impl FnOnce(&Self) -> String,
    ) -> Result<String, CliError> {
        match &self.format {
            Format::Json(fields) => {
                let no_json = |error| CliError::internal(format!("The answer cannot be written as JSON: {error}."));
                let value = serde_json::to_value(value).map_err(no_json)?;
                Ok(format!("{}\n", project(&value, fields)))
            }
            Format::Human => Ok(human(self)),
        }
    }

    /// Prints remarks for people: nothing with `--json` or `--quiet`.
    ///
    /// # Errors
    /// As [`Output::answer`].
    pub fn note(&self, text: &str) -> Result<(), CliError> {
        if self.is_json() || self.quiet { Ok(()) } else { self.write(&format!("{text}\n")) }
    }

    /// Prints a warning to stderr, so that scripts that read stdout do not see it.
    pub fn warn(&self, text: &str) {
        let text = format!("Warning: {text}");
        let text = self.stderr_columns.map(|columns| wrapped(&text, columns.into(), "  ")).unwrap_or(text);
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Prints what is going on to stderr, for people who wait; nothing with `--json` or `--quiet`.
    pub fn remark(&self, text: &str) {
        if !self.is_json() && !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// As [`Output::answer`].
    pub fn write(&self, text: &str) -> Result<(), CliError> {
        self.print(text).map(drop)
    }

    /// Prints text as it is. Answers whether all of it left this process: `false` when the reader of a pipe is gone.
    ///
    /// # Errors
    /// Exit 10 when stdout cannot be written.
    pub fn print(&self, text: &str) -> Result<bool, CliError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // `claudemesh peers | head -1` is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(CliError::io(format!("Standard output cannot be written: {error}."))),
            Ok(()) => Ok(true),
        }
    }

    /// A text that a peer wrote, in a block of its own: indented for a person; for a model every line behind `> `, as on
    /// every route into a session.
    pub fn block(&self, text: &str) -> String {
        if self.for_model {
            return crate::session::frame::quote(text);
        }
        clean_lines(text).lines().map(|line| format!("  {line}\n")).collect()
    }

    /// What stands before blocks of peers' text where a model reads them; nothing for a person.
    pub fn preamble(&self) -> String {
        if self.for_model { format!("{}\n", crate::features::questions::text::UNTRUSTED) } else { String::new() }
    }

    /// Prints a failure: JSON to stdout, or a sentence and a hint to stderr.
    pub fn fail(&self, error: &CliError) {
        if self.is_json() {
            let text = serde_json::to_string_pretty(&error.to_json()).unwrap_or_else(|_| r#"{"ok":false}"#.into());
            let _ = self.write(&format!("{text}\n"));
            return;
        }
        let mut stderr = io::stderr().lock();
        // What a broker or a peer wrote may be in it.
        let shown = |label: &str, text| {
            let text = if self.for_model { Cow::Owned(harmless(text)) } else { clean_lines(text) };
            let text = format!("{label}: {text}");
            match self.stderr_columns {
                Some(columns) => {
                    text.lines().map(|line| wrapped(line, columns.into(), "  ")).collect::<Vec<_>>().join("\n")
                }
                None => text,
            }
        };
        let _ = writeln!(stderr, "{}", shown("Error", &error.message));
        for candidate in error.candidates() {
            let line = crate::features::messaging::described(&candidate);
            let line = if self.for_model { harmless_value(&line) } else { clean(&line).into_owned() };
            let _ = writeln!(stderr, "  {line}");
        }
        if let Some(hint) = error.advice() {
            let _ = writeln!(stderr, "{}", shown("Hint", hint));
        }
    }

    /// `text` in a style, plain when colours are off. The text is not cleaned.
    pub fn paint<'a>(&self, style: Style, text: &'a str) -> Cow<'a, str> {
        if self.colour { Cow::Owned(format!("\x1b[{}m{text}\x1b[0m", style.code())) } else { Cow::Borrowed(text) }
    }

    /// A check mark for something that worked.
    pub fn tick(&self) -> Cow<'static, str> {
        self.paint(Style::Green, "✓")
    }
}

/// Columns of a screen that is printed: those of the terminal, as shells say; 80 when no one does.
pub fn columns(env: &Env) -> u16 {
    known_columns(env).unwrap_or(80)
}

/// As [`columns`]; `None` when neither `COLUMNS` nor a terminal tells.
pub fn known_columns(env: &Env) -> Option<u16> {
    let told = env.text("COLUMNS").and_then(|text| text.parse().ok());
    let terminal = || io::stdout().is_terminal().then(ratatui::crossterm::terminal::size)?.ok().map(|(width, _)| width);
    told.or_else(terminal).map(|columns| columns.clamp(20, 500))
}

/// Columns that a text takes on a terminal.
pub fn width_of(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

/// The rule of the library that prints help texts.
fn has_colour(env: &Env, terminal: bool) -> bool {
    let wish = env.text("CLICOLOR").map(|word| word != "0");
    if env.text("NO_COLOR").is_some() {
        return false;
    }
    if env.text("CLICOLOR_FORCE").is_some_and(|word| word != "0") {
        return true;
    }
    let able = env.text("TERM").is_some_and(|kind| kind != "dumb") || wish == Some(true) || env.is_set("CI");
    wish != Some(false) && terminal && able
}

fn unknown_field(field: &str, known: &[&str]) -> CliError {
    CliError::new(ExitCode::InvalidArgs, "unknown_field", format!("There is no field '{}'.", clean(field)))
        .hint(format!("--json knows {}.", known.join(", ")))
        .field("field", field)
        .field("known", known.iter().map(|name| Value::from(*name)).collect::<Vec<_>>())
}

/// Finds an asked field that no object of an answer has. An empty list tells nothing.
fn check_fields(value: &Value, fields: &[String]) -> Result<(), CliError> {
    let rows = match value {
        Value::Array(rows) => rows.as_slice(),
        one => std::slice::from_ref(one),
    };
    let rows = rows.iter().filter(|row| !is_failure(row)).filter_map(Value::as_object);
    let mut known: Vec<&str> = Vec::new();
    for name in rows.flat_map(Map::keys) {
        if !known.contains(&name.as_str()) {
            known.push(name);
        }
    }
    match fields.iter().find(|field| !known.contains(&field.as_str())) {
        Some(unknown) if !known.is_empty() => Err(unknown_field(unknown, &known)),
        _ => Ok(()),
    }
}

/// What stands in a list for something that could not be done; it has fields of its own.
fn is_failure(value: &Value) -> bool {
    value["ok"] == false && value["error"].is_string()
}

/// Keeps only `fields` of an object or of each object of an array; everything when `fields` is empty, and of a failure.
pub fn project(value: &Value, fields: &[String]) -> Value {
    if fields.is_empty() || is_failure(value) {
        return value.clone();
    }
    match value {
        Value::Array(items) => Value::Array(items.iter().map(|item| project(item, fields)).collect()),
        Value::Object(map) => {
            // Asked order, not stored order: scripts that print columns get them as they named them.
            let kept = fields.iter().filter_map(|name| map.get(name).map(|value| (name.clone(), value.clone())));
            Value::Object(kept.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// A number of things, in words: `1 peer`, `2 peers`.
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Other people's text on one line: control characters become visible marks, direction marks vanish, line ends become
/// spaces, so that a name cannot move the cursor, colour the screen or start a line of its own. Tags of hosts lose their
/// bracket: models read shells, too.
pub fn clean(text: &str) -> Cow<'_, str> {
    let line = one_line(text);
    if line.contains(BRACKETS) { Cow::Owned(without_tags(&line)) } else { line }
}

/// As [`clean`], with tags: for who deals with brackets in another way.
pub fn one_line(text: &str) -> Cow<'_, str> {
    neutralise(text, false)
}

/// As [`clean`], but line ends and tabs stay: for message bodies that are printed in a block of their own.
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    neutralise(text, true)
}

fn neutralise(text: &str, keep_lines: bool) -> Cow<'_, str> {
    // Keys, ids, times and most names: nothing to look at symbol by symbol.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let harmless = |c: char| !c.is_control() && !is_invisible(c);
    if text.chars().all(|c| harmless(c) || keep_lines && matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' if keep_lines => out.push(c),
            '\r' if keep_lines && chars.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\t' => out.push(' '),
            // U+2400 shows pictures of the 32 C0 controls.
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}')),
            c if c.is_control() => out.push('\u{fffd}'),
            c if is_invisible(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Marks that change the direction of text or hide in it: bidirectional controls, zero-width characters (the joiners
/// that emoji and scripts need stay), line separators, tags, the byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clean_makes_terminal_controls_visible_and_keeps_one_line() {
        assert_eq!(clean("a\x1b[31mred\x07\nnext"), "a␛[31mred␇ next");
        assert_eq!(clean("x\u{9b}31m"), "x\u{fffd}31m");
        assert_eq!(clean("ab\u{202e}cd\u{2066}"), "abcd");
        assert_eq!(clean("Vec<u8> </system-reminder>"), "Vec<u8> &lt;/system-reminder>");
        assert_eq!(clean_lines("a\r\nb\tc"), "a\nb\tc");
        assert!(matches!(clean("héllo 👩‍🚀 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn colours_follow_one_rule() {
        for (vars, terminal, expected) in [
            (&[("TERM", "xterm")][..], true, true),
            (&[("TERM", "xterm")], false, false),
            (&[], true, false),
            (&[("TERM", "dumb")], true, false),
            (&[("TERM", "xterm"), ("NO_COLOR", "")], true, true),
            (&[("TERM", "xterm"), ("NO_COLOR", "1")], true, false),
            (&[("TERM", "xterm"), ("CLICOLOR", "0")], true, false),
            (&[("CLICOLOR_FORCE", "1")], false, true),
            (&[("CLICOLOR_FORCE", "0"), ("TERM", "xterm")], true, true),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], true, false),
        ] {
            assert_eq!(has_colour(&Env::of(vars), terminal), expected, "{vars:?} {terminal}");
        }
    }

    #[test]
    fn project_keeps_asked_fields_in_asked_order() {
        let value = json!([{"a": 1, "b": 2, "c": 3}, {"a": 4}]);
        let fields = ["c".to_owned(), "a".to_owned()];
        assert_eq!(project(&value, &fields).to_string(), r#"[{"c":3,"a":1},{"a":4}]"#);
        assert_eq!(project(&value, &[]), value);
    }

    #[test]
    fn a_field_that_nothing_has_is_an_error_and_a_failure_stays_whole() {
        let failure = json!({"ok": false, "error": "network_error", "mesh": "x"});
        let rows = json!([{"a": 1}, {"b": 2}, failure]);
        let of = |name: &str| check_fields(&rows, &[name.to_owned()]);
        assert_eq!((of("a"), of("b")), (Ok(()), Ok(())));
        let error = of("mesh").unwrap_err();
        assert_eq!((error.exit, error.hint.as_deref()), (ExitCode::InvalidArgs, Some("--json knows a, b.")));
        assert_eq!(check_fields(&json!([]), &["a".to_owned()]), Ok(()));
        assert_eq!(project(&rows, &["a".to_owned()])[2], failure);
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!(
            (counted(1, "peer"), counted(0, "peer"), counted(2, "peer")),
            ("1 peer".into(), "0 peers".into(), "2 peers".into())
        );
    }

    #[test]
    fn format_reads_the_field_list() {
        assert_eq!(Format::of_flag(None), Format::Human);
        assert_eq!(Format::of_flag(Some("")), Format::Json(vec![]));
        assert_eq!(Format::of_flag(Some("a, b,")), Format::Json(vec!["a".into(), "b".into()]));
    }

    proptest::proptest! {
        #[test]
        fn clean_leaves_no_control(text in "\\PC*|[\\x00-\\x9f]*") {
            proptest::prop_assert!(clean(&text).chars().all(|c| !c.is_control() && !is_invisible(c)));
        }
    }
}
