//! What a request about files must look like, and which members its targets mean.

use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::limits as wire;
use claudemesh_protocol::features::files::{FileKey, StartUpload, check_name};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::limits::{MAX_ID_CHARS, MAX_TARGETS};
use claudemesh_protocol::name::folded;
use claudemesh_protocol::target::Target;
use serde_json::json;

use super::store::{EVERYONE, Row, member_reader};
use crate::mesh::context::MeshContext;
use crate::mesh::resolve::resolve_name;
use crate::refusal::Refusal;

/// Digits of the id in the name of a file whose name is sealed.
const SHOWN_ID: usize = 8;

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgs, message)
}

/// Whom a file is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Audience {
    /// As it is stored.
    pub readers: Vec<String>,
    /// As it is shown: `*`, `@group`, keys of members.
    pub shown: Vec<String>,
}

/// Whom targets mean now. Names and sessions become their members, groups stay groups.
pub(super) fn audience(cx: &MeshContext<'_>, targets: &[String]) -> Result<Audience, Refusal> {
    if targets.len() > MAX_TARGETS {
        return Err(invalid(format!("`targetSpec`: expected at most {MAX_TARGETS} targets")));
    }
    let mut audience = Audience::default();
    for text in targets {
        let target = Target::parse(text).map_err(|error| invalid(format!("`targetSpec`: {error}")))?;
        let (reader, shown) = match target {
            Target::Everyone => (EVERYONE.to_owned(), EVERYONE.to_owned()),
            Target::Group(group) => (format!("@{group}"), format!("@{group}")),
            Target::Topic(_) => return Err(invalid("`targetSpec`: expected names, keys, @groups or *, not a topic")),
            Target::Key(_) | Target::Name(_) => {
                let (member, key) = member_called(cx, text)?;
                (member_reader(&member), key.to_hex())
            }
        };
        if !audience.readers.contains(&reader) {
            audience.readers.push(reader);
            audience.shown.push(shown);
        }
    }
    if audience.readers.is_empty() {
        audience = Audience { readers: vec![EVERYONE.into()], shown: vec![EVERYONE.into()] };
    }
    Ok(audience)
}

/// The member that a name or key means, or whose session it means.
pub(super) fn member_called(cx: &MeshContext<'_>, text: &str) -> Result<(MemberId, PublicKey), Refusal> {
    let resolved = resolve_name(cx.roster(), text, None)?;
    let member = resolved.member(cx.roster()).and_then(|id| cx.roster().live_member(id));
    let gone = || Refusal::new(ErrorCode::UnknownTarget, "the member of that session is gone");
    member.map(|member| (member.id.clone(), member.pubkey)).ok_or_else(gone)
}

/// The member behind a key of a request, and the key as it is stored.
pub(super) fn key_of(cx: &MeshContext<'_>, pubkey: &str) -> Result<(MemberId, String), Refusal> {
    let key = PublicKey::parse_any_case(pubkey).ok_or_else(|| invalid("`peerPubkey`: expected 64 hex digits"))?;
    Ok((member_called(cx, &key.to_hex())?.0, key.to_hex()))
}

/// A sealed text: base64 within a bound.
pub(super) fn check_sealed(field: &str, text: &str, most: usize) -> Result<(), Refusal> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
    if text.is_empty() || text.len() > most || !text.bytes().all(fine) {
        return Err(invalid(format!("`{field}`: expected base64 of 1 to {most} characters")));
    }
    Ok(())
}

/// The keys of an upload as they are stored.
fn keys(cx: &MeshContext<'_>, given: &[FileKey]) -> Result<Vec<(String, String, String)>, Refusal> {
    if given.len() > wire::MAX_KEYS {
        return Err(invalid(format!(
            "`keys`: expected at most {} keys; others are granted afterwards",
            wire::MAX_KEYS
        )));
    }
    let stored = |key: &FileKey| {
        check_sealed("sealedKey", &key.sealed_key, wire::MAX_SEALED_KEY_CHARS)?;
        let (member, pubkey) = key_of(cx, &key.peer_pubkey)?;
        Ok((pubkey, member.to_string(), key.sealed_key.clone()))
    };
    given.iter().map(stored).collect()
}

pub(super) fn check_tags(tags: &[String]) -> Result<(), Refusal> {
    let fine = |tag: &String| {
        !tag.trim().is_empty() && tag.chars().count() <= wire::MAX_TAG_CHARS && !tag.chars().any(char::is_control)
    };
    if tags.len() > wire::MAX_TAGS || !tags.iter().all(fine) {
        return Err(invalid("`tags`: expected at most 16 tags of 1 to 64 characters without control characters"));
    }
    Ok(())
}

fn check_encryption(request: &StartUpload) -> Result<(), Refusal> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match &request.encryption {
        Some(word) if word.is_empty() || word.len() > wire::MAX_ENCRYPTION_CHARS || !word.bytes().all(fine) => {
            Err(invalid("`encryption`: expected a word of at most 32 lower-case letters, digits and `-`"))
        }
        None if request.sealed_meta.is_some() || !request.keys.is_empty() || request.regrant => {
            Err(invalid("`sealed_meta`, `keys` and `regrant` go with `encryption`"))
        }
        _ => Ok(()),
    }
}

fn check_name_of(request: &StartUpload) -> Result<(), Refusal> {
    match &request.name {
        Some(name) => {
            check_name(name).map_err(|error| Refusal::new(ErrorCode::InvalidName, format!("`name`: {error}")))
        }
        None if request.sealed_meta.is_some() => Ok(()),
        None => Err(invalid("`name` may be missing only when `sealed_meta` has it")),
    }
}

/// How long a file is kept, in milliseconds.
fn ttl_ms(request: &StartUpload) -> Result<i64, Refusal> {
    let seconds = match request.ttl_s {
        Some(_) if request.persistent => return Err(invalid("`ttl_s` does not go with `persistent`")),
        Some(seconds) if !(wire::MIN_TTL_S..=wire::MAX_TTL_S).contains(&seconds) => {
            return Err(invalid(format!("`ttl_s`: expected {} to {} seconds", wire::MIN_TTL_S, wire::MAX_TTL_S)));
        }
        Some(seconds) => seconds,
        None => wire::DEFAULT_TTL_S,
    };
    Ok(i64::try_from(seconds * 1_000).unwrap_or(i64::MAX))
}

fn check_content_type(text: &str) -> Result<(), Refusal> {
    let fine = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.contains('/');
    if fine && text.len() <= wire::MAX_CONTENT_TYPE_CHARS {
        return Ok(());
    }
    Err(invalid("`content_type`: expected a type such as `text/plain`, at most 128 visible ASCII characters"))
}

/// An upload as it is stored, the members that it is for, and its keys.
pub(super) struct Checked {
    pub row: Row,
    pub audience: Audience,
    pub keys: Vec<(String, String, String)>,
}

/// Checks a request to share a file. `id` becomes the file's.
pub(super) fn upload(cx: &MeshContext<'_>, request: StartUpload, id: String) -> Result<Checked, Refusal> {
    let client_id = &request.client_upload_id;
    if client_id.is_empty() || client_id.chars().count() > MAX_ID_CHARS || client_id.chars().any(char::is_control) {
        return Err(invalid("`client_upload_id`: expected 1 to 128 characters without control characters"));
    }
    check_name_of(&request)?;
    check_tags(&request.tags)?;
    check_encryption(&request)?;
    if let Some(sealed) = &request.sealed_meta {
        check_sealed("sealed_meta", sealed, wire::MAX_SEALED_META_CHARS)?;
    }
    if let Some(text) = &request.content_type {
        check_content_type(text)?;
    }
    let ttl_ms = ttl_ms(&request)?;
    let size_bytes = i64::try_from(request.size).map_err(|_| invalid("`size`: expected fewer bytes"))?;
    let audience = audience(cx, request.target_spec.as_ref().map_or(&[][..], |targets| targets.parts()))?;
    let keys = keys(cx, &request.keys)?;
    let own = cx.member()?;
    let name = request.name.unwrap_or_else(|| format!("sealed-{}", &id[..SHOWN_ID.min(id.len())]));
    let row = Row {
        id,
        owner_id: own.id.to_string(),
        owner_name: own.display_name.clone(),
        client_upload_id: request.client_upload_id,
        name_folded: folded(&name),
        name,
        tags: json!(request.tags).to_string(),
        targets: json!(audience.shown).to_string(),
        content_type: request.content_type,
        encryption: request.encryption,
        sealed_meta: request.sealed_meta,
        regrant: request.regrant,
        persistent: request.persistent,
        ttl_ms,
        // There is nothing to wait for.
        sha256: (size_bytes == 0 && !request.at_most).then(|| sha256_hex(b"")),
        at_most: request.at_most,
        size_bytes,
        created_at_ms: cx.believed_ms(),
        ..Row::default()
    };
    Ok(Checked { row, audience, keys })
}
