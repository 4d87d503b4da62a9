//! A peer's folder: a session shows one folder to others, read-only. The broker relays requests and answers, and keeps neither.
//!
//! Between newer clients both are [`Sealed`] for the key of the other **member**, so the broker reads neither paths nor content, and
//! each side knows that the other holds that key. What is inside is in [`sealed`]. Older clients send and get the plain fields.

use serde::{Deserialize, Serialize};

use crate::call::Nothing;
use crate::crypto::envelope::Envelope;
use crate::id::PublicKey;

pub mod limits;
pub mod sealed;

/// A JSON text that is sealed from one member to another (`crypto_box` with the x25519 forms of the member keys).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// 24 bytes, base64.
    pub nonce: String,
    /// Tag and text, base64.
    pub ciphertext: String,
}

impl From<Envelope> for Sealed {
    fn from(envelope: Envelope) -> Self {
        Self { nonce: envelope.nonce, ciphertext: envelope.ciphertext }
    }
}

/// `share_folder`: whether this connection answers requests for its folder. It holds until the socket closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareFolder {
    /// It does.
    pub shared: bool,
}

/// `peer_file_request`: a part of a file of a peer's folder.
///
/// Either `filePath` or `sealed`. Errors: `invalid_args`, `peer_not_found`, `not_shared`, `plain_only`, `blocked`, `limit`,
/// `rate_limited`, `busy`, `timeout`, `forbidden`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileRequest {
    /// Key of a session or of a member, 64 hex digits.
    pub target_pubkey: String,
    /// Below the folder, with `/`; empty with `sealed`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file_path: String,
    /// A [`sealed::Question`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// How long the caller waits, [`limits::MIN_WAIT_MS`] to [`limits::MAX_WAIT_MS`]; [`limits::USUAL_WAIT_MS`] when absent.
    #[serde(default, rename = "wait_ms", skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// `peer_dir_request`: what is in a peer's folder. As [`PeerFileRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirRequest {
    /// Key of a session or of a member, 64 hex digits.
    pub target_pubkey: String,
    /// Below the folder, `.` for all of it; empty with `sealed`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dir_path: String,
    /// Only names that this glob fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// A [`sealed::Question`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// As in [`PeerFileRequest`].
    #[serde(default, rename = "wait_ms", skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// `peer_file_response`: the answer of the peer whose folder it is. Counts once, and only from the connection that was asked.
///
/// Errors: `not_found` when no request waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileResponse {
    /// As in the request.
    pub requester_pubkey: String,
    /// As in the request.
    #[serde(default)]
    pub file_path: String,
    /// Base64 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Why there is none, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `error`: its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// As in the request. Older clients copy `_reqId` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A [`sealed::Reply`], to a request that was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// The sealed answer is a refusal: for the audit log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// `peer_dir_response`: as [`PeerFileResponse`], for a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirResponse {
    /// As in the request.
    pub requester_pubkey: String,
    /// As in the request.
    #[serde(default)]
    pub dir_path: String,
    /// Paths below the folder that was asked for, sorted; folders end with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<String>>,
    /// Why there are none, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `error`: its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// As in the request. Older clients copy `_reqId` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A [`sealed::Reply`], to a request that was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// The sealed answer is a refusal: for the audit log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// `peer_file_response_forward`: the peer's answer, for the one who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileResponseForward {
    /// As asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file_path: String,
    /// Base64 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Why there is none, in the peer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `error`: its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A [`sealed::Reply`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// `peer_dir_response_forward`: the peer's answer, for the one who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirResponseForward {
    /// As asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dir_path: String,
    /// Paths below the folder that was asked for, sorted; folders end with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<String>>,
    /// Why there are none, in the peer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `error`: its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A [`sealed::Reply`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// Who asks, as the broker knows it. Not sent to clients that say nothing of themselves in their hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asker {
    /// Key of the member.
    pub member_pubkey: PublicKey,
    /// Name of the session.
    pub name: String,
    /// Name of the member.
    pub member_name: String,
}

/// `peer_file_request_forward`: someone asks for a file of the folder of this session. Older clients get `_reqId` beside it, which
/// they copy into their answer, and neither `requestId` nor what comes after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerFileRequestForward {
    /// Key of the session that asks, or of its member.
    pub requester_pubkey: String,
    /// Below the folder; empty with `sealed`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file_path: String,
    /// To be copied into the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A [`sealed::Question`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asker: Option<Asker>,
    /// How long the caller waits, in milliseconds.
    #[serde(default, rename = "wait_ms", skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// `peer_dir_request_forward`: someone asks what is in the folder of this session. As [`PeerFileRequestForward`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerDirRequestForward {
    /// Key of the session that asks, or of its member.
    pub requester_pubkey: String,
    /// Below the folder; empty with `sealed`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dir_path: String,
    /// Only names that this glob fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// To be copied into the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A [`sealed::Question`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asker: Option<Asker>,
    /// How long the caller waits, in milliseconds.
    #[serde(default, rename = "wait_ms", skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

crate::wire_feature! {
    requests {
        /// Says whether this connection answers requests for its folder.
        ShareFolder = "share_folder" => silent Nothing, needs nothing, repeatable;
        /// Asks for a part of a file of a peer's folder. The peer's user decides.
        PeerFileRequest = "peer_file_request" => answers PeerFileResponseForward, needs CanReadShared, once;
        /// Answers a request for a file of the own folder.
        PeerFileResponse = "peer_file_response" => silent Nothing, needs nothing, once;
        /// Asks what is in a peer's folder. The peer's user decides.
        PeerDirRequest = "peer_dir_request" => answers PeerDirResponseForward, needs CanReadShared, once;
        /// Answers a request for a list of the own folder.
        PeerDirResponse = "peer_dir_response" => silent Nothing, needs nothing, once;
    }
    answers {
        PeerFileResponseForward = "peer_file_response_forward",
        PeerDirResponseForward = "peer_dir_response_forward",
    }
    events {
        PeerFileRequestForward = "peer_file_request_forward",
        PeerDirRequestForward = "peer_dir_request_forward",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
