//! What holds for every frame, tried with random ones.

use std::sync::LazyLock;

use claudemesh_protocol::crypto::invite::{InviteLink, InviteV1};
use claudemesh_protocol::crypto::{envelope, http};
use claudemesh_protocol::error::ErrorFrame;
use claudemesh_protocol::features::presence::PeersList;
use claudemesh_protocol::features::{messaging, presence};
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use claudemesh_protocol::session;
use proptest::prelude::*;

use crate::strategies as any;
use crate::{all_texts, read_client, read_server};

fn same_client(message: ClientMessage) -> Result<(), TestCaseError> {
    let text = message.write(Some("r"));
    prop_assert_eq!(Head::read(&text).unwrap().tag.unwrap(), message.tag());
    prop_assert_eq!(read_client(&text).unwrap(), message);
    Ok(())
}

fn same_server(message: ServerMessage) -> Result<(), TestCaseError> {
    let text = message.write(None);
    prop_assert!(!text.contains('\n'), "one line per frame");
    prop_assert_eq!(read_server(&text).unwrap(), message);
    Ok(())
}

static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| all_texts().into_iter().map(|(_, text)| text).collect());

/// A sample with some bytes replaced, removed or repeated.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..4u8, any::<u8>());
    (0..TEXTS.len(), prop::collection::vec(edit, 1..6)).prop_map(|(sample, edits)| {
        let mut bytes = TEXTS[sample].clone().into_bytes();
        for (at, how, byte) in edits {
            let at = at.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[],:\"\\0-e"[usize::from(byte) % 11]),
                _ => bytes.truncate(at),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn send_round_trips(body in any::send()) {
        same_client(messaging::Request::from(body).into())?;
    }

    #[test]
    fn client_ack_round_trips(body in any::client_ack()) {
        same_client(messaging::Request::from(body).into())?;
    }

    #[test]
    fn hello_round_trips(body in any::hello()) {
        same_client(session::Request::from(body).into())?;
    }

    #[test]
    fn session_hello_round_trips(body in any::session_hello()) {
        same_client(session::Request::from(body).into())?;
    }

    #[test]
    fn push_round_trips(body in any::push()) {
        same_server(messaging::Response::from(body).into())?;
    }

    #[test]
    fn ack_round_trips(body in any::ack()) {
        same_server(messaging::Response::from(body).into())?;
    }

    #[test]
    fn peers_round_trip(peers in prop::collection::vec(any::peer(), 0..3)) {
        same_server(presence::Response::from(PeersList { peers }).into())?;
    }

    #[test]
    fn error_round_trips(frame in any::error_frame()) {
        let known = ErrorFrame::known_code(&frame);
        prop_assert!(known.is_none_or(|code| code.as_str() == frame.code));
        same_server(frame.into())?;
    }

    #[test]
    fn reading_any_text_never_panics(text in any::<String>()) {
        let _ = read_client(&text);
        let _ = read_server(&text);
        let _ = InviteLink::parse(&text);
        let _ = InviteV1::read(&text);
        let _ = envelope::decode_public(&text);
        let _ = http::verify(&text, &text, &text, "GET", &text, text.as_bytes(), 0);
    }

    #[test]
    fn reading_a_damaged_frame_never_panics(text in mutated()) {
        let _ = read_client(&text);
        let _ = read_server(&text);
    }

    #[test]
    fn what_is_read_can_be_written_and_read_again(text in mutated()) {
        if let Ok(message) = read_client(&text) {
            prop_assert_eq!(read_client(&message.write(None)).unwrap(), message);
        }
        if let Ok(message) = read_server(&text) {
            prop_assert_eq!(read_server(&message.write(None)).unwrap(), message);
        }
    }

    #[test]
    fn any_text_survives_the_envelope(text in any::<String>(), seed in any::<u64>()) {
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed);
        let alice = claudemesh_protocol::crypto::keys::SecretKey::random(&mut rng);
        let bob = claudemesh_protocol::crypto::keys::SecretKey::random(&mut rng);
        let sealed = envelope::seal_direct(&text, &bob.public(), &alice, &mut rng).unwrap();
        prop_assert_eq!(envelope::open_direct(&sealed.nonce, &sealed.ciphertext, &alice.public(), &bob).unwrap(), text.clone());
        let public = envelope::encode_public(&text, &mut rng);
        prop_assert_eq!(envelope::decode_public(&public.ciphertext).unwrap(), text);
    }
}
