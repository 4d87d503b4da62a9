//! Messages in the answers of tools: handed over once the answer is written to the host, and given back when it cannot be.
//!
//! A tool claims what it answers with and notes it here. When the process ends before the answer is out, the claims stand
//! without a word and the next process shows the messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claudemesh_protocol::features::messaging::Stage;
use rmcp::model::RequestId;
use tokio::sync::OwnedMutexGuard;

use super::Session;
use super::routes::UnconfirmedDelivery;

tokio::task_local! {
    /// What the call of this task has put into its answer so far.
    static ANSWER: Mutex<Vec<UnconfirmedDelivery>>;
}

/// An answer that is not written within this time will not be: its caller has cancelled the call.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Messages in answers that are not written yet.
#[derive(Default)]
pub(crate) struct ToolAnswers {
    answers: Mutex<HashMap<RequestId, Vec<UnconfirmedDelivery>>>,
    /// Held while an answer is written and noted.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// Notes that messages go into the answer of the call that runs.
pub(super) fn note(handed: UnconfirmedDelivery) {
    let noted = ANSWER.try_with(|answer| answer.lock().unwrap_or_else(PoisonError::into_inner).push(handed));
    if noted.is_err() {
        tracing::error!("messages were taken outside of a call; they are shown again");
    }
}

impl ToolAnswers {
    /// Runs a call and keeps what it noted for its answer.
    pub(crate) async fn of_call<T>(&self, id: RequestId, call: impl Future<Output = T>) -> T {
        let run = async {
            let result = call.await;
            let noted =
                ANSWER.with(|answer| std::mem::take(&mut *answer.lock().unwrap_or_else(PoisonError::into_inner)));
            (result, noted)
        };
        let (result, noted) = ANSWER.scope(Mutex::default(), run).await;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, handed| handed.first().is_some_and(|handed| handed.at.elapsed() < MAX_AGE));
        if !noted.is_empty() {
            answers.insert(id, noted);
        }
        result
    }

    /// What goes with the answer of a call.
    pub(crate) fn take(&self, id: &RequestId) -> Option<Vec<UnconfirmedDelivery>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// Waits until what was written is noted. Held while an answer is written: the next call must find it noted.
    pub(crate) async fn written(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.writing).lock_owned().await
    }
}

/// The answer with these messages is out.
pub(crate) async fn printed(session: &Session, answer: Vec<UnconfirmedDelivery>) {
    for handed in answer {
        let (reader, seqs, now) = (handed.bound.reader(), handed.seqs.clone(), crate::clock::now_ms());
        let noted = handed.bound.mailbox.run(move |inbox| {
            inbox.set_stage(&reader, &seqs, Stage::Handed)?;
            inbox.mark_seen(&seqs, now)
        });
        if let Err(error) = noted.await {
            tracing::warn!(mesh.slug = handed.bound.tag.slug, %error, "the inbox does not know what was handed over");
        }
        handed.bound.connection.acknowledge(handed.message_ids.clone(), Stage::Handed, handed.route);
        session.routes.handed(handed);
    }
}

/// The answer with these messages was not written: another route shows them.
pub(crate) async fn lost(session: &Session, answer: Vec<UnconfirmedDelivery>) {
    for handed in answer {
        let (reader, seqs) = (handed.bound.reader(), handed.seqs);
        let given_back =
            handed.bound.mailbox.run(move |inbox| seqs.iter().try_for_each(|seq| inbox.give_back(&reader, *seq)));
        if let Err(error) = given_back.await {
            tracing::error!(mesh.slug = handed.bound.tag.slug, %error, "messages stay unshown");
        }
    }
    session.routes.touch();
}
