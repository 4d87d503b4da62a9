//! Python: packages of PyPI, and folders with a project or a script, each in an environment of its own.

use std::path::{Path, PathBuf};

use claudemesh_protocol::runner::Failure;

use super::{Installer, Program, detect, need, no, read_small};

const VENV: &str = ".venv";

/// The name in `name[extra]==version`, as indexes write it.
fn name_of(package: &str) -> String {
    let end = package.find(['[', '=']).unwrap_or(package.len());
    package[..end].to_ascii_lowercase().replace(['_', '.'], "-")
}

fn venv(installer: &Installer<'_>) -> PathBuf {
    installer.app.join(VENV)
}

/// Makes an environment, with an installer in it when something is to be installed. With uv it takes a tenth of the time.
async fn make_venv(installer: &Installer<'_>, with_pip: bool) -> Result<Option<PathBuf>, Failure> {
    let uv = crate::broker::find_program("uv");
    match &uv {
        Some(uv) => installer.step(uv, &["venv", "--quiet", "--no-python-downloads", VENV], &uv_env(installer)).await?,
        None if with_pip => installer.step(&need("python3")?, &["-m", "venv", VENV], &[]).await?,
        None => installer.step(&need("python3")?, &["-m", "venv", "--without-pip", VENV], &[]).await?,
    }
    Ok(uv)
}

fn uv_env<'a>(installer: &'a Installer<'_>) -> Vec<(&'static str, &'a str)> {
    let mut env =
        vec![("UV_NO_CACHE", "1"), ("UV_NO_PROGRESS", "1"), ("UV_PYTHON_DOWNLOADS", "never"), ("UV_NO_CONFIG", "1")];
    env.extend(installer.spec.registries.pypi.as_deref().map(|index| ("UV_DEFAULT_INDEX", index)));
    env.extend((!installer.spec.install_scripts).then_some(("UV_NO_BUILD", "1")));
    env
}

/// Installs what pip is given into the environment. `local`: what lies in the folder may be built, because it runs anyway.
async fn pip(installer: &Installer<'_>, uv: Option<&Path>, what: &[&str], local: bool) -> Result<(), Failure> {
    let Some(uv) = uv else {
        let mut args = vec![
            "-m",
            "pip",
            "install",
            "--no-input",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--progress-bar",
            "off",
        ];
        if !installer.spec.install_scripts && !local {
            args.extend(["--only-binary", ":all:"]);
        }
        args.extend(what);
        let mut env = vec![("PIP_CONFIG_FILE", "/dev/null")];
        env.extend(installer.spec.registries.pypi.as_deref().map(|index| ("PIP_INDEX_URL", index)));
        return installer.step(&venv(installer).join("bin/python"), &args, &env).await;
    };
    let mut env = uv_env(installer);
    if local {
        env.retain(|(name, _)| *name != "UV_NO_BUILD");
    }
    let python = venv(installer).join("bin/python").to_string_lossy().into_owned();
    let mut args = vec!["pip", "install", "--python", &python];
    args.extend(what);
    installer.step(uv, &args, &env).await
}

/// Installs a package of PyPI, and finds its program.
pub(super) async fn package(installer: &Installer<'_>, package: &str, bin: Option<&str>) -> Result<Program, Failure> {
    let uv = make_venv(installer, true).await?;
    pip(installer, uv.as_deref(), &["--", package], false).await?;
    let name = name_of(package);
    let info = dist_info(&venv(installer), &name);
    let scripts = info
        .as_deref()
        .map(|info| scripts(&read_small(&info.join("entry_points.txt")).unwrap_or_default()))
        .unwrap_or_default();
    let wanted = bin.unwrap_or(&name);
    let found = scripts.iter().find(|script| script.as_str() == wanted).or(match scripts.as_slice() {
        [only] if bin.is_none() => Some(only),
        _ => None,
    });
    let version = info.as_deref().and_then(version_of).map(|version| format!("{name} {version}"));
    let python = venv(installer).join("bin/python");
    match (found, bin) {
        (Some(script), _) => {
            let file = venv(installer).join("bin").join(script).to_string_lossy().into_owned();
            Ok(start(installer, python, vec![file], version))
        }
        (None, Some(bin)) => Err(no(format!("{name} has no program {bin}; it has: {}", scripts.join(", ")))),
        (None, None) => Ok(start(installer, python, vec!["-m".into(), name.replace('-', "_")], version)),
    }
}

/// Installs what a folder needs, and finds its script.
pub(super) async fn project(installer: &Installer<'_>) -> Result<Program, Failure> {
    let has = |name: &str| installer.app.join(name).is_file();
    let is_project = has("pyproject.toml");
    if has("uv.lock")
        && let Some(uv) = crate::broker::find_program("uv")
    {
        let mut env = uv_env(installer);
        env.retain(|(name, _)| *name != "UV_NO_BUILD");
        installer.step(&uv, &["sync", "--frozen", "--no-dev"], &env).await?;
    } else {
        let uv = make_venv(installer, is_project || has("requirements.txt")).await?;
        if has("requirements.txt") {
            pip(installer, uv.as_deref(), &["-r", "requirements.txt"], false).await?;
        } else if is_project {
            pip(installer, uv.as_deref(), &["."], true).await?;
        }
    }
    let python = venv(installer).join("bin/python");
    match detect::python_entry(&installer.app) {
        Some(entry) => Ok(start(installer, python, vec![entry.to_string_lossy().into_owned()], None)),
        None if is_project => Ok(start(installer, python, vec!["-m".into(), "server".into()], None)),
        None => Err(no("there is no script to start: no server.py, no main.py")),
    }
}

fn start(installer: &Installer<'_>, program: PathBuf, args: Vec<String>, version: Option<String>) -> Program {
    Program { program, args, dir: installer.app.clone(), runtime: "python", version }
}

/// The folder in which an environment says what it knows of a package.
fn dist_info(venv: &Path, name: &str) -> Option<PathBuf> {
    let libraries = std::fs::read_dir(venv.join("lib")).ok()?.flatten();
    let folders = libraries.filter_map(|library| std::fs::read_dir(library.path().join("site-packages")).ok());
    folders.flat_map(Iterator::flatten).map(|entry| entry.path()).find(|path| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        file.strip_suffix(".dist-info")
            .and_then(|file| file.split('-').next())
            .is_some_and(|found| name_of(found) == name)
    })
}

fn version_of(info: &Path) -> Option<String> {
    info.file_name()?.to_str()?.strip_suffix(".dist-info")?.split_once('-').map(|(_, version)| version.to_owned())
}

/// Names of the section `console_scripts`.
fn scripts(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).skip_while(|line| *line != "[console_scripts]").skip(1);
    let section = lines.take_while(|line| !line.starts_with('['));
    section
        .filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned()))
        .filter(|name| !name.contains('/'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_scripts_are_found() {
        assert_eq!((name_of("Mcp_Server.Time[x]==1.2"), name_of("mcp")), ("mcp-server-time".into(), "mcp".into()));
        let text = "[gui]\nx = y\n[console_scripts]\nmcp-server-time = a:main\nother=b:c\n\n[more]\nz = z\n";
        assert_eq!(scripts(text), ["mcp-server-time", "other"]);
        assert!(scripts("").is_empty());
    }
}
