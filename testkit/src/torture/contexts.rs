//! Contexts.
//!
//! The promise: each session has one context, which is whole; it is the one that was confirmed last, or a later one that was cut off;
//! a search finds it by its newest words only.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use claudemesh_protocol::features::contexts::{Context, ContextList, ContextResults};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::asked::{Asked, Book, Fate, Team, mark_of};
use super::audit::{Audited, Mark};
use super::cast::{Cast, Quiet};
use super::{Ground, Subject};
use crate::identity::Session;

const SHARERS: usize = 2;
/// Contexts of one session that wait for their answer.
const WINDOW: usize = 3;
/// Contexts of one session in a round: each is told to everyone.
const SHARED: u32 = 10;
/// Bytes of a finding at most.
const FINDING: usize = 1_000;

/// The context that a session shares with one request. No two have the same size, by which the audit log tells them apart.
fn context_of(mark: &str, number: usize) -> Context {
    let (whole, rest) = (number / FINDING, number % FINDING);
    let mut key_findings = vec!["x".repeat(FINDING); whole];
    key_findings.push("y".repeat(rest));
    Context {
        summary: format!("works on {mark}"),
        files_read: vec![format!("src/{mark}.rs")],
        key_findings,
        tags: vec!["torture".into()],
        ..Context::default()
    }
}

fn size_of(context: &Context) -> usize {
    let lists = [&context.files_read, &context.key_findings, &context.tags];
    context.summary.len() + lists.into_iter().flatten().map(String::len).sum::<usize>()
}

/// What is known of the context of one session.
#[derive(Clone, Debug, Default)]
struct Known {
    id: Option<String>,
    /// Number of the request that was confirmed last, or seen last.
    newest: Option<usize>,
}

struct Log {
    asked: Asked<()>,
    known: Vec<Known>,
    fresh: Vec<Mark>,
}

impl Log {
    fn new(sharers: usize) -> Self {
        Self { asked: Asked::new(sharers), known: vec![Known::default(); sharers], fresh: Vec::new() }
    }

    /// Whose context it is and which one, when it is whole, and no older than what was confirmed.
    fn judge(&mut self, context: &Context) -> Result<(usize, usize), String> {
        let mark = context.summary.rsplit(' ').next().unwrap_or_default();
        let (_, fate) = self.asked.marked(mark)?;
        let place = mark.strip_prefix('w').and_then(|rest| rest.split_once('n'));
        let place =
            place.and_then(|(worker, number)| Some((worker.parse::<usize>().ok()?, number.parse::<usize>().ok()?)));
        let (worker, number) = place.ok_or_else(|| format!("no one shared {context:?}"))?;
        if *fate == Fate::Refused {
            return Err(format!("{mark} was refused and is there"));
        }
        let whole = context_of(mark, number);
        if (&context.files_read, &context.key_findings, &context.tags)
            != (&whole.files_read, &whole.key_findings, &whole.tags)
        {
            return Err(format!("{context:?} is not what was shared together"));
        }
        let known = &mut self.known[worker];
        if known.id.get_or_insert_with(|| context.id.clone()) != &context.id {
            return Err(format!("the context of one session is {known:?} and {}", context.id));
        }
        if known.newest.is_some_and(|newest| newest > number) {
            return Err(format!("{mark} is there, and {:?} was confirmed or seen after it", known.newest));
        }
        known.newest = Some(number);
        Ok((worker, number))
    }
}

impl Book for Log {
    const NAME: &'static str = "contexts";

    fn ask(&mut self, worker: usize, _: &mut StdRng) -> Option<(usize, Value)> {
        let number = self.asked.begin(worker, ());
        let Context { summary, files_read, key_findings, tags, .. } = context_of(&mark_of(worker, number), number);
        let frame = json!({
            "type": "share_context", "summary": summary, "filesRead": files_read, "keyFindings": key_findings, "tags": tags,
        });
        Some((number, frame))
    }

    fn answered(&mut self, worker: usize, number: usize, answer: &Value) -> Result<(), String> {
        let id = answer["id"].as_str().filter(|_| answer["type"] == "context_shared");
        let id = id.ok_or_else(|| format!("a context was refused: {answer}"))?;
        self.asked.end(worker, number, Fate::Confirmed)?;
        let known = &mut self.known[worker];
        if known.id.get_or_insert_with(|| id.to_owned()) != id {
            return Err(format!("the context of one session is {known:?} and {id}"));
        }
        known.newest = known.newest.max(Some(number));
        let size = size_of(&context_of(&mark_of(worker, number), number));
        self.fresh.push(Mark::new("context_shared", [json!(id), json!(size)]));
        Ok(())
    }

    fn cut_off(&mut self) {
        self.asked.cut_off();
    }
}

/// The subject.
pub(super) struct Contexts {
    team: Team<Log>,
    asking: Session,
}

impl Contexts {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let team = Team::new(ground, "sharer", SHARERS, Log::new(SHARERS))?;
        Ok(Self { team, asking: ground.mesh.creator.session("context-asking") })
    }

    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.asking.hello(json!({}))).await?;
        let list = asking.call(json!({"type": "list_contexts"}), "context_list").await?;
        let list: ContextList = serde_json::from_value(list)?;
        let ids: BTreeMap<&str, &str> =
            list.contexts.iter().map(|row| (row.id.as_str(), row.summary.as_str())).collect();
        ensure!(ids.len() == SHARERS && list.contexts.len() == SHARERS, "{SHARERS} sessions share {:?}", list.contexts);
        for worker in 0..SHARERS {
            let newest = self.team.book.borrow().known[worker].newest.context("a session has shared")?;
            let asked = self.team.book.borrow().asked.of(worker).len();
            // It is the confirmed one, or one of those that came after it.
            let mut found = None;
            for number in newest..asked {
                let frame = json!({"type": "get_context", "query": mark_of(worker, number)});
                let results = asking.call(frame, "context_results").await?;
                let results: ContextResults = serde_json::from_value(results)?;
                ensure!(results.contexts.len() <= 1, "one mark is in {:?}", results.contexts);
                let Some(context) = results.contexts.first() else { continue };
                ensure!(found.is_none(), "a session has two contexts: {found:?} and {number}");
                let judged = self.team.book.borrow_mut().judge(context).map_err(anyhow::Error::msg)?;
                ensure!(judged == (worker, number), "a search for {number} of {worker} finds {judged:?}");
                ensure!(ids.get(context.id.as_str()) == Some(&&*context.summary), "the list has {ids:?}");
                found = Some(number);
            }
            let found =
                found.with_context(|| format!("the context of session {worker} is gone, or older than {newest}"))?;
            if let Some(before) = found.checked_sub(1) {
                let frame = json!({"type": "get_context", "query": mark_of(worker, before)});
                let results = asking.call(frame, "context_results").await?;
                ensure!(results["contexts"] == json!([]), "what was replaced is found: {results}");
            }
        }
        Ok(())
    }
}

impl Subject for Contexts {
    fn name(&self) -> &'static str {
        "contexts"
    }

    fn load(&mut self, cast: &mut Cast) {
        self.team.add(cast, SHARED, WINDOW);
    }

    fn settle(&mut self, cast: &mut Cast) {
        self.team.add(cast, 1, 1);
    }

    fn settled(&self) -> bool {
        self.team.book.borrow().asked.open() == 0
    }

    fn missing(&self) -> String {
        format!("{} contexts without an answer", self.team.book.borrow().asked.open())
    }

    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        self.at_rest(quiet).boxed_local()
    }

    fn audited(&self) -> &'static [Audited] {
        &[Audited { event: "context_shared", fields: &["context", "size"] }]
    }

    fn confirmed(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.team.book.borrow_mut().fresh)
    }

    fn summary(&self) -> String {
        let asked = self.team.book.borrow().asked.summary();
        format!("{asked}; one whole context for each session, no older than confirmed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that shared twice, and a third time without an answer.
    fn shared() -> Log {
        let mut log = Log::new(1);
        for _ in 0..2 {
            let number = log.asked.begin(0, ());
            log.answered(0, number, &json!({"type": "context_shared", "id": "c"})).unwrap();
        }
        log.asked.begin(0, ());
        log.cut_off();
        log
    }

    fn context(number: usize) -> Context {
        Context { id: "c".into(), ..context_of(&mark_of(0, number), number) }
    }

    #[test]
    fn the_newest_context_may_be_one_that_was_cut_off() {
        assert_eq!(shared().judge(&context(1)), Ok((0, 1)));
        let mut log = shared();
        assert_eq!(log.judge(&context(2)), Ok((0, 2)));
        assert!(log.judge(&context(1)).is_err(), "once seen, it stays");
        assert!(size_of(&context(7)) < size_of(&context(8)), "no two have the same size");
    }

    #[test]
    fn contexts_that_are_old_torn_or_no_ones_are_found() {
        for (told, wrong) in [
            ("an older one", context(0)),
            ("of nobody", context(3)),
            ("another id", Context { id: "d".into(), ..context(1) }),
            ("torn", Context { summary: context(2).summary, ..context(1) }),
        ] {
            assert!(shared().judge(&wrong).is_err(), "{told}");
        }
        let mut log = shared();
        let number = log.asked.begin(0, ());
        assert!(log.answered(0, number, &json!({"type": "context_shared", "id": "d"})).is_err(), "a second context");
        assert!(log.answered(0, number, &json!({"type": "error", "code": "internal"})).is_err(), "refused");
    }
}
