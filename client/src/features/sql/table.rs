//! Rows as a table that fits the terminal, or as Markdown for a model.

use serde_json::{Map, Value};

use super::{cell, shown};
use crate::output::{Output, Style, one_line, width_of};
use crate::session::notes::harmless_value;

/// Columns of a cell that is made narrower for others.
const NARROWEST: usize = 6;
/// Columns between two cells.
const GAP: usize = 2;
/// Characters of a cell where a model reads it.
const MODEL_CHARS: usize = 300;

/// A table of at most `width` columns; where the cells would be too narrow for that, each row as lines of names and values.
pub(super) fn fitted(columns: &[String], rows: &[Map<String, Value>], width: usize, out: &Output) -> String {
    let names: Vec<String> = columns.iter().map(|name| one_line(name).into_owned()).collect();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|name| one_line(&shown(cell(row, name))).into_owned()).collect())
        .collect();
    let Some(widths) = widths(&names, &cells, width) else { return upright(&names, &cells, width, out) };
    let line = |cells: &[String]| {
        let fixed = |(text, width): (&String, &usize)| padded(&cut(text, *width), *width);
        let line: Vec<String> = cells.iter().zip(&widths).map(fixed).collect();
        line.join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let mut text = format!("{}\n", out.paint(Style::Bold, &line(&names)));
    let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    text += &format!("{}\n", out.paint(Style::Dim, &dashes.join(&" ".repeat(GAP))));
    for row in &cells {
        text += &line(row);
        text.push('\n');
    }
    text
}

/// Widths of the columns; `None` when there are too many of them.
fn widths(names: &[String], cells: &[Vec<String>], most: usize) -> Option<Vec<usize>> {
    let mut widths: Vec<usize> = names.iter().map(|name| width_of(name).max(1)).collect();
    for row in cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(width_of(cell));
        }
    }
    let gaps = GAP * widths.len().saturating_sub(1);
    let room = most.checked_sub(gaps)?;
    if widths.iter().map(|width| (*width).min(NARROWEST)).sum::<usize>() > room {
        return None;
    }
    // The widest give way, all to the same width.
    while widths.iter().sum::<usize>() > room {
        let over = widths.iter().sum::<usize>() - room;
        let widest = widths.iter().copied().max().unwrap_or(0);
        let next = widths.iter().copied().filter(|width| *width < widest).max().unwrap_or(0).max(NARROWEST);
        let count = widths.iter().filter(|width| **width == widest).count();
        let less = (widest - next).min(over.div_ceil(count)).max(1);
        widths.iter_mut().filter(|width| **width == widest).for_each(|width| *width -= less);
    }
    Some(widths)
}

fn upright(names: &[String], cells: &[Vec<String>], width: usize, out: &Output) -> String {
    let label = names.iter().map(|name| width_of(name)).max().unwrap_or(0).min(width / 3);
    let mut text = String::new();
    for (number, row) in cells.iter().enumerate() {
        text += &format!("{}\n", out.paint(Style::Dim, &format!("row {}", number + 1)));
        for (name, cell) in names.iter().zip(row) {
            let name = padded(&cut(name, label), label);
            text += &format!("  {name}  {}\n", cut(cell, width.saturating_sub(label + 4)));
        }
    }
    text
}

/// A text of at most so many columns, with an ellipsis when something is missing.
fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for sign in text.chars() {
        kept.push(sign);
        if width_of(&kept) + 1 > width {
            kept.pop();
            break;
        }
    }
    kept + "…"
}

fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(width_of(text))))
}

/// A table in Markdown, in which no text of a peer can end a cell.
pub(super) fn markdown(columns: &[String], rows: &[Map<String, Value>]) -> String {
    let told = |text: &str| cut(&harmless_value(text).replace('|', "/"), MODEL_CHARS);
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.iter().map(|name| told(name)).collect());
    text += &format!("|{}\n", "---|".repeat(columns.len()));
    for row in rows {
        text += &line(columns.iter().map(|name| told(&shown(cell(row, name)))).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Format;
    use crate::paths::Env;

    fn rows(value: &Value) -> Vec<Map<String, Value>> {
        value.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    #[test]
    fn a_table_is_as_wide_as_the_terminal_at_most() {
        let out = Output::new(&Env::default(), Format::Human, false);
        let rows = rows(
            &json!([{"id": 1, "name": "Zoë 👩‍🚀", "about": "x".repeat(200)}, {"id": null, "name": "a\nb", "about": ""}]),
        );
        let columns = ["id", "name", "about"].map(str::to_owned);
        for width in [20, 30, 80] {
            let text = fitted(&columns, &rows, width, &out);
            assert!(text.lines().all(|line| width_of(line) <= width), "{width}:\n{text}");
            assert!(text.contains('…') && text.contains("NULL"), "{text}");
        }
        let text = fitted(&columns, &rows, 300, &out);
        assert!(!text.contains('…') && text.lines().count() == 4, "{text}");
        let many: Vec<String> = (0..30).map(|number| format!("column_{number}")).collect();
        let row = many.iter().map(|name| (name.clone(), json!(name))).collect();
        let text = fitted(&many, &[row], 60, &out);
        assert!(text.starts_with("row 1\n  column_0") && text.lines().count() == 31, "{text}");
    }

    #[test]
    fn no_text_ends_a_cell_or_the_frame() {
        let text = markdown(&["a|b".into()], &rows(&json!([{"a|b": "x | y\n</channel>"}])));
        assert_eq!(text, "| a/b |\n|---|\n| x / y [/channel] |\n");
    }
}
