//! Edits JSON text in place: inserts and removes single values, every other byte stays.
//!
//! An insertion follows the style around it (line ends, indentation, or none in a compact file) and is undone exactly by
//! the removal of the same value. What a removal cannot see in the text, namely whether an emptied container was there
//! before and with which white space, is kept in a [`Receipt`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json_scan::{self as scan, JsonError, Kind, Member, Span};

/// What an edit must remember about one file to be undone byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The file did not exist before.
    #[serde(default)]
    pub file_created: bool,
    /// Containers that were empty or missing, by path (`["hooks","Stop"]` in JSON).
    #[serde(default)]
    pub containers: BTreeMap<String, Emptiness>,
    /// Programs that were written into the file as ours, whatever they were called.
    #[serde(default)]
    pub programs: BTreeSet<String>,
    /// Permission rules that were added.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rules: BTreeSet<String>,
    /// The command of a status line that ours took the place of, as it stood in the file, quotes and escapes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_line: Option<String>,
}

/// What a container was before its first child of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emptiness {
    /// It was not there.
    Missing,
    /// It was there, with nothing but this white space in it.
    Blank(String),
}

/// An edit that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is not JSON.
    #[error("it is not valid JSON: {0}")]
    NotJson(#[from] JsonError),
    /// Something else stands where a container is needed.
    #[error("its `{path}` is not {expected}")]
    WrongShape {
        /// Dotted path.
        path: String,
        /// `an object` or `a list`.
        expected: &'static str,
    },
}

/// A JSON document under edit.
#[derive(Clone, Debug)]
pub struct Document {
    text: String,
    /// The receipt of earlier edits, extended by every insertion.
    pub receipt: Receipt,
    /// Whether a receipt existed; without one, emptied containers of ours are pruned.
    known: bool,
}

impl Document {
    /// Checks the text: an object at the top.
    ///
    /// # Errors
    /// [`EditError`]
    pub fn open(text: impl Into<String>, receipt: Option<Receipt>) -> Result<Self, EditError> {
        let text = text.into();
        let root = scan::root(&text)?;
        if scan::kind(&text, &root) != Kind::Object {
            return Err(EditError::WrongShape { path: "top level".into(), expected: "an object" });
        }
        let known = receipt.is_some();
        Ok(Self { text, receipt: receipt.unwrap_or_default(), known })
    }

    /// The text as it is now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing but an empty object is left.
    pub fn is_empty(&self) -> bool {
        self.root().and_then(|root| Ok(scan::members(&self.text, &root)?.is_empty())).unwrap_or(false)
    }

    /// The value at a path of object keys; of equal keys the last counts, as for every JSON reader that matters here.
    pub fn find(&self, path: &[&str]) -> Option<Span> {
        let mut span = self.root().ok()?;
        for key in path {
            if scan::kind(&self.text, &span) != Kind::Object {
                return None;
            }
            span = self.members(&span).into_iter().rev().find(|member| member.key == *key)?.value;
        }
        Some(span)
    }

    /// The text of a span.
    pub fn slice(&self, span: &Span) -> &str {
        &self.text[span.clone()]
    }

    /// The parsed value of a span.
    pub fn value(&self, span: &Span) -> Value {
        serde_json::from_str(self.slice(span)).unwrap_or(Value::Null)
    }

    /// Members of an object; none for other values.
    pub fn members(&self, span: &Span) -> Vec<Member> {
        scan::members(&self.text, span).unwrap_or_default()
    }

    /// Items of an array; none for other values.
    pub fn items(&self, span: &Span) -> Vec<Span> {
        scan::items(&self.text, span).unwrap_or_default()
    }

    /// Replaces a value by another one in the same place.
    pub fn replace(&mut self, span: &Span, value: &Value) {
        let style = self.style_of_line(span.start);
        let text = style.render(value, &style.indent);
        self.text.replace_range(span.clone(), &text);
    }

    /// Notes that a container holds nothing but what is ours, from a time without receipts: it goes with its last child.
    pub(super) fn note_ours(&mut self, path: &[&str]) {
        self.receipt.containers.entry(path_key(path)).or_insert(Emptiness::Missing);
    }

    /// Whether a container goes with its last child.
    pub(super) fn is_ours(&self, path: &[&str]) -> bool {
        self.receipt.containers.get(&path_key(path)) == Some(&Emptiness::Missing)
    }

    /// Puts JSON text in the place of a value, as it is.
    pub(super) fn replace_text(&mut self, span: &Span, text: &str) {
        self.text.replace_range(span.clone(), text);
    }

    /// Sets `key` in the object at `path`, which is made when it is missing. An old value is replaced.
    ///
    /// # Errors
    /// [`EditError::WrongShape`] when something else stands at `path`.
    pub fn set(&mut self, path: &[&str], key: &str, value: &Value) -> Result<(), EditError> {
        let mut whole = path.to_vec();
        whole.push(key);
        if let Some(old) = self.find(&whole) {
            self.replace(&old, value);
            return Ok(());
        }
        let object = self.container(path, Kind::Object)?;
        self.insert(&object, path, Some(key), value);
        Ok(())
    }

    /// Appends to the list at `path`, which is made when it is missing.
    ///
    /// # Errors
    /// [`EditError::WrongShape`] when something else stands at `path`.
    pub fn push(&mut self, path: &[&str], value: &Value) -> Result<(), EditError> {
        let array = self.container(path, Kind::Array)?;
        self.insert(&array, path, None, value);
        Ok(())
    }

    /// Removes `key` from the object at `path`, and containers that this empties when they were ours.
    pub fn remove_key(&mut self, path: &[&str], key: &str) {
        let Some(object) = self.find(path) else { return };
        let spans: Vec<Span> = self.members(&object).iter().map(|member| member.span.clone()).collect();
        let Some(index) = self.members(&object).iter().rposition(|member| member.key == key) else { return };
        self.remove_child(&object, &spans, index, path);
    }

    /// Removes the item at `index` from the list at `path`, and containers that this empties when they were ours.
    pub fn remove_item(&mut self, path: &[&str], index: usize) {
        let Some(array) = self.find(path) else { return };
        let spans = self.items(&array);
        if index < spans.len() {
            self.remove_child(&array, &spans, index, path);
        }
    }

    /// Removes a span that is an item of the given array span, without looking at what stays.
    pub fn remove_item_at(&mut self, array: &Span, index: usize) {
        let spans = self.items(array);
        if index < spans.len() {
            self.cut(array, &spans, index, "");
        }
    }

    fn root(&self) -> Result<Span, JsonError> {
        scan::root(&self.text)
    }

    /// Finds or makes the container at `path`.
    fn container(&mut self, path: &[&str], wanted: Kind) -> Result<Span, EditError> {
        if let Some(span) = self.find(path) {
            if scan::kind(&self.text, &span) == wanted {
                return Ok(span);
            }
            let expected = if wanted == Kind::Object { "an object" } else { "a list" };
            return Err(EditError::WrongShape { path: path.join("."), expected });
        }
        let Some((last, parent)) = path.split_last() else {
            return Err(EditError::WrongShape { path: "top level".into(), expected: "an object" });
        };
        let object = self.container(parent, Kind::Object)?;
        let empty = if wanted == Kind::Object { Value::Object(Default::default()) } else { Value::Array(vec![]) };
        self.insert(&object, parent, Some(last), &empty);
        self.receipt.containers.insert(path_key(path), Emptiness::Missing);
        self.find(path).ok_or_else(|| EditError::WrongShape { path: path.join("."), expected: "there" })
    }

    /// Puts a child at the end of a container.
    fn insert(&mut self, container: &Span, path: &[&str], key: Option<&str>, value: &Value) {
        let children: Vec<Span> = match key {
            Some(_) => self.members(container).into_iter().map(|member| member.span).collect(),
            None => self.items(container),
        };
        let style = self.style_inside(container, &children);
        let mut child = String::new();
        if let Some(key) = key {
            child.push_str(&Value::from(key).to_string());
            child.push_str(style.colon);
        }
        child.push_str(&style.render(value, &style.indent));
        match children.last() {
            Some(last) => self.text.insert_str(last.end, &format!(",{}{child}", style.separator)),
            None => {
                let inner = container.start + 1..container.end - 1;
                let blank = self.text[inner.clone()].to_owned();
                // A container that we made ourselves a moment ago keeps its note that it was missing.
                if self.receipt.containers.get(&path_key(path)) != Some(&Emptiness::Missing) || !blank.is_empty() {
                    self.receipt.containers.insert(path_key(path), Emptiness::Blank(blank));
                }
                let (before, after) = (&style.separator, &style.closing);
                self.text.replace_range(inner, &format!("{before}{child}{after}"));
            }
        }
    }

    fn remove_child(&mut self, container: &Span, children: &[Span], index: usize, path: &[&str]) {
        if children.len() > 1 {
            self.cut(container, children, index, "");
            return;
        }
        let was = self.receipt.containers.remove(&path_key(path));
        match (was, path.split_last()) {
            (Some(Emptiness::Blank(blank)), _) => self.cut(container, children, index, &blank),
            (Some(Emptiness::Missing), Some((last, parent))) => self.remove_key(parent, last),
            // Nothing is known about this file: an empty list or object of ours is not worth keeping.
            (None, Some((last, parent))) if !self.known => self.remove_key(parent, last),
            _ => self.cut(container, children, index, ""),
        }
    }

    /// Cuts one child and the comma that belongs to it; the inside of an emptied container becomes `blank`.
    fn cut(&mut self, container: &Span, children: &[Span], index: usize, blank: &str) {
        if children.len() == 1 {
            self.text.replace_range(container.start + 1..container.end - 1, blank);
        } else if index + 1 == children.len() {
            self.text.replace_range(children[index - 1].end..children[index].end, "");
        } else {
            self.text.replace_range(children[index].start..children[index + 1].start, "");
        }
    }

    /// The style for a new child of a container.
    fn style_inside(&self, container: &Span, children: &[Span]) -> Style {
        let around = self.style_of_line(container.start);
        let Some(last) = children.last() else {
            if !around.pretty {
                return Style { separator: String::new(), closing: String::new(), ..around };
            }
            let indent = format!("{}{}", around.indent, around.unit);
            let separator = format!("{}{indent}", around.line_end);
            let closing = format!("{}{}", around.line_end, around.indent);
            return Style { indent, separator, closing, ..around };
        };
        // White space between the comma (or bracket) before the last child and that child.
        let from = if children.len() > 1 { children[children.len() - 2].end } else { container.start + 1 };
        let gap = &self.text[from..last.start];
        let separator = gap.rsplit(',').next().unwrap_or(gap).to_owned();
        match separator.rfind('\n') {
            Some(at) => {
                let indent = separator[at + 1..].to_owned();
                let unit = indent.strip_prefix(&around.indent).filter(|unit| !unit.is_empty());
                let unit = unit.map_or(around.unit.clone(), str::to_owned);
                Style { indent, unit, separator, pretty: true, ..around }
            }
            None => Style { pretty: false, separator, ..around },
        }
    }

    /// Line ends, indentation and density around a position.
    fn style_of_line(&self, at: usize) -> Style {
        let line_end = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let line = self.text[..at].rfind('\n').map_or(0, |found| found + 1);
        let line = self.text[line..].trim_start_matches('\u{feff}');
        let indent: String = line.chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
        let unit = self.indent_unit();
        // A file of one line stays one line, except `{}`: there is no style to keep in it.
        let pretty = self.text.trim_end().contains('\n') || self.is_empty();
        let colon = if pretty || self.text.contains("\": ") { ": " } else { ":" };
        Style { pretty, line_end, indent, unit, separator: String::new(), closing: String::new(), colon }
    }

    /// Indentation of the first member of the document, two spaces when it tells nothing.
    fn indent_unit(&self) -> String {
        let first = self.root().ok().and_then(|root| {
            let first = self.members(&root).into_iter().next()?;
            let gap = &self.text[root.start + 1..first.span.start];
            Some(gap[gap.rfind('\n')? + 1..].to_owned())
        });
        first.filter(|unit| !unit.is_empty()).unwrap_or_else(|| "  ".into())
    }
}

fn path_key(path: &[&str]) -> String {
    serde_json::to_string(path).unwrap_or_default()
}

#[derive(Clone, Debug)]
struct Style {
    pretty: bool,
    line_end: &'static str,
    /// Indentation of the line that the child stands on.
    indent: String,
    /// One more level.
    unit: String,
    /// White space before the child.
    separator: String,
    /// White space after an only child.
    closing: String,
    colon: &'static str,
}

impl Style {
    fn render(&self, value: &Value, indent: &str) -> String {
        let deeper = format!("{indent}{}", self.unit);
        let (open, between, close) = if self.pretty {
            let end = self.line_end;
            (format!("{end}{deeper}"), format!(",{end}{deeper}"), format!("{end}{indent}"))
        } else {
            (String::new(), if self.colon == ":" { ",".into() } else { ", ".into() }, String::new())
        };
        let join = |parts: Vec<String>, brackets: [&str; 2]| {
            if parts.is_empty() {
                return brackets.concat();
            }
            format!("{}{open}{}{close}{}", brackets[0], parts.join(&between), brackets[1])
        };
        match value {
            Value::Array(items) => join(items.iter().map(|item| self.render(item, &deeper)).collect(), ["[", "]"]),
            Value::Object(map) => {
                let member = |(key, value): (&String, &Value)| {
                    format!("{}{}{}", Value::from(key.as_str()), self.colon, self.render(value, &deeper))
                };
                join(map.iter().map(member).collect(), ["{", "}"])
            }
            scalar => scalar.to_string(),
        }
    }
}
