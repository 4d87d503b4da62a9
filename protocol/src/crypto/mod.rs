//! Cryptography of the wire, interoperable with libsodium byte for byte (vectors in `tests/vectors`).

pub mod audit;
pub mod envelope;
pub mod file;
pub mod http;
pub mod invite;
pub mod keys;
pub mod signed;
