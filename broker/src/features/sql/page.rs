//! The rows of one answer: bounded in number and bytes, with distinct names of columns.

use std::collections::HashSet;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::sql::limits::{MAX_EXACT, MAX_PAGE_BYTES};
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

/// Rows as they are read.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Distinct names.
    pub columns: Vec<String>,
    /// Declared types.
    pub types: Vec<String>,
    /// By name.
    pub rows: Vec<Map<String, Value>>,
    /// There are more rows than these.
    pub more: bool,
    limit: usize,
    bytes: usize,
}

impl Page {
    /// An empty page for at most `limit` rows.
    pub(super) fn new(columns: impl IntoIterator<Item = (String, String)>, limit: usize) -> Self {
        let (names, types): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        Self { columns: distinct(names), types, limit, ..Self::default() }
    }

    /// Takes a row; `false` when the page is full, and then `more` is set.
    ///
    /// # Errors
    /// `limit` when one row alone is too large for an answer.
    pub(super) fn push(&mut self, values: Vec<Value>) -> Result<bool, Refusal> {
        if self.rows.len() >= self.limit {
            self.more = true;
            return Ok(false);
        }
        let names = self.columns.iter().map(|name| name.len() + 4).sum::<usize>();
        let size = names + values.iter().map(size_of).sum::<usize>();
        if self.bytes + size > MAX_PAGE_BYTES {
            if self.rows.is_empty() {
                let message = format!(
                    "a row has {size} bytes as JSON, and an answer holds {MAX_PAGE_BYTES}; select less of it, for example with substr()"
                );
                return Err(Refusal::new(ErrorCode::Limit, message));
            }
            self.more = true;
            return Ok(false);
        }
        self.bytes += size;
        self.rows.push(self.columns.iter().cloned().zip(values).collect());
        Ok(true)
    }
}

/// Bytes of a value as JSON.
fn size_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 20,
        other => serde_json::to_string(other).map_or(usize::MAX / 2, |text| text.len()),
    }
}

/// Rows are objects, so a name that stands twice would hide a value: the second `id` becomes `id_2`.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut seen: HashSet<String> = HashSet::with_capacity(names.len());
    let all: HashSet<String> = names.iter().cloned().collect();
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let mut told = name.clone();
        let mut number = 2;
        while seen.contains(&told) || (told != name && all.contains(&told)) {
            told = format!("{name}_{number}");
            number += 1;
        }
        seen.insert(told.clone());
        found.push(told);
    }
    found
}

/// A whole number as JSON: a text when JSON's readers would round it.
pub(super) fn whole(number: i64) -> Value {
    if (-MAX_EXACT..=MAX_EXACT).contains(&number) { json!(number) } else { json!(number.to_string()) }
}

/// A number with a fraction as JSON, which knows neither infinity nor NaN.
pub(super) fn real(number: f64) -> Value {
    match serde_json::Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() => json!("NaN"),
        None if number > 0.0 => json!("Infinity"),
        None => json!("-Infinity"),
    }
}

/// Bytes as JSON.
pub(super) fn bytes(bytes: &[u8]) -> Value {
    json!({ "type": "Buffer", "data": bytes })
}

/// The bytes of a value that [`bytes`] made.
pub(super) fn as_bytes(value: &Value) -> Option<Vec<u8>> {
    let object = value.as_object().filter(|object| object.len() == 2)?;
    object.get("type").filter(|kind| *kind == "Buffer")?;
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    object.get("data")?.as_array()?.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_lost_behind_a_name_that_stands_twice() {
        let names = |names: &[&str]| distinct(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(names(&["id", "name", "id", "id"]), ["id", "name", "id_2", "id_3"]);
        assert_eq!(names(&["id", "id", "id_2"]), ["id", "id_3", "id_2"]);
    }

    #[test]
    fn a_page_ends_at_its_rows_and_at_its_bytes() {
        let column = || [("a".to_owned(), String::new())];
        let mut page = Page::new(column(), 2);
        assert_eq!([0, 1, 2].map(|number| page.push(vec![json!(number)]).unwrap()), [true, true, false]);
        assert!(page.more && page.rows.len() == 2);
        let half = "x".repeat(MAX_PAGE_BYTES / 2);
        let mut page = Page::new(column(), 9);
        assert_eq!([0, 1].map(|_| page.push(vec![json!(half)]).unwrap()), [true, false]);
        let mut page = Page::new(column(), 9);
        assert_eq!(page.push(vec![json!("x".repeat(MAX_PAGE_BYTES))]).unwrap_err().code, ErrorCode::Limit);
    }

    #[test]
    fn numbers_and_bytes_keep_their_value() {
        assert_eq!((whole(MAX_EXACT), whole(MAX_EXACT + 1)), (json!(MAX_EXACT), json!("9007199254740993")));
        assert_eq!(
            (real(1.5), real(f64::NAN), real(f64::NEG_INFINITY)),
            (json!(1.5), json!("NaN"), json!("-Infinity"))
        );
        assert_eq!(as_bytes(&bytes(&[0, 255])), Some(vec![0, 255]));
        assert_eq!(as_bytes(&json!({"type": "Buffer", "data": [256]})), None);
    }
}
