//! What is sealed in requests for a peer's folder and in their answers: JSON texts between two members.
//!
//! The key proves the member on both sides. A question has an id that is used once, and the answer names it, so that no one in
//! between can repeat a question, or give the answer to another one.

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};

use super::Sealed;
use crate::crypto::envelope::{EnvelopeError, open_direct, seal_direct};
use crate::crypto::keys::SecretKey;
use crate::id::{MeshId, PublicKey};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Used once; 32 hex digits.
    pub id: String,
    /// Mesh in which it is asked: the same two members may meet in several.
    pub mesh: MeshId,
    /// Unix milliseconds at the asker.
    pub at_ms: i64,
    /// Key of the asking session, or of the member when there is no session.
    pub session: PublicKey,
    /// Machine of the asker: on the same one the answer may name the direct path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A file or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum What {
    /// A part of a file.
    Read {
        /// Below the folder, with `/`.
        path: String,
        /// First byte.
        #[serde(default)]
        offset: u64,
        /// At most so many bytes, and at most [`super::limits::MAX_PART_BYTES`].
        length: u64,
        /// As an earlier part of the same file had it: the answer is `conflict` when the file has changed since.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// What is in a folder.
    List {
        /// Below the folder; `.` for all of it.
        path: String,
        /// Only names that this glob fits; with a `/` in it, only paths.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<String>,
        /// How many folders deep, at most [`super::limits::MAX_DEPTH`]; [`super::limits::USUAL_DEPTH`] when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        depth: Option<u32>,
    },
}

impl What {
    /// The path that is asked for.
    pub fn path(&self) -> &str {
        match self {
            Self::Read { path, .. } | Self::List { path, .. } => path,
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Of the question.
    pub id: String,
    /// What.
    #[serde(flatten)]
    pub result: Outcome,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A part of the file.
    Part(Part),
    /// What is in the folder.
    Listing(Listing),
    /// Nothing.
    Refused {
        /// A code of `docs/errors.md`.
        code: String,
        /// For people.
        message: String,
    },
}

/// A part of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Base64.
    pub content: String,
    /// First byte.
    pub offset: u64,
    /// Bytes of the whole file.
    pub size: u64,
    /// Changes with the file.
    pub version: String,
    /// Where the file is, on the machine that both are on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_path: Option<String>,
}

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// By path.
    pub entries: Vec<Entry>,
    /// There is more than a list can have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Where the folder is, on the machine that both are on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_path: Option<String>,
}

/// An entry of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Entry {
    /// Below the folder that was asked for, with `/`.
    pub path: String,
    /// It is a folder.
    pub is_dir: bool,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// A text that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not sealed by that member for this one.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It is, and says nothing that is understood.
    #[error("the sealed text is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// Seals a [`Question`] or a [`Reply`] for a member.
///
/// # Errors
/// The key of the member is none.
pub fn seal<T: Serialize>(
    body: &T,
    to: &PublicKey,
    from: &SecretKey,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Sealed, OpenError> {
    Ok(seal_direct(&serde_json::to_string(body)?, to, from, rng)?.into())
}

/// Opens what that member sealed.
///
/// # Errors
/// [`OpenError`]
pub fn open<T: for<'a> Deserialize<'a>>(sealed: &Sealed, from: &PublicKey, own: &SecretKey) -> Result<T, OpenError> {
    Ok(serde_json::from_str(&open_direct(&sealed.nonce, &sealed.ciphertext, from, own)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            id: "ab".repeat(16),
            mesh: "m".into(),
            at_ms: 7,
            session: SecretKey::from_seed([3; 32]).public(),
            hostname: None,
            what: What::Read { path: "a/b.txt".into(), offset: 0, length: 10, version: None },
        }
    }

    #[test]
    fn only_the_two_members_read_it_and_it_names_its_sender() {
        let [ann, ben, eve] = [1, 2, 4].map(|seed| SecretKey::from_seed([seed; 32]));
        let sealed = seal(&question(), &ben.public(), &ann, &mut rand::rngs::OsRng).unwrap();
        assert_eq!(open::<Question>(&sealed, &ann.public(), &ben).unwrap(), question());
        // Someone else's name on it, or another reader.
        assert!(open::<Question>(&sealed, &eve.public(), &ben).is_err());
        assert!(open::<Question>(&sealed, &ann.public(), &eve).is_err());
        // A question is no reply.
        assert!(matches!(open::<Reply>(&sealed, &ann.public(), &ben), Err(OpenError::Json(_))));
    }

    #[test]
    fn the_forms_are_pinned() {
        let text = serde_json::to_value(question()).unwrap();
        assert_eq!((&text["op"], &text["path"], &text["length"]), (&"read".into(), &"a/b.txt".into(), &10.into()));
        let refused = Outcome::Refused { code: "not_found".into(), message: "m".into() };
        let reply = Reply { id: "i".into(), result: refused };
        let text = serde_json::json!({"id": "i", "refused": {"code": "not_found", "message": "m"}});
        assert_eq!(serde_json::to_value(&reply).unwrap(), text);
        assert_eq!(serde_json::from_value::<Reply>(text).unwrap(), reply);
        let listing =
            Listing { entries: vec![Entry { path: "a".into(), is_dir: true, size: None }], ..Listing::default() };
        let reply = Reply { id: "i".into(), result: Outcome::Listing(listing) };
        let text = serde_json::json!({"id": "i", "listing": {"entries": [{"path": "a", "is_dir": true}]}});
        assert_eq!(serde_json::to_value(&reply).unwrap(), text);
    }
}
