//! Invite links: v1 (a signed payload in the link) and v2 (a short code that is claimed).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keys::{self, SecretKey};
use crate::error::ErrorCode;
use crate::id::{MeshId, PublicKey};

/// Payload of a v1 invite, in the order the reference writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteV1 {
    /// Always 1.
    pub v: u32,
    /// Mesh.
    pub mesh_id: MeshId,
    /// Slug.
    pub mesh_slug: String,
    /// WebSocket URL.
    pub broker_url: String,
    /// Unix seconds.
    pub expires_at: i64,
    /// base64url of 32 bytes; no secret with us, see [`root_key`].
    pub mesh_root_key: String,
    /// `admin` or `member`.
    pub role: String,
    /// Signs the payload.
    pub owner_pubkey: PublicKey,
    /// By the owner, over [`InviteV1::canonical`].
    pub signature: String,
}

impl InviteV1 {
    /// The signed string.
    pub fn canonical(&self) -> String {
        format!(
            "{}|{}|{}|{}|{}|{}|{}|{}",
            self.v,
            self.mesh_id,
            self.mesh_slug,
            self.broker_url,
            self.expires_at,
            self.mesh_root_key,
            self.role,
            self.owner_pubkey
        )
    }

    /// Signs the payload with the owner's key.
    #[must_use]
    pub fn signed(mut self, owner: &SecretKey) -> Self {
        self.owner_pubkey = owner.public();
        self.signature = owner.sign(self.canonical().as_bytes());
        self
    }

    /// base64url of the JSON.
    #[expect(clippy::expect_used, reason = "no value of the struct fails")]
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a flat struct of texts and numbers serialises"))
    }

    /// Reads a token and checks shapes and signature. Expiry is the caller's, who has a clock.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn read(token: &str) -> Result<Self, InviteError> {
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| InviteError::NotBase64)?;
        let invite: Self =
            serde_json::from_slice(&bytes).map_err(|error| InviteError::NotAnInvite(error.to_string()))?;
        invite.check()?;
        Ok(invite)
    }

    /// Checks shapes and signature.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn check(&self) -> Result<(), InviteError> {
        if self.v != 1 {
            return Err(InviteError::Version(self.v));
        }
        if !matches!(self.role.as_str(), "admin" | "member") {
            return Err(InviteError::NotAnInvite("role must be admin or member".into()));
        }
        if self.expires_at <= 0 || self.mesh_id.as_str().is_empty() || self.mesh_slug.is_empty() {
            return Err(InviteError::NotAnInvite("mesh_id, mesh_slug and expires_at must not be empty".into()));
        }
        keys::verify(&self.owner_pubkey, self.canonical().as_bytes(), &self.signature)
            .map_err(|_| InviteError::BadSignature)
    }
}

/// Why an invite is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// None of the link forms.
    #[error(
        "expected an invite link (https://host/i/<code>, https://host/join/<token> or ic://join/<token>), got `{0}`"
    )]
    NotALink(String),
    /// The token is not base64url.
    #[error("the invite token is damaged: it is not base64url")]
    NotBase64,
    /// The token does not decode to an invite.
    #[error("the invite token is damaged: {0}")]
    NotAnInvite(String),
    /// Another version.
    #[error("this client reads invites of version 1 and 2, this one has version {0}")]
    Version(u32),
    /// Signature does not verify.
    #[error("the invite's signature does not verify")]
    BadSignature,
}

impl InviteError {
    /// Its stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadSignature => ErrorCode::InviteBadSignature,
            Self::NotALink(_) | Self::NotBase64 | Self::NotAnInvite(_) | Self::Version(_) => ErrorCode::Malformed,
        }
    }
}

/// What a pasted invite is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteLink {
    /// A signed token; the broker is named inside.
    V1 {
        /// base64url token.
        token: String,
    },
    /// A short code, with the HTTP base of the host in the link when it had one.
    V2 {
        /// 6 to 16 letters and digits.
        code: String,
        /// `http(s)://host[:port]`, without a trailing slash.
        base: Option<String>,
    },
}

impl InviteLink {
    /// Reads every accepted form: `http(s)://host[/<locale>]/join/<token>`, `…/i/<code>`, `ic://join/<token>`,
    /// `claudemesh://join/<token>`, `claudemesh://i/<code>`, `host[:port]/i/<code>`, a raw token, a raw code. Without a scheme a
    /// link is read as `https`, with a port (but 443 and 8443) or on this machine as `http`.
    ///
    /// # Errors
    /// [`InviteError::NotALink`] with the first 40 characters of the input.
    pub fn parse(input: &str) -> Result<Self, InviteError> {
        let text = input.trim().trim_matches(|symbol| matches!(symbol, '<' | '>' | '"' | '\''));
        let text = text.split(['?', '#']).next().unwrap_or(text).trim_end_matches('/');
        let refuse = || InviteError::NotALink(input.trim().chars().take(40).collect());
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let tail = match (scheme.as_deref(), parts.as_slice()) {
            (Some("ic" | "claudemesh"), [kind, value]) => (None, *kind, *value),
            (Some("http" | "https"), [host, kind, value]) => (Some(*host), *kind, *value),
            (Some("http" | "https"), [host, locale, kind, value]) if locale.len() == 2 => (Some(*host), *kind, *value),
            (None, [host, "i", value]) => (Some(*host), "i", *value),
            (None, [value]) if is_code(value) => (None, "i", *value),
            (None, [value]) if value.len() > 20 && is_token(value) => (None, "join", *value),
            _ => return Err(refuse()),
        };
        let base = tail.0.filter(|host| !host.is_empty()).map(|host| {
            // Who types a port means a broker without a proxy in front, unless it is one of those of TLS.
            let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            let here = host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]");
            let plain = here || port.is_some_and(|port| !matches!(port, 443 | 8443));
            let scheme = scheme.as_deref().unwrap_or(if plain { "http" } else { "https" });
            format!("{scheme}://{host}")
        });
        match tail {
            (_, "i", code) if is_code(code) => Ok(Self::V2 { code: code.to_owned(), base }),
            (_, "join", token) if is_token(token) => Ok(Self::V1 { token: token.to_owned() }),
            _ => Err(refuse()),
        }
    }
}

fn is_code(text: &str) -> bool {
    (6..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The 32 bytes that older clients expect as "mesh root key".
///
/// Nothing is encrypted with it, in the reference or here, so ours is derived from the public mesh id: a value that the
/// broker, a link or a short code can leak is not treated as a secret.
pub fn root_key(mesh: &MeshId) -> [u8; 32] {
    Sha256::digest(format!("claudemesh-root-key|{mesh}")).into()
}

/// [`root_key`] in base64url.
pub fn root_key_text(mesh: &MeshId) -> String {
    URL_SAFE_NO_PAD.encode(root_key(mesh))
}

/// `http(s)://host` of a `ws(s)://host/ws` URL; `None` when it is neither `ws` nor `wss`.
pub fn http_base(broker_url: &str) -> Option<String> {
    let (scheme, rest) = broker_url.split_once("://")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "ws" => "http",
        "wss" => "https",
        _ => return None,
    };
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    Some(format!("{scheme}://{host}"))
}
