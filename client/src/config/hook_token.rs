//! `hook-token`: 32 random bytes in hex that prove to a broker that a status hook runs as this user.
//!
//! Sessions send its SHA-256 in their hello; hooks present the token itself, so that no one else can change their status.

use std::fmt;

use rand::RngCore;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{ConfigError, ConfigStore};

/// The token. Prints nothing, is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct HookToken(String);

impl HookToken {
    /// 64 hex digits, for the `Authorization` header of a hook only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 (hex) of the token's text, the `hookTokenHash` of a hello.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_bytes()))
    }
}

impl fmt::Debug for HookToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("HookToken(…)")
    }
}

impl Drop for HookToken {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ConfigStore {
    /// The token, when one was made.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read or holds something else.
    pub fn hook_token(&self) -> Result<Option<HookToken>, ConfigError> {
        let path = self.hook_token_path();
        let Some(bytes) = self.read(&path, 1024)? else { return Ok(None) };
        let bytes = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ConfigError::Damaged { path, reason: "expected 64 hex digits".into() });
        }
        Ok(Some(HookToken(text.to_owned())))
    }

    /// The token; makes one when there is none. Two processes that ask at once get the same.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn hook_token_or_create(&self) -> Result<HookToken, ConfigError> {
        if let Some(token) = self.hook_token()? {
            return Ok(token);
        }
        let _lock = self.lock()?;
        if let Some(token) = self.hook_token()? {
            return Ok(token);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        rand::rngs::OsRng.fill_bytes(&mut bytes[..]);
        let token = HookToken(hex::encode(&bytes[..]));
        self.write(&self.hook_token_path(), token.0.as_bytes())?;
        Ok(token)
    }

    /// `hook-token` in the config folder.
    pub fn hook_token_path(&self) -> std::path::PathBuf {
        self.dir.join("hook-token")
    }
}
