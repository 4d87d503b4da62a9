//! Lines for people, broken between words where their terminal ends.

use std::borrow::Cow;

use textwrap::core::Word;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// A text in lines of at most so many columns. Lines after the first begin with `indent`. What stands between backticks is there
/// to be copied, so it is not broken, and neither is a word that is longer than a line.
pub fn wrapped(text: &str, columns: usize, indent: &str) -> String {
    let options = Options::new(columns.max(20))
        .subsequent_indent(indent)
        .word_separator(WordSeparator::Custom(words))
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
        .break_words(false);
    textwrap::wrap(text, options).iter().map(Cow::as_ref).collect::<Vec<_>>().join("\n")
}

/// At spaces, but not at those between backticks.
fn words(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let (mut found, mut from, mut copied, mut ended) = (vec![], 0, false, false);
    for (at, symbol) in line.char_indices() {
        if ended && symbol != ' ' {
            found.push(Word::from(&line[from..at]));
            (from, ended) = (at, false);
        }
        copied ^= symbol == '`';
        // The spaces behind a word belong to it; those that a line begins with are a word of their own.
        ended |= symbol == ' ' && !copied && !line[from..at].trim().is_empty();
    }
    found.push(Word::from(&line[from..]));
    Box::new(found.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words_and_what_is_copied_stays_whole() {
        assert_eq!(
            wrapped("Its owner can bring it back with `claudemesh mesh restore team`.", 30, "  "),
            "Its owner can bring it back\n  with\n  `claudemesh mesh restore team`."
        );
        assert_eq!(wrapped("one two three", 80, ""), "one two three");
        assert_eq!(
            wrapped("http://a-very-long-address.example/i/K7QX2MPA it is", 20, ""),
            "http://a-very-long-address.example/i/K7QX2MPA\nit is"
        );
        assert_eq!(wrapped("    four spaces before the text", 20, "    "), "    four spaces\n    before the text");
        assert_eq!(wrapped("an open ` sign stays in one piece", 20, ""), "an open\n` sign stays in one piece");
        assert_eq!(wrapped("数据库 数据库 数据库 数据库", 20, ""), "数据库 数据库 数据库\n数据库");
    }
}
