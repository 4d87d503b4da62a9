//! Several statements in one text, as files and people have them: each ends at a semicolon that stands in no text, name, comment or
//! trigger.

/// Where a semicolon ends nothing.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    /// Nothing of the kind.
    Code,
    /// A text or a name, up to this sign.
    Quotes(u8),
    /// A comment up to the end of the line.
    Line,
    /// Comments within each other.
    Block(u32),
}

/// The statements of a text, and what follows the last semicolon: empty, or the beginning of one that is not complete, as it stands.
pub fn statements(text: &str) -> (Vec<&str>, &str) {
    let (mut found, mut begin, mut at) = (Vec::new(), 0, 0);
    let mut within = Within::Code;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let rest = &bytes[at..];
        let mut step = 1;
        within = match within {
            Within::Code if rest.starts_with(b"--") => Within::Line,
            Within::Code if rest.starts_with(b"/*") => {
                step = 2;
                Within::Block(1)
            }
            Within::Code if matches!(rest[0], b'\'' | b'"' | b'`') => Within::Quotes(rest[0]),
            Within::Code if rest[0] == b'$' => {
                step = dollars(&text[at..]);
                Within::Code
            }
            Within::Code if rest[0] == b';' => {
                if ends(&text[begin..at]) {
                    found.extend(Some(text[begin..at].trim()).filter(|statement| !is_empty(statement)));
                    begin = at + 1;
                }
                Within::Code
            }
            Within::Quotes(sign) if rest[0] == sign => Within::Code,
            Within::Line if rest[0] == b'\n' => Within::Code,
            Within::Block(depth) if rest.starts_with(b"/*") => {
                step = 2;
                Within::Block(depth + 1)
            }
            Within::Block(depth) if rest.starts_with(b"*/") => {
                step = 2;
                if depth == 1 { Within::Code } else { Within::Block(depth - 1) }
            }
            same => same,
        };
        at += step;
    }
    let left = &text[begin..];
    // An open text or comment is the beginning of something.
    let complete = matches!(within, Within::Code | Within::Line);
    (found, if complete && is_empty(left) { "" } else { left })
}

/// Length of a text between `$tag$` and `$tag$`, or of the sign alone. One that is not closed goes to the end.
fn dollars(text: &str) -> usize {
    let Some(close) = text[1..].find('$') else { return 1 };
    let tag = &text[..close + 2];
    let name = &tag[1..tag.len() - 1];
    let plain = name.chars().all(|sign| sign.is_alphanumeric() || sign == '_')
        && !name.starts_with(|sign: char| sign.is_ascii_digit());
    if !plain {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |end| tag.len() + end + tag.len())
}

/// Words of a statement without its comments.
fn words(statement: &str) -> impl Iterator<Item = &str> {
    let mut rest = statement;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            if rest.starts_with("--") {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
            } else if rest.starts_with("/*") {
                rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
            } else {
                break;
            }
        }
        let first = rest.chars().next()?;
        let word = |sign: char| sign.is_alphanumeric() || sign == '_';
        let end = if word(first) { rest.find(|sign| !word(sign)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (found, behind) = rest.split_at(end);
        rest = behind;
        Some(found)
    })
}

fn is_empty(statement: &str) -> bool {
    words(statement).next().is_none()
}

/// Whether a semicolon ends what stands before it. Statements of a trigger end with semicolons of their own; the trigger ends with an
/// END that stands behind one.
fn ends(statement: &str) -> bool {
    let all: Vec<String> = words(statement).map(str::to_ascii_uppercase).collect();
    let head: Vec<&str> =
        all.iter().map(String::as_str).filter(|word| !matches!(*word, "TEMP" | "TEMPORARY")).take(2).collect();
    let has_body = head == ["CREATE", "TRIGGER"] && all.iter().any(|word| word == "BEGIN");
    !has_body || all.ends_with(&[";".to_owned(), "END".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_ends_a_statement_only_where_it_stands_free() {
        let text = "-- ; a\nINSERT INTO t VALUES ('a;''b', \"c;d\"); /* ; /* ; */ ; */ SELECT $x$ ; $x$ || $1;;\n;SELECT 1 -- ;\n";
        let (all, left) = statements(text);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].ends_with("\"c;d\")") && all[1].ends_with("|| $1"));
        assert_eq!(left, "SELECT 1 -- ;\n", "a line that follows goes on where this one ended");
        let trigger = "CREATE TRIGGER a AFTER INSERT ON t BEGIN UPDATE t SET n = CASE WHEN 1 THEN 2 END; DELETE FROM u; END; SELECT 2;";
        let (all, left) = statements(trigger);
        assert_eq!((all.len(), left), (2, ""), "{all:?}");
        assert_eq!(statements("SELECT 'open; "), (vec![], "SELECT 'open; "));
        assert_eq!(statements("-- nothing\n;/* */"), (vec![], ""));
        assert_eq!(statements("SELECT $; SELECT 1$2;").0.len(), 2);
    }
}
