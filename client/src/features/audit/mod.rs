//! The audit log of a mesh: reading and verifying it, and finding out when it was rewritten.

use std::time::Duration;

use claudemesh_protocol::features::audit::{
    AuditExport, AuditHeads, AuditHeadsResult, AuditPage, AuditQuery, AuditResult, AuditVerify, AuditVerifyResult,
};

use crate::connection::{Connection, ConnectionError};

pub mod cli;
mod payload;
pub mod session;

/// The longest wait for the broker's verdict.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(600);

impl Connection {
    /// Entries, newest first.
    ///
    /// # Errors
    /// `invalid_args`, or of the transport.
    pub async fn audit_entries(&self, query: AuditQuery) -> Result<AuditResult, ConnectionError> {
        self.request(query).await
    }

    /// Lets the broker follow the whole chain, which takes a second for some ten thousand entries.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn audit_verify(&self) -> Result<AuditVerifyResult, ConnectionError> {
        self.request_within(AuditVerify {}, VERIFY_TIMEOUT).await
    }

    /// The signed end of the chain, and the hash at a place that was seen before.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn audit_heads(&self, at: Option<i64>) -> Result<AuditHeadsResult, ConnectionError> {
        self.request(AuditHeads { at }).await
    }

    /// Whole entries behind a place, oldest first.
    ///
    /// # Errors
    /// `forbidden`, or of the transport.
    pub async fn audit_export(&self, after: i64) -> Result<AuditPage, ConnectionError> {
        self.request(AuditExport { after: Some(after), limit: None }).await
    }
}
