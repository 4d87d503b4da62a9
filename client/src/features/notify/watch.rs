//! Notices questions that arrive for a session and notifies the person, when notifications are on.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;

use super::{Notifier, Outcome, notify};
use crate::config::MessageMode;
use crate::inbox::questions::Question;
use crate::session::JoinedMesh;
use crate::session::Session;

/// Open questions that are looked at; more say nothing more.
const LOOKED_AT: i64 = 100;

/// Watches one mesh until the session ends. Ends at once when notifications are off.
pub async fn run(session: Arc<Session>, bound: JoinedMesh) {
    let Some(notifier) = Notifier::of(session.env(), session.store()) else { return };
    let Some(mut events) = bound.connection.mail_events() else { return };
    let stop = session.stopped();
    let mut known = HashSet::new();
    loop {
        let open = match session.admit(&bound).await {
            Ok(admitted) => admitted.run(|mail| mail.pending_questions(LOOKED_AT)).await,
            Err(error) => Err(error),
        };
        match open {
            Ok(open) => look(&session, &bound, &notifier, &open, &mut known).await,
            Err(error) => tracing::debug!(mesh.slug = bound.tag.slug, %error, "questions cannot be looked at"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => match event {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

async fn look(
    session: &Session,
    bound: &JoinedMesh,
    notifier: &Notifier,
    open: &[Question],
    known: &mut HashSet<String>,
) {
    let new: Vec<&Question> = open.iter().filter(|question| !known.contains(&question.message.message_id)).collect();
    let Some(newest) = new.last() else {
        // Answered ones are forgotten.
        known.retain(|id| open.iter().any(|question| question.message.message_id == *id));
        return;
    };
    if session.mode() == MessageMode::Off || session.is_quiet() {
        return;
    }
    let title = format!("{} asks in {}", newest.message.from_name(), bound.tag.slug);
    let text = match open.len() {
        1 => format!("A question waits for {}.", session.name()),
        count => format!("{count} questions wait for {}.", session.name()),
    };
    let ids: Vec<String> = new.iter().map(|question| question.message.message_id.clone()).collect();
    let (env, store, notifier) = (session.env().clone(), session.store().clone(), notifier.clone());
    match tokio::task::spawn_blocking(move || notify(&env, &store, &notifier, &title, &text)).await {
        // Too soon: they stay new and are told with the next message.
        Ok(Outcome::TooSoon) | Err(_) => {}
        Ok(Outcome::Started) => known.extend(ids),
        Ok(Outcome::Failed(error)) => {
            known.extend(ids);
            tracing::warn!(%error, "the notification cannot be shown");
        }
    }
}
