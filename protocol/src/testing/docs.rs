//! The generated reference pages: `docs/errors.md` from the table of codes, `docs/wire.md` from the tag tables and the
//! samples. `cargo xtask docs` writes them, a test compares them.

use std::fmt::Write;

use super::{client_samples, http_samples, server_samples};
use crate::capability::Capability;
use crate::error::ErrorCode;
use crate::message::{ClientMessage, ServerMessage};

const GENERATED: &str = "<!-- Generated from the protocol crate by `cargo xtask docs`; edit the code instead. -->\n\n";

/// Every generated page: path under the repository's root, content.
pub fn pages() -> Vec<(&'static str, String)> {
    vec![("docs/errors.md", errors()), ("docs/wire.md", wire())]
}

/// `docs/errors.md`.
#[expect(clippy::expect_used, reason = "for tests and pages only")]
pub fn errors() -> String {
    let mut page = String::from("# Error codes\n\n");
    page += GENERATED;
    page += "A failed frame is answered with `{\"type\":\"error\",\"code\":…,\"message\":…}` and the request's `_reqId` (and \
        `id`, when it had one). HTTP routes answer with the status below and `{\"ok\":false,\"error\":<code>,\"message\":…}`. \
        Branch on the code and show the message. Codes are added, never renamed or reused.\n\n\
        `retry` says whether the same request may succeed later; `retry_after_ms` in the answer says when.\n\n\
        | Code | Class | HTTP | Retry | Meaning |\n|---|---|---|---|---|\n";
    for code in ErrorCode::ALL {
        let class = serde_json::to_value(code.class()).expect("a unit variant serialises");
        let class = class.as_str().unwrap_or_default().to_owned();
        let retry = if code.retryable() { "yes" } else { "no" };
        line(
            &mut page,
            format_args!("| `{}` | {class} | {} | {retry} | {} |", code.as_str(), code.http_status(), code.doc()),
        );
    }
    page
}

/// `docs/wire.md`.
pub fn wire() -> String {
    let mut page = String::from("# The wire\n\n");
    page += GENERATED;
    page += INTRODUCTION;
    page += "## Requests\n\nA request without an answer of its own is answered with `done` when it carries `confirm:true`. `needs` names the \
        capability that the caller must have. A repeatable request may be sent again when its answer was lost: asking twice \
        does no more than asking once.\n\n\
        | Message | Feature | Answer | Needs | Repeatable | What it does |\n|---|---|---|---|---|---|\n";
    for (feature, row) in ClientMessage::rows() {
        let answer = if row.silent { "- (`done` with `confirm`)".to_owned() } else { format!("`{}`", row.answer) };
        let needs = row.needs.map_or("-".to_owned(), |needs| format!("`{}`", needs.as_str()));
        let repeatable = if row.repeatable { "yes" } else { "no" };
        let (tag, doc) = (row.tag, row.doc.trim());
        line(
            &mut page,
            format_args!("| `{tag}` | {} | {answer} | {needs} | {repeatable} | {doc} |", feature.to_lowercase()),
        );
    }
    page += "\n## Capabilities\n\n| Capability | What it allows |\n|---|---|\n";
    for capability in Capability::ALL {
        line(&mut page, format_args!("| `{}` | {} |", capability.as_str(), capability.doc()));
    }
    page += "\n## Examples: client to broker\n\n";
    examples(&mut page, client_samples().into_iter().map(|(name, message)| (name, message.write(None))));
    page += "\n## Examples: broker to client\n\n";
    examples(&mut page, server_samples().into_iter().map(|(name, message)| (name, message.write(None))));
    page += "\n## HTTP bodies\n\n";
    page += HTTP;
    examples(
        &mut page,
        http_samples().into_iter().map(|(route, what, body)| (format!("{route} ({what})"), body.to_string())),
    );
    page += "\n## Limits\n\nNamed and explained in `protocol/src/limits.rs`; what an operator can change is in \
        `deploy/broker.example.toml`.\n";
    let answers = ServerMessage::tags().iter().map(|(tag, _)| format!("`{tag}`")).collect::<Vec<_>>().join(", ");
    line(&mut page, format_args!("\n## Every message the broker sends\n\n{answers}."));
    page
}

const INTRODUCTION: &str = "One JSON object per WebSocket text message on `/ws`. `type` names the message, the other fields lie \
beside it. Unknown fields are ignored, an unknown `type` is answered with `unknown_message_type`. Any request may carry \
`_reqId` (a text of at most 128 characters); its answer carries the same one. `send` is answered by an `ack` with the same \
`id` instead. Times are ISO-8601 UTC with milliseconds unless the name ends in `_ms`. Keys and signatures are lower-case hex, \
message bodies standard base64 with padding, invite material base64url without padding. An absent field is not written; \
`null` is written where it has a meaning.

The first frame must be `hello` or `session_hello`, within 10 seconds. `hello_ack` comes before the first push. A refused \
hello is answered with `error`, then the socket closes: 1008 with the code as reason, 4002 for a banned member (reason `banned`) or one that was removed or has left (`removed`). Other close \
codes: 1000 `session_replaced` (the same session connected again) or `disconnected`, 1001 (the broker is draining), \
1009 (frame over the size limit), 4001 (kicked).

";

const HTTP: &str = "Who changes something signs it: headers `X-Claudemesh-Key` (public key), `X-Claudemesh-Timestamp` (Unix ms), \
`X-Claudemesh-Signature` (lower-case hex) over `claudemesh-http|<METHOD>|<path and query>|<timestamp>|<sha256 of the body>`. \
The timestamp may be 60 seconds off; a signature is accepted once.

";

fn examples(page: &mut String, samples: impl Iterator<Item = (String, String)>) {
    for (name, text) in samples {
        line(page, format_args!("`{name}`\n\n```json\n{text}\n```\n"));
    }
}

#[expect(clippy::expect_used, reason = "for tests and pages only")]
fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a String cannot fail");
}
