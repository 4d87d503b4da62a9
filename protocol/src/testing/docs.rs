//! The generated reference pages: `docs/errors.md` from the table of codes, `docs/wire.md` from the tag tables and the
//! samples. `cargo xtask docs` writes them, a test compares them.

use std::fmt::Write;

use super::{client_samples, http_samples, server_samples};
use crate::error::ErrorCode;
use crate::message::{ClientMessage, ServerMessage};

const GENERATED: &str = "<!-- Generated from the protocol crate by `cargo xtask docs`; edit the code instead. -->\n\n";

/// Every generated page: path under the repository's root, content.
pub fn pages() -> Vec<(&'static str, String)> {
    vec![("docs/errors.md", errors()), ("docs/wire.md", wire())]
}

/// What a request is answered with, and what it does, by tag. Pushes and answers have no entry: their request explains them.
pub const REQUESTS: &[(&str, &str, &str)] = &[
    ("send", "ack", "One message to a key, a name, a group, a topic, everyone, or several of them."),
    ("client_ack", "-", "The client has these messages, or knows more about them; until then they come again."),
    ("message_status", "message_status_result", "What became of a message; senders and recipients only."),
    ("inbox_pull", "inbox_pull_result", "Push what waits although its priority or my status holds it."),
    ("resolve_target", "resolve_target_result", "Whom a name, key or prefix means."),
    ("echo", "echo_result", "The way to the broker and back, without bothering a peer."),
    (
        "set_status",
        "- (`presence_ack` with `confirm`)",
        "`idle`, `working` or `dnd`; becoming idle releases what was held.",
    ),
    ("set_summary", "- (`presence_ack` with `confirm`)", "What the session works on."),
    ("set_stats", "-", "Replaces the session's counters."),
    ("set_visible", "ack", "Hides the session from lists and audiences, or shows it."),
    ("set_profile", "ack", "Merges avatar, title, bio and capabilities; an empty value clears."),
    ("list_peers", "peers_list", "Who is there, oldest connection first."),
    ("join_group", "- (`presence_ack` with `confirm`)", "Adds the session to a group, or changes its role there."),
    ("leave_group", "- (`presence_ack` with `confirm`)", "Removes the session from a group."),
    ("topic_create", "topic_created", "Creates a topic, or finds it."),
    ("topic_list", "topic_list_response", "Topics that the caller may see."),
    ("topic_join", "- (`error` on failure)", "Subscribes the member."),
    ("topic_leave", "- (`error` on failure)", "Ends the subscription."),
    ("topic_members", "topic_members_response", "Subscribers, in joining order."),
    ("topic_history", "topic_history_response", "Messages of a topic, newest first."),
    ("topic_mark_read", "- (`error` on failure)", "Moves the member's cursor to now."),
    ("mesh_info", "mesh_info_result", "One look at the whole mesh."),
    ("disconnect", "disconnect_ack", "Owner or admin: closes connections; clients come back."),
    ("kick", "kick_ack", "Owner or admin: closes connections; clients stay away until they are started again."),
    ("ban", "ban_ack", "Owner or admin: revokes a member until `unban`."),
    ("unban", "unban_ack", "Owner or admin: lifts a ban."),
    ("list_bans", "list_bans_result", "Banned members, oldest ban first."),
    ("hello", "hello_ack", "First frame of a connection that the member key vouches for."),
    (
        "session_hello",
        "hello_ack",
        "First frame of a connection whose session key is proven and attested by the member.",
    ),
];

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
    page += "## Requests\n\n| Message | Feature | Answer | What it does |\n|---|---|---|---|\n";
    for (tag, feature) in ClientMessage::tags() {
        let (_, answer, what) = REQUESTS.iter().find(|(own, ..)| *own == tag).unwrap_or(&("", "?", "?"));
        let answer = if answer.starts_with('-') { (*answer).to_owned() } else { format!("`{answer}`") };
        line(&mut page, format_args!("| `{tag}` | {} | {answer} | {what} |", feature.to_lowercase()));
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
hello is answered with `error`, then the socket closes: 1008 with the code as reason, 4002 for a banned member. Other close \
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
