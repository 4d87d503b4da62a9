//! TLS to PostgreSQL: who is believed, and what went wrong, in words that do not change.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::db::DbError;

/// What a server has to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing: the line is encrypted, and anyone who sits in the middle reads along.
    Anyone,
    /// A certificate that one of the roots signed.
    Chain,
    /// The same, for the host name of the URL.
    ChainAndName,
}

/// Why there is no safe connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The server speaks plain only.
    #[error("it does not offer TLS")]
    NotOffered,
    /// No root signed its certificate.
    #[error("no trusted root signed its certificate")]
    UnknownIssuer,
    /// The certificate is another host's.
    #[error("its certificate is for another host name")]
    WrongName,
    /// The certificate has expired or is not valid yet.
    #[error("its certificate is not valid at this time")]
    WrongTime,
    /// The root itself is presented, which proves nothing about who presents it.
    #[error(
        "its certificate is one of a certificate authority, expected one that such an authority signed for the server"
    )]
    Authority,
    /// Anything else of the handshake.
    #[error("the TLS handshake failed")]
    Handshake,
}

/// Client settings; `root` is a PEM file, or `system`. Without it the roots of the system are believed.
pub(super) fn client(trust: Trust, root: Option<&str>) -> Result<ClientConfig, DbError> {
    let provider = Arc::new(ring::default_provider());
    let chain = match trust {
        Trust::Anyone => None,
        Trust::Chain | Trust::ChainAndName => {
            let roots = Arc::new(roots(root.filter(|root| *root != "system"))?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            Some(verifier.map_err(|error| DbError::bad_url("sslrootcert", PEM, error))?)
        }
    };
    let verifier: Arc<dyn ServerCertVerifier> = match chain {
        Some(strict) if trust == Trust::ChainAndName => strict,
        chain => Arc::new(Lenient { provider: Arc::clone(&provider), chain }),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DbError::Unavailable(error.into()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // Servers from 17 on want it when a connection begins with TLS; the others do not look at it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

const PEM: &str = "a file with certificates in PEM";

fn roots(file: Option<&str>) -> Result<RootCertStore, DbError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let fail = |error: Box<dyn std::error::Error + Send + Sync>| DbError::bad_url("sslrootcert", PEM, error);
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| fail(error.into()))?;
            for certificate in certificates {
                roots.add(certificate.map_err(|error| fail(error.into()))?).map_err(|error| fail(error.into()))?;
            }
            if roots.is_empty() {
                return Err(fail("no certificate in it".into()));
            }
        }
        // Some of them may be unreadable; with none at all, the handshake says that no one is trusted.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(roots)
}

/// What the failure of a connection says about TLS.
pub(super) fn fault(error: &(dyn std::error::Error + 'static)) -> Option<TlsFault> {
    let mut found = None;
    let mut next = Some(error);
    while let Some(error) = next {
        // The driver names the part that failed in its text only.
        let text = error.to_string();
        if text.contains("server does not support TLS") {
            return Some(TlsFault::NotOffered);
        }
        if text.contains("error performing TLS handshake") {
            found = Some(TlsFault::Handshake);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(of_rustls(error));
        }
        next = error.source();
    }
    found
}

fn of_rustls(error: &rustls::Error) -> TlsFault {
    let rustls::Error::InvalidCertificate(error) = error else { return TlsFault::Handshake };
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFault::WrongName,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsFault::WrongTime,
        // It has no name for this one of its own.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => TlsFault::Authority,
        _ => TlsFault::Handshake,
    }
}

/// The failure of a connection in our words.
pub(super) fn error(error: Box<dyn std::error::Error + Send + Sync>) -> DbError {
    match fault(&*error) {
        Some(fault) => DbError::Tls(fault, error),
        None => DbError::Unavailable(error),
    }
}

/// Asks for less than a certificate for the right name, but always for the key that belongs to it.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// Checks everything; the host name last.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(error) if of_rustls(&error) == TlsFault::WrongName => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
