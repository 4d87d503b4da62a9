//! Verbs about messages: each in a file of its own below this one.

use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connection;
use crate::error::CliError;

pub mod args;
pub mod follow;
pub mod history;
mod inbox;
pub mod outbox;
mod send;
mod status;
mod text;
mod which_mesh;

pub use which_mesh::{mesh_that_knows, where_else};

/// Time between two pulls while the broker waits for acknowledgements.
const PULL_AGAIN: Duration = Duration::from_millis(10);
/// How long pulls may bring nothing although something remains: what has expired is counted until the broker drops it.
const PULL_PATIENCE: Duration = Duration::from_secs(2);

/// Takes in everything that waits at the broker.
///
/// A few large messages fill the broker's window, and then a pull brings nothing until our acknowledgements are there:
/// only the number that remains tells the end.
///
/// # Errors
/// Of the connection.
pub async fn pull_all(connection: &Connection) -> Result<(), CliError> {
    let (mut least, mut last_progress) = (u32::MAX, Instant::now());
    loop {
        let pulled = connection.inbox_pull(None).await?;
        if pulled.remaining == 0 {
            return Ok(());
        }
        if pulled.pushed > 0 || pulled.remaining < least {
            (least, last_progress) = (least.min(pulled.remaining), Instant::now());
        } else if last_progress.elapsed() >= PULL_PATIENCE {
            return Ok(());
        } else {
            tokio::time::sleep(PULL_AGAIN).await;
        }
    }
}
