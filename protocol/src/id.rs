//! Identifiers as newtypes over what the wire carries.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use rand::{CryptoRng, Rng, RngCore};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Alphabet of invite codes: no `0 1 I O`.
pub const CODE_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// 32 symbols of `[0-9A-Za-z]` (190 bits) from a cryptographic generator: ids act as bearer values in places.
pub fn random_id(rng: &mut (impl RngCore + CryptoRng)) -> String {
    (0..32).map(|_| ALPHABET[rng.gen_range(0..ALPHABET.len())] as char).collect()
}

/// An invite code of 8 symbols (40 bits) of [`CODE_ALPHABET`].
pub fn random_code(rng: &mut (impl RngCore + CryptoRng)) -> String {
    (0..8).map(|_| CODE_ALPHABET[rng.gen_range(0..CODE_ALPHABET.len())] as char).collect()
}

/// In a schema an id is a text.
macro_rules! text_schema {
    ($name:ident) => {
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string"})
            }
        }
    };
}

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// A fresh random id, see [`random_id`].
            pub fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
                Self(random_id(rng).into())
            }

            /// The text as the wire carries it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({})", stringify!($name), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self(<std::borrow::Cow<'de, str>>::deserialize(deserializer)?.into()))
            }
        }

        text_schema!($name);
    )*};
}

text_id! {
    /// Row id of a mesh.
    MeshId;
    /// Row id of a member of one mesh.
    MemberId;
    /// Id of one connection record; survives a silent re-attach.
    PresenceId;
    /// Id of a message as its pushes carry it.
    MessageId;
    /// Row id of an invite.
    InviteId;
    /// Row id of a topic.
    TopicId;
    /// Row id of a task.
    TaskId;
    /// Row id of a stream.
    StreamId;
    /// Row id of a schedule entry.
    ScheduleId;
    /// Row id of a file, and of the upload that it comes of.
    FileId;
}

/// An ed25519 public key (32 bytes), 64 lower-case hex digits on the wire: member, session or owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

text_schema!(PublicKey);

impl PublicKey {
    /// Wraps raw bytes; whether they are a valid point shows when a signature is verified.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        Self::parse_any_case(text)
    }

    /// Parses 64 hex digits of either case, as the handshake accepts them.
    pub fn parse_any_case(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        self.hex().as_str().to_owned()
    }

    /// The 64 digits without a heap allocation.
    #[expect(clippy::expect_used, reason = "the sizes are constants")]
    pub fn hex(&self) -> HexKey {
        let mut text = [0; 64];
        hex::encode_to_slice(self.0, &mut text).expect("64 digits hold 32 bytes");
        HexKey(text)
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

/// A [`PublicKey`] as the wire carries it.
pub struct HexKey([u8; 64]);

impl HexKey {
    /// 64 lower-case hex digits.
    #[expect(clippy::expect_used, reason = "nothing else writes into it")]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.hex().as_str())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PublicKey({}…)", self.short())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.hex().as_str())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("expected 64 lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn ids_come_from_the_given_generator_and_are_long() {
        let mut rng = StdRng::seed_from_u64(7);
        let ids: BTreeSet<String> = (0..1_000).map(|_| random_id(&mut rng)).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        let used: BTreeSet<u8> = ids.iter().flat_map(|id| id.bytes()).collect();
        assert_eq!(used.len(), 62, "every symbol is drawn");
        assert_eq!(random_id(&mut StdRng::seed_from_u64(7)), random_id(&mut StdRng::seed_from_u64(7)));
    }

    #[test]
    fn codes_have_no_symbols_that_look_alike() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..1_000 {
            let code = random_code(&mut rng);
            assert!(code.len() == 8 && code.bytes().all(|byte| CODE_ALPHABET.contains(&byte)), "{code}");
            assert!(!code.contains(['0', '1', 'I', 'O']));
        }
    }

    #[test]
    fn keys_are_lower_case_hex_of_32_bytes() {
        let text = "ab".repeat(32);
        let key = PublicKey::parse(&text).unwrap();
        assert_eq!((key.to_hex(), key.short()), (text.clone(), "ab".repeat(6)));
        assert_eq!(PublicKey::parse_any_case(&text.to_uppercase()), Some(key));
        for bad in ["", "ab", &text.to_uppercase(), &text[1..], &format!("{text}ab"), &format!("{}zz", &text[2..])] {
            assert_eq!(PublicKey::parse(bad), None, "{bad}");
        }
    }
}
