//! [`Refusal`]: why a request fails, over frames and HTTP alike.

use std::fmt;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, ResponseError};
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::{Bound, ErrorClass, ErrorCode, ErrorFrame, HttpError};
use claudemesh_protocol::features::messaging::Candidate;
use claudemesh_protocol::id::MeshId;
use uuid::Uuid;

use crate::db::DbError;
use crate::db::members::GrantsError;
use crate::journal::{Never, WriteError};

/// Why a request is refused. Becomes one `error` frame, or one JSON body of an HTTP route.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Stable code.
    pub code: ErrorCode,
    /// For people; never SQL, paths or secrets.
    pub message: String,
    /// Milliseconds after which the same request may pass.
    pub retry_after_ms: Option<u64>,
    /// With `ambiguous_target`.
    pub candidates: Vec<Candidate>,
    /// With `conflict`: what is there now.
    pub current: Option<Box<serde_json::Value>>,
    /// With `limit`: which bound was hit.
    pub bound: Option<Box<Bound>>,
    /// What went wrong inside the broker; only its incident id leaves the broker.
    pub(crate) fault: Option<Arc<Fault>>,
}

#[derive(Debug)]
pub(crate) struct Fault {
    incident: Uuid,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        self.incident == other.incident
    }
}

/// `invalid_args`: a field breaks a rule; the message names it and says what was expected.
pub fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgs, message)
}

impl Refusal {
    /// A refusal with a message. One that is our fault has an incident, and its message is written into the log only.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        match code.class() {
            ErrorClass::Internal => Self::fault(code, message.into()),
            ErrorClass::BadRequest
            | ErrorClass::Auth
            | ErrorClass::NotFound
            | ErrorClass::Conflict
            | ErrorClass::Limit
            | ErrorClass::Unavailable => Self::plain(code, message.into()),
        }
    }

    fn plain(code: ErrorCode, message: String) -> Self {
        Self { code, message, retry_after_ms: None, candidates: vec![], current: None, bound: None, fault: None }
    }

    /// A refusal that ends after a while.
    pub fn wait(code: ErrorCode, message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(code, message) }
    }

    /// `forbidden`: the caller does not have this capability.
    pub fn lacks(needed: Capability) -> Self {
        Self::new(ErrorCode::Forbidden, format!("this needs the capability {}", needed.as_str()))
    }

    /// `rate_limited`, and when the same request may pass.
    pub fn limited(retry_after_ms: u64) -> Self {
        Self::wait(ErrorCode::RateLimited, ErrorCode::RateLimited.doc(), retry_after_ms)
    }

    /// A fault of the broker: the message names a fresh incident, under which [`Refusal::log`] writes the cause.
    pub fn fault(code: ErrorCode, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let fault = Fault { incident: Uuid::new_v4(), cause: cause.into() };
        let message = format!("{} (incident {})", code.doc().trim_end_matches('.'), fault.incident);
        Self { fault: Some(Arc::new(fault)), ..Self::plain(code, message) }
    }

    /// Writes the cause of a fault into the log, beside its incident. Called where the refusal leaves the broker: there it is
    /// known which request failed.
    pub fn log(&self, mesh: Option<&MeshId>, request: &str) {
        if let Some(fault) = &self.fault {
            tracing::error!(
                incident = %fault.incident,
                mesh.id = mesh.map(tracing::field::display),
                msg.type = request,
                code = self.code.as_str(),
                error = %fault.cause,
                source = fault.cause.source().map(tracing::field::debug),
                "a request failed inside the broker"
            );
        }
    }

    /// The frame.
    pub fn into_frame(self, id: Option<&str>) -> ErrorFrame {
        ErrorFrame {
            code: self.code.as_str().into(),
            message: self.message,
            id: id.map(str::to_owned),
            retry_after_ms: self.retry_after_ms,
            candidates: self.candidates,
            current: self.current.map(|current| *current),
            bound: self.bound.map(|bound| *bound),
        }
    }
}

impl From<ErrorFrame> for Refusal {
    fn from(frame: ErrorFrame) -> Self {
        Self {
            retry_after_ms: frame.retry_after_ms,
            candidates: frame.candidates,
            current: frame.current.map(Box::new),
            bound: frame.bound.map(Box::new),
            ..Self::plain(ErrorCode::parse(&frame.code).unwrap_or(ErrorCode::Internal), frame.message)
        }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.doc())
    }
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        let code = error.code();
        match code.class() {
            ErrorClass::Internal | ErrorClass::Unavailable => Self::fault(code, error),
            ErrorClass::BadRequest
            | ErrorClass::Auth
            | ErrorClass::NotFound
            | ErrorClass::Conflict
            | ErrorClass::Limit => Self::new(code, error.to_string()),
        }
    }
}

impl From<Never> for Refusal {
    fn from(never: Never) -> Self {
        match never {}
    }
}

impl<R: Into<Self>> From<WriteError<R>> for Refusal {
    fn from(error: WriteError<R>) -> Self {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::Db(error) => error.into(),
        }
    }
}

impl From<GrantsError> for Refusal {
    fn from(error: GrantsError) -> Self {
        match error {
            GrantsError::TooMany => Self::new(ErrorCode::Limit, error.to_string()),
            GrantsError::Db(error) => error.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code.as_str(), self.message)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(wait) = self.retry_after_ms {
            response.insert_header((RETRY_AFTER, wait.div_ceil(1_000).to_string()));
        }
        response.json(HttpError {
            ok: false,
            error: self.code.as_str().into(),
            message: Some(self.message.clone()),
            retry_after_ms: self.retry_after_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_incident_and_not_its_cause() {
        let refusal = Refusal::from(DbError::corrupt("members.role"));
        let incident = refusal.fault.as_ref().unwrap().incident.to_string();
        let frame = refusal.clone().into_frame(Some("1"));
        assert_eq!((frame.code.as_str(), frame.id.as_deref()), ("internal", Some("1")));
        assert!(frame.message.contains(&incident) && !frame.message.contains("members.role"), "{}", frame.message);
        assert_eq!(refusal.error_response().status(), 500);
    }

    #[test]
    fn whatever_is_our_fault_has_an_incident() {
        for refusal in [Refusal::from(ErrorCode::Internal), Refusal::new(ErrorCode::Internal, "/secret/path")] {
            let incident = refusal.fault.as_ref().unwrap().incident.to_string();
            assert!(refusal.message.contains(&incident) && !refusal.message.contains("/secret"), "{refusal}");
        }
    }

    #[test]
    fn what_the_caller_did_is_no_incident() {
        let refusal = Refusal::from(DbError::NotFound);
        assert_eq!((refusal.code, refusal.fault.is_none()), (ErrorCode::NotFound, true));
    }
}
