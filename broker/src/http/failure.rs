//! How an HTTP route fails: one JSON body, the status of the code's table.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, ResponseError};
use claudemesh_protocol::error::{ErrorClass, ErrorCode};
use claudemesh_protocol::features::enrolment::HttpError;

use crate::db::DbError;
use crate::features::enrolment::store::EnrolError;
use crate::features::members::store::GrantsError;

/// The failure of a request: `{"ok":false,"error":<code>,"message":<text>,"retry_after_ms"?}`.
#[derive(Debug)]
pub struct HttpFailure {
    code: ErrorCode,
    message: String,
    retry_after_ms: Option<u64>,
}

impl HttpFailure {
    /// A failure with its own message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// A limit, and when the same request may pass.
    pub fn limited(retry_after_ms: u64) -> Self {
        let code = ErrorCode::RateLimited;
        Self { code, message: code.doc().into(), retry_after_ms: Some(retry_after_ms) }
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Logs the cause under a fresh incident id, the only thing about it that leaves the broker.
    fn incident(code: ErrorCode, cause: &dyn std::error::Error) -> Self {
        let incident = uuid::Uuid::new_v4();
        tracing::error!(%incident, error = %cause, source = ?cause.source(), "an HTTP request failed");
        Self::new(code, format!("{} (incident {incident})", code.doc()))
    }
}

impl From<ErrorCode> for HttpFailure {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.doc())
    }
}

impl From<DbError> for HttpFailure {
    fn from(error: DbError) -> Self {
        let code = error.code();
        match code.class() {
            ErrorClass::Internal | ErrorClass::Unavailable => Self::incident(code, &error),
            ErrorClass::BadRequest
            | ErrorClass::Auth
            | ErrorClass::NotFound
            | ErrorClass::Conflict
            | ErrorClass::Limit => Self::new(code, error.to_string()),
        }
    }
}

impl From<EnrolError> for HttpFailure {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Refused(code) => code.into(),
            EnrolError::Db(error) => error.into(),
        }
    }
}

impl From<GrantsError> for HttpFailure {
    fn from(error: GrantsError) -> Self {
        match error {
            GrantsError::TooMany => Self::new(ErrorCode::Limit, error.to_string()),
            GrantsError::Db(error) => error.into(),
        }
    }
}

impl fmt::Display for HttpFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code.as_str(), self.message)
    }
}

impl ResponseError for HttpFailure {
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
