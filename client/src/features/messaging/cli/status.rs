//! `msg-status`: how far a message got.

use claudemesh_protocol::features::messaging::{MessageStatusResult, Stage};
use claudemesh_protocol::id::PublicKey;

use super::args::MsgStatusArgs;
use crate::clock::shown;
use crate::context::Context;
use crate::context::connect;
use crate::error::{CliError, ExitCode};
use crate::features::messaging::place;
use crate::output::{Output, Style, clean};
use crate::verb::shape::InMesh;

/// Runs `msg-status`: the mesh of the message is looked for in all meshes that the call is about.
///
/// # Errors
/// Exit 3 `invalid_argument` or `ambiguous_prefix`, 5 `not_found`, or of the connection.
pub(super) fn msg_status(cx: &Context, args: &MsgStatusArgs) -> Result<(), CliError> {
    let id = args.id.trim();
    if !(8..=64).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        let error = CliError::new(ExitCode::InvalidArgs, "invalid_argument", "That is not a message id.");
        return Err(error
            .hint("Ids are printed by `claudemesh send`; 8 characters are enough.")
            .field("field", "id")
            .field("code", "bad_shape")
            .field("reason", "an id has 8 to 32 letters and digits")
            .field("expected", "^[A-Za-z0-9]{8,32}$"));
    }
    let mut last = None;
    for entry in cx.mesh_entries()? {
        match connect::ask(cx, &entry, |connection| async move { Ok(connection.message_status(id).await?) }) {
            Err(error) if error.exit == ExitCode::NotFound => last = Some(error),
            Err(error) => return Err(error),
            Ok(status) => {
                return cx.out.answer(&InMesh::new(&entry.slug, &status), |out| status_text(&status, out));
            }
        }
    }
    let error = last.unwrap_or_else(|| CliError::not_found("There is no such message."));
    let error =
        if error.hint.is_none() { error.hint("`claudemesh sent` lists your messages with their ids.") } else { error };
    Err(error.field("id", id).field("isPrefix", id.len() < 32))
}

fn status_text(status: &MessageStatusResult, out: &Output) -> String {
    let stage = status.stage.map_or(if status.delivered { "delivered" } else { "waiting" }, Stage::as_str);
    let mut text = format!("{} → {}: {stage}\n", clean(&status.message_id), target_text(status));
    for recipient in &status.recipients {
        // The ladder has the words; where it has none, the state is all there is to say.
        let step = recipient.stage.map_or_else(|| clean(&recipient.status).into_owned(), |stage| stage.as_str().into());
        let route = recipient.route.as_deref().map(|route| format!(" by {}", clean(route))).unwrap_or_default();
        let at = recipient.stage_at.as_deref().map(|at| format!(", {}", shown(at))).unwrap_or_default();
        let key: String = recipient.pubkey.chars().take(12).collect();
        let dot = out.paint(if recipient.status == "delivered" { Style::Green } else { Style::Dim }, "●");
        let place = place(recipient).map(|place| format!(", {}", clean(&place))).unwrap_or_default();
        let name = recipient.address();
        text += &format!("  {dot} {} ({key}{place}) {step}{route}{at}\n", clean(&name));
    }
    text
}

/// Who a message was for, in the words that one would write: names for keys, and one name for the keys of one peer.
fn target_text(status: &MessageStatusResult) -> String {
    // Several targets come as a JSON array; an answer goes to a member and to its session, which are one peer.
    let parts =
        serde_json::from_str::<Vec<String>>(&status.target_spec).unwrap_or_else(|_| vec![status.target_spec.clone()]);
    let mut names: Vec<String> = vec![];
    for part in &parts {
        let name = match PublicKey::parse(part) {
            None => clean(part).into_owned(),
            Some(key) => {
                let known = status.recipients.iter().find(|one| one.pubkey == *part && !one.name.is_empty());
                match (known, status.recipients.as_slice()) {
                    (Some(one), _) => clean(&one.address()).into_owned(),
                    // The member of the one session that got it.
                    (None, [only]) if !only.name.is_empty() => {
                        clean(only.member_name.as_deref().unwrap_or(&only.name)).into_owned()
                    }
                    (None, _) => key.short(),
                }
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
