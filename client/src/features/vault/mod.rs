//! The vault: secrets that this machine seals with the member's key. The broker keeps them and cannot read them.

use claudemesh_protocol::crypto::envelope::EnvelopeError;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::vault::limits::MAX_VALUE_BYTES;
use claudemesh_protocol::features::vault::{
    EntryType, NOT_FOUND, SealState, VaultDelete, VaultEntry, VaultGet, VaultList, VaultSet, sealing,
};
use claudemesh_protocol::id::MemberId;
use zeroize::Zeroizing;

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod tools;

/// What is to be stored.
pub struct Secret {
    /// Its name.
    pub key: String,
    /// Wiped from memory when it is dropped.
    pub value: Zeroizing<Vec<u8>>,
    /// What it is for.
    pub entry_type: EntryType,
    /// Path at which a service finds a file.
    pub mount_path: Option<String>,
    /// What it is, for people; the broker can read it.
    pub description: Option<String>,
}

/// A value that was opened.
pub struct Opened {
    /// Its name.
    pub key: String,
    /// Wiped from memory when it is dropped.
    pub value: Zeroizing<Vec<u8>>,
    /// What it is for.
    pub entry_type: EntryType,
    /// As it was given.
    pub mount_path: Option<String>,
    /// Who wrote it; never [`SealState::Forged`].
    pub seal: SealState,
}

impl Connection {
    /// Seals a value for the own member, signs the entry and stores it.
    ///
    /// # Errors
    /// `payload_too_large`, what the broker says, or of the transport.
    pub async fn vault_set(&self, secret: Secret) -> Result<(), ConnectionError> {
        let Secret { key, value, entry_type, mount_path, description } = secret;
        if value.len() > MAX_VALUE_BYTES {
            let message = format!("the value has {} bytes; at most {MAX_VALUE_BYTES} can be kept", value.len());
            return Err(ErrorFrame::new(ErrorCode::PayloadTooLarge, message).into());
        }
        let identity = self.identity();
        let sealed = sealing::seal(&value, &identity.member.public(), &mut rand::rngs::OsRng)?;
        drop(value);
        let set = VaultSet {
            key,
            ciphertext: sealed.ciphertext,
            nonce: sealed.nonce,
            sealed_key: sealed.sealed_key,
            entry_type,
            mount_path,
            description,
            ..VaultSet::default()
        };
        self.request(set.signed(&identity.mesh_id, &identity.member, crate::clock::now_ms())).await.map(drop)
    }

    /// Names of the own member, or of all with `everyone`.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn vault_list(&self, everyone: bool) -> Result<Vec<VaultEntry>, ConnectionError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.request(VaultList { everyone, limit: None, cursor }).await?;
            all.extend(page.entries);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// The value under a name; `None`: the vault has no such name.
    ///
    /// # Errors
    /// `bad_signature` when it is not what this member stored, [`ConnectionError::Seal`] when it cannot be opened, what the broker says, or
    /// of the transport.
    pub async fn vault_get(&self, key: &str) -> Result<Option<Opened>, ConnectionError> {
        let found = self.request(VaultGet { keys: vec![key.to_owned()] }).await?;
        let Some(entry) = found.entries.into_iter().find(|entry| entry.key == key) else { return Ok(None) };
        let identity = self.identity();
        let seal = entry.state(&identity.mesh_id, &identity.member.public());
        if seal == SealState::Forged {
            let message = "the broker gives a value that your member has not stored under this name";
            return Err(ErrorFrame::new(ErrorCode::BadSignature, message).into());
        }
        let value = sealing::open(&entry, &identity.member)?;
        Ok(Some(Opened { key: entry.key, value, entry_type: entry.entry_type, mount_path: entry.mount_path, seal }))
    }

    /// Deletes an entry of the own member, or of another one; `false` when there is none.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn vault_delete(&self, key: &str, member_id: Option<&str>) -> Result<bool, ConnectionError> {
        let delete = VaultDelete { key: key.to_owned(), member_id: member_id.map(MemberId::from) };
        Ok(self.request(delete).await?.action != NOT_FOUND)
    }
}

/// Why a value cannot be opened, in words.
pub(crate) fn cannot_open(error: &ConnectionError) -> Option<&'static str> {
    match error {
        ConnectionError::Seal(EnvelopeError::CannotOpen) => {
            Some("It was sealed for another key than your member has here.")
        }
        ConnectionError::Seal(_) => Some("It is not a sealed value; an older client may have stored it."),
        _ => None,
    }
}

/// `file at /run/key.pem`
fn kind_words(entry_type: EntryType, mount_path: Option<&str>) -> String {
    match mount_path {
        Some(path) => format!("{} at {path}", entry_type.as_str()),
        None => entry_type.as_str().to_owned(),
    }
}
