//! The only file that touches `actix-web-actors`, so that the crate can be replaced here.
//!
//! Its context is polled by the HTTP connection: a socket that cannot be written stops the session's mailbox, `try_send`
//! answers `Full`, and that is the back-pressure signal of the mesh.

use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Handler, Recipient, SpawnHandle, StreamHandler};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use bytestring::ByteString;
use claudemesh_protocol::limits;

use super::{CloseReason, Out, PeerSession, SessionDeps};

/// Frames that may wait for one socket. Beyond it durable messages stay in storage and events are dropped.
const MAILBOX: usize = 512;

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
    deps: SessionDeps,
) -> Result<HttpResponse, actix_web::Error> {
    ws::WsResponseBuilder::new(PeerSession::new(deps), request, payload)
        .codec(actix_http::ws::Codec::new().max_size(limits::MAX_FRAME_BYTES))
        .start()
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
                self.heard(true);
                ctx.pong(&payload);
            }
            Ok(ws::Message::Pong(_)) => self.heard(true),
            Ok(ws::Message::Close(reason)) => {
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
