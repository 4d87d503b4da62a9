//! Which of the texts that fit a query comes first, and which part of it is shown: the same on every database.

use std::ops::Range;

use super::query::{Clause, Query};
use super::text::{Piece, pieces};

/// How much the second occurrence of a word adds to the first one, as in BM25.
const SATURATION: f64 = 1.2;
/// How much the length of a text counts, as in BM25.
const LENGTH_WEIGHT: f64 = 0.75;
/// Pieces of an ordinary text.
const USUAL_PIECES: f64 = 64.0;
/// An occurrence in a short field, such as a tag, against one in the text.
const FIELD_WEIGHT: f64 = 2.0;
/// The word as it was typed, against one with another ending.
const AS_TYPED: f64 = 1.2;
/// Characters of a snippet, about.
const SNIPPET_CHARS: usize = 240;
/// Characters before its first hit.
const LEAD_CHARS: usize = 40;
/// What stands around a hit.
const MARK: &str = "**";

/// A text that was looked through.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Higher is better.
    pub score: f64,
    /// The part of the text where the words are, marked.
    pub snippet: String,
}

/// Looks through a text and its short fields.
pub fn look(query: &Query, text: &str, fields: &[String]) -> Seen {
    let in_text = pieces(text);
    let in_fields: Vec<Vec<Piece>> = fields.iter().map(|field| pieces(field)).collect();
    let length = in_text.len() as f64 / USUAL_PIECES;
    let (mut score, mut hits) = (0.0, Vec::new());
    for (number, clause) in query.must.iter().enumerate() {
        let mut weight = 0.0;
        let mut as_typed = false;
        for at in clause.places(&in_text) {
            let window = &in_text[at..at + clause.pieces.len()];
            weight += 1.0;
            as_typed |= is_as_typed(clause, window);
            hits.push((number, window[0].range.start..window[window.len() - 1].range.end));
        }
        for field in &in_fields {
            for at in clause.places(field) {
                weight += FIELD_WEIGHT;
                as_typed |= is_as_typed(clause, &field[at..at + clause.pieces.len()]);
            }
        }
        let much = weight * (SATURATION + 1.0) / (weight + SATURATION * (1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * length));
        let bonus = if as_typed { AS_TYPED } else { 1.0 };
        // A phrase says more than a word.
        score += much * bonus * (clause.pieces.len() as f64).sqrt();
    }
    hits.sort_by_key(|(_, range)| (range.start, range.end));
    Seen { score, snippet: snippet(text, &hits) }
}

fn is_as_typed(clause: &Clause, window: &[Piece]) -> bool {
    clause.pieces.iter().zip(window).all(|(wanted, piece)| wanted.word == piece.word)
}

/// The part of the text with most different conditions, in one line.
fn snippet(text: &str, hits: &[(usize, Range<usize>)]) -> String {
    let (from, to) = part(text, hits);
    let mut out = String::with_capacity(to - from + 32);
    if from > 0 {
        out.push('…');
    }
    let mut at = from;
    for range in merged(hits) {
        if range.start < from || range.end > to {
            continue;
        }
        push_line(&mut out, &text[at..range.start]);
        out.push_str(MARK);
        push_line(&mut out, &text[range.clone()]);
        out.push_str(MARK);
        at = range.end;
    }
    push_line(&mut out, &text[at..to]);
    if to < text.len() {
        out.push('…');
    }
    out
}

fn push_line(out: &mut String, text: &str) {
    for symbol in text.chars() {
        let symbol = if symbol.is_whitespace() { ' ' } else { symbol };
        if symbol != ' ' || !out.ends_with(' ') {
            out.push(symbol);
        }
    }
}

/// Hits that touch are one.
fn merged(hits: &[(usize, Range<usize>)]) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    for (_, range) in hits {
        match all.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => all.push(range.clone()),
        }
    }
    all
}

/// Where the snippet begins and ends.
fn part(text: &str, hits: &[(usize, Range<usize>)]) -> (usize, usize) {
    if text.chars().nth(SNIPPET_CHARS).is_none() {
        return (0, text.len());
    }
    // In bytes for the choice: a window that is too short for some scripts is good enough for that.
    let best = (0..hits.len()).max_by_key(|&first| {
        let start = hits[first].1.start;
        let inside = hits[first..].iter().take_while(|(_, range)| range.end <= start + SNIPPET_CHARS - LEAD_CHARS);
        let mut kinds: Vec<usize> = inside.map(|(number, _)| *number).collect();
        let count = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        (kinds.len(), count, std::cmp::Reverse(first))
    });
    let hit = best.map_or(0, |first| hits[first].1.start);
    let earliest = text[..hit].char_indices().rev().take(LEAD_CHARS).last().map_or(hit, |(at, _)| at);
    // Not within a word, where words have ends.
    let from = match text[earliest..hit].find(char::is_whitespace) {
        Some(space) if earliest > 0 => earliest + space,
        _ => earliest,
    };
    let from = from + (text[from..].len() - text[from..].trim_start().len());
    let end = text[from..].char_indices().nth(SNIPPET_CHARS).map_or(text.len(), |(at, _)| from + at);
    let end = match text[from..end].rfind(char::is_whitespace) {
        Some(space) if end < text.len() && space > SNIPPET_CHARS / 2 => from + space,
        _ => end,
    };
    // A hit is shown whole.
    let end = hits.iter().find(|(_, range)| range.start < end && range.end > end).map_or(end, |(_, range)| range.end);
    (from, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(query: &str, text: &str, tags: &[&str]) -> Seen {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        look(&Query::parse(query), text, &tags)
    }

    #[test]
    fn hits_are_marked_in_one_line() {
        assert_eq!(seen("deploy", "Deploying\n  to  prod, deploys", &[]).snippet, "**Deploying** to prod, **deploys**");
        assert_eq!(seen("\"to prod\"", "Deploying to prod", &[]).snippet, "Deploying **to prod**");
        assert_eq!(seen("数据库", "我们的数据库很好", &[]).snippet, "我们的**数据库**很好");
        assert_eq!(seen("creme", "la crème", &[]).snippet, "la **crème**");
        assert_eq!(seen("ops", "no such word", &["ops"]).snippet, "no such word");
    }

    #[test]
    fn of_a_long_text_the_part_with_most_words_is_shown() {
        let text = format!("token {}the tokens expire after an hour {}", "word ".repeat(200), "more ".repeat(200));
        let shown = seen("token expire", &text, &[]).snippet;
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        assert!(shown.contains("the **tokens** **expire** after"), "{shown}");
        assert!(shown.chars().count() < SNIPPET_CHARS + 20, "{shown}");
        let dense = "数".repeat(1_000) + "据库";
        assert!(seen("据库", &dense, &[]).snippet.contains("**据库**"));
        assert!(seen("nothing", &text, &[]).snippet.starts_with("token word"));
    }

    #[test]
    fn more_hits_shorter_texts_tags_and_the_typed_form_come_first() {
        let score = |text: &str, tags: &[&str]| seen("deploy", text, tags).score;
        assert!(score("deploy, then deploy again", &[]) > score("deploy, then rest again", &[]));
        assert!(score("deploy it", &[]) > score(&format!("deploy it {}", "now ".repeat(100)), &[]));
        assert!(score("something", &["deploy"]) > score("deploy", &[]));
        assert!(score("deploy it", &[]) > score("deploying it", &[]));
        assert_eq!(score("nothing", &[]), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_snippet(text in "[\\PCab \n数据]{0,400}", query in "[ab数 \"*-]{0,12}") {
            let seen = look(&Query::parse(&query), &text, &[]);
            assert!(seen.score.is_finite() && !seen.snippet.contains('\n'));
        }
    }
}
