//! Who wrote a skill, proved by the member's key: the broker can keep, lose or withhold a text, not change it unseen.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{ShareSkill, Skill};
use crate::crypto::audit::canonical_json;
use crate::crypto::keys::{self, SecretKey};
use crate::crypto::signed;
use crate::id::{MeshId, PublicKey};

/// What is signed of a skill: everything that a reader may act on.
#[derive(Clone, Copy, Debug)]
pub struct SkillText<'a> {
    /// Name.
    pub name: &'a str,
    /// Description.
    pub description: &'a str,
    /// Instructions.
    pub instructions: &'a str,
    /// Tags in their order.
    pub tags: &'a [String],
    /// Manifest.
    pub manifest: Option<&'a Value>,
}

impl SkillText<'_> {
    /// SHA-256 of the parts, each behind its length in bytes (8 bytes, big endian), in lower-case hex. The order is name, description,
    /// instructions, manifest as canonical JSON (`null` without one), tags.
    pub fn digest(&self) -> String {
        let manifest = self.manifest.map_or_else(|| "null".to_owned(), canonical_json);
        let parts = [self.name, self.description, self.instructions, &manifest];
        let mut hash = Sha256::new();
        for part in parts.into_iter().chain(self.tags.iter().map(String::as_str)) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(hash.finalize())
    }

    fn canonical(&self, mesh: &MeshId, signed_at_ms: i64) -> String {
        signed::skill(mesh, &self.digest(), signed_at_ms)
    }

    /// Whether a signature is of this text, by this key, for this mesh.
    ///
    /// # Errors
    /// As [`keys::verify`].
    pub fn verify(
        &self,
        mesh: &MeshId,
        key: &PublicKey,
        signature: &str,
        signed_at_ms: i64,
    ) -> Result<(), keys::KeyError> {
        keys::verify(key, self.canonical(mesh, signed_at_ms).as_bytes(), signature)
    }
}

/// What a reader knows of the author of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SignatureState {
    /// The key that the broker names as the author's has signed this text for this mesh.
    Verified,
    /// No one has signed it: its client is of before.
    Unsigned,
    /// There is a signature, and it is not of this text.
    Forged,
}

impl SignatureState {
    /// The word on the wire of tools and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
        }
    }
}

impl ShareSkill {
    /// What is signed of it.
    pub fn text(&self) -> SkillText<'_> {
        SkillText {
            name: &self.name,
            description: &self.description,
            instructions: &self.instructions,
            tags: &self.tags,
            manifest: self.manifest.as_ref(),
        }
    }

    /// Signs it with the member's key; `now_ms` in Unix milliseconds.
    #[must_use]
    pub fn signed(self, mesh: &MeshId, key: &SecretKey, now_ms: i64) -> Self {
        let signature = key.sign(self.text().canonical(mesh, now_ms).as_bytes());
        Self { signature: Some(signature), signed_at_ms: Some(now_ms), ..self }
    }
}

impl Skill {
    /// What is signed of it.
    pub fn text(&self) -> SkillText<'_> {
        SkillText {
            name: &self.name,
            description: &self.description,
            instructions: &self.instructions,
            tags: &self.tags,
            manifest: self.manifest.as_ref(),
        }
    }

    /// Compares the text with its signature.
    pub fn signature_state(&self, mesh: &MeshId) -> SignatureState {
        match (&self.author_key, &self.signature, self.signed_at_ms) {
            (_, None, _) => SignatureState::Unsigned,
            (Some(key), Some(signature), Some(at)) if self.text().verify(mesh, key, signature, at).is_ok() => {
                SignatureState::Verified
            }
            _ => SignatureState::Forged,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn share() -> ShareSkill {
        ShareSkill {
            name: "deploy".into(),
            description: "How we deploy".into(),
            instructions: "Run the script.".into(),
            tags: vec!["ops".into(), "ci".into()],
            manifest: Some(json!({"when_to_use": "on Fridays", "allowed_tools": ["Bash"]})),
            ..ShareSkill::default()
        }
    }

    fn told(share: ShareSkill, key: PublicKey) -> Skill {
        Skill {
            name: share.name,
            description: share.description,
            instructions: share.instructions,
            tags: share.tags,
            manifest: share.manifest,
            author_key: Some(key),
            signature: share.signature,
            signed_at_ms: share.signed_at_ms,
            ..Skill::default()
        }
    }

    #[test]
    fn a_change_of_any_part_or_another_key_or_mesh_is_a_forgery() {
        let (mesh, key) = (MeshId::from("m"), SecretKey::from_seed([7; 32]));
        let skill = told(share().signed(&mesh, &key, 9), key.public());
        assert_eq!(skill.signature_state(&mesh), SignatureState::Verified);
        let sorted =
            Skill { manifest: Some(json!({"allowed_tools": ["Bash"], "when_to_use": "on Fridays"})), ..skill.clone() };
        assert_eq!(sorted.signature_state(&mesh), SignatureState::Verified, "the order of the keys says nothing");
        let none = Skill { signature: None, ..skill.clone() };
        assert_eq!(none.signature_state(&mesh), SignatureState::Unsigned);
        let changes: [fn(&mut Skill); 9] = [
            |skill| skill.name.push('x'),
            |skill| skill.description.push('x'),
            |skill| skill.instructions.push('x'),
            |skill| skill.tags.reverse(),
            |skill| skill.manifest = None,
            |skill| skill.signed_at_ms = Some(10),
            |skill| skill.signed_at_ms = None,
            |skill| skill.author_key = Some(SecretKey::from_seed([8; 32]).public()),
            |skill| skill.author_key = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = skill.clone();
            change(&mut changed);
            assert_eq!(changed.signature_state(&mesh), SignatureState::Forged, "change {number}");
        }
        assert_eq!(skill.signature_state(&MeshId::from("other")), SignatureState::Forged);
    }

    #[test]
    fn no_text_moves_from_one_part_into_the_next() {
        let one = ShareSkill { description: "ab".into(), instructions: "c".into(), ..share() };
        let other = ShareSkill { description: "a".into(), instructions: "bc".into(), ..share() };
        assert_ne!(one.text().digest(), other.text().digest());
        let split = ShareSkill { tags: vec!["opsci".into()], ..share() };
        assert_ne!(split.text().digest(), share().text().digest());
    }
}
