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
use super::hosting;
use super::line::{LineConnection, LineWriter};
use super::protocol::{Attached, Hook, HookReply, Permission, Reply, Request};
use super::registry::{Entry, Record};
use crate::config::StoredSecret;
use crate::connection::{ConnectionError, Heard};
use crate::features::messaging::exchange;
use crate::features::peer_files::{LONGEST, orders};
use crate::features::permissions::ask::{self, Call, Ended};
use crate::features::permissions::pending_requests::RequestSource;
use crate::features::permissions::preview;
use crate::features::permissions::wire::{self, Behavior};
use crate::hook::Event;
use crate::session::routes::{WakeText, hooks};
use crate::session::{JoinedMesh, Session};

/// Lines that are served at once: hooks, waiting hooks, monitors and verbs of one session.
const MAX_LINES: usize = 64;
/// Texts on their way to one target.
const WAKE_QUEUE: usize = 1;

/// Registers the session's server and answers on its socket until the session ends. Without the socket everything still
/// works, only slower, so a failure is told and not fatal.
pub async fn run(session: Arc<Session>) {
    let record = Record {
        host_pid: u32::try_from(crate::session::parent_pid()).unwrap_or(0),
        session_id: session.routes.session_id(),
        wire_session_id: session.wire_session_id(),
        meshes: session.slugs(),
        name: session.name(),
        ..Record::default()
    };
    let opened = session.store().register_server(record).map_err(|error| error.to_string());
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
        () = session.stopped().cancelled_owned() => {}
        () = accept(&session, &listener, entry) => {}
    }
}

fn private(socket: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(crate::files::PRIVATE_FILE))
}

async fn accept(session: &Arc<Session>, listener: &UnixListener, mut entry: Entry) {
    let free = Arc::new(Semaphore::new(MAX_LINES));
    let mut changed = session.routes.watch();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors: a moment later there may be some.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                };
                let Ok(permit) = Arc::clone(&free).try_acquire_owned() else { continue };
                let session = Arc::clone(session);
                tokio::spawn(async move {
                    let _permit = permit;
                    serve(&session, stream).await;
                });
            }
            _ = changed.changed() => {
                let (id, meshes) = (session.routes.session_id(), session.slugs_bound());
                let updated = entry.update(|record| {
                    record.session_id = id;
                    record.wire_session_id = session.wire_session_id();
                    record.meshes = meshes;
                    record.name = session.name();
                });
                if let Err(error) = updated {
                    tracing::warn!(%error, "the registry of sessions cannot be written");
                }
            }
        }
    }
}

async fn serve(session: &Arc<Session>, stream: UnixStream) {
    let mut line = LineConnection::new(stream);
    let mut attached: Option<JoinedMesh> = None;
    let mut listening = Listening::default();
    while let Some(request) = line.receive().await {
        let goes_on = match request {
            Ok(Request::Hook(hook)) if hook.event == Event::Permission.as_str() => {
                permission_line(session, &mut line, &hook).await
            }
            Ok(Request::Hook(hook)) => hook_line(session, &mut line, &hook).await,
            Ok(Request::Wait(hook)) => {
                // The hook itself, which fires beside this one, tells what happened.
                drop(hook);
                let (sender, texts) = mpsc::channel(WAKE_QUEUE);
                session.routes.waiter_came(sender);
                take(session, &mut line, texts, true).await
            }
            Ok(Request::Monitor) => {
                let (sender, texts) = mpsc::channel(WAKE_QUEUE);
                session.routes.monitor_came(sender);
                take(session, &mut line, texts, false).await
            }
            Ok(Request::Attach { mesh_id }) => match attach(session, &mesh_id) {
                Ok((bound, reply)) => {
                    attached = Some(bound);
                    line.send(&Reply::Attached(Box::new(reply))).await
                }
                Err(error) => line.refuse(ErrorCode::NotFound, error).await,
            },
            Ok(Request::Frame { frame }) => match &attached {
                Some(bound) => match forward(session, bound, &frame).await {
                    Some(frame) => line.send(&Reply::Frame { frame }).await,
                    None => true,
                },
                None => line.refuse(ErrorCode::NoHello, "attach first").await,
            },
            Ok(Request::Listen { tag }) => match &attached {
                Some(bound) => listening.to(bound, tag, &line.writer).await,
                None => line.refuse(ErrorCode::NoHello, "attach first").await,
            },
            Ok(Request::HostServer { mesh_id, server }) => match hosting::host(session, &mesh_id, *server).await {
                Ok(tools) => line.send(&Reply::Hosted { tools }).await,
                Err((code, why)) => line.refuse(code, why).await,
            },
            Ok(Request::StopServer { mesh_id, name }) => {
                let found = hosting::stop(session, &mesh_id, &name).await;
                line.send(&Reply::Stopped { found }).await
            }
            Ok(Request::Ask(question)) => asking::ask_line(session, &mut line, question).await,
            Ok(Request::Folder(order)) => match orders::carry_out(session, order).await {
                Ok(report) => line.send(&Reply::Folder(Box::new(report))).await,
                Err((code, message)) => line.refuse(code, message).await,
            },
            Ok(Request::Routes) => line.send(&Reply::Routes(Box::new(session.report().await))).await,
            Ok(Request::Probe { route }) => match session.probe(&route).await {
                Ok(()) => line.send(&Reply::Routes(Box::new(session.report().await))).await,
                Err(error) => line.refuse(ErrorCode::Invalid, error).await,
            },
            Ok(Request::Printed) => true,
            Err(error) => line.refuse(ErrorCode::BadJson, error).await,
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
    async fn to(&mut self, bound: &JoinedMesh, tag: String, writer: &LineWriter) -> bool {
        let Some(known) = ServerMessage::event_tags().into_iter().find(|known| *known == tag) else {
            return writer.send(&Reply::Silent { tag }).await;
        };
        // Twice is no more than once, unless what was listened to has ended.
        if self.by_tag.get(known).is_none_or(AbortHandle::is_finished) {
            let (mut events, writer) = (bound.connection.events_of(known), writer.clone());
            let task = self.tasks.spawn(async move {
                while let Some(heard) = events.next().await {
                    let said = match heard {
                        Heard::Event(message) => Reply::Event { frame: message.write(None) },
                        Heard::Lagged(count) => Reply::Missed { tag: tag.clone(), count: Some(count) },
                        Heard::Away => Reply::Missed { tag: tag.clone(), count: None },
                    };
                    if !writer.send(&said).await {
                        return;
                    }
                }
                writer.send(&Reply::Silent { tag }).await;
            });
            self.by_tag.insert(known, task);
        }
        true
    }
}

async fn hook_line(session: &Arc<Session>, line: &mut LineConnection, hook: &Hook) -> bool {
    let answer = hooks::answer(session, hook).await;
    let waits = !answer.handed.is_empty();
    let said = line.send(&Reply::Hook(answer.reply.clone())).await;
    if waits {
        if said && line.printed().await {
            answer.printed(session).await;
        } else {
            answer.lost(session).await;
        }
    }
    said
}

/// Asks approvers as long as the hook waits. Its end says that the host does not need their word any more.
async fn permission_line(session: &Arc<Session>, line: &mut LineConnection, hook: &Hook) -> bool {
    // First: a notification of the same call may be waiting to know.
    session.permissions.hooked();
    hooks::answer(session, hook).await;
    let ended = tokio::select! {
        ended = ask_for(session, hook) => ended,
        _ = line.receive() => return false,
    };
    let mut reply = HookReply::default();
    match ended {
        Ended::Decided(decision) => {
            let message = (decision.behavior == Behavior::Deny).then(|| ask::denial(&decision));
            reply.permission = Some(Permission { behavior: decision.behavior, message });
        }
        Ended::Open(notice) => reply.notice = notice,
    }
    line.send(&Reply::Hook(reply)).await
}

async fn ask_for(session: &Arc<Session>, hook: &Hook) -> Ended {
    let (Some(tool), Some(input)) = (&hook.tool_name, &hook.tool_input) else { return Ended::Open(None) };
    let call = Call {
        tool: tool.clone(),
        preview: preview::of_input(input),
        digest: wire::digest(tool, input),
        id: None,
        source: RequestSource::Hook,
    };
    ask::ask(session, call).await
}

/// Passes texts on until there are no more: once for a hook that ends with the first, for ever for a monitor.
async fn take(
    session: &Arc<Session>,
    line: &mut LineConnection,
    mut texts: mpsc::Receiver<WakeText>,
    once: bool,
) -> bool {
    let stop = session.stopped();
    loop {
        let text_to_wake = tokio::select! {
            text_to_wake = texts.recv() => text_to_wake,
            // The process is gone, or says something that it has no reason to say.
            _ = line.receive() => return false,
            () = stop.cancelled() => None,
        };
        let Some(WakeText { text, printed }) = text_to_wake else {
            line.send(&Reply::End).await;
            return false;
        };
        if !line.send(&Reply::Wake { text }).await || !line.printed().await {
            return false;
        }
        let _ = printed.send(());
        if once {
            return false;
        }
    }
}

fn attach(session: &Arc<Session>, mesh_id: &str) -> Result<(JoinedMesh, Attached), String> {
    let bound = session.meshes().into_iter().find(|bound| bound.tag.id == mesh_id);
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
async fn forward(session: &Session, bound: &JoinedMesh, frame: &str) -> Option<String> {
    let head = Head::read(frame).ok()?;
    let req_id = head.req_id.as_deref().map(str::to_owned);
    let mut message = match ClientMessage::read(&head, frame) {
        Ok(message) => message,
        Err(error) => return Some(refusal(ErrorCode::UnknownType, error.to_string(), req_id.as_deref())),
    };
    session.note_own_write(&message);
    bound.connection.note_groups(&message);
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
    let limit = match &message {
        // The user of a peer may have to decide.
        ClientMessage::PeerFiles(_) => LONGEST,
        _ => crate::connection::SEND_TIMEOUT,
    };
    let answer = bound.connection.call(message, limit).await;
    if pulls {
        // Who pulls reads the inbox next: what came must be in it, and what is not theirs taken out.
        bound.connection.mail_stored().await;
        if let Err(error) = session.admit(bound).await {
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
