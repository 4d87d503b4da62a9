//! [`PeerSession`]: the actor behind one socket. It decodes, checks the hello, limits, and forwards to the mesh.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::prelude::SendError;
use actix::{ActorFutureExt, Addr, AsyncContext, SpawnHandle, WrapFuture};
use bytestring::ByteString;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::limits;
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use claudemesh_protocol::session::Request as SessionRequest;
use claudemesh_protocol::time::skew_words;

use super::bucket::Bucket;
use super::frames::FrameLimit;
use super::hello::{self, SeenHellos};
use super::queue::{PeerSender, SendQueue};
use super::socket::{Socket, SocketContext};
use super::{CloseReason, Out};
use crate::clock::SharedClock;
use crate::config::Limits;
use crate::mesh::actor::Mesh;
use crate::mesh::directory::Directory;
use crate::mesh::messages::{Attach, ClientFrame, Detach, Heartbeat, Inbound};
use crate::mesh::peers::PeerHandle;
use crate::metrics::METRICS;
use crate::open_connections::{OpenConnections, OpenGuard};
use crate::refusal::Refusal;

/// Frames of one socket travel to the mesh together up to so many bytes.
const MAX_TOGETHER_BYTES: usize = 64 * 1024;

/// What every session of a broker shares: once in memory, however many sockets are open.
pub struct SessionDeps {
    /// Finds meshes.
    pub directory: Directory,
    /// Time.
    pub clock: SharedClock,
    /// Rate limits in force.
    pub limits: Limits,
    /// Sockets that have not said hello.
    pub pending: AtomicUsize,
    /// Numbers sockets.
    pub next_socket: AtomicUsize,
    /// Proofs of session keys that were used.
    pub seen_hellos: SeenHellos,
    /// What is open, so that a drain knows when it is done.
    pub traffic: OpenConnections,
}

enum State {
    /// Waiting for the first frame.
    Fresh,
    /// A hello is being checked.
    Joining,
    /// Attached.
    Attached { mesh: Addr<Mesh>, peer: PeerHandle },
    /// Closing; frames are ignored.
    Closing,
}

/// The actor behind one socket.
pub struct PeerSession {
    deps: Arc<SessionDeps>,
    state: State,
    socket_no: u64,
    heard_mono_ms: i64,
    beat: HeartbeatThrottle,
    frames: Bucket,
    bad_frames: u32,
    counted_pending: bool,
    deadline: Option<SpawnHandle>,
    fragments: Vec<u8>,
    frame_limit: FrameLimit,
    /// Frames that were read in this turn, for the mesh.
    asked: Vec<ClientFrame>,
    asked_bytes: usize,
    queue: Arc<SendQueue>,
    reached_at: Option<Arc<str>>,
    _open: OpenGuard,
}

impl PeerSession {
    /// A session for a socket that was just upgraded; what is held for it is counted in `queue`, and `frame_limit` is raised once
    /// it is known whose it is. The client reached the broker at `reached_at` (`http://host`).
    pub fn new(
        deps: Arc<SessionDeps>,
        queue: Arc<SendQueue>,
        frame_limit: FrameLimit,
        reached_at: Option<Arc<str>>,
    ) -> Self {
        deps.pending.fetch_add(1, Ordering::Relaxed);
        METRICS.connections_pending.inc();
        let socket_no = deps.next_socket.fetch_add(1, Ordering::Relaxed) as u64;
        let now = deps.clock.mono_ms();
        Self {
            frames: Bucket::full(deps.limits.frames_per_second.saturating_mul(4), now),
            _open: deps.traffic.enter(),
            deps,
            state: State::Fresh,
            socket_no,
            heard_mono_ms: now,
            beat: HeartbeatThrottle::default(),
            bad_frames: 0,
            counted_pending: true,
            deadline: None,
            fragments: Vec::new(),
            frame_limit,
            asked: Vec::new(),
            asked_bytes: 0,
            queue,
            reached_at,
        }
    }

    /// The socket is open.
    pub fn opened(&mut self, ctx: &mut SocketContext) {
        let clock = self.deps.clock.clone();
        let at = clock.mono_ms() + i64::try_from(limits::FIRST_FRAME_DEADLINE.as_millis()).unwrap_or(i64::MAX);
        let deadline = ctx.spawn(clock.sleep_until(at).into_actor(self).map(|(), session, ctx| {
            if matches!(session.state, State::Fresh) {
                session.refuse(ErrorCode::HelloTimeout, ctx);
            }
        }));
        self.deadline = Some(deadline);
    }

    /// The socket is gone.
    pub fn closed(&mut self) {
        self.settle_pending();
        if let State::Attached { mesh, peer } = std::mem::replace(&mut self.state, State::Closing) {
            let socket_no = self.socket_no;
            let frames = std::mem::take(&mut self.asked);
            // In the mailbox before the peer hears that its connection has ended.
            let inbound = (!frames.is_empty()).then(|| mesh.try_send(Inbound { peer, socket_no, frames }));
            let inbound = if let Some(Err(SendError::Full(inbound))) = inbound { Some(inbound) } else { None };
            if inbound.is_none() && !matches!(mesh.try_send(Detach { peer, socket_no }), Err(SendError::Full(_))) {
                return;
            }
            // The mailbox being full must not lose the news: wait for a place outside this dying context.
            actix_rt::spawn(async move {
                if let Some(inbound) = inbound {
                    let _ = mesh.send(inbound).await;
                }
                let _ = mesh.send(Detach { peer, socket_no }).await;
            });
        }
    }

    /// The peer has closed its side of the connection.
    pub fn peer_is_done(&self) {
        self.queue.note_goodbye();
    }

    /// Any sign of life, pongs included.
    pub fn note_activity(&mut self, pong: bool) {
        self.heard_mono_ms = self.deps.clock.mono_ms();
        if pong
            && let State::Attached { mesh, peer } = &self.state
            && self.beat.is_due(self.heard_mono_ms)
        {
            // Losing one of these is harmless: the next frame or pong says the same.
            let _ = mesh.try_send(Heartbeat { peer: *peer, socket_no: self.socket_no });
        }
    }

    /// Whether the peer was silent for too long.
    pub fn is_stale(&self) -> bool {
        let stale = i64::try_from(limits::STALE_AFTER.as_millis()).unwrap_or(i64::MAX);
        self.deps.clock.mono_ms() - self.heard_mono_ms >= stale
    }

    /// One text frame.
    pub fn frame(&mut self, text: &ByteString, ctx: &mut SocketContext) {
        self.note_activity(false);
        if matches!(self.state, State::Closing) {
            return;
        }
        let head = match Head::read(text) {
            Ok(head) => head,
            Err(_) => {
                return self.reject_frame(ErrorCode::BadJson, "expected one JSON object per frame", None, None, ctx);
            }
        };
        let (rate, now) = (self.deps.limits.frames_per_second, self.heard_mono_ms);
        if let Err(wait) = self.frames.take(rate, 1_000, rate.saturating_mul(4), now) {
            let mut frame = ErrorFrame::new(ErrorCode::RateLimited, "too many frames on this connection");
            frame.retry_after_ms = Some(wait);
            frame.id = bounded(head.id).as_deref().map(str::to_owned);
            let req_id = bounded(head.req_id);
            METRICS.frames.refused("session", "limited");
            return ctx.text(ServerMessage::from(frame).write(req_id.as_deref()));
        }
        let message = ClientMessage::read(&head, text);
        if contains_nul(text) {
            let (req_id, id) = (bounded(head.req_id), bounded(head.id));
            return self.reject_frame(ErrorCode::InvalidArgs, "expected texts without NUL characters", req_id, id, ctx);
        }
        let (req_id, id, confirm) = (bounded(head.req_id), bounded(head.id), head.confirm);
        let message = match message {
            Ok(message) => message,
            Err(error) if matches!(self.state, State::Fresh) && is_hello(head.tag.as_deref()) => {
                METRICS.connections_rejected.with_label_values(&[ErrorCode::Malformed.as_str()]).inc();
                let id = id.as_deref().map(str::to_owned);
                let frame = ErrorFrame { id, ..ErrorFrame::new(ErrorCode::Malformed, error.to_string()) };
                ctx.text(ServerMessage::from(frame).write(req_id.as_deref()));
                return self.end(CloseReason::Refused(ErrorCode::Malformed.as_str()), ctx);
            }
            Err(error) => {
                // Before a hello, anything else gets `no_hello`, as older brokers answer.
                let code = if matches!(self.state, State::Fresh) { ErrorCode::NoHello } else { error.code() };
                return self.reject_frame(code, &error.to_string(), req_id, id, ctx);
            }
        };
        self.bad_frames = 0;
        match (&self.state, message) {
            (State::Fresh, ClientMessage::Session(request)) => self.hello(request, req_id, ctx),
            (State::Fresh, _) => self.reject_frame(ErrorCode::NoHello, "say hello first", req_id, id, ctx),
            (State::Joining, _) => {
                let id = id.as_deref().map(str::to_owned);
                let frame = ErrorFrame { id, ..ErrorFrame::new(ErrorCode::NoHello, "wait for hello_ack") };
                ctx.text(ServerMessage::from(frame).write(req_id.as_deref()));
            }
            (State::Attached { .. }, message) => {
                // What is read in one turn goes to the mesh together; this runs when the turn's last frame was read.
                if self.asked.is_empty() {
                    ctx.spawn(actix::fut::ready(()).map(|(), session: &mut Self, ctx| session.forward_to_mesh(ctx)));
                }
                self.asked.push(ClientFrame { req_id, id, confirm, message });
                self.asked_bytes += text.len();
                if self.asked_bytes >= MAX_TOGETHER_BYTES {
                    self.forward_to_mesh(ctx);
                }
            }
            (State::Closing, _) => {}
        }
    }

    /// Hands the mesh what was read, in order.
    fn forward_to_mesh(&mut self, ctx: &mut SocketContext) {
        self.asked_bytes = 0;
        let frames = std::mem::take(&mut self.asked);
        let State::Attached { mesh, peer } = &self.state else { return };
        if frames.is_empty() {
            return;
        }
        match mesh.try_send(Inbound { peer: *peer, socket_no: self.socket_no, frames }) {
            Ok(()) => {}
            Err(actix::dev::SendError::Full(inbound)) => {
                // A busy mesh stops the reading of this socket until it has a place: back-pressure to the peer.
                let sending = mesh.send(inbound).into_actor(self).map(|sent, _, ctx| {
                    if sent.is_err() {
                        ctx.end_with(CloseReason::Restarting);
                    }
                });
                ctx.wait_for(sending);
            }
            Err(actix::dev::SendError::Closed(_)) => self.end(CloseReason::Restarting, ctx),
        }
    }

    /// One piece of a fragmented message; `last` completes it.
    pub fn fragment(&mut self, bytes: &[u8], first: bool, last: bool, ctx: &mut SocketContext) {
        if first {
            self.fragments.clear();
        }
        if self.fragments.len() + bytes.len() > self.frame_limit.load(Ordering::Relaxed) {
            self.fragments = Vec::new();
            return self.end(CloseReason::TooLarge, ctx);
        }
        self.fragments.extend_from_slice(bytes);
        if last {
            let whole = std::mem::take(&mut self.fragments);
            match String::from_utf8(whole) {
                Ok(text) => self.frame(&text.into(), ctx),
                Err(_) => self.not_text(ctx),
            }
        }
    }

    /// A message that is not UTF-8.
    pub fn not_text(&mut self, ctx: &mut SocketContext) {
        self.reject_frame(ErrorCode::BadJson, "expected UTF-8 text", None, None, ctx);
    }

    /// What the mesh hands over.
    pub fn out(&mut self, out: Out, ctx: &mut SocketContext) {
        match out {
            Out::Ready => {
                let frames = self.queue.take();
                match self.queue.closing() {
                    Some(reason) => self.end(reason, ctx),
                    None => frames.into_iter().for_each(|frame| ctx.text(frame)),
                }
            }
            Out::Close(reason) => self.end(reason, ctx),
        }
    }

    fn hello(&mut self, request: SessionRequest, req_id: Option<Arc<str>>, ctx: &mut SocketContext) {
        if let Some(deadline) = self.deadline.take() {
            ctx.cancel(deadline);
        }
        let (theirs_ms, now_ms) = (hello::timestamp_ms(&request), self.deps.clock.now_ms());
        let mut verified = match hello::verify(request, now_ms) {
            Ok(verified) => verified,
            Err(code @ ErrorCode::TimestampSkew) if theirs_ms.is_some() => {
                let words = skew_words(theirs_ms.unwrap_or_default(), now_ms);
                return self.refuse(Refusal::new(code, words), ctx);
            }
            Err(code) => return self.refuse(code, ctx),
        };
        if verified.proven && !self.deps.seen_hellos.first_time(&verified, self.deps.clock.mono_ms()) {
            return self.refuse(ErrorCode::Replayed, ctx);
        }
        hello::trim(&mut verified.description);
        self.state = State::Joining;
        let socket = PeerSender::new(ctx.recipient(), Arc::clone(&self.queue));
        let (directory, socket_no) = (self.deps.directory.clone(), self.socket_no);
        let attach = Attach { hello: verified, req_id, socket, socket_no, reached_at: self.reached_at.clone() };
        let joining = join(directory, attach).into_actor(self);
        let joined = joining.map(|joined, session, ctx| match joined {
            Ok((mesh, peer)) => {
                session.frame_limit.store(limits::MAX_FRAME_BYTES, Ordering::Relaxed);
                session.settle_pending();
                METRICS.connections.inc();
                if matches!(session.state, State::Joining) {
                    session.state = State::Attached { mesh, peer };
                } else {
                    session.state = State::Attached { mesh, peer };
                    session.closed();
                }
            }
            Err(refusal) => session.refuse(refusal, ctx),
        });
        ctx.wait_for(joined);
    }

    fn refuse(&mut self, refusal: impl Into<Refusal>, ctx: &mut SocketContext) {
        let refusal = refusal.into();
        let code = refusal.code;
        METRICS.connections_rejected.with_label_values(&[code.as_str()]).inc();
        ctx.text(ServerMessage::from(refusal.into_frame(None)).write(None));
        let reason = match code {
            ErrorCode::Revoked => CloseReason::Banned,
            ErrorCode::MemberRemoved => CloseReason::Removed,
            _ => CloseReason::Refused(code.as_str()),
        };
        self.end(reason, ctx);
    }

    fn reject_frame(
        &mut self,
        code: ErrorCode,
        message: &str,
        req_id: Option<Arc<str>>,
        id: Option<Arc<str>>,
        ctx: &mut SocketContext,
    ) {
        let id = id.as_deref().map(str::to_owned);
        METRICS.frames.refused("session", "bad");
        let frame = ErrorFrame { id, ..ErrorFrame::new(code, message) };
        ctx.text(ServerMessage::from(frame).write(req_id.as_deref()));
        self.bad_frames += 1;
        if self.bad_frames >= limits::MAX_BAD_FRAMES {
            self.end(CloseReason::Abusive, ctx);
        }
    }

    fn end(&mut self, reason: CloseReason, ctx: &mut SocketContext) {
        ctx.end_with(reason);
        self.closed();
    }

    fn settle_pending(&mut self) {
        if std::mem::take(&mut self.counted_pending) {
            self.deps.pending.fetch_sub(1, Ordering::Relaxed);
            METRICS.connections_pending.dec();
        }
    }
}

/// Signs of life that are passed on to the mesh: one a second says as much as a flood of them.
#[derive(Default)]
struct HeartbeatThrottle {
    last_mono_ms: Option<i64>,
}

impl HeartbeatThrottle {
    const EVERY_MS: i64 = 1_000;

    fn is_due(&mut self, mono_ms: i64) -> bool {
        let due = self.last_mono_ms.is_none_or(|last| mono_ms - last >= Self::EVERY_MS);
        if due {
            self.last_mono_ms = Some(mono_ms);
        }
        due
    }
}

/// Time between two attempts to join a mesh that is just leaving memory.
const JOIN_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// Finds the mesh and attaches; tries again when the mesh was just leaving memory.
async fn join(directory: Directory, attach: Attach) -> Result<(Addr<Mesh>, PeerHandle), Refusal> {
    let id = &attach.hello.mesh;
    for _ in 0..20 {
        let found = directory.get(id).await;
        let mesh = found.inspect_err(|refusal| refusal.log(Some(id), "hello"))?;
        match mesh.send(attach.clone()).await {
            Ok(Ok(peer)) => return Ok((mesh, peer)),
            Ok(Err(Some(code))) => return Err(code.into()),
            // The mesh is going to sleep or died: the directory starts it anew.
            Ok(Err(None)) | Err(_) => tokio::time::sleep(JOIN_AGAIN).await,
        }
    }
    Err(ErrorCode::Busy.into())
}

fn is_hello(tag: Option<&str>) -> bool {
    matches!(tag, Some("hello" | "session_hello"))
}

/// Whether some text of the frame holds U+0000, which PostgreSQL cannot store. Nearly every frame ends at the search.
fn contains_nul(text: &str) -> bool {
    // In JSON a backslash is always followed by what it escapes, so pairs are skipped as pairs. Nothing is parsed: a parser
    // gives up on deep values, and what it does not see would pass.
    let mut rest = text;
    while let Some((_, escaped)) = rest.split_once('\\') {
        if escaped.starts_with("u0000") {
            return true;
        }
        rest = escaped.get(1..).unwrap_or_default();
    }
    false
}

fn bounded(text: Option<std::borrow::Cow<'_, str>>) -> Option<Arc<str>> {
    text.map(|text| match text.char_indices().nth(limits::MAX_ID_CHARS) {
        Some((end, _)) => text[..end].into(),
        None => text.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::{HeartbeatThrottle, contains_nul};

    #[test]
    fn a_flood_of_pings_is_one_sign_of_life_a_second() {
        let mut beat = HeartbeatThrottle::default();
        let passed = (0..3_500).filter(|mono_ms| beat.is_due(*mono_ms)).count();
        assert_eq!(passed, 4);
        assert!(beat.is_due(75_000), "after a silence it is told at once");
    }

    #[test]
    fn nul_is_found_as_a_character_only() {
        assert!(contains_nul(r#"{"a":["x\u0000y"]}"#));
        assert!(contains_nul(r#"{"a\u0000":1}"#));
        assert!(contains_nul(r#"{"a":"\\\u0000"}"#), "a backslash, then the character");
        assert!(contains_nul(&format!("{{\"a\":\"\\u0000\",\"b\":{}{}}}", "[".repeat(500), "]".repeat(500))));
        assert!(!contains_nul(r#"{"a":"the text \\u0000 is harmless"}"#));
        assert!(!contains_nul(r#"{"a":"x"}"#));
    }
}
