//! Signed heads: the broker says which end of a chain it has shown, so that a chain that was rewritten or cut later is found by
//! anyone who kept an earlier head.

use std::io::{self, Write};
use std::path::Path;

use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::crypto::signed;
use claudemesh_protocol::id::{MeshId, PublicKey};

use super::Head;

/// Name of the key file in the data folder: 128 hex digits, readable by the broker's user only.
const FILE: &str = "audit.key";

/// Signs heads with the broker's own key.
#[derive(Debug)]
pub struct HeadSigner {
    key: SecretKey,
}

/// A head with the broker's word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// The end of the chain.
    pub head: Head,
    /// When it was signed, Unix milliseconds.
    pub at_ms: i64,
    /// Over `audit-head|mesh|seq|hash|time`, 128 hex digits.
    pub signature: String,
}

impl HeadSigner {
    /// Reads the key of a data folder; makes folder (0700) and key (0600) on first start.
    ///
    /// # Errors
    /// The folder cannot be used, or the file holds no key.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(dir, &path),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> io::Result<Self> {
        let key = SecretKey::parse(text.trim()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Self { key })
    }

    /// Written beside and linked into place, so that a broker that is killed meanwhile leaves no half key, and of two that
    /// start at once both use the first one's.
    fn create(dir: &Path, path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
        }
        let beside = dir.join(format!("{FILE}.{}", uuid::Uuid::new_v4()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        let written = file
            .write_all(SecretKey::random(&mut rand::rngs::OsRng).to_hex().as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| match std::fs::hard_link(&beside, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                done => done,
            });
        // What was written beside is of no use any more, linked or not.
        let _ = std::fs::remove_file(&beside);
        written?;
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Signs the end of a mesh's chain.
    pub fn sign(&self, mesh: &MeshId, head: Head, at_ms: i64) -> SignedHead {
        let text = signed::audit_head(mesh, head.seq, &head.hash, at_ms);
        SignedHead { signature: self.key.sign(text.as_bytes()), head, at_ms }
    }
}
