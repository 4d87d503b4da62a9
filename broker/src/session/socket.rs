//! The only file that touches `actix-web-actors`, so that the crate can be replaced here.
//!
//! Its context is polled by the HTTP connection: a socket that cannot be written stops the session's mailbox, `try_send`
//! answers `Full`, and that is the back-pressure signal of the mesh.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Handler, Recipient, SpawnHandle, StreamHandler};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use bytes::Bytes;
use bytestring::ByteString;
use claudemesh_protocol::limits;
use futures_util::Stream;

use super::frames::{FrameLimit, FrameSizeGuard};
use super::queue::SendQueue;
use super::{CloseReason, Out, PeerSession, SessionDeps};

/// Notices that may wait for one socket: that there are frames, and to close.
pub(crate) const MAILBOX: usize = 16;
/// Bytes handed to the HTTP server at once. It takes more as soon as less than 32 KiB are unwritten, and copies what it
/// takes into a buffer that never shrinks.
const PIECE: usize = 32 * 1024;

/// What a session may do with its socket.
pub type SocketContext = ws::WebsocketContext<PeerSession>;

/// Verbs on the socket, so that the session does not name the crate.
pub trait Socket {
    /// Closes after everything that was written before.
    fn end_with(&mut self, reason: CloseReason);
    /// Address for the mesh.
    fn recipient(&self) -> Recipient<Out>;
    /// Stops reading and the mailbox until the future is done.
    fn wait_for<F>(&mut self, future: F)
    where
        F: ActorFuture<PeerSession, Output = ()> + 'static;
    /// Forgets a spawned future.
    fn cancel(&mut self, handle: SpawnHandle);
}

impl Socket for SocketContext {
    fn end_with(&mut self, reason: CloseReason) {
        let (code, text) = reason.parts();
        Self::close(self, Some(ws::CloseReason { code: code.into(), description: Some(text.into()) }));
        self.stop();
    }

    fn recipient(&self) -> Recipient<Out> {
        self.address().recipient()
    }

    #[expect(clippy::disallowed_methods, reason = "a session may stop its own socket; only the mesh must not wait")]
    fn wait_for<F>(&mut self, future: F)
    where
        F: ActorFuture<PeerSession, Output = ()> + 'static,
    {
        self.wait(future);
    }

    fn cancel(&mut self, handle: SpawnHandle) {
        self.cancel_future(handle);
    }
}

/// Upgrades a request to a session.
///
/// # Errors
/// The request is no WebSocket upgrade.
pub fn upgrade(
    request: &HttpRequest,
    payload: web::Payload,
    deps: Arc<SessionDeps>,
    reached_at: Option<Arc<str>>,
) -> Result<HttpResponse, actix_web::Error> {
    let queue = Arc::<SendQueue>::default();
    let limit = FrameLimit::new(limits::MAX_HELLO_BYTES.into());
    let codec = actix_http::ws::Codec::new().max_size(limits::MAX_FRAME_BYTES);
    let announced = FrameSizeGuard::new(payload, Arc::clone(&limit));
    let session = PeerSession::new(deps, Arc::clone(&queue), limit, reached_at);
    let frames = ws::WebsocketContext::with_codec(session, announced, codec);
    Ok(ws::handshake(request)?.streaming(MeteredStream::new(frames, queue)))
}

/// Hands the encoded frames over in pieces, and says when they have left.
struct MeteredStream<S> {
    frames: Pin<Box<S>>,
    chunk: Bytes,
    queue: Arc<SendQueue>,
    /// Everything is handed over, and the peer is done, too.
    over: bool,
}

impl<S> MeteredStream<S> {
    fn new(frames: S, queue: Arc<SendQueue>) -> Self {
        Self { frames: Box::pin(frames), chunk: Bytes::new(), queue, over: false }
    }
}

impl<S: Stream<Item = Result<Bytes, actix_web::Error>>> Stream for MeteredStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            // The HTTP server reads for up to a second after a response whose request it has not seen the end of, and a WebSocket's
            // request has none. A peer that is done sends nothing more and waits for the end: a stream that breaks off ends at once.
            return Poll::Ready(Some(Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into())));
        }
        if self.chunk.is_empty() {
            // To be asked for more is the sign that the last piece was written, but for what the server's buffer holds.
            self.queue.mark_written();
            match ready!(self.frames.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                None if self.queue.peer_is_done() => {
                    // The server writes what it has before it asks again.
                    self.over = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                end => return Poll::Ready(end),
            }
        }
        let bytes = self.chunk.len().min(PIECE);
        Poll::Ready(Some(Ok(self.chunk.split_to(bytes))))
    }
}

impl Actor for PeerSession {
    type Context = SocketContext;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.opened(ctx);
        ctx.run_interval(limits::PING_INTERVAL, |session, ctx| {
            if session.is_stale() {
                ctx.terminate();
            } else {
                ctx.ping(b"");
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.closed();
    }
}

impl Handler<Out> for PeerSession {
    type Result = ();

    fn handle(&mut self, out: Out, ctx: &mut Self::Context) {
        self.out(out, ctx);
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for PeerSession {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Text(text)) => self.frame(&text, ctx),
            // Older clients may send binary frames with the same JSON.
            Ok(ws::Message::Binary(bytes)) => match ByteString::try_from(bytes) {
                Ok(text) => self.frame(&text, ctx),
                Err(_) => self.not_text(ctx),
            },
            Ok(ws::Message::Ping(payload)) => {
                self.note_activity(true);
                ctx.pong(&payload);
            }
            Ok(ws::Message::Pong(_)) => self.note_activity(true),
            Ok(ws::Message::Close(reason)) => {
                self.peer_is_done();
                ws::WebsocketContext::close(ctx, reason);
                ctx.stop();
            }
            Ok(ws::Message::Continuation(item)) => {
                use actix_http::ws::Item;
                match item {
                    Item::FirstText(bytes) | Item::FirstBinary(bytes) => self.fragment(&bytes, true, false, ctx),
                    Item::Continue(bytes) => self.fragment(&bytes, false, false, ctx),
                    Item::Last(bytes) => self.fragment(&bytes, false, true, ctx),
                }
            }
            Ok(ws::Message::Nop) => {}
            Err(error) => {
                let (code, text) = match error {
                    ws::ProtocolError::Overflow => (ws::CloseCode::Size, "frame too large"),
                    _ => (ws::CloseCode::Protocol, "protocol error"),
                };
                ws::WebsocketContext::close(ctx, Some(ws::CloseReason { code, description: Some(text.into()) }));
                ctx.stop();
            }
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::limits::MAX_QUEUED_PUSH_BYTES;
    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::session::queue::PeerSender;

    struct Silent;

    impl Actor for Silent {
        type Context = actix::Context<Self>;
    }

    impl Handler<Out> for Silent {
        type Result = ();

        fn handle(&mut self, _: Out, _: &mut Self::Context) {}
    }

    /// Frames that were encoded count until the server asks for what comes after them, and it gets them in small pieces.
    #[actix_rt::test]
    async fn encoded_frames_are_held_until_the_server_has_taken_them() {
        let queue = Arc::<SendQueue>::default();
        let sender = PeerSender::new(Silent.start().recipient(), Arc::clone(&queue));
        let frame = ByteString::from("x".repeat(3 * PIECE));
        assert!(sender.push(frame.clone()));
        assert_eq!(queue.take(), std::slice::from_ref(&frame));
        let chunks = stream::iter([Ok(frame.clone().into_bytes()), Ok(Bytes::from_static(b"more"))]);
        let mut paced = MeteredStream::new(chunks, Arc::clone(&queue));
        paced.chunk = frame.into_bytes();
        for _ in 0..3 {
            let piece = paced.next().await.unwrap().unwrap();
            assert_eq!(piece.len(), PIECE);
            assert!(sender.held_bytes() > 3 * PIECE, "the server may not have written it");
            assert!(!sender.push("y".repeat(MAX_QUEUED_PUSH_BYTES - 3 * PIECE).into()));
        }
        let next = paced.next().await.unwrap().unwrap();
        assert_eq!(next.len(), PIECE);
        assert_eq!(sender.held_bytes(), 0);
    }

    /// An end that the peer has asked for breaks off, after the server was given the time to write; any other is an end.
    #[actix_rt::test]
    async fn a_stream_whose_peer_is_done_breaks_off_behind_its_last_frame() {
        for done in [false, true] {
            let queue = Arc::<SendQueue>::default();
            let frames = stream::iter([Ok(Bytes::from_static(b"goodbye"))]);
            let mut stream = MeteredStream::new(frames, Arc::clone(&queue));
            if done {
                queue.note_goodbye();
            }
            assert_eq!(stream.next().await.unwrap().unwrap(), "goodbye");
            let mut polls = 0;
            let end = std::future::poll_fn(|cx| {
                polls += 1;
                Pin::new(&mut stream).poll_next(cx)
            });
            assert_eq!((end.await.is_some_and(|end| end.is_err()), polls), (done, if done { 2 } else { 1 }));
        }
    }
}
