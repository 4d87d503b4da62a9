//! Agreement with libsodium, byte for byte. `vectors/generate.py` made the data.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_protocol::crypto::file::{self, FileKey};
use claudemesh_protocol::crypto::keys::{self, KeyError, SecretKey};
use claudemesh_protocol::crypto::{envelope, http, invite, signed};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::{InviteId, MeshId, PublicKey};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Vectors {
    keys: Vec<KeyVector>,
    sign: Vec<SignVector>,
    #[serde(rename = "box")]
    boxes: Vec<BoxVector>,
    big_box: BigBox,
    seal: Vec<SealVector>,
    hello: Hello,
    session_hello: SessionHello,
    invite_v1: InviteV1,
    invite_v2: InviteV2,
    http: Http,
    permission: Permission,
    fingerprint: Fingerprint,
    weak_keys: Vec<String>,
    secretbox: Vec<SecretBox>,
    file_chunks: FileChunks,
}

#[derive(Deserialize)]
struct SecretBox {
    name: String,
    key: String,
    nonce: String,
    plain: String,
    sealed: String,
}

#[derive(Deserialize)]
struct FileChunks {
    key: String,
    header: String,
    plain_name: String,
    plain_bytes: usize,
    sealed_bytes: usize,
    sealed_sha256: String,
}

#[derive(Deserialize)]
struct KeyVector {
    name: String,
    seed: String,
    public: String,
    secret: String,
    x25519_public: String,
    x25519_secret: String,
}

#[derive(Deserialize)]
struct SignVector {
    name: String,
    key: String,
    text: String,
    signature: String,
}

#[derive(Deserialize)]
struct BoxVector {
    name: String,
    sender: String,
    recipient: String,
    nonce: String,
    text: String,
    ciphertext: String,
}

#[derive(Deserialize)]
struct BigBox {
    sender: String,
    recipient: String,
    nonce: String,
    text_name: String,
    text_chars: usize,
    text_sha256: String,
    ciphertext_sha256: String,
}

#[derive(Deserialize)]
struct SealVector {
    name: String,
    x25519_secret: String,
    x25519_public: String,
    sealed: String,
    opened: String,
}

#[derive(Deserialize)]
struct Hello {
    mesh: String,
    member: String,
    key: String,
    timestamp: String,
    canonical: String,
    signature: String,
}

#[derive(Deserialize)]
struct SessionHello {
    mesh: String,
    parent: String,
    session: String,
    expires_at: String,
    timestamp: String,
    attestation_canonical: String,
    attestation_signature: String,
    canonical: String,
    signature: String,
}

#[derive(Deserialize)]
struct InviteV1 {
    payload: Value,
    canonical: String,
    token: String,
}

#[derive(Deserialize)]
struct InviteV2 {
    mesh: String,
    invite: String,
    expires_at: i64,
    role: String,
    owner: String,
    canonical: String,
    signature: String,
    code: String,
    recipient: String,
    claim_key: String,
    claim_canonical: String,
    claim_signature: String,
}

#[derive(Deserialize)]
struct Http {
    method: String,
    path: String,
    body: String,
    timestamp: i64,
    key: String,
    canonical: String,
    signature: String,
}

#[derive(Deserialize)]
struct Permission {
    mesh: String,
    request: String,
    session: String,
    digest: String,
    behavior: String,
    expires_at: i64,
    signed_at: i64,
    key: String,
    canonical: String,
    signature: String,
    record: String,
    audit_canonical: String,
    audit_signature: String,
    safety_number: String,
}

#[derive(Deserialize)]
struct Fingerprint {
    kind: String,
    #[serde(rename = "ref")]
    reference: String,
    reply_to: String,
    priority: String,
    body: String,
    fingerprint: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/libsodium.json")).expect("the vectors are in the repository")
}

impl Vectors {
    fn key(&self, name: &str) -> SecretKey {
        let key = self.keys.iter().find(|key| key.name == name).expect("a named key");
        SecretKey::parse(&key.secret).unwrap()
    }
}

fn hex_array<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).unwrap();
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// As `long_text` of the generator.
fn long_text(name: &str, chars: usize) -> String {
    let mut text = String::with_capacity(chars + 64);
    for counter in 0.. {
        if text.len() >= chars {
            break;
        }
        text += &sha256(format!("{name}|{counter}").as_bytes());
    }
    text.truncate(chars);
    text
}

#[test]
fn key_pairs_and_their_curve_form_agree() {
    for key in vectors().keys {
        let ours = SecretKey::from_seed(hex_array(&key.seed));
        assert_eq!(ours.public().to_hex(), key.public, "{}", key.name);
        assert_eq!(ours.to_hex().as_str(), key.secret, "{}", key.name);
        assert_eq!(SecretKey::parse(&key.secret).unwrap().public(), ours.public());
        let public = keys::to_x25519(&ours.public()).unwrap();
        assert_eq!(hex::encode(public.as_bytes()), key.x25519_public, "{}", key.name);
        // libsodium stores the clamped scalar, dalek clamps on use; what counts is the point it makes.
        let theirs = crypto_box::SecretKey::from(hex_array(&key.x25519_secret));
        assert_eq!(ours.to_x25519().public_key(), theirs.public_key(), "{}", key.name);
        assert_eq!(hex::encode(theirs.public_key().as_bytes()), key.x25519_public, "{}", key.name);
    }
}

#[test]
fn a_secret_whose_public_half_does_not_fit_is_refused() {
    let vectors = vectors();
    let (alice, bob) = (&vectors.keys[0].secret, &vectors.keys[1].secret);
    let mixed = format!("{}{}", &alice[..64], &bob[64..]);
    for text in [mixed.as_str(), "", &alice[..64], "zz", &format!("{alice}00"), &format!("{}zz", &alice[..126])] {
        assert_eq!(SecretKey::parse(text), Err(KeyError::BadSecret), "{text}");
    }
    assert_eq!(SecretKey::parse(&alice.to_uppercase()).unwrap().public().to_hex(), vectors.keys[0].public);
}

#[test]
fn signatures_agree_and_any_change_is_noticed() {
    let vectors = vectors();
    for case in &vectors.sign {
        let key = vectors.key(&case.key);
        assert_eq!(key.sign(case.text.as_bytes()), case.signature, "{}", case.name);
        let public = key.public();
        assert_eq!(keys::verify(&public, case.text.as_bytes(), &case.signature), Ok(()), "{}", case.name);
        assert_eq!(keys::verify(&public, case.text.as_bytes(), &case.signature.to_uppercase()), Ok(()));
        let mut longer = case.text.clone();
        longer.push('x');
        assert_eq!(keys::verify(&public, longer.as_bytes(), &case.signature), Err(KeyError::BadSignature));
        let other = vectors.key("bob").public();
        assert_eq!(keys::verify(&other, case.text.as_bytes(), &case.signature), Err(KeyError::BadSignature));
        let mut bytes = hex::decode(&case.signature).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1 << (at % 8);
            let flipped = keys::verify(&public, case.text.as_bytes(), &hex::encode(&bytes));
            assert_eq!(flipped, Err(KeyError::BadSignature), "{} byte {at}", case.name);
            bytes[at] ^= 1 << (at % 8);
        }
        for shape in ["", "00", &case.signature[1..], &format!("{}zz", &case.signature[2..])] {
            assert_eq!(keys::verify(&public, b"", shape), Err(KeyError::BadSignatureShape), "{shape}");
        }
    }
}

#[test]
fn a_signature_with_the_group_order_added_is_refused() {
    let vectors = vectors();
    let case = &vectors.sign[1];
    let mut bytes = hex::decode(&case.signature).unwrap();
    // The order of the base point, little endian: s + order verifies with a lax verifier.
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut carry = 0u16;
    for (at, add) in order.iter().enumerate() {
        carry += u16::from(bytes[32 + at]) + u16::from(*add);
        bytes[32 + at] = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    let key = vectors.key(&case.key).public();
    assert_eq!(keys::verify(&key, case.text.as_bytes(), &hex::encode(bytes)), Err(KeyError::BadSignature));
}

#[test]
fn keys_of_small_order_sign_and_open_nothing() {
    let vectors = vectors();
    let me = vectors.key("alice");
    for text in &vectors.weak_keys {
        let key = PublicKey::parse(text).unwrap();
        assert_eq!(keys::to_x25519(&key).err(), Some(KeyError::BadPublic), "{text}");
        // R = identity, s = 0 verifies any message under a weak key unless the verifier is strict.
        let forged = format!("01{}", "00".repeat(63));
        assert!(keys::verify(&key, b"anything", &forged).is_err(), "{text}");
        assert!(envelope::seal_direct_with_nonce("x", &key, &me, [7; 24]).is_err(), "{text}");
        assert!(envelope::open_direct(&vectors.boxes[1].nonce, &vectors.boxes[1].ciphertext, &key, &me).is_err());
    }
}

#[test]
fn direct_bodies_agree_both_ways() {
    let vectors = vectors();
    for case in &vectors.boxes {
        let (sender, recipient) = (vectors.key(&case.sender), vectors.key(&case.recipient));
        let nonce: [u8; 24] = STANDARD.decode(&case.nonce).unwrap().try_into().unwrap();
        let ours = envelope::seal_direct_with_nonce(&case.text, &recipient.public(), &sender, nonce).unwrap();
        assert_eq!(ours.ciphertext, case.ciphertext, "{}", case.name);
        assert_eq!(ours.nonce, case.nonce, "{}", case.name);
        let opened = envelope::open_direct(&case.nonce, &case.ciphertext, &sender.public(), &recipient).unwrap();
        assert_eq!(opened, case.text, "{}", case.name);
    }
}

#[test]
fn a_body_of_one_mebibyte_agrees() {
    let vectors = vectors();
    let case = &vectors.big_box;
    let text = long_text(&case.text_name, case.text_chars);
    assert_eq!(sha256(text.as_bytes()), case.text_sha256);
    let (sender, recipient) = (vectors.key(&case.sender), vectors.key(&case.recipient));
    let nonce: [u8; 24] = STANDARD.decode(&case.nonce).unwrap().try_into().unwrap();
    let sealed = envelope::seal_direct_with_nonce(&text, &recipient.public(), &sender, nonce).unwrap();
    assert_eq!(sha256(&STANDARD.decode(&sealed.ciphertext).unwrap()), case.ciphertext_sha256);
    let opened = envelope::open_direct(&sealed.nonce, &sealed.ciphertext, &sender.public(), &recipient).unwrap();
    assert_eq!(opened, text);
    let chars = sealed.nonce.len() + sealed.ciphertext.len();
    assert!(chars < claudemesh_protocol::limits::MAX_MESSAGE_CHARS, "a body of 1 MiB fits in one message: {chars}");
}

#[test]
fn a_changed_or_misaddressed_body_is_refused() {
    use envelope::EnvelopeError;
    let vectors = vectors();
    let case = &vectors.boxes[1];
    let (alice, bob, owner) = (vectors.key("alice"), vectors.key("bob"), vectors.key("owner"));
    let open = |nonce: &str, body: &str, from: &SecretKey, to: &SecretKey| {
        envelope::open_direct(nonce, body, &from.public(), to)
    };
    assert_eq!(open(&case.nonce, &case.ciphertext, &alice, &owner), Err(EnvelopeError::CannotOpen));
    assert_eq!(open(&case.nonce, &case.ciphertext, &owner, &bob), Err(EnvelopeError::CannotOpen));
    assert_eq!(open(&vectors.boxes[2].nonce, &case.ciphertext, &alice, &bob), Err(EnvelopeError::CannotOpen));
    let mut bytes = STANDARD.decode(&case.ciphertext).unwrap();
    for at in 0..bytes.len() {
        bytes[at] ^= 0x10;
        assert_eq!(open(&case.nonce, &STANDARD.encode(&bytes), &alice, &bob), Err(EnvelopeError::CannotOpen), "{at}");
        bytes[at] ^= 0x10;
    }
    for (nonce, body) in [
        ("", case.ciphertext.as_str()),
        (case.nonce.as_str(), ""),
        (case.nonce.as_str(), "AAAA"),
        ("!", case.ciphertext.as_str()),
        (case.nonce.as_str(), "!"),
        (case.nonce.trim_end_matches('='), case.ciphertext.trim_end_matches('=')),
    ] {
        if nonce == case.nonce && body == case.ciphertext {
            continue;
        }
        assert_eq!(open(nonce, body, &alice, &bob), Err(EnvelopeError::Malformed), "{nonce} {body}");
    }
}

#[test]
fn anonymous_boxes_open() {
    for case in vectors().seal {
        let secret = crypto_box::SecretKey::from(hex_array(&case.x25519_secret));
        assert_eq!(hex::encode(secret.public_key().as_bytes()), case.x25519_public);
        let sealed = STANDARD.decode(&case.sealed).unwrap();
        assert_eq!(hex::encode(envelope::open_anonymous(&sealed, &secret).unwrap()), case.opened, "{}", case.name);
        let mut flipped = sealed.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(envelope::open_anonymous(&flipped, &secret), Err(envelope::EnvelopeError::CannotOpen));
        assert!(envelope::open_anonymous(&sealed[..40], &secret).is_err());
        let again = envelope::seal_anonymous(&hex::decode(&case.opened).unwrap(), &secret.public_key(), &mut rng());
        assert_eq!(hex::encode(envelope::open_anonymous(&again.unwrap(), &secret).unwrap()), case.opened);
    }
}

#[test]
fn files_of_the_existing_form_agree() {
    for case in vectors().secretbox {
        let (key, plain) = (FileKey::parse(&case.key).unwrap(), hex::decode(&case.plain).unwrap());
        let sealed = file::whole::seal_with_nonce(&key, &plain, hex_array(&case.nonce)).unwrap();
        assert_eq!(hex::encode(&sealed), case.sealed, "{}", case.name);
        assert_eq!(file::whole::open(&key, sealed).unwrap(), plain, "{}", case.name);
    }
}

#[test]
fn chunks_of_a_file_are_those_of_libsodium() {
    let case = vectors().file_chunks;
    let (key, header) = (FileKey::parse(&case.key).unwrap(), hex::decode(&case.header).unwrap());
    let plain = long_text(&case.plain_name, case.plain_bytes);
    let chunks = file::chunks::Chunks::new(&key, &header).unwrap();
    let pieces: Vec<&[u8]> = plain.as_bytes().chunks(file::chunks::CHUNK_BYTES).collect();
    let mut sealed = header;
    for (number, piece) in pieces.iter().enumerate() {
        let mut piece = piece.to_vec();
        chunks.seal(number as u32, number + 1 == pieces.len(), &mut piece).unwrap();
        sealed.extend(piece);
    }
    assert_eq!((sealed.len(), sha256(&sealed)), (case.sealed_bytes, case.sealed_sha256));
}

fn rng() -> rand::rngs::StdRng {
    rand::SeedableRng::seed_from_u64(1)
}

#[test]
fn handshake_strings_and_signatures_agree() {
    let vectors = vectors();
    let case = &vectors.hello;
    let key = vectors.key(&case.key);
    let text = signed::hello(&MeshId::from(case.mesh.as_str()), &case.member, &key.public().to_hex(), &case.timestamp);
    assert_eq!(text, case.canonical);
    assert_eq!(key.sign(text.as_bytes()), case.signature);

    let case = &vectors.session_hello;
    let (parent, session) = (vectors.key(&case.parent), vectors.key(&case.session));
    let (parent_hex, session_hex) = (parent.public().to_hex(), session.public().to_hex());
    let text = signed::attestation(&parent_hex, &session_hex, &case.expires_at);
    assert_eq!(text, case.attestation_canonical);
    assert_eq!(parent.sign(text.as_bytes()), case.attestation_signature);
    let mesh = MeshId::from(case.mesh.as_str());
    let text = signed::session_hello(&mesh, &parent_hex, &session_hex, &case.timestamp);
    assert_eq!(text, case.canonical);
    assert_eq!(session.sign(text.as_bytes()), case.signature);
}

#[test]
fn invites_agree_and_any_change_is_noticed() {
    use invite::InviteError;
    let vectors = vectors();
    let case = &vectors.invite_v1;
    let read = invite::InviteV1::read(&case.token).unwrap();
    assert_eq!(read.canonical(), case.canonical);
    assert_eq!(serde_json::to_value(&read).unwrap(), case.payload);
    assert_eq!(read.token(), case.token, "same bytes as the reference writes");
    let resigned = read.clone().signed(&vectors.key("owner"));
    assert_eq!(resigned, read);
    let changes: [fn(&mut invite::InviteV1); 7] = [
        |invite| invite.mesh_id = "other".into(),
        |invite| invite.mesh_slug.push('x'),
        |invite| invite.broker_url = "wss://evil.example/ws".into(),
        |invite| invite.expires_at += 1,
        |invite| invite.mesh_root_key.push('A'),
        |invite| invite.role = "admin".into(),
        |invite| invite.owner_pubkey = vectors_key_bob(),
    ];
    for change in changes {
        let mut forged = read.clone();
        change(&mut forged);
        assert_eq!(invite::InviteV1::read(&forged.token()), Err(InviteError::BadSignature));
    }
    assert_eq!(invite::InviteV1::read("!!"), Err(InviteError::NotBase64));
    assert!(matches!(invite::InviteV1::read("e30"), Err(InviteError::NotAnInvite(_))));

    let case = &vectors.invite_v2;
    let owner = vectors.key(&case.owner);
    let (mesh, id) = (MeshId::from(case.mesh.as_str()), InviteId::from(case.invite.as_str()));
    let text = signed::invite_v2(&mesh, &id, case.expires_at, &case.role, &owner.public());
    assert_eq!(text, case.canonical);
    assert_eq!(owner.sign(text.as_bytes()), case.signature);
    let bob = vectors.key(&case.claim_key);
    let text = signed::claim(&case.code, &bob.public(), &case.recipient);
    assert_eq!(text, case.claim_canonical);
    assert_eq!(bob.sign(text.as_bytes()), case.claim_signature);
}

fn vectors_key_bob() -> PublicKey {
    vectors().key("bob").public()
}

#[test]
fn signed_requests_agree_and_any_change_is_noticed() {
    let vectors = vectors();
    let case = &vectors.http;
    let key = vectors.key(&case.key);
    let headers = http::headers(&key, &case.method, &case.path, case.body.as_bytes(), case.timestamp);
    assert_eq!(headers[0], (http::KEY_HEADER, key.public().to_hex()));
    assert_eq!(headers[1], (http::TIMESTAMP_HEADER, case.timestamp.to_string()));
    assert_eq!(headers[2], (http::SIGNATURE_HEADER, case.signature.clone()));
    let digest = http::sha256_hex(case.body.as_bytes());
    assert_eq!(signed::http(&case.method, &case.path, case.timestamp, &digest), case.canonical);

    let public = key.public().to_hex();
    let stamp = case.timestamp.to_string();
    let verify = |key: &str, stamp: &str, signature: &str, method: &str, path: &str, body: &str, now| {
        http::verify(key, stamp, signature, method, path, body.as_bytes(), now)
    };
    let (method, path, body, now) = (case.method.as_str(), case.path.as_str(), case.body.as_str(), case.timestamp);
    let sig = case.signature.as_str();
    assert_eq!(verify(&public, &stamp, sig, method, path, body, now), Ok(key.public()));
    for edge in [now - 60_000, now + 60_000] {
        assert_eq!(verify(&public, &stamp, sig, method, path, body, edge), Ok(key.public()));
    }
    for late in [now - 60_001, now + 60_001, i64::MIN, i64::MAX] {
        assert_eq!(verify(&public, &stamp, sig, method, path, body, late), Err(ErrorCode::TimestampSkew));
    }
    let bad = Err(ErrorCode::BadSignature);
    assert_eq!(verify(&public, &stamp, sig, "GET", path, body, now), bad);
    assert_eq!(verify(&public, &stamp, sig, method, "/mesh", body, now), bad);
    assert_eq!(verify(&public, &stamp, sig, method, path, "{}", now), bad);
    assert_eq!(verify(&public, "1775641983001", sig, method, path, body, now), bad);
    assert_eq!(verify(&vectors.key("bob").public().to_hex(), &stamp, sig, method, path, body, now), bad);
    let malformed = Err(ErrorCode::Malformed);
    assert_eq!(verify("", &stamp, sig, method, path, body, now), malformed);
    assert_eq!(verify(&public.to_uppercase(), &stamp, sig, method, path, body, now), malformed);
    assert_eq!(verify(&public, "soon", sig, method, path, body, now), malformed);
    assert_eq!(verify(&public, &stamp, "00", method, path, body, now), malformed);
    // One signature has one spelling, or a replay would pass a memory of spellings.
    assert_eq!(verify(&public, &stamp, &sig.to_uppercase(), method, path, body, now), malformed);
}

#[test]
fn request_fingerprints_agree() {
    let case = vectors().fingerprint;
    let ours = envelope::request_fingerprint(&case.kind, &case.reference, &case.reply_to, &case.priority, &case.body);
    assert_eq!(ours, case.fingerprint);
}

#[test]
fn secrets_never_print() {
    let key = vectors().key("alice");
    assert_eq!(format!("{key:?}"), "SecretKey(…)");
    assert!(!format!("{:?}", Some(&key)).contains(&key.to_hex()[..8]));
}

#[test]
fn permission_words_and_records_agree() {
    let vectors = vectors();
    let case = &vectors.permission;
    let (key, session) = (vectors.key(&case.key), vectors.key(&case.session).public());
    let mesh = MeshId::from(case.mesh.as_str());
    let word = signed::PermissionWord {
        mesh: &mesh,
        request: &case.request,
        session: &session,
        digest: &case.digest,
        behavior: &case.behavior,
        expires_at_ms: case.expires_at,
        signed_at_ms: case.signed_at,
    };
    let text = signed::permission(&word);
    assert_eq!(text, case.canonical);
    assert_eq!(key.sign(text.as_bytes()), case.signature);
    keys::verify(&key.public(), text.as_bytes(), &case.signature).unwrap();
    let denied = signed::permission(&signed::PermissionWord { behavior: "deny", ..word });
    assert_eq!(keys::verify(&key.public(), denied.as_bytes(), &case.signature), Err(KeyError::BadSignature));
    assert_eq!(signed::audit(&case.record), case.audit_canonical);
    assert_eq!(key.sign(case.audit_canonical.as_bytes()), case.audit_signature);
    let bob = vectors.key("bob").public();
    assert_eq!(keys::safety_number(&key.public(), &bob), case.safety_number);
    assert_eq!(keys::safety_number(&bob, &key.public()), case.safety_number);
}
