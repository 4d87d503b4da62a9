//! What the session's server answers to the hooks of its host.

use std::sync::Arc;

use claudemesh_protocol::features::messaging::Stage;
use tokio::time::Instant;

use super::proof::{self, Occasion};
use super::{HOOK, REWAKE, STOP, UnconfirmedDelivery};
use crate::config::MessageMode;
use crate::features::inbound;
use crate::features::permissions::pending_requests::RequestSource;
use crate::hook::Event;
use crate::inbox::{Admitted, InboxError, Message, Pick};
use crate::ipc::Hook;
use crate::ipc::protocol::HookReply;
use crate::output::clean;
use crate::session::frame::{self, HOOK_BUDGET_CHARS};
use crate::session::{JoinedMesh, Session};

/// Messages taken for one hook.
const BATCH: i64 = 30;
/// Less room than this is not worth a frame.
const MIN_BUDGET_CHARS: usize = 2_500;
/// How often in a row waiting messages may keep a session from stopping, where nothing else can wake it: the host itself
/// ends a turn after eight.
const MAX_STOP_BLOCKS: u32 = 3;

/// An answer, and what must be noted or given back depending on whether it was printed.
#[derive(Default)]
pub struct Answer {
    /// What the hook prints.
    pub reply: HookReply,
    /// Messages in it.
    pub handed: Vec<UnconfirmedDelivery>,
}

impl Answer {
    /// Notes that the host has it.
    pub async fn printed(self, session: &Session) {
        for handed in self.handed {
            let (reader, seqs) = (handed.bound.reader(), handed.seqs.clone());
            let noted = handed.bound.mailbox.run(move |inbox| inbox.set_stage(&reader, &seqs, Stage::Handed)).await;
            if let Err(error) = noted {
                tracing::warn!(mesh.slug = handed.bound.tag.slug, %error, "the inbox does not know what was handed over");
            }
            session.count_in(handed.seqs.len());
            let (connection, ids, route) = (handed.bound.connection.clone(), handed.message_ids.clone(), handed.route);
            // Anyone who hears of this step may fire the hook that proves the next one: it must find the messages here.
            session.routes.handed(handed);
            connection.acknowledge(ids, Stage::Handed, route);
        }
    }

    /// Gives the messages back: no one printed them.
    pub async fn lost(self, session: &Session) {
        for handed in self.handed {
            let (reader, seqs) = (handed.bound.reader(), handed.seqs);
            if let Err(error) = handed.bound.mailbox.run(move |inbox| inbox.unclaim(&reader, &seqs)).await {
                tracing::error!(mesh.slug = handed.bound.tag.slug, %error, "messages stay unshown");
            }
        }
        session.routes.touch();
    }
}

/// Answers a hook.
pub async fn answer(session: &Arc<Session>, hook: &Hook) -> Answer {
    let Some(event) = Event::parse(&hook.event) else { return Answer::default() };
    let subagent = hook.agent_id.is_some();
    let busy = match event {
        Event::Prompt | Event::PostTool | Event::Working => Some(true),
        Event::Stop | Event::Idle | Event::SessionEnd => Some(false),
        Event::SessionStart if hook.source.as_deref() != Some("compact") => Some(false),
        _ => None,
    };
    let before = session.routes.permission_mode();
    // A subagent's hooks say that the session works, nothing more: it is not the one that reads its mail.
    if let Some((before, now)) = session.routes.hook(hook, if subagent { Some(true) } else { busy }) {
        session.session_changed(before, now, hook.source.as_deref()).await;
    }
    if inbound::is_stricter(before.as_deref(), session.routes.permission_mode().as_deref()) {
        inbound::reconsider(session).await;
    }
    if let Some(status) = event.status(hook) {
        session.report_status(status);
    }
    if subagent {
        return Answer::default();
    }
    // The user has decided meanwhile, or the turn has gone on without: the host tells no one.
    if matches!(event, Event::Prompt | Event::Stop | Event::SessionEnd) {
        session.permissions.withdraw(Some(RequestSource::Channel));
    }
    // A start or an end of the session shows nothing, and before a prompt the model had no turn.
    match event {
        Event::PostTool => proof::look(session, Occasion::Tool).await,
        Event::Stop => proof::look(session, Occasion::Stop).await,
        Event::Prompt => {
            session.routes.prompted();
            proof::look(session, Occasion::Time).await;
        }
        _ => {}
    }
    let mut answer = answer_to(session, event, hook).await;
    let held = if matches!(event, Event::Prompt | Event::Stop) { session.held_notice().await } else { None };
    // Who woke the session stands beside what is held.
    let woken = if matches!(event, Event::PostTool | Event::Stop) { session.routes.notice() } else { None };
    answer.reply.notice = [woken, held].into_iter().flatten().reduce(|one, two| one + "; " + &two);
    answer
}

async fn answer_to(session: &Arc<Session>, event: Event, hook: &Hook) -> Answer {
    match event {
        Event::Prompt => {
            session.routes.state().stop_blocks = 0;
            let reminder = session.question_reminder().await;
            let room = HOOK_BUDGET_CHARS.saturating_sub(reminder.as_ref().map_or(0, |text| text.chars().count()));
            let mut answer = messages(session, HOOK, room, None).await;
            answer.reply.context =
                [reminder, answer.reply.context.take()].into_iter().flatten().reduce(|a, b| a + "\n\n" + &b);
            answer
        }
        Event::PostTool => messages(session, HOOK, HOOK_BUDGET_CHARS, Some(session.routes.prompts())).await,
        Event::Stop => stop(session, hook).await,
        _ => Answer::default(),
    }
}

async fn stop(session: &Arc<Session>, hook: &Hook) -> Answer {
    let mut answer = Answer::default();
    if let Some((reason, shown)) = session.questions_before_stop().await {
        answer.reply.block = Some(reason);
        answer.handed = shown;
        // The turn goes on.
        session.routes.state().busy = true;
        return answer;
    }
    let may_block = {
        let mut state = session.routes.state();
        // Anyone who can be woken is not kept from stopping.
        let closed = !state.wakes && !state.channel.is_open() && state.monitor.is_none();
        if !hook.stop_hook_active {
            state.stop_blocks = 0;
        }
        closed && state.stop_blocks < MAX_STOP_BLOCKS
    };
    if may_block {
        answer = messages(session, STOP, HOOK_BUDGET_CHARS, None).await;
        if let Some(text) = answer.reply.context.take() {
            answer.reply.block = Some(text);
            let mut state = session.routes.state();
            state.stop_blocks += 1;
            state.busy = true;
        }
    }
    answer
}

/// Takes what waits, in mode `push`; in mode `inbox` says how much it is. `batch_of_prompt`: see [`UnconfirmedDelivery`].
async fn messages(
    session: &Arc<Session>,
    route: &'static str,
    mut budget: usize,
    batch_of_prompt: Option<u64>,
) -> Answer {
    let mut answer = Answer::default();
    let mut texts = Vec::new();
    for bound in session.meshes() {
        // A frame needs some room; what finds none comes with the next hook.
        if budget < MIN_BUDGET_CHARS {
            break;
        }
        let text = match session.mode() {
            MessageMode::Off => None,
            MessageMode::Inbox => notice(session, &bound).await,
            MessageMode::Push => match claim(session, &bound, route, budget, all()).await {
                Ok(Some((text, handed))) => {
                    budget = budget.saturating_sub(text.chars().count());
                    answer.handed.push(UnconfirmedDelivery { batch_of_prompt, ..handed });
                    Some(text)
                }
                Ok(None) => None,
                Err(error) => {
                    tracing::error!(mesh.slug = bound.tag.slug, %error, "messages cannot be shown now");
                    None
                }
            },
        };
        texts.extend(text);
    }
    if !texts.is_empty() {
        answer.reply.context = Some(texts.join("\n"));
    }
    answer
}

async fn notice(session: &Session, bound: &JoinedMesh) -> Option<String> {
    let waiting = session.waiting(bound).await;
    let news =
        session.noticed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(bound.tag.id.clone(), waiting)
            != Some(waiting);
    (waiting > 0 && news)
        .then(|| format!("{waiting} mesh messages wait in {}; check_messages reads them.", bound.tag.slug))
}

/// Claims what fits for a route and frames it; what does not fit is given back.
///
/// # Errors
/// [`InboxError`]
pub async fn claim(
    session: &Arc<Session>,
    bound: &JoinedMesh,
    route: &'static str,
    budget: usize,
    pick: Pick,
) -> Result<Option<(String, UnconfirmedDelivery)>, InboxError> {
    let pulling = bound.pull_lock.lock().await;
    let admitted = session.admit(bound).await?;
    let now = crate::clock::now_ms();
    let claimed = admitted.run(move |mail| mail.claim(route, &pick, now)).await?;
    let framed = frame_of(session, bound, &admitted, route, claimed, budget).await?;
    drop(pulling);
    Ok(framed)
}

/// Everything that was admitted.
pub fn all() -> Pick {
    Pick { limit: BATCH, ..Pick::default() }
}

async fn frame_of(
    session: &Arc<Session>,
    bound: &JoinedMesh,
    admitted: &Admitted<'_>,
    route: &'static str,
    claimed: Vec<Message>,
    budget: usize,
) -> Result<Option<(String, UnconfirmedDelivery)>, InboxError> {
    if claimed.is_empty() {
        return Ok(None);
    }
    let (dir, tag) = (session.config_dir().to_path_buf(), bound.tag.clone());
    let framed = admitted.run(move |mail| {
        let waiting = mail.count_unshown()?;
        let framed = frame::render(&claimed, &tag.slug, &tag.id, &dir, budget, waiting);
        let rest: Vec<i64> = claimed[framed.shown..].iter().map(|message| message.seq).collect();
        if !rest.is_empty() {
            let reader = mail.reader();
            mail.unclaim(reader, &rest)?;
        }
        Ok((framed, claimed))
    });
    let (framed, claimed) = framed.await?;
    let shown = &claimed[..framed.shown];
    // The host shows its user that something came, and not who wrote it.
    if matches!(route, REWAKE | STOP | HOOK) {
        for message in shown {
            let who = format!("{} ({})", clean(&message.from_name()), bound.tag.slug);
            session.routes.sender(message.message_id.clone(), who);
        }
    }
    let handed = UnconfirmedDelivery {
        bound: bound.clone(),
        message_ids: shown.iter().map(|message| message.message_id.clone()).collect(),
        seqs: shown.iter().map(|message| message.seq).collect(),
        route,
        at: Instant::now(),
        misses: 0,
        batch_of_prompt: None,
    };
    Ok(Some((framed.text, handed)))
}
