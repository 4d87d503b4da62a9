//! What a person types, as conditions on the pieces of a text: words, `beginning*`, `"words side by side"`, `-not this`.

use super::text::{Kind, Piece, pieces};

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// As it was typed.
    pub typed: String,
    /// Pieces that stand side by side.
    pub pieces: Vec<Piece>,
    /// The last piece may go on.
    pub open: bool,
}

impl Clause {
    /// One word that is compared as it is written, because it is only the beginning of one.
    pub fn is_beginning(&self) -> bool {
        self.open && self.pieces.len() == 1 && self.pieces[0].kind == Kind::Word
    }

    /// Where it stands in a text: the numbers of the first pieces, and how many pieces it covers.
    pub fn places<'a>(&'a self, text: &'a [Piece]) -> impl Iterator<Item = usize> + 'a {
        text.windows(self.pieces.len()).enumerate().filter(|(_, window)| self.fits(window)).map(|(at, _)| at)
    }

    fn fits(&self, window: &[Piece]) -> bool {
        let last = self.pieces.len() - 1;
        self.pieces.iter().zip(window).enumerate().all(|(at, (wanted, piece))| {
            if self.is_beginning() {
                piece.word.starts_with(&wanted.word)
            } else if self.open && at == last {
                piece.stem.starts_with(&wanted.stem)
            } else {
                piece.stem == wanted.stem
            }
        })
    }
}

/// A query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// All of these.
    pub must: Vec<Clause>,
    /// None of these.
    pub must_not: Vec<Clause>,
}

/// Words that say little in English. They are left out of a query that has others, unless they are quoted: people ask in
/// sentences.
const FILLERS: &[&str] = &[
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "did", "do", "does", "for",
    "from", "had", "has", "have", "how", "i", "if", "in", "is", "it", "its", "me", "my", "of", "on", "or", "our", "s",
    "should", "so", "t", "that", "the", "their", "there", "they", "this", "to", "us", "was", "we", "were", "what",
    "when", "where", "which", "who", "why", "will", "with", "would", "you", "your",
];

impl Query {
    /// Reads what was typed. Signs mean nothing by themselves.
    pub fn parse(text: &str) -> Self {
        let mut query = Self::default();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let (not, item) = match rest.strip_prefix('-') {
                Some(item) if item.starts_with(|symbol: char| symbol.is_alphanumeric() || is_quote(symbol)) => {
                    (true, item)
                }
                _ => (false, rest),
            };
            let quoted = item.starts_with(is_quote);
            let (typed, after) = if quoted {
                let inner = &item[item.chars().next().map_or(1, char::len_utf8)..];
                match inner.find(is_quote) {
                    Some(end) => {
                        let closed = inner[end..].chars().next().map_or(1, char::len_utf8);
                        (&inner[..end], &inner[end + closed..])
                    }
                    None => (inner, ""),
                }
            } else {
                let end = item.find(char::is_whitespace).unwrap_or(item.len());
                (&item[..end], &item[end..])
            };
            query.add(typed, quoted, not);
            debug_assert!(after.len() < rest.len(), "{first} was read");
            rest = after.trim_start();
        }
        let says_something = |clause: &Clause| clause.open || clause.pieces.len() > 1 || !is_filler(clause);
        if query.must.iter().any(says_something) {
            query.must.retain(says_something);
        }
        query
    }

    fn add(&mut self, typed: &str, quoted: bool, not: bool) {
        let open = !quoted && typed.len() > 1 && typed.ends_with('*');
        let mut found = pieces(typed);
        // What ends with symbols without spaces may go on in the text.
        let dense = match found.as_slice() {
            [.., before, last] if last.kind == Kind::Last && before.kind == Kind::Pair => {
                found.pop();
                false
            }
            [.., last] => last.kind == Kind::Last,
            [] => return,
        };
        let typed = if quoted { format!("\"{}\"", typed.trim()) } else { typed.to_owned() };
        let clause = Clause { typed, pieces: found, open: open || dense };
        let list = if not { &mut self.must_not } else { &mut self.must };
        let same = |one: &Clause| {
            one.open == clause.open
                && one.pieces.iter().map(|piece| &piece.word).eq(clause.pieces.iter().map(|piece| &piece.word))
        };
        if !list.iter().any(same) {
            list.push(clause);
        }
    }

    /// How many conditions it has.
    pub fn len(&self) -> usize {
        self.must.len() + self.must_not.len()
    }

    /// Whether nothing was typed that could be looked for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_quote(symbol: char) -> bool {
    matches!(symbol, '"' | '“' | '”' | '„')
}

fn is_filler(clause: &Clause) -> bool {
    !clause.typed.starts_with('"') && matches!(clause.pieces.as_slice(), [one] if FILLERS.contains(&one.word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let query = Query::parse(text);
        let show = |clause: &Clause| {
            let pieces: Vec<&str> = clause.pieces.iter().map(|piece| piece.stem.as_str()).collect();
            format!("{}{}", pieces.join(" "), if clause.open { "*" } else { "" })
        };
        (query.must.iter().map(show).collect(), query.must_not.iter().map(show).collect())
    }

    #[test]
    fn a_query_is_words_beginnings_phrases_and_what_must_not_be_there() {
        assert_eq!(read("Deploying  fridays"), (vec!["deploy".into(), "friday".into()], vec![]));
        let (must, not) = read("\"blue green\" deploy* -kubernetes -\"on call\"");
        assert_eq!(must, ["blue green", "deploy*"]);
        assert_eq!(not, ["kubernet", "on call"]);
        assert_eq!(read("src/main.rs").0, ["src main rs"]);
        assert_eq!(read("--json").0, ["json"], "a flag is looked for");
        assert_eq!(read("well-known - x").0, ["well known", "x"]);
        assert_eq!(read("\"open end").0, ["open end"]);
        assert_eq!(read("“clever” quotes").0, ["clever", "quot"]);
        assert_eq!(read("'; drop").0, ["drop"]);
        for nothing in ["", "  ", "\"\"", "-", "*", "!?", "\"", "-\"\""] {
            assert!(Query::parse(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn little_words_count_when_there_are_no_others_or_they_are_quoted() {
        assert_eq!(read("what did we decide about the tokens").0, ["decid", "token"]);
        assert_eq!(read("to be or not to be").0, ["not"]);
        assert_eq!(read("who is it").0, ["who", "is", "it"]);
        assert_eq!(read("\"the\" tokens").0, ["the", "token"]);
        assert_eq!(read("token tokens").0.len(), 2, "they are other words");
        assert_eq!(read("token Token").0.len(), 1);
    }

    #[test]
    fn symbols_without_spaces_are_found_by_any_part() {
        let text = pieces("我们使用数据库API文档");
        for (part, found) in
            [("数据", 1), ("数据库", 1), ("库", 1), ("库API", 1), ("文档", 1), ("据文", 0), ("使用数据库api文", 1)]
        {
            let query = Query::parse(part);
            assert_eq!(query.must[0].places(&text).count(), found, "{part}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read(text in "[\\PC\" *-]{0,60}") {
            let query = Query::parse(&text);
            assert!(query.must.iter().chain(&query.must_not).all(|clause| !clause.pieces.is_empty()));
        }
    }
}
