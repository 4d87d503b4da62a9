//! Messages that features write: checked, routed, queued and pushed as those of peers are.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Response as Messaging, Send};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::limits;
use claudemesh_protocol::target::Target;

use super::quota;
use super::send::{admit, build, message_id, retry, route};
use super::state::MessagingMemory;
use crate::features::messaging::metrics::METRICS;
use crate::mesh::context::MeshContext;
use crate::mesh::letter::{Author, Letter};
use crate::mesh::peers::{Member, Peer, Role};
use crate::refusal::Refusal;

/// The key of messages that no member wrote; their `senderPubkey` is what stands for their member.
pub(super) const NO_KEY: PublicKey = PublicKey::from_bytes([0; 32]);

/// Sends a letter. One that no one can get is counted and left out; its feature learns of it if it waits for an answer.
pub(super) fn deliver(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, letter: &Letter) {
    if let Err(refusal) = try_deliver(memory, cx, letter) {
        METRICS.rejected.with_label_values(&[refusal.code.as_str()]).inc();
        tracing::debug!(mesh.id = %cx.mesh_id(), code = refusal.code.as_str(), error = %refusal, "a letter was not sent");
        if let Some(to) = &letter.reply {
            cx.refuse(to, refusal);
        }
    }
}

fn try_deliver(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, letter: &Letter) -> Result<(), Refusal> {
    let sender = author(cx, &letter.from)?;
    let targets = letter
        .to
        .parts()
        .iter()
        .map(|part| Target::parse(part))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Refusal::new(ErrorCode::InvalidArgs, error.to_string()))?;
    if letter.body.len() + letter.nonce.len() > limits::MAX_MESSAGE_CHARS {
        return Err(ErrorCode::PayloadTooLarge.into());
    }
    let id = message_id(cx.mesh_id(), &sender.member, letter.key.as_deref());
    if letter.key.is_some()
        && let Some(ack) = retry(memory, &id, None, letter.reply.as_ref())?
    {
        if let (Some(to), Some(ack)) = (&letter.reply, ack) {
            cx.reply(to, &Messaging::from(ack).into());
        }
        return Ok(());
    }
    if memory.is_full() {
        return Err(ErrorCode::Busy.into());
    }
    let (routed, topic) = route(cx, &sender, &[], &targets)?;
    if let Author::Member(from) = &letter.from {
        quota::message(memory, cx, from, &targets, &routed)?;
    }
    let send = Send {
        target_spec: letter.to.clone(),
        priority: letter.priority,
        nonce: letter.nonce.clone(),
        ciphertext: letter.body.clone(),
        subtype: letter.subtype.clone(),
        reply_to_id: letter.reply_to_id.clone(),
        client_message_id: letter.key.clone(),
        ..Send::default()
    };
    let message = build(memory, cx, &sender, id, send, topic);
    admit(memory, cx, message, routed, letter.reply.clone());
    Ok(())
}

/// The author as a peer.
fn author(cx: &MeshContext<'_>, from: &Author) -> Result<Peer, Refusal> {
    let nobody = |name: &str| {
        let id = MemberId::from(name);
        Member::new(id, cx.mesh_id(), NO_KEY, name, Role::Member, cx.now_ms())
    };
    let member = match from {
        Author::System => nobody("system"),
        Author::Service(name) => nobody(name),
        Author::Member(id) => cx
            .roster()
            .live_member(id)
            .cloned()
            .ok_or_else(|| Refusal::new(ErrorCode::Revoked, "the author is no member any more"))?,
    };
    Ok(Peer::without_connection(&member))
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::messaging::Priority;

    use super::*;
    use crate::mesh::testing::{TestMesh, key};

    fn letter(from: Author, to: &str, body: &str) -> Letter {
        let subtype = Some("reminder".into());
        let (to, body) = (to.into(), body.into());
        Letter {
            from,
            to,
            priority: Priority::Next,
            subtype,
            nonce: String::new(),
            body,
            reply_to_id: None,
            key: None,
            reply: None,
        }
    }

    #[actix_rt::test]
    async fn a_letter_is_pushed_to_those_who_are_here_and_waits_for_those_who_are_not() {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (_, here) = mesh.peer(&alice, "alice", Some(11));
        mesh.step(None, |_, cx| {
            cx.deliver(letter(Author::System, "*", "to all"));
            cx.deliver(letter(Author::Member(alice.clone()), "bob", "later"));
            cx.deliver(letter(Author::Service("webhook:ci".into()), "alice", "built"));
            cx.deliver(letter(Author::System, "nobody", "lost"));
        });
        mesh.settle().await;
        let pushes = TestMesh::take(&here, "push");
        let from: Vec<_> =
            pushes.iter().map(|push| (push["senderPubkey"].as_str(), push["ciphertext"].as_str())).collect();
        assert_eq!(from, [(Some("system"), Some("to all")), (Some("webhook:ci"), Some("built"))]);
        assert_eq!((&pushes[0]["subtype"], pushes[0].get("senderMemberPubkey")), (&"reminder".into(), None));
        assert!(pushes[0].get("senderMemberId").is_none());
        let (_, late) = mesh.peer(&bob, "bob", Some(12));
        mesh.settle().await;
        let pushes = TestMesh::take(&late, "push");
        assert_eq!((pushes.len(), &pushes[0]["ciphertext"]), (1, &"later".into()));
        assert_eq!(pushes[0]["senderPubkey"], key(1).to_hex());
    }

    #[actix_rt::test]
    async fn a_member_without_a_connection_sends_as_its_sessions_do() {
        use claudemesh_protocol::features::messaging::Send;
        use serde_json::Value;

        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (_, own) = mesh.peer(&alice, "alice", Some(11));
        let (_, other) = mesh.peer(&bob, "bob", Some(12));
        let send = |to: &str| Send { target_spec: to.into(), ciphertext: "aGk=".into(), ..Send::default() };
        let answer = mesh.ask_for(&alice, send("*")).await.unwrap();
        let ack: Value = serde_json::from_str(&answer.write(None)).unwrap();
        assert_eq!((&ack["queued"], ack["recipients"].as_array().map(Vec::len)), (&true.into(), Some(2)), "{ack}");
        for frames in [own, other] {
            let pushes = TestMesh::take(&frames, "push");
            assert_eq!((pushes.len(), &pushes[0]["senderPubkey"]), (1, &key(1).to_hex().into()));
        }
        let answer = mesh.ask_for(&alice, send("nobody")).await.unwrap();
        let ack: Value = serde_json::from_str(&answer.write(None)).unwrap();
        assert_eq!((&ack["queued"], &ack["code"]), (&false.into(), &"unknown_target".into()), "{ack}");
    }
}
