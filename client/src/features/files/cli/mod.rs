//! `file share`, `get`, `open`, `list`, `status`, `grant`, `revoke`, `delete`.

mod access;
mod get;
mod list;
mod share;

use crate::config::MeshEntry;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::{Purpose, block_on, connect};
use crate::error::CliError;
use crate::verb::verbs;

use access::{DeleteArgs, GrantArgs, RevokeArgs, StatusArgs};
use get::{GetArgs, OpenArgs};
use list::ListArgs;
use share::ShareArgs;

verbs! {
    /// Share files, encrypted for their readers: of any size, with names and groups as targets.
    #[command(
        after_help = "Examples:\n  claudemesh file share report.pdf --to Bob\n  claudemesh file list\n  \
                            claudemesh file get 4uWv2xYz --out report.pdf\n\n\
                            Name and tags are encrypted, too. The broker sees sharer, readers, time and length.\n\
                            An id can be shortened to its first 8 characters."
    )]
    pub struct FileArgs: enum FileAction {
        Share => ShareArgs,
        Get => GetArgs,
        Open => OpenArgs,
        List => ListArgs,
        Status => StatusArgs,
        Grant => GrantArgs,
        Revoke => RevokeArgs,
        Delete => DeleteArgs,
    }
}

/// Runs a transfer over a connection that is opened again when it is lost.
pub(crate) fn transfer<T, F: Future<Output = Result<T, CliError>>>(
    cx: &Context,
    entry: &MeshEntry,
    work: impl FnOnce(Connection) -> F,
) -> Result<T, CliError> {
    block_on(async {
        let connection = connect(cx, entry, Purpose::Watch).await?;
        let done = work(connection.clone()).await;
        connection.close().await;
        done
    })
}
