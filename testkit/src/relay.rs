//! The ceiling: every frame passes through one actor to the connection that its first four digits name, or with `back` in
//! their place to the one it came from, on the broker's HTTP and websocket stack.
//!
//! What the broker does per frame beyond this (decode, route, store, answer) is its own cost.

use std::net::SocketAddr;
use std::time::Duration;

use actix::prelude::*;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_web_actors::ws;
use bytes::Bytes;

/// Serves `/ws` until the process ends; calls `ready` with the address.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: &str, workers: usize, ready: impl FnOnce(SocketAddr)) -> std::io::Result<()> {
    let relay = Relay::default().start();
    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(relay.clone())).route("/ws", web::get().to(connect))
    })
    .workers(workers)
    .bind(address)?;
    if let Some(address) = server.addrs().first() {
        ready(*address);
    }
    server.run().await
}

async fn connect(
    request: HttpRequest,
    body: web::Payload,
    relay: web::Data<Addr<Relay>>,
) -> actix_web::Result<HttpResponse> {
    ws::WsResponseBuilder::new(Session { relay: (**relay).clone(), own: None }, &request, body)
        .frame_size(1 << 20)
        .start()
}

/// The one actor: connections in the order of their arrival.
#[derive(Default)]
struct Relay {
    sessions: Vec<Recipient<Outbound>>,
}

impl Actor for Relay {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(8192);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Join(Recipient<Outbound>);

#[derive(Message)]
#[rtype(result = "()")]
struct Inbound(Bytes, Option<Recipient<Outbound>>);

#[derive(Message)]
#[rtype(result = "()")]
struct Outbound(Bytes);

impl Handler<Join> for Relay {
    type Result = ();

    fn handle(&mut self, Join(session): Join, _: &mut Self::Context) {
        self.sessions.push(session);
    }
}

impl Handler<Inbound> for Relay {
    type Result = ();

    fn handle(&mut self, Inbound(frame, from): Inbound, _: &mut Self::Context) {
        if let Some(session) = from {
            session.try_send(Outbound(frame)).ok();
            return;
        }
        let digits = frame.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
        let index = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        if let Some(session) = index.and_then(|index| self.sessions.get(index)) {
            // The mailboxes hold more than all windows together, so none of them is ever full.
            session.try_send(Outbound(frame)).ok();
        }
    }
}

struct Session {
    relay: Addr<Relay>,
    own: Option<Recipient<Outbound>>,
}

impl Actor for Session {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(8192);
        self.own = Some(ctx.address().recipient());
        self.relay.try_send(Join(ctx.address().recipient())).ok();
    }
}

impl Handler<Outbound> for Session {
    type Result = ();

    fn handle(&mut self, Outbound(frame): Outbound, ctx: &mut Self::Context) {
        ctx.text(bytestring::ByteString::try_from(frame).unwrap_or_default());
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Session {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Text(text)) => {
                let from = if text.starts_with("back") { self.own.clone() } else { None };
                let inbound = Inbound(text.into_bytes(), from);
                if let Err(SendError::Full(inbound)) = self.relay.try_send(inbound) {
                    let (relay, retry) = (self.relay.clone(), Duration::from_micros(200));
                    ctx.run_later(retry, move |_, _| {
                        relay.try_send(inbound).ok();
                    });
                }
            }
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Err(_) => ctx.stop(),
            Ok(_) => {}
        }
    }
}
