//! Secret values, sealed by the deployer's client for one runner and for one place in one service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::envelope::{self, EnvelopeError};
use crate::crypto::keys::{self, SecretKey};
use crate::id::PublicKey;

/// Where a value belongs. It is sealed with the value: a broker cannot put the value of one service into another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The mesh.
    pub mesh: String,
    /// The name of the service.
    pub service: String,
    /// `env:NAME`, `file:PATH` or `git`.
    pub target: String,
}

#[derive(Serialize, Deserialize)]
struct Inside {
    place: Place,
    /// Base64 of the bytes.
    value: String,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

/// Why a value cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not sealed for this runner, or changed.
    #[error("the value is sealed for another runner, or was changed")]
    CannotOpen,
    /// Sealed for another service or variable.
    #[error("the value was sealed for another place")]
    OtherPlace,
}

/// Seals a value for a runner: base64 of a `crypto_box_seal` for the x25519 form of its key.
///
/// # Errors
/// [`EnvelopeError::Key`] when the runner's key is no point.
pub fn seal(
    value: &[u8],
    place: &Place,
    runner: &PublicKey,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<String, EnvelopeError> {
    let inside = Inside { place: place.clone(), value: STANDARD.encode(value) };
    let text = Zeroizing::new(serde_json::to_vec(&inside).map_err(|_| EnvelopeError::Malformed)?);
    Ok(STANDARD.encode(envelope::seal_anonymous(&text, &keys::to_x25519(runner)?, rng)?))
}

/// Opens a value that was sealed for this place.
///
/// # Errors
/// [`OpenError`].
pub fn open(sealed: &str, place: &Place, runner: &SecretKey) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let bytes = STANDARD.decode(sealed).map_err(|_| OpenError::CannotOpen)?;
    let text = envelope::open_anonymous(&bytes, &runner.to_x25519()).map_err(|_| OpenError::CannotOpen)?;
    let text = Zeroizing::new(text);
    let inside: Inside = serde_json::from_slice(&text).map_err(|_| OpenError::CannotOpen)?;
    if inside.place != *place {
        return Err(OpenError::OtherPlace);
    }
    STANDARD.decode(&inside.value).map(Zeroizing::new).map_err(|_| OpenError::CannotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(service: &str, target: &str) -> Place {
        Place { mesh: "m1".into(), service: service.into(), target: target.into() }
    }

    #[test]
    fn a_value_opens_at_its_runner_and_its_place_only() {
        let mut rng = rand::thread_rng();
        let (runner, other) = (SecretKey::random(&mut rng), SecretKey::random(&mut rng));
        let here = place("github", "env:TOKEN");
        let sealed = seal(b"s3cret\0\xff", &here, &runner.public(), &mut rng).unwrap();
        assert_eq!(*open(&sealed, &here, &runner).unwrap(), b"s3cret\0\xff");
        assert_eq!(open(&sealed, &here, &other).unwrap_err(), OpenError::CannotOpen);
        for elsewhere in [place("spy", "env:TOKEN"), place("github", "env:OTHER"), place("github", "file:TOKEN")] {
            assert_eq!(open(&sealed, &elsewhere, &runner).unwrap_err(), OpenError::OtherPlace);
        }
        for bad in ["", "%", "AAAA", &sealed[4..]] {
            assert_eq!(open(bad, &here, &runner).unwrap_err(), OpenError::CannotOpen, "{bad}");
        }
    }
}
