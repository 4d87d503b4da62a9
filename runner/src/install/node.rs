//! Node and Bun: packages of npm, and folders with a `package.json` or a script.

use std::path::{Path, PathBuf};

use claudemesh_protocol::runner::{Failure, Runtime};
use serde_json::Value;

use super::{Installer, Program, detect, need, no, read_small};

/// The name in `name@version`.
fn name_of(package: &str) -> &str {
    let at = package[1..].find('@').map_or(package.len(), |at| at + 1);
    &package[..at]
}

/// Installs a package of npm, and finds its program.
pub(super) async fn package(installer: &Installer<'_>, package: &str, bin: Option<&str>) -> Result<Program, Failure> {
    let npm = need("npm")?;
    // A folder of its own, so that npm does not look for one above.
    npm_step(installer, &npm, &["init", "--yes"]).await?;
    npm_step(installer, &npm, &["install", "--omit=dev", "--save-exact", "--", package]).await?;
    let name = name_of(package);
    let folder = installer.app.join("node_modules").join(name);
    let manifest = detect::manifest(&folder).ok_or_else(|| no(format!("{name} has no package.json")))?;
    let bins = detect::bins(&manifest);
    let short = name.rsplit('/').next().unwrap_or_default();
    let wanted = bin.unwrap_or(short);
    let found = bins.iter().find(|(name, _)| name == wanted).or(match bins.as_slice() {
        [only] if bin.is_none() => Some(only),
        _ => None,
    });
    let Some((_, file)) = found else {
        let names: Vec<&str> = bins.iter().map(|(name, _)| name.as_str()).collect();
        return Err(no(format!("{name} has no program {wanted}; it has: {}", names.join(", "))));
    };
    let file = detect::inside(&folder, file)
        .filter(|file| file.is_file())
        .ok_or_else(|| no(format!("{name} lacks its program {file}")))?;
    let version = manifest.get("version").and_then(Value::as_str).map(|version| format!("{name} {version}"));
    start(installer, Runtime::Node, file, version)
}

/// Installs what a folder needs, by its lock file where there is one, and finds its script.
pub(super) async fn project(installer: &Installer<'_>, runtime: Runtime) -> Result<Program, Failure> {
    let has = |name: &str| installer.app.join(name).is_file();
    if has("package.json") {
        if runtime == Runtime::Bun {
            let frozen = has("bun.lockb") || has("bun.lock");
            let mut args = vec!["install", "--production"];
            args.extend(frozen.then_some("--frozen-lockfile"));
            args.extend((!installer.spec.install_scripts).then_some("--ignore-scripts"));
            installer.step(&need("bun")?, &args, &[]).await?;
        } else {
            let npm = need("npm")?;
            let locked = has("package-lock.json") || has("npm-shrinkwrap.json");
            let verb = if locked { "ci" } else { "install" };
            npm_step(installer, &npm, &[verb, "--omit=dev", "--legacy-peer-deps"]).await?;
        }
    }
    let entry = detect::node_entry(&installer.app)
        .ok_or_else(|| no("there is no script to start: no `main`, no `bin`, no index.js"))?;
    let manifest = detect::manifest(&installer.app).unwrap_or_default();
    let text = |field: &str| manifest.get(field).and_then(Value::as_str);
    let version =
        text("name").map(|name| format!("{name} {}", text("version").unwrap_or_default()).trim_end().to_owned());
    start(installer, runtime, entry, version)
}

async fn npm_step(installer: &Installer<'_>, npm: &Path, args: &[&str]) -> Result<(), Failure> {
    let mut env = vec![
        ("npm_config_audit", "false"),
        ("npm_config_fund", "false"),
        ("npm_config_progress", "false"),
        ("npm_config_update_notifier", "false"),
        ("npm_config_loglevel", "warn"),
        ("npm_config_ignore_scripts", if installer.spec.install_scripts { "false" } else { "true" }),
        // Without these npm asks git, and git asks over ssh.
        ("npm_config_git", "/bin/false"),
    ];
    if let Some(registry) = &installer.spec.registries.npm {
        env.push(("npm_config_registry", registry));
    }
    installer.step(npm, args, &env).await
}

fn start(
    installer: &Installer<'_>,
    runtime: Runtime,
    file: PathBuf,
    version: Option<String>,
) -> Result<Program, Failure> {
    let (name, program) = match runtime {
        Runtime::Bun => ("bun", need("bun")?),
        Runtime::Node | Runtime::Python => ("node", need("node")?),
    };
    let begins = read_small(&file).unwrap_or_default();
    let own = begins.starts_with("#!")
        && !begins.lines().next().is_some_and(|line| line.contains("node") || line.contains("bun"));
    let is_script =
        file.extension().is_some_and(|end| ["js", "mjs", "cjs", "ts", "mts"].iter().any(|known| end == *known));
    // A program that is no script of Node says itself what runs it.
    let (program, args) =
        if own && !is_script { (file, Vec::new()) } else { (program, vec![file.to_string_lossy().into_owned()]) };
    Ok(Program { program, args, dir: installer.app.clone(), runtime: name, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_package_is_what_stands_before_its_version() {
        for (package, name) in [("a", "a"), ("a@1", "a"), ("@s/a", "@s/a"), ("@s/a@^1.2", "@s/a")] {
            assert_eq!(name_of(package), name);
        }
    }
}
