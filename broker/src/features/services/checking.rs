//! What is wrong with a deploy, before anything is done; and in which scope a member may offer a service.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::mcp_servers::{is_server_name, limits as names};
use claudemesh_protocol::features::services::{Config, McpDeploy, Scope, Source, limits as wire};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::target::group_covers;

use crate::mesh::context::MeshContext;
use crate::mesh::peers::{Peer, Role};
use crate::refusal::{Refusal, invalid};

/// Whether a text is one line of at most so many bytes.
fn is_line(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)
}

/// Checks every field of a deploy but its scope.
pub(super) fn check(request: &McpDeploy) -> Result<(), Refusal> {
    if !is_server_name(&request.server_name) {
        let message = "service name must be 1-64 chars, alphanumeric/hyphens/underscores, starting with alphanumeric";
        return Err(Refusal::new(ErrorCode::InvalidName, message));
    }
    if let Some(text) = &request.description {
        let fits = |symbol: char| !symbol.is_control() || matches!(symbol, '\n' | '\r' | '\t');
        if text.len() > names::MAX_DESCRIPTION_BYTES || !text.chars().all(fits) {
            return Err(invalid("`description`: expected at most 2048 bytes without control characters"));
        }
    }
    check_source(&request.source)?;
    request.config.as_ref().map_or(Ok(()), check_config)
}

fn check_source(source: &Source) -> Result<(), Refusal> {
    let (field, text) = match source {
        Source::Zip { .. } => {
            return Err(invalid("`source`: zip archives are not taken yet; use `git`, `npx`, `uvx` or `command`"));
        }
        Source::Git { url, branch, commit } => {
            let is_commit =
                |text: &String| matches!(text.len(), 40 | 64) && text.bytes().all(|c| c.is_ascii_hexdigit());
            if commit.as_ref().is_some_and(|text| !is_commit(text)) {
                return Err(invalid("`source.commit`: expected 40 or 64 hex digits"));
            }
            if branch.as_ref().is_some_and(|text| !is_line(text, 255) || text.starts_with('-')) {
                return Err(invalid("`source.branch`: expected the name of a branch or tag"));
            }
            ("source.url", url)
        }
        Source::Npx { package } | Source::Uvx { package } => ("source.package", package),
        Source::Command { command } => ("source.command", command),
    };
    if is_line(text, wire::MAX_TEXT_BYTES) {
        return Ok(());
    }
    Err(invalid(format!("`{field}`: expected 1 to {} bytes without control characters", wire::MAX_TEXT_BYTES)))
}

fn check_config(config: &Config) -> Result<(), Refusal> {
    let is_name = |name: &str| {
        name.len() <= wire::MAX_ENV_NAME_CHARS
            && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || symbol == '_')
    };
    if config.env.len() > wire::MAX_ENV {
        return Err(invalid(format!("`config.env`: expected at most {} variables", wire::MAX_ENV)));
    }
    for (name, value) in &config.env {
        if !is_name(name) {
            return Err(invalid("`config.env`: expected names of letters, digits and `_`"));
        }
        if value.len() > wire::MAX_ENV_BYTES || value.contains('\0') {
            return Err(invalid(format!("`config.env.{name}`: expected at most {} bytes", wire::MAX_ENV_BYTES)));
        }
        if value.starts_with("$vault:") {
            let message = format!("`config.env.{name}`: values of the vault cannot be handed to services yet");
            return Err(invalid(message));
        }
    }
    let fits = |arg: &String| arg.len() <= wire::MAX_TEXT_BYTES && !arg.contains('\0');
    if config.args.len() > wire::MAX_ARGS || !config.args.iter().all(fits) {
        return Err(invalid("`config.args`: expected at most 64 arguments of at most 2048 bytes"));
    }
    if config.memory_mb.is_some_and(|mb| !(wire::MIN_MEMORY_MB..=wire::MAX_MEMORY_MB).contains(&mb)) {
        return Err(invalid("`config.memory_mb`: expected 16 to 65536"));
    }
    if config.cpus.is_some_and(|cpus| !(0.01..=64.0).contains(&cpus)) {
        return Err(invalid("`config.cpus`: expected 0.01 to 64"));
    }
    if config.timeout_ms.is_some_and(|ms| !(1..=names::MAX_TIMEOUT_MS).contains(&ms)) {
        return Err(invalid("`config.timeout_ms`: expected 1 to 1800000"));
    }
    if config.runtime.as_ref().is_some_and(|word| !["node", "python", "bun"].contains(&word.as_str())) {
        return Err(invalid("`config.runtime`: expected node, python or bun"));
    }
    if config.network_allow.len() > wire::MAX_ALLOW || !config.network_allow.iter().all(|entry| is_allow(entry)) {
        return Err(invalid("`config.network_allow`: expected at most 64 entries of the form host:port"));
    }
    Ok(())
}

/// `host:port`, where the host may begin with `*.` and the port may be `*`.
fn is_allow(entry: &str) -> bool {
    let Some((host, port)) = entry.rsplit_once(':') else { return false };
    let host = host.strip_prefix("*.").unwrap_or(host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let fits = |symbol: char| symbol.is_ascii_alphanumeric() || matches!(symbol, '.' | '-' | '_' | ':');
    entry.len() <= wire::MAX_ALLOW_CHARS
        && !bare.is_empty()
        && bare.chars().all(fits)
        && (port == "*" || port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Checks a scope and who gives it: the members that it names.
pub(super) fn audience(cx: &MeshContext<'_>, scope: &Scope) -> Result<Vec<MemberId>, Refusal> {
    let names = scope.names();
    let is_name = |name: &String| is_line(name, 256);
    if names.len() > wire::MAX_SCOPE_NAMES || !names.iter().all(is_name) {
        return Err(invalid("`scope`: expected at most 100 names of 1 to 256 bytes"));
    }
    let named: Vec<MemberId> = match scope {
        Scope::Peers(names) => names.iter().map(|name| member_of(cx, name)).collect::<Result<_, _>>()?,
        Scope::Peer | Scope::Mesh | Scope::Group(_) | Scope::Groups(_) | Scope::Role(_) => Vec::new(),
    };
    let peer = cx.asker()?;
    let may_all = cx.may(Capability::CanManagePermissions)? || matches!(cx.member()?.role, Role::Admin | Role::Owner);
    if may_all || is_within(cx, peer, scope, &named) {
        return Ok(named);
    }
    let message = format!(
        "a scope wider than your own groups needs the capability {} or the role admin",
        Capability::CanManagePermissions.as_str()
    );
    Err(Refusal::new(ErrorCode::Forbidden, message))
}

/// The member that a name means: its id, its own name, or the name of a session of it.
fn member_of(cx: &MeshContext<'_>, name: &str) -> Result<MemberId, Refusal> {
    let roster = cx.roster();
    if let Some(member) = roster.live_member(&MemberId::from(name)) {
        return Ok(member.id.clone());
    }
    let mut found: Vec<MemberId> = roster
        .members()
        .filter(|member| member.revoked_at_ms.is_none() && member.display_name == name)
        .map(|member| member.id.clone())
        .collect();
    if found.is_empty() {
        found = roster.iter().filter(|peer| peer.name == name && !peer.ephemeral).map(|p| p.member.clone()).collect();
    }
    found.sort_unstable();
    found.dedup();
    match <[MemberId; 1]>::try_from(found) {
        Ok([member]) => Ok(member),
        Err(none) if none.is_empty() => {
            let message = format!("`scope`: no member and no session is called \"{name}\"");
            Err(Refusal::new(ErrorCode::PeerNotFound, message))
        }
        Err(_) => {
            let message = format!("`scope`: several members are called \"{name}\"; name the id of one");
            Err(Refusal::new(ErrorCode::AmbiguousTarget, message))
        }
    }
}

/// Whether a scope reaches no one outside of the groups that someone is in.
fn is_within(cx: &MeshContext<'_>, peer: &Peer, scope: &Scope, named: &[MemberId]) -> bool {
    let own = cx.viewer(peer).groups;
    let is_own = |name: &String| own.iter().any(|group| group_covers(&group.name, name));
    let shares = |group: &Group| own.iter().any(|mine| group_covers(&mine.name, &group.name));
    match scope {
        Scope::Peer => true,
        Scope::Mesh | Scope::Role(_) => false,
        Scope::Group(name) => is_own(name),
        Scope::Groups(names) => names.iter().all(is_own),
        Scope::Peers(_) => named.iter().all(|member| {
            let roster = cx.roster();
            let sessions = roster.of_member(member).iter().filter_map(|at| roster.get(*at));
            *member == peer.member
                || roster.groups_of(member).iter().any(shares)
                || sessions.flat_map(|session| &session.groups).any(shares)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deploy(source: Source) -> McpDeploy {
        McpDeploy { server_name: "s".into(), source, config: None, scope: None, description: None, wait: false }
    }

    fn npx() -> McpDeploy {
        deploy(Source::Npx { package: "p".into() })
    }

    #[test]
    fn an_entry_of_the_network_is_a_host_and_a_port() {
        for good in ["api.example.org:443", "*.example.org:443", "host:*", "127.0.0.1:8080", "[::1]:80"] {
            assert!(is_allow(good), "{good}");
        }
        for bad in ["", "host", "host:", "host:0", "host:65536", ":443", "*:443", "http://host:443", "a b:1", "*.:1"] {
            assert!(!is_allow(bad), "{bad}");
        }
    }

    #[test]
    fn each_field_of_a_deploy_is_checked() {
        let with = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            check(&McpDeploy { config: Some(config), ..npx() }).err().map(|refusal| refusal.code)
        };
        assert_eq!((check(&npx()).err(), with(&|_| ())), (None, None));
        let bad = Some(ErrorCode::InvalidArgs);
        assert_eq!(with(&|config| drop(config.env.insert("A B".into(), "x".into()))), bad);
        assert_eq!(with(&|config| drop(config.env.insert("A".into(), "x\0".into()))), bad);
        assert_eq!(with(&|config| config.args = vec!["x".into(); 65]), bad);
        assert_eq!(with(&|config| config.memory_mb = Some(1)), bad);
        assert_eq!(with(&|config| config.cpus = Some(0.0)), bad);
        assert_eq!(with(&|config| config.timeout_ms = Some(0)), bad);
        assert_eq!(with(&|config| config.runtime = Some("sh".into())), bad);
        assert_eq!(with(&|config| config.network_allow = vec!["x".into()]), bad);
        let git = |url: &str, branch: Option<&str>, commit: Option<&str>| {
            let text = |text: &str| text.to_owned();
            let source = Source::Git { url: url.into(), branch: branch.map(text), commit: commit.map(text) };
            check(&deploy(source)).err().map(|refusal| refusal.code)
        };
        assert_eq!(git("https://h/r", Some("main"), Some(&"5e".repeat(20))), None);
        assert_eq!((git("", None, None), git("https://h/r", Some("-x"), None)), (bad, bad));
        assert_eq!(git("https://h/r", None, Some("main")), bad);
        let name = check(&McpDeploy { server_name: "bad name".into(), ..npx() }).err().map(|refusal| refusal.code);
        assert_eq!(name, Some(ErrorCode::InvalidName));
    }
}
