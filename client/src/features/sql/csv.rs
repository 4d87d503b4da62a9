//! Comma-separated values, as RFC 4180 has them. NULL is nothing between two commas, an empty text is `""`.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{cell, shown};

/// One line of values.
pub fn line<'a>(values: impl Iterator<Item = &'a Value>) -> String {
    let field = |value: &Value| match value {
        Value::Null => String::new(),
        value => quoted(&shown(value)),
    };
    values.map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

/// The line with the names of the columns.
pub fn head(columns: &[String]) -> String {
    columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Head and rows.
pub fn table(columns: &[String], rows: &[Map<String, Value>]) -> String {
    let mut text = head(columns);
    for row in rows {
        let _ = write!(text, "{}", line(columns.iter().map(|name| cell(row, name))));
    }
    text
}

fn quoted(text: &str) -> String {
    let special =
        text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ');
    if special { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// Reads lines of fields: `None` for nothing, a text for what is there.
///
/// # Errors
/// What is wrong, and in which line.
pub fn read(text: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut number = 1;
    while !rest.is_empty() {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(inner) => {
                let (field, behind) = inside(inner).ok_or(format!("line {number}: a quote is not closed"))?;
                (Some(field), behind)
            }
            None => {
                let end = rest.find([',', '\r', '\n']).unwrap_or(rest.len());
                ((end > 0).then(|| rest[..end].to_owned()), &rest[end..])
            }
        };
        number += field.as_deref().unwrap_or_default().matches('\n').count();
        row.push(field);
        rest = match behind.strip_prefix(',') {
            // A comma at the very end has a field behind it.
            Some("") => {
                row.push(None);
                ""
            }
            Some(next) if next.starts_with(['\r', '\n']) => {
                row.push(None);
                next
            }
            Some(next) => {
                rest = next;
                continue;
            }
            None => behind,
        };
        if !rest.is_empty() {
            let end = rest.strip_prefix("\r\n").or(rest.strip_prefix('\n')).or(rest.strip_prefix('\r'));
            rest = end.ok_or(format!("line {number}: expected a comma behind the quote"))?;
            number += 1;
        }
        rows.push(std::mem::take(&mut row));
    }
    Ok(rows)
}

/// A field up to its closing quote, and what follows.
fn inside(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field += &rest[..end];
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let values = [json!("a"), json!(""), Value::Null, json!("x,\"y\"\r\nz"), json!(1.5), json!(" b "), json!(true)];
        let text =
            head(&["one".into(), "t,w".into()]) + &line(values.iter()) + &line([Value::Null, Value::Null].iter());
        let rows = read(&text).unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(rows[0], [some("one"), some("t,w")]);
        assert_eq!(rows[1], [some("a"), some(""), None, some("x,\"y\"\r\nz"), some("1.5"), some(" b "), some("true")]);
        assert_eq!((rows.len(), &rows[2][..]), (3, &[None, None][..]));
        assert_eq!(read("a,b\n1,").unwrap()[1], [some("1"), None]);
        assert_eq!(read("").unwrap().len(), 0);
        assert_eq!(read("\u{feff}a\r1\r").unwrap(), [[some("a")], [some("1")]]);
    }

    #[test]
    fn a_broken_file_is_an_error_with_its_line() {
        assert_eq!(read("a\n\"b").unwrap_err(), "line 2: a quote is not closed");
        assert_eq!(read("a\n\"b\"c").unwrap_err(), "line 2: expected a comma behind the quote");
    }
}
