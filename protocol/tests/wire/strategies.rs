//! Random but valid messages.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::messaging::{
    Ack, Candidate, ClientAck, Priority, Push, RecipientState, Send, Stage, Trace,
};
use claudemesh_protocol::features::presence::{Peer, PeerStatus, Profile, Stats};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::session::{Attestation, Hello, PeerDescription, SessionHello};
use claudemesh_protocol::target::TargetField;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

/// Texts with quotes, controls, astral symbols and separators.
fn text() -> BoxedStrategy<String> {
    prop_oneof![3 => any::<String>(), 1 => "[ -~]{0,40}", 1 => Just("\u{0}\"\\\u{2028}\u{1f98a}\u{feff}".to_owned())]
        .boxed()
}

fn key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(PublicKey::from_bytes)
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&Priority::ALL[..])
}

fn stage() -> impl Strategy<Value = Stage> {
    prop::sample::select(vec![Stage::Stored, Stage::Received, Stage::Handed, Stage::Seen, Stage::Answered])
}

fn status() -> impl Strategy<Value = PeerStatus> {
    prop::sample::select(vec![PeerStatus::Idle, PeerStatus::Working, PeerStatus::Dnd])
}

fn trace() -> impl Strategy<Value = Trace> {
    (text(), any::<u32>()).prop_map(|(id, hop)| Trace { id, hop })
}

fn target() -> impl Strategy<Value = TargetField> {
    prop_oneof![text().prop_map(TargetField::One), vec(text(), 0..4).prop_map(TargetField::Many)]
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    vec((text(), of(text())).prop_map(|(name, role)| Group { name, role }), 0..4)
}

pub(crate) fn send() -> impl Strategy<Value = Send> {
    let required = (target(), priority(), text(), text());
    let ids = (of(text()), of(text()), of(text()), of(text()), of(text()));
    let rest = (vec(text(), 0..3), of(any::<i32>()), of(trace()), vec(key(), 0..3), of(any::<u64>()));
    (required, ids, rest).prop_map(|(required, ids, rest)| {
        let (target_spec, priority, nonce, ciphertext) = required;
        let (id, client_message_id, request_fingerprint, reply_to_id, subtype) = ids;
        let (mentions, body_version, trace, exclude, expires_in_ms) = rest;
        Send {
            target_spec,
            priority,
            nonce,
            ciphertext,
            id,
            client_message_id,
            request_fingerprint,
            mentions,
            reply_to_id,
            body_version,
            subtype,
            trace,
            exclude,
            expires_in_ms,
        }
    })
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Bool(true)),
        any::<i64>().prop_map(Into::into),
        text().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec((text(), inner), 0..4)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

pub(crate) fn push() -> impl Strategy<Value = Push> {
    let required = (text(), text(), text(), priority(), text(), text(), text());
    let sender = (of(text()), of(text()), of(text()), of(text()), of(text()), of(text()));
    let rest = (of(text()), of(text()), of(text()), of(trace()), of(text()), of(json()));
    let place = (of(text()), of(text()), of(text()));
    (required, sender, rest, place).prop_map(|(required, sender, rest, place)| {
        let (sender_member_name, sender_hostname, sender_cwd) = place;
        let (message_id, mesh_id, sender_pubkey, priority, nonce, ciphertext, created_at) = required;
        let (sender_member_pubkey, member_id, sender_name, target_spec, topic, reply_to_id) = sender;
        let (client_message_id, request_fingerprint, subtype, trace, event, event_data) = rest;
        Push {
            message_id,
            mesh_id,
            sender_pubkey,
            sender_member_pubkey,
            sender_member_id: member_id.map(Into::into),
            sender_name,
            sender_member_name,
            sender_hostname,
            sender_cwd,
            target_spec,
            topic,
            reply_to_id,
            priority,
            nonce,
            ciphertext,
            created_at,
            client_message_id,
            request_fingerprint,
            subtype,
            trace,
            event,
            event_data,
        }
    })
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let place = (of(text()), of(text()), of(text()), of(text()));
    (text(), key(), key(), text(), any::<bool>(), place).prop_map(
        |(kind, pubkey, member_pubkey, name, online, (cwd, member_name, hostname, last_seen_at))| Candidate {
            kind,
            pubkey,
            member_pubkey,
            name,
            online,
            cwd,
            member_name,
            hostname,
            last_seen_at,
        },
    )
}

fn recipient() -> impl Strategy<Value = RecipientState> {
    (text(), of(text()), key(), any::<bool>(), of(status()), of(text()), any::<u32>(), any::<bool>()).prop_map(
        |(name, member_name, pubkey, online, status, last_seen_at, waiting, ended)| RecipientState {
            name,
            member_name,
            pubkey,
            online,
            status,
            last_seen_at,
            waiting,
            ended,
        },
    )
}

pub(crate) fn ack() -> impl Strategy<Value = Ack> {
    let required = (text(), text(), any::<bool>(), any::<bool>());
    let failure = (of(text()), of(text()), of(any::<u64>()), vec(candidate(), 0..3));
    let state = (of(stage()), of(any::<u32>()), of(any::<u32>()), vec(recipient(), 0..3));
    (required, failure, state).prop_map(|(required, failure, state)| {
        let (id, message_id, queued, duplicate) = required;
        let (error, code, retry_after_ms, candidates) = failure;
        let (stage, online, waiting, recipients) = state;
        Ack {
            id,
            message_id,
            queued,
            error,
            code,
            retry_after_ms,
            duplicate,
            stage,
            online,
            waiting,
            recipients,
            candidates,
        }
    })
}

pub(crate) fn client_ack() -> impl Strategy<Value = ClientAck> {
    (of(text()), of(text()), vec(text(), 0..4), of(stage()), of(text())).prop_map(
        |(client_message_id, broker_message_id, message_ids, stage, route)| ClientAck {
            client_message_id,
            broker_message_id,
            message_ids,
            stage,
            route,
        },
    )
}

fn description() -> impl Strategy<Value = PeerDescription> {
    let words = (of(any::<u32>()), vec(text(), 0..4), of(text()), of(text()));
    (words, of(text()), of(text()), of(text()), of(groups()), of(text())).prop_map(
        |(words, peer_type, channel, model, groups, hook_token_hash)| {
            let (protocol_version, capabilities, display_name, hostname) = words;
            PeerDescription {
                protocol_version,
                capabilities,
                display_name,
                hostname,
                peer_type,
                channel,
                model,
                groups,
                hook_token_hash,
            }
        },
    )
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    let who = (text(), text(), text(), of(text()), text());
    (who, any::<u64>(), text(), any::<i64>(), text(), description()).prop_map(
        |(who, pid, cwd, timestamp, signature, description)| {
            let (mesh_id, member_id, pubkey, session_pubkey, session_id) = who;
            Hello {
                mesh_id: mesh_id.into(),
                member_id: member_id.into(),
                pubkey,
                session_pubkey,
                session_id,
                pid,
                cwd,
                timestamp: timestamp.into(),
                signature,
                description,
            }
        },
    )
}

pub(crate) fn session_hello() -> impl Strategy<Value = SessionHello> {
    let attestation = (text(), text(), any::<u64>(), text()).prop_map(|(session, parent, expires_at, signature)| {
        Attestation { session_pubkey: session, parent_member_pubkey: parent, expires_at: expires_at.into(), signature }
    });
    (hello(), of(attestation), text()).prop_map(|(hello, parent_attestation, session_pubkey)| SessionHello {
        mesh_id: hello.mesh_id,
        parent_member_id: hello.member_id.to_string(),
        parent_member_pubkey: hello.pubkey,
        session_pubkey,
        parent_attestation,
        session_id: hello.session_id,
        pid: hello.pid,
        cwd: hello.cwd,
        timestamp: hello.timestamp,
        signature: hello.signature,
        description: hello.description,
    })
}

fn stats() -> impl Strategy<Value = Stats> {
    let number =
        || of(prop_oneof![any::<u32>().prop_map(f64::from), any::<i32>().prop_map(|eighths| f64::from(eighths) / 8.0)]);
    (number(), number(), number(), number(), number()).prop_map(
        |(messages_in, messages_out, tool_calls, uptime, errors)| Stats {
            messages_in,
            messages_out,
            tool_calls,
            uptime,
            errors,
        },
    )
}

fn profile() -> impl Strategy<Value = Profile> {
    (of(text()), of(text()), of(text()), of(vec(text(), 0..3))).prop_map(|(avatar, title, bio, capabilities)| Profile {
        avatar,
        title,
        bio,
        capabilities,
    })
}

pub(crate) fn peer() -> impl Strategy<Value = Peer> {
    let who = (key(), key(), of(text()), text(), status(), of(text()), groups());
    let place = (text(), text(), text(), text(), of(text()), any::<bool>(), of(text()));
    let more = (of(any::<bool>()), of(any::<u32>()), of(text()), of(text()), of(text()), of(text()));
    let member = (of(text()), groups());
    (who, place, more, of(stats()), of(any::<bool>()), of(profile()), member).prop_map(
        |(who, place, more, stats, visible, profile, (member_name, member_groups))| {
            let (pubkey, member_pubkey, member_id, display_name, status, summary, groups) = who;
            let (session_id, connected_at, cwd, peer_role, role, online, last_seen_at) = place;
            let (is_self, waiting, hostname, peer_type, channel, model) = more;
            Peer {
                pubkey,
                member_pubkey,
                member_id: member_id.map(Into::into),
                member_name,
                display_name,
                status,
                summary,
                groups,
                member_groups,
                session_id,
                connected_at,
                cwd,
                peer_role,
                role,
                online,
                last_seen_at,
                is_self,
                waiting,
                hostname,
                peer_type,
                channel,
                model,
                stats,
                visible,
                profile,
            }
        },
    )
}

pub(crate) fn error_frame() -> impl Strategy<Value = ErrorFrame> {
    let code = prop_oneof![prop::sample::select(ErrorCode::ALL).prop_map(|code| code.as_str().to_owned()), text()];
    (code, text(), of(text()), of(any::<u64>()), vec(candidate(), 0..3)).prop_map(
        |(code, message, id, retry_after_ms, candidates)| ErrorFrame {
            code,
            message,
            id,
            retry_after_ms,
            candidates,
            current: None,
            bound: None,
        },
    )
}
