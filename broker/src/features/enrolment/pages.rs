//! What a person sees who opens an invite link in a browser: the command that uses it.
//!
//! The pages say nothing that is not in the link: a code is neither looked up nor expanded, so guessing codes here tells
//! nothing.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::http::{Links, html};
use crate::http::State;

/// `GET /i/{code}`
pub(super) async fn code(request: HttpRequest, state: State, path: web::Path<String>) -> HttpResponse {
    let code = path.into_inner();
    let fine = (6..=16).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fine { page(&Links::of(&state, &request).invite(&code)) } else { not_a_link() }
}

/// `GET /join/{token}`
pub(super) async fn token(request: HttpRequest, state: State, path: web::Path<String>) -> HttpResponse {
    let token = path.into_inner();
    let fine = (20..=4_096).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if fine { page(&Links::of(&state, &request).token(&token)) } else { not_a_link() }
}

fn page(link: &str) -> HttpResponse {
    let link = escape(link);
    frame(
        StatusCode::OK,
        "You are invited to a mesh",
        &format!(
            "<p>A mesh lets Claude Code sessions find each other, exchange encrypted messages and work as one team.</p>\
             <h2>1. Get the program</h2>\
             <p>If <code>claudemesh --version</code> prints a version, you have it. Otherwise install a release \
             (<code>install.sh</code>, the Debian package or the npm package; ask the person who sent you this link where it is), or \
             build it from its source (Rust 1.89 or later and a C compiler):</p>\
             <pre>cargo install --locked --path client</pre>\
             <p>Then <code>claudemesh install</code> connects it to Claude Code.</p>\
             <h2>2. Join</h2>\
             <p>Run this in a terminal, with your own name:</p>\
             <pre>claudemesh join {link} --name \"Your name\"</pre>\
             <p><code>claudemesh launch</code> starts a session in the mesh, and <code>claudemesh peers</code> shows \
             who is there. Anyone with this link can join, so treat it like a password.</p>"
        ),
    )
}

fn not_a_link() -> HttpResponse {
    let text = "<p>This is not an invite link. Ask for the link again, it may have been cut off.</p>";
    frame(StatusCode::NOT_FOUND, "Not an invite", text)
}

fn frame(status: StatusCode, title: &str, body: &str) -> HttpResponse {
    html(
        status,
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>\
             body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}}\
             pre{{background:#f3f3f3;color:#111;padding:1rem;overflow-x:auto}}</style></head>\
             <body><h1>{title}</h1>{body}</body></html>"
        ),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
