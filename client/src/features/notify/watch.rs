//! Notices what arrives for a session and notifies the person, when notifications are on.

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

/// Something new, and whether the rule for incoming messages holds it.
struct News {
    message: Message,
    held: bool,
}

impl News {
    /// What a person is told of it; `None` for what is nothing to tell.
    fn topic(&self) -> Option<Topic> {
        match Sort::of(self.message.subtype.as_deref(), self.message.event.as_deref()) {
            // Its person decides at the shell, so the rule for the session does not matter.
            Sort::PermissionRequest => Some(Topic::Permissions),
            Sort::Event => None,
            _ if self.held => Some(Topic::Held),
            Sort::Message => Some(Topic::Messages),
            // A question is told of as long as it is open, and an answer reaches who waits for it.
            Sort::Question | Sort::Answer | Sort::Decline => None,
        }
    }
}

/// What came for the session after a local number, let through or held, oldest first.
async fn newest(session: &Arc<Session>, bound: &JoinedMesh, after: i64) -> Result<Vec<News>, InboxError> {
    let admitted = session.admit(bound).await?;
    let list = admitted.run(move |mail| {
        let reader = mail.reader();
        let through = mail.of_reader(false, LOOKED_AT)?.into_iter().filter(|message| message.seq > after);
        let mut list: Vec<News> = through.map(|message| News { message, held: false }).collect();
        let held = mail.held_after(reader, after, LOOKED_AT)?;
        list.extend(held.into_iter().map(|message| News { message, held: true }));
        list.sort_by_key(|news| news.message.seq);
        Ok(list)
    });
    list.await
}

/// Notifies of messages, held messages and permission requests. What came too soon after another notification is told with
/// the next.
async fn tell(
    session: &Session,
    bound: &JoinedMesh,
    notifier: &Notifier,
    about: &[Topic],
    new: &[News],
    last: &mut i64,
) {
    let Some(end) = new.last().map(|news| news.message.seq) else { return };
    let wanted = |news: &&News| news.topic().is_some_and(|topic| about.contains(&topic));
    // The most urgent, and of these the newest.
    let chosen = new.iter().filter(wanted).max_by_key(|news| (news.topic().map(Topic::urgency), news.message.seq));
    let told = chosen.and_then(|news| Some((&news.message, news.topic()?))).map(|(message, topic)| {
        let (from, mesh, name) = (message.from_name(), &bound.tag.slug, session.name());
        let (title, text) = match topic {
            Topic::Permissions => {
                (format!("{from} asks for a permission in {mesh}"), "claudemesh permit shows what for.".to_owned())
            }
            Topic::Held => {
                (format!("{from} wrote in {mesh}"), format!("A message for {name} is held; claudemesh held shows it."))
            }
            Topic::Messages | Topic::Questions => (format!("{from} wrote in {mesh}"), format!("A message for {name}.")),
        };
        match new.iter().filter(wanted).count() {
            0 | 1 => (title, text),
            count => (title, format!("{text} {} more came.", count - 1)),
        }
    });
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
