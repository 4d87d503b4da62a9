//! Samples of every message of groups.

use super::{JoinGroup, LeaveGroup, Request, Response};
use crate::testing::{here, there};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    vec![
        ("", JoinGroup { name: "frontend".into(), role: None, target: here() }.into()),
        ("full", JoinGroup { name: "@frontend/web".into(), role: Some("lead".into()), target: there() }.into()),
        ("", LeaveGroup { name: "frontend".into(), target: here() }.into()),
        ("full", LeaveGroup { name: "@frontend".into(), target: there() }.into()),
    ]
}

/// None: joining and leaving are confirmed by `done`.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    vec![]
}
