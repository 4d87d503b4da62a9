//! Claude Code's side: which version, what of ours it knows, which switches take it away again.

use std::path::Path;
use std::time::Duration;

use super::Check;
use crate::context::Context;
use crate::install::{self, Installed, edits, hooks, plugin};
use crate::launch;
use crate::launch::release::{ABILITIES, Found, NEWEST_TRIED, OLDEST_TRIED, Release};

/// How long `claude --version` may take. A first start from a cold disk is slow.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);
/// Providers whose accounts have no channels.
const PROVIDERS: [(&str, &str); 3] = [
    ("CLAUDE_CODE_USE_BEDROCK", "Bedrock"),
    ("CLAUDE_CODE_USE_VERTEX", "Vertex"),
    ("CLAUDE_CODE_USE_FOUNDRY", "Foundry"),
];

/// All of them.
pub(super) fn checks(cx: &Context) -> Vec<Check> {
    let mut checks = vec![];
    match launch::claude::find(&cx.env) {
        Ok(program) => checks.extend(version(Found::at(program))),
        Err(error) => checks.push(Check::failure("claude", error.message, "npm install -g @anthropic-ai/claude-code")),
    }
    checks.extend(installation(cx));
    checks.push(channels(cx));
    checks
}

fn version(mut found: Found) -> Vec<Check> {
    found.release = found.release.or_else(|| Release::by_asking(&found.program, VERSION_PATIENCE));
    let place = found.program.display();
    let Some(release) = found.release else {
        return vec![Check::ok("claude", format!("{place}, of unknown version"))];
    };
    let mut checks = vec![Check::ok("claude", format!("{place}, version {release}"))];
    let missing = release.missing();
    let has: Vec<&str> = ABILITIES.iter().filter(|one| release.has(**one)).map(|one| one.name).collect();
    checks.push(if !missing.is_empty() {
        let lost: Vec<String> =
            missing.iter().map(|one| format!("{} (since {}): {}", one.name, one.since, one.without)).collect();
        Check::warning("abilities", format!("{release} lacks {}", lost.join("; ")), "claude update")
    } else if release > NEWEST_TRIED {
        Check::ok(
            "abilities",
            format!("{}; newer than what was tried ({OLDEST_TRIED} to {NEWEST_TRIED})", has.join(", ")),
        )
    } else {
        Check::ok("abilities", has.join(", "))
    });
    checks
}

fn installation(cx: &Context) -> Vec<Check> {
    let installed = install::installed(&cx.env);
    if let Some((path, reason)) = installed.broken.first() {
        let detail = format!("{} cannot be used: {reason}", path.display());
        return vec![Check::failure("install", detail, format!("$EDITOR {}", path.display()))];
    }
    let mut checks = vec![server(cx, &installed), hook_rows(cx, &installed), permission(&installed)];
    checks.extend(twice(&installed));
    if let Some((switch, path)) = &installed.hooks_off {
        let detail = format!("{} has {switch}: no hook runs, messages wait until the session asks", path.display());
        checks.push(Check::failure("hooks-off", detail, format!("$EDITOR {}", path.display())));
    }
    if let Some(ours) = installed.status_line.as_ref().filter(|ours| !starts(cx, &ours.program)) {
        let detail = format!("it starts {}, which is not there", ours.program);
        checks.push(Check::failure("status-line", detail, "claudemesh install"));
    }
    checks
}

fn server(cx: &Context, installed: &Installed) -> Check {
    match (&installed.server, &installed.plugin, installed.mesh_servers.as_slice()) {
        (Some(command), _, _) if installed.server_foreign => {
            Check::failure("mcp-server", format!("'claudemesh' starts {command}"), "claudemesh install --force")
        }
        (Some(command), _, _) if !starts(cx, command) => {
            Check::failure("mcp-server", format!("{command} is not there"), "claudemesh install")
        }
        (Some(command), _, _) => Check::ok("mcp-server", format!("starts {command}")),
        (None, Some(plugin), _) if !starts(cx, edits::SERVER) => {
            let detail = format!("the plug-in {plugin} starts claudemesh, which is not on the PATH");
            Check::failure("mcp-server", detail, "cargo install --path client")
        }
        (None, Some(plugin), _) => Check::ok("mcp-server", format!("of the plug-in {plugin}")),
        (None, None, []) => Check::failure("mcp-server", "Claude Code does not know claudemesh", "claudemesh install"),
        (None, None, some) => {
            let slugs: Vec<&str> = some.iter().map(|(_, slug)| slug.as_str()).collect();
            Check::ok("mcp-server", format!("one for each of {}", slugs.join(", ")))
        }
    }
}

fn hook_rows(cx: &Context, installed: &Installed) -> Check {
    if let (true, Some(plugin)) = (installed.hooks.is_empty(), &installed.plugin) {
        return Check::ok("hooks", format!("of the plug-in {plugin}"));
    }
    let missing: Vec<&str> = hooks::events()
        .into_iter()
        .filter(|event| hooks::HOOKS.iter().any(|hook| hook.event == *event && !hook.optional))
        .filter(|event| !installed.hooks.iter().any(|found| found.event == *event))
        .collect();
    if !missing.is_empty() {
        let detail = format!("none for {}: messages cannot wait for a pause or wake the session", missing.join(", "));
        return Check::warning("hooks", detail, "claudemesh install");
    }
    if let Some(found) = installed.hooks.iter().find(|found| !starts(cx, &found.program())) {
        let detail = format!("{} runs {}, which is not there", found.event, found.command());
        return Check::failure("hooks", detail, "claudemesh install");
    }
    if hooks::outdated(&installed.hooks) {
        return Check::warning("hooks", "of an older version: nothing wakes an idle session", "claudemesh install");
    }
    Check::ok("hooks", format!("{} handlers", installed.hooks.len()))
}

fn permission(installed: &Installed) -> Check {
    match installed.missing_rules.first() {
        None => Check::ok("permission", "Claude Code does not ask before a call of our tools"),
        Some(rule) => {
            // A plain install adds the rule of the one server for all meshes or of the plug-in.
            let of_mesh = installed.mesh_servers.iter().find(|(name, _)| edits::permission_rule(name) == *rule);
            let fix = of_mesh.map_or_else(
                || "claudemesh install".to_owned(),
                |(_, slug)| format!("claudemesh install --mesh {slug}"),
            );
            Check::warning("permission", format!("Claude Code asks before each call: no rule {rule}"), fix)
        }
    }
}

/// Two of the same thing.
fn twice(installed: &Installed) -> Vec<Check> {
    let mut checks = vec![];
    if let Some(plugin) = &installed.plugin
        && (!installed.hooks.is_empty() || installed.server.is_some())
    {
        let detail = format!("the plug-in {plugin} and `claudemesh install` are both there: each hook runs twice");
        checks.push(Check::failure("twice", detail, "claudemesh uninstall && claudemesh install"));
    }
    let all = match (&installed.server, &installed.plugin) {
        (Some(_), _) if !installed.server_foreign => Some(edits::SERVER),
        (_, Some(_)) => Some(plugin::SERVER),
        _ => None,
    };
    if let (Some(all), Some((name, slug))) = (all, installed.mesh_servers.first()) {
        let detail = format!("mesh '{slug}' is served by {all} and by {name}: the two push each other off");
        checks.push(Check::failure("twice", detail, format!("claude mcp remove {} --scope user", edits::quote(name))));
    }
    checks
}

fn starts(cx: &Context, command: &str) -> bool {
    if command.contains('/') {
        crate::paths::is_executable(Path::new(command))
    } else {
        crate::paths::find_program(&cx.env, command).is_some()
    }
}

fn channels(cx: &Context) -> Check {
    let switches = launch::channel_switches(&cx.env);
    if !switches.is_empty() {
        let detail = format!("off because {} is set: messages come through hooks only", switches.join(" and "));
        return Check::warning("channels", detail, format!("unset {}", switches.join(" ")));
    }
    let installed = install::installed(&cx.env);
    if let Some((switch, path)) = &installed.channels_off {
        let detail = format!("off because {} says {switch}: messages come through hooks only", path.display());
        return Check::warning("channels", detail, format!("$EDITOR {}", path.display()));
    }
    match PROVIDERS.iter().find(|(name, _)| cx.env.flag(name)) {
        Some((_, provider)) => Check::ok("channels", format!("{provider} has none: messages come through hooks")),
        None => Check::ok("channels", "no switch turns them off; whether the account has them shows in a session"),
    }
}
