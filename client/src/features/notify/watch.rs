//! Notices questions that arrive for a session and notifies the person, when notifications are on.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;

use super::{Notifier, Outcome, Topic, notify};
use crate::config::MessageMode;
use crate::inbox::listed::Sort;
use crate::inbox::questions::Question;
use crate::inbox::{InboxError, Message};
use crate::session::JoinedMesh;
use crate::session::Session;

/// Open questions that are looked at; more say nothing more.
const LOOKED_AT: i64 = 100;

/// Watches one mesh until the session ends. Ends at once when notifications are off.
pub async fn run(session: Arc<Session>, bound: JoinedMesh) {
    let Some(notifier) = Notifier::of(session.env(), session.store()) else { return };
    let Some(mut events) = bound.connection.mail_events() else { return };
    let stop = session.stopped();
    let (mut known, about) = (HashSet::new(), Topic::chosen(session.store()));
    // Messages of before are not news; open questions are told of all the same.
    let mut last = bound.mailbox.run(|inbox| inbox.last_seq()).await.unwrap_or(0);
    loop {
        match newest(&session, &bound, last).await {
            Ok(new) => tell(&session, &bound, &notifier, &about, &new, &mut last).await,
            Err(error) => tracing::debug!(mesh.slug = bound.tag.slug, %error, "messages cannot be looked at"),
        }
        let open = match session.admit(&bound).await {
            Ok(admitted) => admitted.run(|mail| mail.pending_questions(LOOKED_AT)).await,
            Err(error) => Err(error),
        };
        match open {
            Ok(_) if !about.contains(&Topic::Questions) => {}
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

/// What the session got after a local number and its rule let through.
async fn newest(session: &Arc<Session>, bound: &JoinedMesh, after: i64) -> Result<Vec<Message>, InboxError> {
    let admitted = session.admit(bound).await?;
    let list = admitted.run(|mail| mail.of_reader(false, LOOKED_AT)).await?;
    Ok(list.into_iter().filter(|one| one.seq > after).collect())
}

/// Notifies of messages and permission requests. What came too soon after another notification is told with the next.
async fn tell(
    session: &Session,
    bound: &JoinedMesh,
    notifier: &Notifier,
    about: &[Topic],
    new: &[Message],
    last: &mut i64,
) {
    let Some(end) = new.last().map(|message| message.seq) else { return };
    let of = |sort: Sort| new.iter().rev().find(|one| Sort::of(one.subtype.as_deref(), one.event.as_deref()) == sort);
    let permission = of(Sort::PermissionRequest).filter(|_| about.contains(&Topic::Permissions));
    let message = of(Sort::Message).filter(|_| about.contains(&Topic::Messages));
    let told = match (permission, message) {
        (Some(one), _) => {
            let title = format!("{} asks for a permission in {}", one.from_name(), bound.tag.slug);
            Some((title, "claudemesh permit shows what for.".to_owned()))
        }
        (None, Some(one)) => {
            let title = format!("{} wrote in {}", one.from_name(), bound.tag.slug);
            Some((title, format!("A message for {}.", session.name())))
        }
        (None, None) => None,
    };
    let silent = session.mode() == MessageMode::Off || session.is_quiet();
    let Some((title, text)) = told.filter(|_| !silent) else {
        *last = end;
        return;
    };
    let (env, store, notifier) = (session.env().clone(), session.store().clone(), notifier.clone());
    match tokio::task::spawn_blocking(move || notify(&env, &store, &notifier, &title, &text)).await {
        Ok(Outcome::TooSoon) | Err(_) => {}
        Ok(Outcome::Started) => *last = end,
        Ok(Outcome::Failed(error)) => {
            *last = end;
            tracing::warn!(%error, "the notification cannot be shown");
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
