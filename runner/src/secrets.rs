//! The runner's key, and the opening of what is sealed to it.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::runner::sealing::{self, Place};
use claudemesh_protocol::runner::{FailCode, Failure, ServiceSpec, Text};
use zeroize::Zeroizing;

/// A value that was opened.
pub(crate) type Value = Zeroizing<Vec<u8>>;

/// The key of this runner: from its file, or a new one that lives as long as the process.
pub(crate) fn key(file: Option<&Path>) -> anyhow::Result<SecretKey> {
    let Some(file) = file else { return Ok(SecretKey::random(&mut rand::thread_rng())) };
    if file.exists() {
        let mode = file.metadata()?.permissions().mode();
        anyhow::ensure!(mode & 0o077 == 0, "{}: others may read it; expected mode 600", file.display());
        let text = Zeroizing::new(std::fs::read_to_string(file).with_context(|| file.display().to_string())?);
        return SecretKey::parse(text.trim()).with_context(|| file.display().to_string());
    }
    let key = SecretKey::random(&mut rand::thread_rng());
    // Under another name first: a file that was begun is no key.
    let begun = file.with_extension("new");
    let _ = std::fs::remove_file(&begun);
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&begun)?;
    out.write_all(key.to_hex().as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&begun, file)?;
    Ok(key)
}

/// Opens one value of a service; `target` as in [`Place`].
///
/// # Errors
/// [`FailCode::Sealed`].
pub(crate) fn open(text: &Text, spec: &ServiceSpec, target: String, key: &SecretKey) -> Result<Value, Failure> {
    let sealed = match text {
        Text::Plain(text) => return Ok(Zeroizing::new(text.clone().into_bytes())),
        Text::Sealed(sealed) => sealed,
    };
    let place = Place { mesh: spec.mesh.clone(), service: spec.name.clone(), target };
    sealing::open(sealed, &place, key).map_err(|error| Failure {
        code: FailCode::Sealed,
        message: format!("{}: {error}; its deployer has to seal it again for this runner", place.target),
    })
}

/// What a service is started with.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) env: Vec<(String, Zeroizing<String>)>,
    pub(crate) files: Vec<(String, Value)>,
    /// What no log may show: values that were sealed.
    pub(crate) secrets: Vec<Value>,
}

/// Opens all values of a service.
///
/// # Errors
/// [`FailCode::Sealed`], [`FailCode::Invalid`] for a variable that is no text.
pub(crate) fn open_all(spec: &ServiceSpec, key: &SecretKey) -> Result<Opened, Failure> {
    let mut opened = Opened::default();
    for var in &spec.env {
        let value = open(&var.value, spec, format!("env:{}", var.name), key)?;
        if matches!(var.value, Text::Sealed(_)) {
            opened.secrets.push(value.clone());
        }
        let text = String::from_utf8(value.to_vec()).ok().filter(|text| !text.contains('\0')).ok_or_else(|| {
            Failure { code: FailCode::Invalid, message: format!("{}: expected text without NUL", var.name) }
        })?;
        opened.env.push((var.name.clone(), Zeroizing::new(text)));
    }
    for file in &spec.files {
        let value = open(&file.value, spec, format!("file:{}", file.path), key)?;
        if matches!(file.value, Text::Sealed(_)) {
            opened.secrets.push(value.clone());
        }
        opened.files.push((file.path.clone(), value));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_must_be_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let made = key(Some(&file)).unwrap();
        assert_eq!(key(Some(&file)).unwrap(), made);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(key(Some(&file)).is_err());
        assert!(key(None).unwrap() != key(None).unwrap());
    }
}
