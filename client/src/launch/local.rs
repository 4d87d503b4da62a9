//! A launch with nothing joined: makes the mesh of this machine, which the session then serves itself (see [`crate::local`]).

use crate::context::Context;
use crate::error::CliError;
use crate::local;
pub use crate::local::is_local;

/// Makes the mesh of this machine when no mesh is joined at all, and answers its slug.
///
/// It is served by this process for that moment only: a launch shares its terminal with Claude Code and is suspended with it,
/// the MCP server of the session is not.
///
/// # Errors
/// Why it cannot be made.
pub fn create_if_nothing_is_joined(cx: &Context) -> Result<Option<String>, CliError> {
    let config = cx.meant(None)?;
    if !config.meshes.is_empty() {
        return Ok(None);
    }
    let Some(store) = local::wanted(&config, &cx.env, cx.store.dir(), None) else { return Ok(None) };
    cx.out.note(
        "No mesh is joined: using one on this machine. Sessions serve it; `claudemesh up` keeps it up without them.",
    )?;
    let entry = local::create_mesh(cx, &store, !cx.env.flag(crate::paths::LOCAL))?;
    local::release();
    Ok(Some(entry.slug))
}
