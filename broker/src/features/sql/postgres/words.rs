//! The first word of a statement. PostgreSQL has no authorizer; the role decides what a statement may touch, and only those that
//! would leave our transaction or speak another protocol are refused by their word. There is one statement in a text: the extended
//! protocol sees to that.

/// What the role could do and a request must not: end the transaction, or leave something in the connection.
const REFUSED: &[&str] = &[
    "ABORT",
    "BEGIN",
    "CHECKPOINT",
    "CLOSE",
    "COMMIT",
    "COPY",
    "DEALLOCATE",
    "DECLARE",
    "DISCARD",
    "END",
    "EXECUTE",
    "FETCH",
    "LISTEN",
    "LOAD",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "RELEASE",
    "RESET",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "START",
    "UNLISTEN",
];

/// The word of a statement that is refused by it.
pub(super) fn refused(sql: &str) -> Option<&'static str> {
    let word = first(sql)?.to_ascii_uppercase();
    REFUSED.iter().find(|refused| **refused == word).copied()
}

/// Whether a statement reads by its word, so that the rows it gives are none that it changed.
pub(super) fn reads(sql: &str) -> bool {
    first(sql).is_some_and(|word| {
        ["EXPLAIN", "SELECT", "SHOW", "TABLE", "VALUES"].iter().any(|known| known.eq_ignore_ascii_case(word))
    })
}

/// The first word behind spaces, comments and semicolons; `None` when there is none.
fn first(sql: &str) -> Option<&str> {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}', ';', '(']);
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = behind_comment(rest);
        } else {
            break;
        }
    }
    let end = rest.find(|symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '_').unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

/// What follows a comment, which may hold others.
fn behind_comment(text: &str) -> &str {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return &text[at..];
            }
        } else {
            at += 1;
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_select_changes_no_rows() {
        assert!(reads("/* x */ select 1") && reads("(SELECT 1)") && reads("values (1)"));
        assert!(!reads("INSERT INTO t SELECT 1") && !reads("") && !reads("selected"));
    }

    #[test]
    fn the_first_word_stands_behind_all_that_the_server_passes_over() {
        for hidden in [
            "commit",
            "  COMMIT",
            ";;commit",
            "-- x\nCommit",
            "--x\rcommit",
            "/* a /* b */ c */commit",
            "\u{b}\u{c}commit",
            "/**/;/**/ commit;",
            "commit/**/",
            "COMMIT--",
        ] {
            assert_eq!(refused(hidden), Some("COMMIT"), "{hidden}");
        }
        for fine in
            ["", "--", "/* /* */", "SELECT 'commit'", "commits", "commit_x", "-- commit", "/* commit */ SELECT 1", "é"]
        {
            assert_eq!(refused(fine), None, "{fine}");
        }
    }
}
