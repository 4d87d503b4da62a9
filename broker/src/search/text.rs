//! Texts as search sees them: words without case and accents, their stems, and pairs of symbols where a script has no spaces.
//!
//! The index of both databases holds what comes from here, so both find the same. What a release stores here the next one must
//! still look for: a change needs a migration that builds the indexes again.

use std::ops::Range;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Characters of a word that are compared: longer ones are keys and encoded data, and a database bounds its words.
const MAX_WORD_CHARS: usize = 64;

static ENGLISH: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));
static RUSSIAN: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::Russian));

/// How a piece of a text is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word between spaces or signs.
    Word,
    /// Two symbols side by side of a script without spaces.
    Pair,
    /// The last symbol of such a run.
    Last,
}

/// One piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: Kind,
    /// Without case and accents.
    pub word: String,
    /// What words with other endings share with it.
    pub stem: String,
    /// Bytes of the text that it stands for.
    pub range: Range<usize>,
}

/// What a symbol belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Word,
    Dense,
    Between,
}

fn class(symbol: char) -> Class {
    if symbol.is_ascii() {
        return if symbol.is_ascii_alphanumeric() { Class::Word } else { Class::Between };
    }
    match symbol {
        // Thai, Lao, Burmese, Khmer.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        // Chinese, Japanese, Korean, their older and their narrow forms.
        | '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}'
        | '\u{3100}'..='\u{31ff}' | '\u{3300}'..='\u{9fff}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ffdc}' | '\u{20000}'..='\u{323af}' => Class::Dense,
        symbol if symbol.is_alphanumeric() || is_combining_mark(symbol) => Class::Word,
        _ => Class::Between,
    }
}

/// Marks that people leave out when they search: accents, and the vowel points of Hebrew and Arabic.
fn is_accent(symbol: char) -> bool {
    matches!(symbol,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6ed}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe2f}')
}

/// A text without case and accents, in the composed form, letters and digits only.
pub fn normal(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return text.to_ascii_lowercase();
    }
    let (mut plain, mut before) = (String::with_capacity(text.len()), ' ');
    for symbol in text.nfkd() {
        // й is a letter of its own, on which endings depend.
        let own_letter = symbol == '\u{306}' && matches!(before, 'и' | 'И');
        if is_accent(symbol) && !own_letter {
            continue;
        }
        before = symbol;
        for lower in symbol.to_lowercase() {
            match lower {
                'ß' => plain.push_str("ss"),
                'æ' => plain.push_str("ae"),
                'œ' => plain.push_str("oe"),
                'þ' => plain.push_str("th"),
                'ø' => plain.push('o'),
                'ł' => plain.push('l'),
                'đ' | 'ð' => plain.push('d'),
                'ı' => plain.push('i'),
                'ς' => plain.push('σ'),
                lower
                    if lower.is_alphanumeric()
                        || (is_combining_mark(lower) && !is_accent(lower))
                        || lower == '\u{306}' =>
                {
                    plain.push(lower);
                }
                _ => {}
            }
        }
    }
    plain.nfc().collect()
}

/// What a normal word shares with its other endings.
fn stem(word: &str) -> String {
    if word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return ENGLISH.stem(word).into_owned();
    }
    if word.chars().all(|symbol| matches!(symbol, '\u{430}'..='\u{44f}')) {
        return RUSSIAN.stem(word).into_owned();
    }
    word.to_owned()
}

fn cut(word: String) -> String {
    match word.char_indices().nth(MAX_WORD_CHARS) {
        Some((end, _)) => word[..end].to_owned(),
        None => word,
    }
}

/// The pieces of a text in their order.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut run: Option<(Class, usize)> = None;
    for (at, symbol) in text.char_indices().chain([(text.len(), ' ')]) {
        let mut now = class(symbol);
        // A mark belongs to the letter before it.
        if let Some((before, _)) = run
            && is_combining_mark(symbol)
        {
            now = before;
        }
        match run {
            Some((class, _)) if class == now => continue,
            Some((Class::Word, from)) => word_piece(text, from..at, &mut found),
            Some((Class::Dense, from)) => dense_pieces(text, from..at, &mut found),
            Some((Class::Between, _)) | None => {}
        }
        run = Some((now, at));
    }
    found
}

fn word_piece(text: &str, range: Range<usize>, found: &mut Vec<Piece>) {
    let word = cut(normal(&text[range.clone()]));
    if !word.is_empty() {
        found.push(Piece { kind: Kind::Word, stem: stem(&word), word, range });
    }
}

/// Every symbol with the next one, and the last one alone, so that any part of the run is found.
fn dense_pieces(text: &str, range: Range<usize>, found: &mut Vec<Piece>) {
    let mut symbols: Vec<(String, Range<usize>)> = Vec::new();
    let (mut from, mut cluster) = (range.start, String::new());
    let mut take = |cluster: &mut String, range: Range<usize>| {
        for symbol in normal(&std::mem::take(cluster)).chars() {
            match symbols.last_mut() {
                Some((last, own)) if is_combining_mark(symbol) && *own == range => last.push(symbol),
                _ => symbols.push((symbol.to_string(), range.clone())),
            }
        }
    };
    for (at, symbol) in text[range.clone()].char_indices() {
        let at = range.start + at;
        // A mark in its narrow form is one only when it is taken apart.
        let attached = std::iter::once(symbol).nfkd().next().is_some_and(is_combining_mark);
        if !attached && at > from {
            take(&mut cluster, from..at);
            from = at;
        }
        cluster.push(symbol);
    }
    take(&mut cluster, from..range.end);
    for (at, (symbol, own)) in symbols.iter().enumerate() {
        let (kind, word, end) = match symbols.get(at + 1) {
            Some((next, range)) => (Kind::Pair, format!("{symbol}{next}"), range.end),
            None => (Kind::Last, symbol.clone(), own.end),
        };
        found.push(Piece { kind, stem: word.clone(), word, range: own.start..end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(text: &str) -> Vec<String> {
        pieces(text).into_iter().map(|piece| piece.stem).collect()
    }

    #[test]
    fn words_lose_case_accents_and_endings() {
        assert_eq!(stems("Deploying DEPLOYS, deployments!"), ["deploy", "deploy", "deploy"]);
        assert_eq!(stems("Crème BRÛLÉE naïve İstanbul ıslak"), stems("creme brulee naive istanbul islak"));
        assert_eq!(stems("Straße Łódź Ærø ﬁne ＡＢＣ"), stems("STRASSE lodz aero fine abc"));
        assert_eq!(stems("e\u{301}te\u{301} été"), ["ete", "ete"]);
        assert_eq!(stems("Ответы ответов ёлка"), ["ответ", "ответ", "елк"]);
        assert_eq!(stems("Άνθρωπος ΑΝΘΡΩΠΟΣ"), ["ανθρωποσ", "ανθρωποσ"]);
        assert_eq!(stems("שָׁלוֹם مُحَمَّد"), stems("שלום محمد"));
        assert_eq!(
            stems("src/main.rs v1.2 snake_case don't"),
            ["src", "main", "rs", "v1", "2", "snake", "case", "don", "t"]
        );
        assert_eq!(stems(""), Vec::<String>::new());
        assert_eq!(stems("— \u{301} …"), Vec::<String>::new());
        assert_eq!(pieces(&"x".repeat(500))[0].word.len(), MAX_WORD_CHARS);
    }

    #[test]
    fn scripts_without_spaces_are_cut_into_pairs() {
        assert_eq!(stems("数据库"), ["数据", "据库", "库"]);
        assert_eq!(stems("API文档v2"), ["api", "文档", "档", "v2"]);
        assert_eq!(stems("ｶﾞｷﾞ"), stems("ガギ"));
        assert_eq!(stems("데이터"), ["데이", "이터", "터"]);
        // A vowel sign stays with its consonant.
        assert_eq!(stems("ที่นี่").len(), 2);
    }

    #[test]
    fn ranges_point_at_the_text() {
        for text in ["Ein großer Test — 数据库 ok", "e\u{301}te\u{301}  ｶﾞ x"] {
            for piece in pieces(text) {
                let part = &text[piece.range.clone()];
                assert!(normal(part).starts_with(&piece.word), "{part} of {piece:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_into_pieces_in_order(text in "\\PC{0,60}") {
            let mut from = 0;
            for piece in pieces(&text) {
                assert!(piece.range.start >= from && piece.range.end > piece.range.start && text.is_char_boundary(piece.range.end));
                assert!(text.is_char_boundary(piece.range.start) && !piece.word.is_empty());
                assert!(piece.stem.chars().all(|symbol| symbol.is_alphanumeric() || is_combining_mark(symbol)));
                from = piece.range.start;
            }
        }

        #[test]
        fn what_is_normal_stays_as_it_is(text in "\\PC{0,40}") {
            let once = normal(&text);
            assert_eq!(normal(&once), once);
        }
    }
}
