//! From a push to a message: which key opens it, who is meant, and what may be shown.

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::features::messaging::Push;
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::target::Target;

use super::Identity;
use crate::inbox::{Kind, NewMessage, RecipientKind};

/// Events of the broker itself carry this in place of a key.
pub(crate) const SYSTEM_SENDER: &str = "system";

/// Whether a push is an event of the broker: shown or not, but never stored and not acknowledged.
pub(super) fn is_system(push: &Push) -> bool {
    push.sender_pubkey == SYSTEM_SENDER || (push.subtype.as_deref() == Some("system") && push.ciphertext.is_empty())
}

/// Opens a push for this identity.
///
/// A sealed body is tried with the session key, then with the member key, against the sender's session and member key.
/// What does not open has no body: bytes that failed authentication are never shown as text.
pub(super) fn open(push: &Push, identity: &Identity, received_at_ms: i64) -> NewMessage {
    let kind = kind_of(push);
    let (body, key) = match kind {
        _ if push.ciphertext.is_empty() => (None, None),
        Kind::Broadcast | Kind::Channel => (envelope::decode_public(&push.ciphertext).ok(), None),
        Kind::Direct => unseal(push, identity),
        // A broker that does not say the target: a sealed body opens with our keys; a readable one is printable text.
        Kind::Unknown => match unseal(push, identity) {
            (Some(body), key) => (Some(body), key),
            _ => (envelope::decode_public(&push.ciphertext).ok().filter(|text| is_plain(text)), None),
        },
    };
    let kind = if kind == Kind::Unknown && key.is_some() { Kind::Direct } else { kind };
    let recipient_kind = recipient_of(push, identity, kind, key);
    NewMessage {
        message_id: push.message_id.clone(),
        client_message_id: push.client_message_id.clone(),
        sender_pubkey: push.sender_pubkey.clone(),
        sender_member: push
            .sender_member_pubkey
            .clone()
            .or_else(|| push.sender_member_id.as_ref().map(ToString::to_string))
            .unwrap_or_else(|| push.sender_pubkey.clone()),
        sender_name: push.sender_name.clone(),
        sender_member_name: push.sender_member_name.clone(),
        sender_hostname: push.sender_hostname.clone(),
        sender_cwd: push.sender_cwd.clone(),
        target_spec: push.target_spec.clone(),
        kind: kind.as_str().into(),
        recipient_kind: recipient_kind.as_str().into(),
        recipient_pubkey: key.map(|key| key.to_hex()),
        topic: push.topic.clone(),
        reply_to_id: push.reply_to_id.clone(),
        priority: push.priority.as_str().into(),
        subtype: push.subtype.clone(),
        event: push.event.clone(),
        event_data: push.event_data.as_ref().map(ToString::to_string),
        trace_id: push.trace.as_ref().map(|trace| trace.id.clone()),
        trace_hop: push.trace.as_ref().map_or(0, |trace| i32::try_from(trace.hop).unwrap_or(i32::MAX)),
        body,
        created_at: push.created_at.clone(),
        received_at_ms,
    }
}

fn kind_of(push: &Push) -> Kind {
    if push.topic.is_some() {
        return Kind::Channel;
    }
    match push.target_spec.as_deref().map(Target::parse) {
        Some(Ok(Target::Everyone | Target::Group(_))) => Kind::Broadcast,
        Some(Ok(Target::Topic(_))) => Kind::Channel,
        Some(Ok(Target::Key(_) | Target::Name(_))) => Kind::Direct,
        Some(Err(_)) | None => Kind::Unknown,
    }
}

/// The text and our key that opened it.
fn unseal(push: &Push, identity: &Identity) -> (Option<String>, Option<PublicKey>) {
    let senders = [Some(push.sender_pubkey.as_str()), push.sender_member_pubkey.as_deref()];
    let senders: Vec<PublicKey> = senders.into_iter().flatten().filter_map(PublicKey::parse_any_case).collect();
    for own in identity.session.iter().chain([&identity.member]) {
        for sender in &senders {
            if let Ok(text) = envelope::open_direct(&push.nonce, &push.ciphertext, sender, own) {
                return (Some(text), Some(own.public()));
            }
        }
    }
    (None, None)
}

fn recipient_of(push: &Push, identity: &Identity, kind: Kind, key: Option<PublicKey>) -> RecipientKind {
    let session = identity.session.as_ref().map(|key| key.public());
    let named = push.target_spec.as_deref().and_then(PublicKey::parse);
    match named.or(key) {
        Some(key) if Some(key) == session => RecipientKind::Session,
        Some(_) => RecipientKind::Member,
        None if kind == Kind::Direct => RecipientKind::Member,
        None => RecipientKind::Audience,
    }
}

/// Text that a person could have written: ciphertext that happens to be UTF-8 has controls in it.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|symbol| symbol.is_control() && !matches!(symbol, '\n' | '\r' | '\t'))
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::crypto::keys::SecretKey;
    use claudemesh_protocol::session::PeerDescription;

    use super::*;

    fn identity(member: u8, session: Option<u8>) -> Identity {
        Identity {
            mesh_id: "m".into(),
            slug: "m".into(),
            member_id: "a".into(),
            broker_url: "ws://127.0.0.1:1/ws".into(),
            local: None,
            member: SecretKey::from_seed([member; 32]),
            session: session.map(|seed| SecretKey::from_seed([seed; 32])),
            session_id: "s".into(),
            pid: 1,
            cwd: "/".into(),
            description: PeerDescription::default(),
        }
    }

    fn sealed(from: &SecretKey, to: &PublicKey, target: Option<&str>) -> Push {
        let body = envelope::seal_direct("secret text", to, from, &mut rand::rngs::OsRng).unwrap();
        Push {
            sender_pubkey: from.public().to_hex(),
            nonce: body.nonce,
            ciphertext: body.ciphertext,
            target_spec: target.map(Into::into),
            ..Push::default()
        }
    }

    #[test]
    fn session_key_is_tried_before_the_member_key() {
        let sender = SecretKey::from_seed([9; 32]);
        let own = identity(1, Some(2));
        let session = own.own_public();
        let member = own.member.public();
        let first = open(&sealed(&sender, &session, Some(&session.to_hex())), &own, 0);
        assert_eq!((first.body.as_deref(), first.recipient_kind.as_str()), (Some("secret text"), "session"));
        let second = open(&sealed(&sender, &member, Some(&member.to_hex())), &own, 0);
        assert_eq!((second.body.as_deref(), second.recipient_kind.as_str()), (Some("secret text"), "member"));
    }

    #[test]
    fn sealed_with_the_member_key_of_a_sender_that_shows_a_session_key_opens() {
        let sender = SecretKey::from_seed([9; 32]);
        let own = identity(1, None);
        let mut push = sealed(&sender, &own.member.public(), None);
        push.sender_member_pubkey = Some(push.sender_pubkey.clone());
        push.sender_pubkey = SecretKey::from_seed([8; 32]).public().to_hex();
        let opened = open(&push, &own, 0);
        assert_eq!((opened.body.as_deref(), opened.kind.as_str()), (Some("secret text"), "direct"));
    }

    #[test]
    fn ciphertext_is_never_shown_as_text() {
        let sender = SecretKey::from_seed([9; 32]);
        let stranger = SecretKey::from_seed([7; 32]).public();
        let own = identity(1, Some(2));
        for target in [Some(own.own_public().to_hex()), None] {
            let opened = open(&sealed(&sender, &stranger, target.as_deref()), &own, 0);
            assert_eq!(opened.body, None);
        }
        // A direct target with a readable body is a forgery or a fault, not a message.
        let body = envelope::encode_public("looks fine", &mut rand::rngs::OsRng);
        let push = Push {
            sender_pubkey: sender.public().to_hex(),
            target_spec: Some(own.own_public().to_hex()),
            nonce: body.nonce,
            ciphertext: body.ciphertext,
            ..Push::default()
        };
        assert_eq!(open(&push, &own, 0).body, None);
    }

    #[test]
    fn audiences_are_readable() {
        let body = envelope::encode_public("hello all", &mut rand::rngs::OsRng);
        for (target, kind) in
            [(Some("*"), "broadcast"), (Some("@a/b"), "broadcast"), (Some("#t"), "channel"), (None, "unknown")]
        {
            let push = Push {
                sender_pubkey: "ab".repeat(32),
                target_spec: target.map(Into::into),
                nonce: body.nonce.clone(),
                ciphertext: body.ciphertext.clone(),
                ..Push::default()
            };
            let opened = open(&push, &identity(1, Some(2)), 0);
            assert_eq!((opened.body.as_deref(), opened.kind.as_str()), (Some("hello all"), kind));
            assert_eq!(opened.recipient_kind, "audience");
        }
    }
}
