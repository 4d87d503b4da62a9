//! Who connects: keys, ids and what peers are told, and the hello frames made of them.

use claudemesh_protocol::crypto::keys::{KeyError, SecretKey};
use claudemesh_protocol::crypto::signed;
use claudemesh_protocol::frame;
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use claudemesh_protocol::limits::ATTESTATION_TTL_MS;
use claudemesh_protocol::session::{Attestation, Hello, PeerDescription, SessionHello};
use claudemesh_protocol::version::PROTOCOL_VERSION;

use crate::config::MeshEntry;
use crate::local::store::Store;

/// One identity on one mesh. Credentials that expire are minted per connection, so a long-lived client never presents
/// an old one.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Row id of the mesh.
    pub mesh_id: MeshId,
    /// Local handle of the mesh.
    pub slug: String,
    /// Row id of the member.
    pub member_id: MemberId,
    /// `ws://` or `wss://` URL.
    pub broker_url: String,
    /// The store of a mesh of this machine: who serves it, and where, is looked up for each socket.
    pub local: Option<Store>,
    /// The member's key.
    pub member: SecretKey,
    /// The session's key; without one the connection speaks for the member.
    pub session: Option<SecretKey>,
    /// The client's session id: Claude's session id when known.
    pub session_id: String,
    /// Process id that status hooks of this session may report.
    pub pid: u64,
    /// Working directory.
    pub cwd: String,
    /// What peers see.
    pub description: PeerDescription,
}

impl Identity {
    /// The identity of a joined mesh, without a session key and with an empty description.
    ///
    /// # Errors
    /// [`KeyError`] when the stored secret is damaged.
    pub fn of_mesh(entry: &MeshEntry, session_id: impl Into<String>) -> Result<Self, KeyError> {
        Ok(Self {
            mesh_id: entry.mesh_id.clone(),
            slug: entry.slug.clone(),
            member_id: entry.member_id.clone(),
            broker_url: entry.broker_url.clone(),
            local: Store::of_entry(entry),
            member: entry.secret_key.key()?,
            session: None,
            session_id: session_id.into(),
            pid: u64::from(std::process::id()),
            cwd: String::new(),
            description: PeerDescription { protocol_version: Some(PROTOCOL_VERSION), ..PeerDescription::default() },
        })
    }

    /// The key that peers address this connection by and that seals what it sends.
    pub fn own_key(&self) -> &SecretKey {
        self.session.as_ref().unwrap_or(&self.member)
    }

    /// Public half of [`Identity::own_key`].
    pub fn own_public(&self) -> PublicKey {
        self.own_key().public()
    }

    /// Name of this reader in the inbox: its session key in hex, or `member` for connections without one.
    pub fn reader(&self) -> String {
        self.session.as_ref().map_or_else(|| crate::inbox::MEMBER_READER.to_owned(), |key| key.public().to_hex())
    }

    /// `hello`, signed by the member key. Carries the session key, unproven, when there is one.
    pub(super) fn hello(&self, now_ms: i64) -> String {
        let pubkey = self.member.public().to_hex();
        let text = signed::hello(&self.mesh_id, self.member_id.as_str(), &pubkey, &now_ms.to_string());
        let body = Hello {
            mesh_id: self.mesh_id.clone(),
            member_id: self.member_id.clone(),
            pubkey,
            session_pubkey: self.session.as_ref().map(|key| key.public().to_hex()),
            session_id: self.session_id.clone(),
            pid: self.pid,
            cwd: self.cwd.clone(),
            timestamp: now_ms.into(),
            signature: self.member.sign(text.as_bytes()),
            description: self.description.clone(),
        };
        frame::write("hello", &body, None)
    }

    /// `session_hello`, signed by the session key, with an attestation minted now; `None` without a session key.
    pub(super) fn session_hello(&self, now_ms: i64) -> Option<String> {
        let session = self.session.as_ref()?;
        let (parent, key) = (self.member.public().to_hex(), session.public().to_hex());
        let expires_at = now_ms.saturating_add(ATTESTATION_TTL_MS);
        let word = signed::attestation(&parent, &key, &expires_at.to_string());
        let text = signed::session_hello(&self.mesh_id, &parent, &key, &now_ms.to_string());
        let body = SessionHello {
            mesh_id: self.mesh_id.clone(),
            parent_member_id: self.member_id.to_string(),
            parent_member_pubkey: parent.clone(),
            session_pubkey: key.clone(),
            parent_attestation: Some(Attestation {
                session_pubkey: key,
                parent_member_pubkey: parent,
                expires_at: expires_at.into(),
                signature: self.member.sign(word.as_bytes()),
            }),
            session_id: self.session_id.clone(),
            pid: self.pid,
            cwd: self.cwd.clone(),
            timestamp: now_ms.into(),
            signature: session.sign(text.as_bytes()),
            description: self.description.clone(),
        };
        Some(frame::write("session_hello", &body, None))
    }
}
