//! `msg-status`: how far a message got.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{MessageStatusResult, Stage};
use claudemesh_protocol::id::PublicKey;

use schemars::JsonSchema;
use serde::Serialize;

use super::args::MsgStatusArgs;
use super::outbox::all as outboxes;
use crate::clock::shown;
use crate::context::Context;
use crate::context::connect;
use crate::context::several::Troubles;
use crate::error::{CliError, ExitCode};
use crate::features::messaging::outbox::Parcel;
use crate::features::messaging::place;
use crate::inbox::listed::short_id;
use crate::output::{Output, Style, clean};
use crate::verb::shape::{self, InMesh};

/// How far a message got, for scripts.
#[derive(Serialize, JsonSchema)]
pub(super) struct MsgStatus<'a> {
    #[serde(flatten)]
    status: &'a MessageStatusResult,
    /// It waits on this machine for the broker.
    queued: bool,
}

/// The fields of what `msg-status` prints.
pub(super) fn fields() -> Vec<&'static str> {
    let mut fields = shape::in_mesh::<MessageStatusResult>();
    fields.push("queued");
    fields
}

/// What became of a command that was queued.
enum Queued {
    /// It is still here, for this mesh.
    Here(String, Parcel),
    /// The broker has it as this message.
    Sent(String),
}

/// Whether an id is that of a queued command, of now or of before. No broker is asked.
fn queued(cx: &Context, id: &str) -> Result<Option<Queued>, CliError> {
    let id = id.to_ascii_lowercase();
    for (mesh, outbox) in outboxes(cx)? {
        if let Some(parcel) = outbox.parcels().into_iter().find(|parcel| parcel.id.starts_with(&id)) {
            return Ok(Some(Queued::Here(mesh, parcel)));
        }
        match outbox.handed_over(&id).unwrap_or_default().as_slice() {
            [] => {}
            [one] => return Ok(Some(Queued::Sent(one.clone()))),
            several => {
                let ids: Vec<String> = several.iter().map(|id| short_id(id)).collect();
                let message = format!("The queued command has become {} messages.", ids.len());
                return Err(CliError::new(ExitCode::InvalidArgs, "ambiguous_prefix", message)
                    .hint(format!("Ask for one of them: {}.", ids.join(", ")))
                    .field("messageIds", several));
            }
        }
    }
    Ok(None)
}

fn queued_text(parcel: &Parcel) -> String {
    let (id, to) = (clean(&parcel.id).into_owned(), clean(&parcel.targets().join(", ")).into_owned());
    match parcel.failure() {
        Some(why) => format!("{id} → {to}: cannot be delivered: {}\n", clean(why)),
        None => format!("{id} → {to}: queued here, waits for the broker (claudemesh outbox send)\n"),
    }
}

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
    let id = &match queued(cx, id)? {
        Some(Queued::Here(mesh, parcel)) => {
            let status = MessageStatusResult {
                message_id: parcel.id.clone(),
                target_spec: parcel.targets().join(","),
                delivered: false,
                delivered_at: None,
                stage: None,
                recipients: vec![],
            };
            let value = InMesh::new(&mesh, MsgStatus { status: &status, queued: true });
            return cx.out.answer(&value, |_| queued_text(&parcel));
        }
        Some(Queued::Sent(message_id)) => message_id,
        None => id.to_owned(),
    };
    let mut last = None;
    let entries = cx.mesh_entries()?;
    let mut troubles = Troubles::of(entries.len());
    for entry in entries {
        match connect::ask(cx, &entry, |connection| async move { Ok(connection.message_status(id).await?) }) {
            Err(error) if error.exit == ExitCode::NotFound && error.code != ErrorCode::MeshArchived.as_str() => {
                last = Some(error);
            }
            Err(error) => {
                troubles.sift::<()>(&entry, Err(error))?;
            }
            Ok(status) => {
                let value = InMesh::new(&entry.slug, MsgStatus { status: &status, queued: false });
                return cx.out.answer(&value, |out| status_text(&status, out));
            }
        }
    }
    // It may be in one of those that did not answer.
    troubles.tell(cx)?;
    let error = last.unwrap_or_else(|| CliError::not_found("There is no such message."));
    let error =
        if error.hint.is_none() { error.hint("`claudemesh sent` lists your messages with their ids.") } else { error };
    Err(error.field("id", id.as_str()).field("isPrefix", id.len() < 32))
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
