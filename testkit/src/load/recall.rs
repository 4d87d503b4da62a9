//! Searching many memories: mixed queries, one after the other, and what searching does to messages.

use anyhow::{Result, ensure};
use serde_json::json;

use super::asking::{Asker, Asks, Rhythm, fill, pace};
use super::bench::{Options, Stage, hello};
use super::beside::{Load, beside};
use super::fleet::Fleet;
use super::report::{Report, latencies, ms, number};

/// Words that the memories are made of: of a few many have, of most few have.
const WORDS: u64 = 6_000;
/// Words of one memory.
const LENGTH: u64 = 30;
/// Queries that are measured, and those that warm the broker up.
const QUERIES: u32 = 200;
const WARM_UP: u32 = 20;
/// Searchers beside messages, and their rate.
const BESIDE: (u32, u32) = (5, 100);
const SYLLABLES: [&str; 20] = [
    "ba", "ko", "ri", "mu", "te", "sal", "dor", "vin", "qua", "zen", "lo", "fi", "gar", "pel", "nu", "wex", "tho",
    "jam", "cu", "osk",
];

/// Numbers that look random and are the same in every run.
fn mixed(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The word of that rank: the first are the ones that many memories have.
fn word(rank: u64) -> String {
    let syllable = |value: u64| SYLLABLES[(value % 20) as usize];
    [rank, rank / 20, rank / 400].map(syllable).concat()
}

/// A word of a memory.
fn word_of(memory: usize, place: u64) -> String {
    let draw = mixed(memory as u64 * LENGTH + place) % WORDS;
    // The square makes the first ranks common.
    word(draw * draw / WORDS)
}

/// The text of a memory.
pub(super) fn text(memory: usize) -> String {
    (0..LENGTH).map(|place| word_of(memory, place)).collect::<Vec<_>>().join(" ")
}

/// The request that stores a memory.
pub(super) fn remember(memory: usize) -> String {
    json!({"type": "remember", "content": text(memory), "tags": [format!("tag-{}", memory % 50)]}).to_string()
}

/// A query of the mix: one word, two, a prefix, a phrase, one word without another, with a tag, and what is not there.
fn query(index: usize, memories: usize) -> String {
    let (draw, at) = (mixed(index as u64 + 7), mixed(index as u64) as usize % memories.max(1));
    let common = word(draw % 100);
    let words = match index % 8 {
        0 => common,
        1 => word(WORDS / 2 + draw % (WORDS / 2)),
        2 => format!("{} {}", word_of(at, 0), word_of(at, 1)),
        3 => format!("{}*", &word_of(at, 2)[..4]),
        4 => format!("\"{} {}\"", word_of(at, 3), word_of(at, 4)),
        5 => format!("{} -{common}", word_of(at, 5)),
        6 => word_of(at, 6),
        _ => format!("nothing{index}"),
    };
    let tags = if index % 8 == 6 { json!([format!("tag-{}", at % 50)]) } else { json!([]) };
    json!({"type": "recall", "query": words, "tags": tags}).to_string()
}

/// Fills a mesh, searches it, and compares messages with and without searches.
pub(super) async fn recall(options: &Options, report: &mut Report) -> Result<()> {
    let memories = options.kept as usize;
    let stage = Stage::new(options)?;
    fill(&stage, "memories", options.kept, remember).await?;
    let searcher = &stage.sessions("searcher", 1)?[0];
    let run = Asks::new(u64::from(WARM_UP + QUERIES));
    let mut fleet = Fleet::new(stage.broker.address, 1);
    // A query that is measured was not asked before.
    let of_run = run.clone();
    let asker = Asker::new(&run, Rhythm::Window(WARM_UP + QUERIES, 1), move |number, _| {
        of_run.measuring.set(number >= WARM_UP as usize);
        query(number, memories)
    });
    fleet.add(hello(searcher), asker, None);
    fleet.ready().await?;
    fleet.phase(1);
    fleet.until(&run.finished).await?;
    run.check()?;
    fleet.end().await?;
    let times = run.latency.replace(latencies());
    ensure!(times.len() == u64::from(QUERIES), "{} queries were measured", times.len());
    let what = format!("recall over {} memories", number(f64::from(options.kept)));
    report.at_most(format!("{what}: p50"), ms(&times, 50.0), 3.0, "ms");
    report.at_most(format!("{what}: p95"), ms(&times, 95.0), 8.0, "ms");
    report.at_most(format!("{what}: the worst of {QUERIES}"), ms(&times, 100.0), 30.0, "ms");

    let (searchers, rate) = BESIDE;
    let load = Load { name: "recall", unit: "queries/s", rate: f64::from(rate) };
    beside(options, report, load, async |stage: &Stage, fleet: &mut Fleet| {
        fill(stage, "memories", options.kept, remember).await?;
        let run = Asks::new(u64::MAX);
        for (index, session) in stage.sessions("searcher", searchers)?.iter().enumerate() {
            let asker =
                Asker::new(&run, Rhythm::Paced, move |number, _| query(number * searchers as usize + index, memories));
            fleet.add(hello(session), asker, Some(pace(index, searchers, rate)));
        }
        Ok(run)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_queries_are_of_all_kinds_and_find_what_the_memories_have() {
        let all: BTreeSet<String> = (0..WORDS).map(word).collect();
        assert!(all.len() > 5_000, "{} words", all.len());
        let texts: Vec<String> = (0..1_000).map(text).collect();
        let holding = |word: &str| texts.iter().filter(|text| text.split(' ').any(|one| one == word)).count();
        assert!(holding(&word(1)) > 10 * holding(&word(WORDS - 1)).max(1), "some words are common");
        let queries: BTreeSet<String> = (0..220).map(|index| query(index, 1_000)).collect();
        assert!(queries.len() > 190, "{} different ones", queries.len());
        for part in ["*\"", "\\\"", " -", "tag-", "nothing"] {
            assert!(queries.iter().any(|query| query.contains(part)), "{part}");
        }
    }
}
