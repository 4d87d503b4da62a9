//! What clients may say of an entry.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::schedules::limits as wire;
use claudemesh_protocol::features::schedules::{EditScheduled, Schedule, ScheduleState};
use claudemesh_protocol::id::ScheduleId;
use claudemesh_protocol::target::{Target, TargetField};

use super::cron::{self, Cron};
use super::store::{Edit, Row, When, new_id};
use crate::mesh::context::MeshContext;
use crate::mesh::resolve::resolve_name;
use crate::refusal::{Refusal, invalid};

/// Characters of an id that name an entry.
const MIN_ID_CHARS: usize = 8;
/// Characters of a UUID.
const ID_CHARS: usize = 36;
/// What [`claudemesh_protocol::time::iso`] can write: the years 0 to 9999.
const TIMES_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// An id or the beginning of one; `None`: it names no entry.
pub(super) fn id(id: &ScheduleId) -> Option<String> {
    let text = id.as_str();
    let fits = |byte: u8| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase() || byte == b'-';
    ((MIN_ID_CHARS..=ID_CHARS).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

/// Targets as they are stored. Those that name someone must mean one who is known now.
fn targets(cx: &MeshContext<'_>, field: &TargetField) -> Result<String, Refusal> {
    let parts = field.parts();
    if parts.is_empty() || parts.len() > wire::MAX_TARGETS {
        return Err(invalid(format!("`to`: expected 1 to {} targets", wire::MAX_TARGETS)));
    }
    for part in parts {
        let target = Target::parse(part).map_err(|error| invalid(format!("`to`: {error}")))?;
        if part.chars().any(char::is_control) {
            return Err(invalid("`to`: expected no control characters"));
        }
        if target.is_direct() {
            resolve_name(cx.roster(), part, Some(cx.asker()?.handle))?;
        }
    }
    serde_json::to_string(field).map_err(|error| Refusal::fault(ErrorCode::Internal, error))
}

/// Nonce, body, and whether it is sealed. `None`: the request has no text.
fn body(
    message: Option<&str>,
    nonce: Option<&str>,
    ciphertext: Option<&str>,
    to: &TargetField,
) -> Result<Option<(String, String, bool)>, Refusal> {
    let found = match (message, nonce, ciphertext) {
        (None, None, None) => return Ok(None),
        (Some(text), None, None) => {
            // PostgreSQL is not why: the body is base64. But no one can read these.
            if text.trim().is_empty() || text.contains('\0') {
                return Err(invalid("`message`: expected a text without NUL"));
            }
            (String::new(), STANDARD.encode(text), false)
        }
        (None, Some(nonce), Some(ciphertext)) => {
            let length = |text: &str| STANDARD.decode(text).map_or(0, |bytes| bytes.len());
            // Its length alone is looked at first: what is far too long is not decoded.
            if ciphertext.len() <= wire::MAX_BODY_CHARS && (length(nonce) != 24 || length(ciphertext) < 17) {
                return Err(invalid("`nonce` and `ciphertext`: expected base64 of 24 bytes and of a sealed text"));
            }
            let direct = |part: &String| Target::parse(part).is_ok_and(|target| target.is_direct());
            if !matches!(to.parts(), [only] if direct(only)) {
                return Err(invalid("`ciphertext`: expected one recipient, since the text is sealed for one key"));
            }
            (nonce.to_owned(), ciphertext.to_owned(), true)
        }
        _ => return Err(invalid("expected `message`, or `nonce` and `ciphertext`")),
    };
    if found.1.len() > wire::MAX_BODY_CHARS {
        let message = format!("a scheduled text has at most {} characters as base64", wire::MAX_BODY_CHARS);
        return Err(Refusal::new(ErrorCode::PayloadTooLarge, message));
    }
    Ok(Some(found))
}

/// The name of a zone that exists; without one the broker's.
fn zone(name: Option<&str>) -> Result<cron::Tz, Refusal> {
    let Some(name) = name else { return Ok(cron::own_zone()) };
    cron::zone(name).ok_or_else(|| invalid("`tz`: expected the IANA name of a time zone, such as Europe/Berlin"))
}

fn expression(text: &str, zone: cron::Tz, after_ms: i64) -> Result<(), Refusal> {
    let refuse = |reason: String| {
        let shown: String = text.chars().filter(|symbol| !symbol.is_control()).take(64).collect();
        Refusal::new(ErrorCode::InvalidCron, format!("Invalid cron expression: {shown} ({reason})"))
    };
    let cron = Cron::parse(text, zone).map_err(|bad| refuse(bad.0))?;
    match cron.next(after_ms) {
        Some(_) => Ok(()),
        None => Err(refuse("it does not come before the year 2100".into())),
    }
}

fn time(at_ms: i64) -> Result<i64, Refusal> {
    if TIMES_MS.contains(&at_ms) {
        return Ok(at_ms);
    }
    Err(invalid("`deliverAt`: expected Unix milliseconds of a year up to 9999"))
}

fn subtype(given: Option<String>) -> Result<Option<String>, Refusal> {
    match given.as_deref() {
        None | Some("reminder") => Ok(given),
        Some(_) => Err(invalid("`subtype`: expected `reminder` or nothing")),
    }
}

/// A new entry, of the asking member.
pub(super) fn new(cx: &MeshContext<'_>, request: Schedule) -> Result<Row, Refusal> {
    let Schedule { to, message, deliver_at, subtype: kind, cron, recurring: _, tz, misfire, clock, nonce, ciphertext } =
        request;
    let targets = targets(cx, &to)?;
    let text = body(message.as_deref(), nonce.as_deref(), ciphertext.as_deref(), &to)?;
    let (nonce, body, sealed) = text.ok_or_else(|| invalid("expected `message`, or `nonce` and `ciphertext`"))?;
    let zone = zone(tz.as_deref())?;
    let at_ms = match (&cron, deliver_at) {
        (Some(text), _) => expression(text, zone, cx.now_ms()).map(|()| 0)?,
        (None, Some(at_ms)) => time(at_ms)?,
        (None, None) => return Err(invalid("expected `deliverAt` or `cron`")),
    };
    let now_ms = cx.now_ms();
    Ok(Row {
        id: new_id().to_string(),
        member_id: cx.asker()?.member.to_string(),
        targets,
        nonce,
        body,
        sealed,
        subtype: subtype(kind)?,
        cron,
        zone: zone.name().to_owned(),
        clock: clock.unwrap_or_default().as_str().to_owned(),
        misfire: misfire.unwrap_or_default().as_str().to_owned(),
        state: ScheduleState::Active.as_str().to_owned(),
        at_ms,
        created_at_ms: now_ms,
        changed_at_ms: now_ms,
        version: 1,
        ..Row::default()
    })
}

/// What of an entry is to be changed.
pub(super) fn edit(cx: &MeshContext<'_>, request: EditScheduled) -> Result<Edit, Refusal> {
    let EditScheduled { to, message, deliver_at, cron, tz, misfire, clock, nonce, ciphertext, .. } = request;
    // Without other targets the one that the text is sealed for stays, and was one when it was stored.
    let sealed_for = to.clone().unwrap_or_else(|| "one".into());
    let zone = tz.map(|name| zone(Some(&name))).transpose()?;
    let when = match (cron, deliver_at) {
        (Some(_), Some(at_ms)) if at_ms != 0 => return Err(invalid("expected `deliverAt` or `cron`, not both")),
        (Some(text), _) => {
            expression(&text, zone.unwrap_or(cron::Tz::UTC), cx.now_ms())?;
            Some(When::Cron(text))
        }
        (None, Some(at_ms)) => Some(When::At(time(at_ms)?)),
        (None, None) => None,
    };
    Ok(Edit {
        targets: to.map(|to| targets(cx, &to)).transpose()?,
        body: body(message.as_deref(), nonce.as_deref(), ciphertext.as_deref(), &sealed_for)?,
        when,
        zone: zone.map(|zone| zone.name().to_owned()),
        misfire,
        clock,
        // A version that no entry can have is one that this entry has not.
        expected_version: request.expected_version.map(|version| i64::try_from(version).unwrap_or(i64::MAX)),
    })
}
