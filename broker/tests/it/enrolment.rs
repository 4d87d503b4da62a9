//! Meshes, invites, claims: signed, counted, and safe against races.

use std::sync::Arc;

use anyhow::Result;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::crypto::signed;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::{broker_suite, enrol};
use serde_json::json;

fn key() -> SecretKey {
    SecretKey::random(&mut rand::thread_rng())
}

broker_suite! {
    async fn an_invite_of_three_uses_admits_exactly_three_of_a_crowd(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let invite = mesh.invite("member", 3)?;
        let claims: Vec<_> = (0..12)
            .map(|index| {
                let (base, code) = (broker.base(), invite.code.clone());
                std::thread::spawn(move || enrol::claim_answer(&base, &code, &key(), &format!("guest-{index}")))
            })
            .collect();
        let mut admitted = 0;
        for claim in claims {
            let answer = claim.join().expect("the claim's thread ends")?;
            match answer.status {
                200..300 => admitted += 1,
                _ => assert!(matches!(answer.code(), "exhausted" | "invite_exhausted"), "{answer:?}"),
            }
        }
        assert_eq!(admitted, 3);
        Ok(())
    }

    async fn the_same_key_claims_twice_and_uses_the_invite_once(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let invite = mesh.invite("member", 2)?;
        let guest = key();
        let first = enrol::claim(&broker.base(), &invite.code, guest.clone(), "guest")?;
        let second = enrol::claim(&broker.base(), &invite.code, guest, "guest")?;
        assert_eq!(first.id, second.id);
        enrol::claim(&broker.base(), &invite.code, key(), "other")?;
        Ok(())
    }

    async fn a_claim_signed_by_another_key_is_refused(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let invite = mesh.invite("member", 1)?;
        let (guest, thief) = (key(), key());
        let recipient = "A".repeat(43);
        let word = |code: &str| signed::claim(code, &guest.public(), &recipient);
        let claim = |recipient: &str, signature: String| -> Result<(u16, String)> {
            let body = json!({
                "recipient_x25519_pubkey": recipient, "peer_pubkey": guest.public().to_hex(), "signature": signature,
                "display_name": "guest",
            });
            let answer = enrol::post(&broker.base(), &format!("/invites/{}/claim", invite.code), &body, None)?;
            Ok((answer.status, answer.code().to_owned()))
        };
        let bad = (401, "bad_signature".to_owned());
        // The right words by another key; the right key over another code; the guest's own claim with the thief's box key.
        assert_eq!(claim(&recipient, thief.sign(word(&invite.code).as_bytes()))?, bad);
        assert_eq!(claim(&recipient, guest.sign(word("ABCDEFGH").as_bytes()))?, bad);
        assert_eq!(claim(&"E".repeat(43), guest.sign(word(&invite.code).as_bytes()))?, bad);
        // None of them used up the one use, and the key that is enrolled can say hello.
        let member = Arc::new(enrol::claim(&broker.base(), &invite.code, guest.clone(), "guest")?);
        broker.join(&member).await?.settle().await?;
        Ok(())
    }

    async fn only_the_owner_makes_and_revokes_invites(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let invite = mesh.invite("member", 5)?;
        let path = format!("/mesh/{}/invites/{}/revoke", mesh.id, invite.invite_id);
        for signer in [None, Some(&key())] {
            let answer = enrol::post(&broker.base(), &path, &json!({}), signer)?;
            assert!(matches!(answer.status, 401 | 403), "{answer:?}");
        }
        let member = mesh.member("alice")?;
        assert!(matches!(enrol::post(&broker.base(), &path, &json!({}), Some(&member.key))?.status, 401 | 403));
        assert_eq!(enrol::post(&broker.base(), &path, &json!({}), Some(&mesh.owner))?.status, 200);
        let answer = enrol::claim_answer(&broker.base(), &invite.code, &key(), "late")?;
        assert!(matches!(answer.code(), "revoked" | "invite_revoked"), "{answer:?}");
        Ok(())
    }

    async fn a_signed_request_works_once(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let path = format!("/mesh/{}/invites", mesh.id);
        let headers = claudemesh_protocol::crypto::http::headers(&mesh.owner, "GET", &path, b"", broker.now_ms());
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(enrol::request("GET", &broker.base(), &path, b"", None, &headers)?.status, 200);
        let again = enrol::request("GET", &broker.base(), &path, b"", None, &headers)?;
        assert_eq!((again.status, again.code()), (401, "replayed"), "{again:?}");
        Ok(())
    }

    async fn a_slug_is_taken_once_and_an_archived_mesh_is_closed(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let taken = broker.mesh("team").err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(taken.contains("already_exists"), "{taken}");
        let alice = mesh.member("alice")?;
        let mut peer = broker.join(&alice).await?;
        let path = format!("/mesh/{}/archive", mesh.id);
        assert_eq!(enrol::post(&broker.base(), &path, &json!({}), Some(&mesh.owner))?.status, 200);
        peer.closed().await?;
        let refused = broker.join(&alice).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refused.contains("mesh_archived"), "{refused}");
        Ok(())
    }
}
