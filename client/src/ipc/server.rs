//! The answering end: a Unix socket beside the MCP server of a session.

use std::collections::HashMap;
use std::sync::Arc;

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::messaging;
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::message::{ClientMessage, Failure, ServerMessage};
use claudemesh_protocol::target::TargetField;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::asking;
use super::protocol::{Attached, Hook, HookReply, Permission, Reply, Request};
use super::registry::{Entry, Record};
use super::talk::{Mouth, Talk};
use crate::config::StoredSecret;
use crate::connection::{ConnectionError, Heard};
use crate::features::messaging::exchange;
use crate::features::permissions::ask::{self, Call, Ended};
use crate::features::permissions::board::Form;
use crate::features::permissions::preview;
use crate::features::permissions::wire::{self, Behavior};
use crate::hook::Event;
use crate::mcp::hub::{Bound, Hub};
use crate::mcp::routes::{Parcel, hooks};

/// Lines that are served at once: hooks, waiting hooks, monitors and verbs of one session.
const MAX_LINES: usize = 64;
/// Parcels on their way to one taker.
const TAKER_QUEUE: usize = 1;

/// Registers the session's server and answers on its socket until the session ends. Without the socket everything still
/// works, only slower, so a failure is told and not fatal.
pub async fn run(hub: Arc<Hub>) {
    let record = Record {
        host_pid: u32::try_from(crate::mcp::hub::parent_pid()).unwrap_or(0),
        session_id: hub.routes.session_id(),
        wire_session_id: hub.wire_session_id(),
        meshes: hub.slugs(),
        ..Record::default()
    };
    let opened = hub.store().register_server(record).map_err(|error| error.to_string());
    let opened = opened.and_then(|entry| {
        let listener = UnixListener::bind(entry.socket()).map_err(|error| error.to_string())?;
        private(entry.socket()).map_err(|error| error.to_string())?;
        Ok((entry, listener))
    });
    let (entry, listener) = match opened {
        Ok(opened) => opened,
        Err(error) => return tracing::warn!(%error, "no local socket: hooks and the shell work without this session"),
    };
    tokio::select! {
        () = hub.stopped().cancelled_owned() => {}
        () = accept(&hub, &listener, entry) => {}
    }
}

fn private(socket: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(crate::files::PRIVATE_FILE))
}

async fn accept(hub: &Arc<Hub>, listener: &UnixListener, mut entry: Entry) {
    let free = Arc::new(Semaphore::new(MAX_LINES));
    let mut changed = hub.routes.watch();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors: a moment later there may be some.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                };
                let Ok(permit) = Arc::clone(&free).try_acquire_owned() else { continue };
                let hub = Arc::clone(hub);
                tokio::spawn(async move {
                    let _permit = permit;
                    serve(&hub, stream).await;
                });
            }
            _ = changed.changed() => {
                let (id, meshes) = (hub.routes.session_id(), hub.slugs_bound());
                let updated = entry.update(|record| {
                    record.session_id = id;
                    record.wire_session_id = hub.wire_session_id();
                    record.meshes = meshes;
                });
                if let Err(error) = updated {
                    tracing::warn!(%error, "the registry of sessions cannot be written");
                }
            }
        }
    }
}

async fn serve(hub: &Arc<Hub>, stream: UnixStream) {
    let mut talk = Talk::new(stream);
    let mut attached: Option<Bound> = None;
    let mut listening = Listening::default();
    while let Some(request) = talk.hear().await {
        let goes_on = match request {
            Ok(Request::Hook(hook)) if hook.event == Event::Permission.as_str() => {
                permission_line(hub, &mut talk, &hook).await
            }
            Ok(Request::Hook(hook)) => hook_line(hub, &mut talk, &hook).await,
            Ok(Request::Wait(hook)) => {
                // The hook itself, which fires beside this one, tells what happened.
                drop(hook);
                let (sender, parcels) = mpsc::channel(TAKER_QUEUE);
                hub.routes.waiter_came(sender);
                take(hub, &mut talk, parcels, true).await
            }
            Ok(Request::Monitor) => {
                let (sender, parcels) = mpsc::channel(TAKER_QUEUE);
                hub.routes.monitor_came(sender);
                take(hub, &mut talk, parcels, false).await
            }
            Ok(Request::Attach { mesh_id }) => match attach(hub, &mesh_id) {
                Ok((bound, reply)) => {
                    attached = Some(bound);
                    talk.say(&Reply::Attached(Box::new(reply))).await
                }
                Err(error) => talk.refuse(ErrorCode::NotFound, error).await,
            },
            Ok(Request::Frame { frame }) => match &attached {
                Some(bound) => match forward(hub, bound, &frame).await {
                    Some(frame) => talk.say(&Reply::Frame { frame }).await,
                    None => true,
                },
                None => talk.refuse(ErrorCode::NoHello, "attach first").await,
            },
            Ok(Request::Listen { tag }) => match &attached {
                Some(bound) => listening.to(bound, tag, &talk.mouth).await,
                None => talk.refuse(ErrorCode::NoHello, "attach first").await,
            },
            Ok(Request::Ask(question)) => asking::ask_line(hub, &mut talk, question).await,
            Ok(Request::Routes) => talk.say(&Reply::Routes(Box::new(hub.report().await))).await,
            Ok(Request::Probe { route }) => match hub.probe(&route).await {
                Ok(()) => talk.say(&Reply::Routes(Box::new(hub.report().await))).await,
                Err(error) => talk.refuse(ErrorCode::Invalid, error).await,
            },
            Ok(Request::Printed) => true,
            Err(error) => talk.refuse(ErrorCode::BadJson, error).await,
        };
        if !goes_on {
            return;
        }
    }
}

/// The events that one line is told. They end with it.
#[derive(Default)]
struct Listening {
    by_tag: HashMap<&'static str, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Listening {
    /// Passes events of a type on from now on; answers whether the line goes on.
    async fn to(&mut self, bound: &Bound, tag: String, mouth: &Mouth) -> bool {
        let Some(known) = ServerMessage::event_tags().into_iter().find(|known| *known == tag) else {
            return mouth.say(&Reply::Silent { tag }).await;
        };
        // Twice is no more than once, unless what was listened to has ended.
        if self.by_tag.get(known).is_none_or(AbortHandle::is_finished) {
            let (mut events, mouth) = (bound.connection.events_of(known), mouth.clone());
            let task = self.tasks.spawn(async move {
                while let Some(heard) = events.next().await {
                    let said = match heard {
                        Heard::Event(message) => Reply::Event { frame: message.write(None) },
                        Heard::Lagged(count) => Reply::Missed { tag: tag.clone(), count: Some(count) },
                        Heard::Away => Reply::Missed { tag: tag.clone(), count: None },
                    };
                    if !mouth.say(&said).await {
                        return;
                    }
                }
                mouth.say(&Reply::Silent { tag }).await;
            });
            self.by_tag.insert(known, task);
        }
        true
    }
}

async fn hook_line(hub: &Arc<Hub>, talk: &mut Talk, hook: &Hook) -> bool {
    let answer = hooks::answer(hub, hook).await;
    let waits = !answer.handed.is_empty();
    let said = talk.say(&Reply::Hook(answer.reply.clone())).await;
    if waits {
        if said && talk.printed().await {
            answer.printed(hub).await;
        } else {
            answer.lost(hub).await;
        }
    }
    said
}

/// Asks approvers as long as the hook waits. Its end says that the host does not need their word any more.
async fn permission_line(hub: &Arc<Hub>, talk: &mut Talk, hook: &Hook) -> bool {
    // First: a notification of the same call may be waiting to know.
    hub.permissions.hooked();
    hooks::answer(hub, hook).await;
    let ended = tokio::select! {
        ended = ask_for(hub, hook) => ended,
        _ = talk.hear() => return false,
    };
    let mut reply = HookReply::default();
    match ended {
        Ended::Decided(decision) => {
            let message = (decision.behavior == Behavior::Deny).then(|| ask::denial(&decision));
            reply.permission = Some(Permission { behavior: decision.behavior, message });
        }
        Ended::Open(notice) => reply.notice = notice,
    }
    talk.say(&Reply::Hook(reply)).await
}

async fn ask_for(hub: &Arc<Hub>, hook: &Hook) -> Ended {
    let (Some(tool), Some(input)) = (&hook.tool_name, &hook.tool_input) else { return Ended::Open(None) };
    let call = Call {
        tool: tool.clone(),
        preview: preview::of_input(input),
        digest: wire::digest(tool, input),
        id: None,
        form: Form::Hook,
    };
    ask::ask(hub, call).await
}

/// Passes parcels on until there are no more: once for a hook that ends with the first, for ever for a monitor.
async fn take(hub: &Arc<Hub>, talk: &mut Talk, mut parcels: mpsc::Receiver<Parcel>, once: bool) -> bool {
    let stop = hub.stopped();
    loop {
        let parcel = tokio::select! {
            parcel = parcels.recv() => parcel,
            // The process is gone, or says something that it has no reason to say.
            _ = talk.hear() => return false,
            () = stop.cancelled() => None,
        };
        let Some(Parcel { text, printed }) = parcel else {
            talk.say(&Reply::End).await;
            return false;
        };
        if !talk.say(&Reply::Wake { text }).await || !talk.printed().await {
            return false;
        }
        let _ = printed.send(());
        if once {
            return false;
        }
    }
}

fn attach(hub: &Arc<Hub>, mesh_id: &str) -> Result<(Bound, Attached), String> {
    let bound = hub.meshes().into_iter().find(|bound| bound.tag.id == mesh_id);
    let bound = bound.ok_or("this session is not in that mesh")?;
    let ack = bound.connection.hello_ack().map_err(|error| error.to_string())?;
    let identity = bound.connection.identity();
    let attached = Attached {
        session_id: identity.session_id.clone(),
        session_key: identity.session.as_ref().map(StoredSecret::from),
        hello_ack: (*ack).clone(),
    };
    Ok((bound, attached))
}

/// Sends a frame over the session's connection; the answer carries the request id of the frame.
async fn forward(hub: &Hub, bound: &Bound, frame: &str) -> Option<String> {
    let head = Head::read(frame).ok()?;
    let req_id = head.req_id.as_deref().map(str::to_owned);
    let mut message = match ClientMessage::read(&head, frame) {
        Ok(message) => message,
        Err(error) => return Some(refusal(ErrorCode::UnknownType, error.to_string(), req_id.as_deref())),
    };
    hub.note_own_write(&message);
    if let ClientMessage::Messaging(messaging::Request::Send(send)) = &mut message
        && send.reply_to_id.is_none()
    {
        // Only a person starts an exchange anew: a model must not leave the limit of its loops through its shell.
        let targets = match &send.target_spec {
            TargetField::One(target) => std::slice::from_ref(target),
            TargetField::Many(targets) => targets,
        };
        send.trace = Some(exchange::trace_for(&bound.mailbox, targets).await);
    }
    let Some(req_id) = req_id else {
        if let Err(error) = bound.connection.tell(message) {
            tracing::debug!(%error, "a frame of the shell was not told");
        }
        return None;
    };
    let pulls = matches!(message, ClientMessage::Messaging(messaging::Request::InboxPull(_)));
    let answer = bound.connection.call(message, crate::connection::SEND_TIMEOUT).await;
    if pulls {
        // Who pulls reads the inbox next: what came must be in it, and what is not theirs taken out.
        bound.connection.mail_stored().await;
        if let Err(error) = hub.admit(bound).await {
            return Some(refusal(ErrorCode::Unavailable, error.to_string(), Some(&req_id)));
        }
    }
    let answer = match answer {
        Ok(answer) => answer.write(Some(&req_id)),
        Err(ConnectionError::Refused(error)) => failure((*error).0, Some(&req_id)),
        Err(error) => refusal(ErrorCode::Unavailable, error.to_string(), Some(&req_id)),
    };
    Some(answer)
}

fn refusal(code: ErrorCode, message: String, req_id: Option<&str>) -> String {
    failure(ErrorFrame::new(code, message), req_id)
}

fn failure(frame: ErrorFrame, req_id: Option<&str>) -> String {
    ServerMessage::from(Failure::Error(frame)).write(req_id)
}
