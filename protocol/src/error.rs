//! The table of stable error codes, and the `error` frame that carries them.
//!
//! Codes are added, never renamed or reused. Clients branch on `code`; people read `message`.

use serde::{Deserialize, Serialize};

/// What kind of trouble a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The request itself is wrong; sending it again cannot help.
    BadRequest,
    /// Who asks is not who they must be.
    Auth,
    /// The thing does not exist (for this caller).
    NotFound,
    /// It exists already, or it changed meanwhile.
    Conflict,
    /// A limit was hit.
    Limit,
    /// Try again later.
    Unavailable,
    /// Our fault; the message carries an incident id.
    Internal,
}

macro_rules! codes {
    ($($name:ident = $text:literal, $class:ident, $status:literal, $retry:literal, $doc:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $(#[doc = $doc] $name,)* }

        impl ErrorCode {
            /// Every code, in table order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// Its class.
            pub const fn class(self) -> ErrorClass {
                match self { $(ErrorCode::$name => ErrorClass::$class,)* }
            }

            /// The HTTP status of a route that fails with it.
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorCode::$name => $status,)* }
            }

            /// Whether the same request may succeed later.
            pub const fn retryable(self) -> bool {
                match self { $(ErrorCode::$name => $retry,)* }
            }

            /// One sentence for people, as in `docs/errors.md`.
            pub const fn doc(self) -> &'static str {
                match self { $(ErrorCode::$name => $doc,)* }
            }

            /// The code of a wire text, if it is one of ours.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(ErrorCode::$name),)* _ => None }
            }
        }
    };
}

codes! {
    // Handshake
    NoHello = "no_hello", Auth, 401, false, "The first frame must be a hello.";
    HelloTimeout = "hello_timeout", Auth, 408, true, "No hello arrived in time.";
    AlreadyHello = "already_hello", Conflict, 409, false, "This socket has said hello before.";
    BadSessionPubkey = "bad_session_pubkey", BadRequest, 400, false, "`sessionPubkey` is not 64 lower-case hex digits.";
    BadParentPubkey = "bad_parent_pubkey", BadRequest, 400, false, "`parentMemberPubkey` is not 64 lower-case hex digits.";
    AttestationMismatch = "attestation_mismatch", Auth, 401, false, "The attestation is missing or names other keys than the hello.";
    Capacity = "capacity", Limit, 429, true, "The mesh has its maximum number of connections.";
    TimestampSkew = "timestamp_skew", Auth, 401, true, "The timestamp is more than 60 seconds from the broker's clock.";
    Malformed = "malformed", BadRequest, 400, false, "A key, signature or encoded part has the wrong shape.";
    BadSignature = "bad_signature", Auth, 401, false, "The signature does not verify.";
    Expired = "expired", Auth, 410, false, "This invite has expired.";
    TtlTooLong = "ttl_too_long", Auth, 401, false, "An attestation may live 24 hours at most.";
    Revoked = "revoked", Auth, 403, false, "This member was banned from the mesh, or the invite was revoked.";
    MemberRemoved = "member_removed", Auth, 403, false, "This member was removed from the mesh, or has left it; a new invite lets it in again.";
    Unauthorized = "unauthorized", Auth, 401, false, "No such member in this mesh, or a credential is missing.";
    ApiKeyMissing = "api_key_missing", Auth, 401, false, "The route needs `Authorization: Bearer` with an API key.";
    ApiKeyInvalid = "api_key_invalid", Auth, 401, false, "There is no such API key, or it was revoked or has expired.";
    ApiKeyMissingCapability = "api_key_missing_capability", Auth, 403, false, "The API key may not do this; the message names what it lacks.";
    ApiKeyTopicOutOfScope = "api_key_topic_out_of_scope", Auth, 403, false, "The API key is confined to other topics.";
    ParentMemberIdMismatch = "parent_member_id_mismatch", Auth, 401, false, "`parentMemberId` is not the member of that key.";
    MemberIdMismatch = "member_id_mismatch", Auth, 401, false, "`memberId` is not the member of that key.";
    MeshArchived = "mesh_archived", NotFound, 410, false, "The mesh was archived by its owner.";
    MeshDeleted = "mesh_deleted", NotFound, 410, false, "The mesh was deleted by its owner.";
    Replayed = "replayed", Auth, 401, false, "This signed request was seen before.";
    // Frames
    BadJson = "bad_json", BadRequest, 400, false, "The frame is not a JSON object.";
    UnknownType = "unknown_message_type", BadRequest, 400, false, "The broker does not know this message type.";
    InvalidArgs = "invalid_args", BadRequest, 400, false, "A field is missing, has the wrong type or breaks a rule.";
    InvalidArgument = "invalid_argument", BadRequest, 400, false, "An id has the wrong shape.";
    Invalid = "invalid", BadRequest, 400, false, "The request makes no sense here.";
    InvalidName = "invalid_name", BadRequest, 400, false, "The name breaks the naming rule.";
    NotEncrypted = "not_encrypted", BadRequest, 400, false, "A direct message has to be sealed for its recipient's key, and a value of the vault for its member's.";
    PayloadTooLarge = "payload_too_large", Limit, 413, false, "The payload is over its size limit.";
    RateLimited = "rate_limited", Limit, 429, true, "Too many requests; see `retry_after_ms`.";
    PairLimit = "pair_limit", Limit, 429, true, "Too many messages to this recipient in a minute.";
    TraceBudget = "trace_budget", Limit, 429, true, "This exchange used up its message budget; a human's message resets it.";
    Limit = "limit", Limit, 429, false, "A count or size limit was hit.";
    Busy = "busy", Unavailable, 503, true, "The broker is overloaded; try again.";
    ShuttingDown = "shutting_down", Unavailable, 503, true, "The broker is draining; reconnect.";
    Timeout = "timeout", Unavailable, 504, true, "It took too long.";
    Unavailable = "unavailable", Unavailable, 503, true, "Storage cannot be reached.";
    StorageFull = "storage_full", Unavailable, 507, true, "Storage is full; nothing was accepted.";
    Internal = "internal", Internal, 500, true, "Our fault; the message carries an incident id.";
    // Requests
    NotFound = "not_found", NotFound, 404, false, "No such thing, or not for this caller.";
    Forbidden = "forbidden", Auth, 403, false, "The caller's role does not allow it.";
    UnknownTarget = "unknown_target", NotFound, 404, false, "No session, member or name of this mesh matches the target.";
    AmbiguousTarget = "ambiguous_target", Conflict, 409, false, "Several recipients match; see `candidates`.";
    AmbiguousPrefix = "ambiguous_prefix", Conflict, 409, false, "Several messages match the prefix.";
    BlockedByGrants = "blocked", Auth, 403, false, "The recipient does not accept this from the sender.";
    PeerNotFound = "peer_not_found", NotFound, 404, false, "No such peer is online.";
    TaskNotFound = "task_not_found", NotFound, 404, false, "No such task.";
    TaskNotClaimable = "task_not_claimable", Conflict, 409, false, "The task is claimed, done or blocked; see `current`.";
    TopicNotFound = "topic_not_found", NotFound, 404, false, "No such topic.";
    NoClock = "no_clock", NotFound, 404, false, "The mesh has no clock; `set_clock` starts one.";
    InvalidCron = "invalid_cron", BadRequest, 400, false, "The cron expression is malformed or never comes; the message says why.";
    NoFileKey = "no_file_key", Auth, 403, false, "The file is sealed, and its key is not sealed for the caller; its owner has to grant it.";
    UploadIncomplete = "upload_incomplete", Conflict, 409, false, "Bytes of the upload are missing.";
    OffsetMismatch = "offset_mismatch", Conflict, 409, false, "The upload goes on at another offset; see `Upload-Offset`.";
    HashMismatch = "hash_mismatch", BadRequest, 400, false, "The bytes do not have the hash that was named; nothing of them is kept.";
    InvalidRange = "invalid_range", BadRequest, 416, false, "The range is malformed, or the file has no such bytes.";
    AlreadyExists = "already_exists", Conflict, 409, false, "That name is taken.";
    NameTaken = "name_taken", Conflict, 409, false, "Another living member of the mesh has that name.";
    Conflict = "conflict", Conflict, 409, false, "It changed meanwhile; see `current`.";
    NotShared = "not_shared", NotFound, 404, false, "The peer shares no folder.";
    PlainOnly = "plain_only", Conflict, 409, false, "The peer's client cannot open sealed requests.";
    ConsentDenied = "consent_denied", Auth, 403, false, "The peer's user does not allow it.";
    ConsentTimeout = "consent_timeout", Auth, 403, true, "The peer's user was asked and has not answered in time.";
    PathRefused = "path_refused", Auth, 403, false, "The name is hidden, looks like a key or a secret, is ignored by git, or lies outside of the folder.";
    NotAFile = "not_a_file", BadRequest, 400, false, "The path is no regular file.";
    NotAFolder = "not_a_folder", BadRequest, 400, false, "The path is no folder.";
    HostOffline = "host_offline", Unavailable, 503, true, "The session that runs the MCP server is away.";
    ServicesOff = "services_off", Unavailable, 503, false, "This broker hosts no MCP servers; its operator has to set `[services]`, see docs/services.md.";
    ServiceDown = "service_down", Unavailable, 503, true, "The hosted MCP server does not answer now: it is starting, being replaced, or has crashed.";
    DeployFailed = "deploy_failed", Conflict, 409, false, "The service could not be fetched, installed or started; the message and its log say why.";
    HostGone = "host_gone", Unavailable, 503, false, "The session that runs the MCP server went away during the call, which may have been carried out.";
    ToolFailed = "tool_failed", BadRequest, 400, false, "The MCP server answered with an error; see `rpcError`.";
    Cancelled = "cancelled", Conflict, 409, false, "The caller gave up.";
    QueryError = "query_error", BadRequest, 400, false, "The database refuses the query; the message says why.";
    ExecuteError = "execute_error", BadRequest, 400, false, "The database refuses a statement, and nothing was changed; the message says why.";
    SqlUnavailable = "sql_unavailable", Unavailable, 503, false, "The broker's database user may not make databases of meshes; the message says what it lacks.";
    AlreadyAnswered = "already_answered", Conflict, 409, false, "The question has been answered.";
    // Enrolment
    InviteBadSignature = "invite_bad_signature", Auth, 400, false, "The invite's signature does not verify.";
    MeshNotFound = "mesh_not_found", NotFound, 404, false, "No such mesh.";
    MeshMissingOwnerKey = "mesh_missing_owner_key", Conflict, 400, false, "The mesh has no owner key.";
    InviteOwnerMismatch = "invite_owner_mismatch", Auth, 400, false, "The invite was signed by another owner.";
    InviteNotFound = "invite_not_found", NotFound, 404, false, "No such invite.";
    InviteMeshMismatch = "invite_mesh_mismatch", Auth, 400, false, "The invite belongs to another mesh.";
    InviteRevoked = "invite_revoked", Auth, 410, false, "The invite was revoked.";
    InviteExpired = "invite_expired", Auth, 410, false, "The invite has expired.";
    InviteExhausted = "invite_exhausted", Conflict, 410, false, "The invite has been used up.";
    Exhausted = "exhausted", Conflict, 410, false, "The invite has been used up.";
}

/// The `error` frame: `{"type":"error","code":…,"message":…,"id"?,"_reqId"?,"retry_after_ms"?,"candidates"?}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// Stable code, see [`ErrorCode`]; text, so that codes of other brokers survive.
    pub code: String,
    /// For people: lower-case, says what was expected.
    pub message: String,
    /// `id` of the failed request, when it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Milliseconds to wait before the same request may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// With `ambiguous_target`: what the target may mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<crate::features::messaging::Candidate>,
    /// With `conflict`: what is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<serde_json::Value>,
    /// With `limit`: which bound was hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
}

/// A bound of what a mesh or a member may keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Bound {
    /// Name, for example `state.keys_per_mesh`.
    pub name: String,
    /// Its value.
    pub limit: u64,
    /// What is used now.
    pub used: u64,
}

impl ErrorFrame {
    /// A frame with a code and a message, nothing else.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.as_str().into(),
            message: message.into(),
            id: None,
            retry_after_ms: None,
            candidates: vec![],
            current: None,
            bound: None,
        }
    }

    /// The code, if this crate knows it.
    pub fn known_code(&self) -> Option<ErrorCode> {
        ErrorCode::parse(&self.code)
    }
}

/// Error body of every HTTP route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpError {
    /// Always `false`.
    pub ok: bool,
    /// Stable code.
    pub error: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// With a rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
