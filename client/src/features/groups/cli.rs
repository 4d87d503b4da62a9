//! `group join` and `group leave`.

use serde_json::json;

use crate::cli::Context;
use crate::cli::args::{GroupAction, GroupArgs};
use crate::error::CliError;
use crate::features::one_shot::target_session;
use crate::features::presence::cli::write;
use crate::output::clean;

/// Runs `group`.
///
/// # Errors
/// Exit 3 for a malformed name, 5 when no session of the member is connected, or of the connection.
pub fn run(cx: &Context, args: &GroupArgs) -> Result<(), CliError> {
    match &args.action {
        GroupAction::Join { group, role, session } => {
            let session = target_session(cx, session.session.as_deref());
            let name = group.trim_start_matches('@');
            let value = json!({"group": name, "role": role});
            write(cx, value, &format!("joined @{}", clean(name)), |connection| {
                let (name, role, session) = (name.to_owned(), role.clone(), session.clone());
                async move { connection.join_group(&name, role.as_deref(), Some(&session)).await }
            })
        }
        GroupAction::Leave { group, session } => {
            let session = target_session(cx, session.session.as_deref());
            let name = group.trim_start_matches('@');
            write(cx, json!({"group": name, "left": true}), &format!("left @{}", clean(name)), |connection| {
                let (name, session) = (name.to_owned(), session.clone());
                async move { connection.leave_group(&name, Some(&session)).await }
            })
        }
    }
}
