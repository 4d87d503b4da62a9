//! `.claude-mesh.json`, the defaults that a team commits with its project, and the order in which a name is found.
//!
//! The file comes with other people's code, so it only chooses among what the user has: a name, a role, groups, and which
//! joined mesh. It never joins anything.

use std::path::Path;

use claudemesh_protocol::features::groups::Group;
use serde::Deserialize;
use serde_json::Value;

use crate::error::CliError;
use crate::values::parse_groups;

/// Name of the file, in the project's folder.
pub const FILE: &str = ".claude-mesh.json";
/// Largest file that is read.
const MAX_BYTES: u64 = 64 * 1_024;
/// Name of a session when nothing names it, not even a folder.
const NAMELESS: &str = "claude";

/// What the file says. Empty texts count as absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProjectFile {
    /// Display name.
    pub name: Option<String>,
    /// Role.
    pub role: Option<String>,
    /// Groups to join.
    pub groups: Option<Vec<Group>>,
    /// Slug of the mesh of this project.
    pub mesh: Option<String>,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} cannot be used: {reason}")]
pub struct ProjectFileError {
    path: String,
    reason: String,
}

impl From<ProjectFileError> for CliError {
    fn from(error: ProjectFileError) -> Self {
        Self::io(format!("{error}.")).hint("Fix or delete it.")
    }
}

/// As written; unknown fields are other tools' business.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    name: Option<String>,
    role: Option<String>,
    groups: Option<Value>,
    mesh: Option<String>,
}

impl ProjectFile {
    /// Reads the file of a project; a missing one is empty.
    ///
    /// # Errors
    /// [`ProjectFileError`]: it cannot be read or is not of this shape.
    pub fn read(project: &Path) -> Result<Self, ProjectFileError> {
        let path = project.join(FILE);
        let failed = |reason: String| ProjectFileError { path: path.display().to_string(), reason };
        let Some(bytes) = crate::files::read_limited(&path, MAX_BYTES).map_err(|error| failed(error.to_string()))?
        else {
            return Ok(Self::default());
        };
        let raw: Raw =
            serde_json::from_slice(crate::files::without_mark(&bytes)).map_err(|error| failed(error.to_string()))?;
        let groups = match raw.groups {
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(Value::Array(names)) => {
                let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                Some(names.ok_or_else(|| failed("`groups` has an entry that is not text".into()))?.join(","))
            }
            Some(_) => return Err(failed("`groups` is neither text nor a list".into())),
        };
        let groups = groups.map(|text| parse_groups(&text).map(|groups| groups.0)).transpose().map_err(failed)?;
        Ok(Self { name: filled(raw.name), role: filled(raw.role), groups, mesh: filled(raw.mesh) })
    }

    /// What it decides, for people.
    pub fn summary(&self) -> String {
        let named = [
            ("name", self.name.is_some()),
            ("role", self.role.is_some()),
            ("groups", self.groups.is_some()),
            ("mesh", self.mesh.is_some()),
        ];
        let words: Vec<&str> = named.into_iter().filter(|(_, there)| *there).map(|(word, _)| word).collect();
        if words.is_empty() { "nothing".into() } else { words.join(", ") }
    }
}

/// A text without its margins; `None` when nothing is left.
pub fn filled(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What may name a session, strongest first.
#[derive(Clone, Debug, Default)]
pub struct NameSources {
    /// A flag, or what `launch` settled.
    pub chosen: Option<String>,
    /// `CLAUDEMESH_DISPLAY_NAME`
    pub env: Option<String>,
    /// The config.
    pub config: Option<String>,
    /// `.claude-mesh.json`
    pub file: Option<String>,
}

impl NameSources {
    /// The name: the first source that has one, else the folder of the project.
    pub fn name(self, project: &Path) -> String {
        let Self { chosen, env, config, file } = self;
        [chosen, env, config, file].into_iter().find_map(filled).unwrap_or_else(|| folder_name(project))
    }
}

/// The last part of a project's path, links followed.
fn folder_name(project: &Path) -> String {
    let path = project.canonicalize().unwrap_or_else(|_| project.to_path_buf());
    path.file_name().map_or_else(|| NAMELESS.into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, Result<ProjectFile, ProjectFileError>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let read = ProjectFile::read(dir.path());
        (dir, read)
    }

    #[test]
    fn all_fields_are_read_and_unknown_ones_ignored() {
        let (_dir, file) = written(
            r#"{"name": " backend ", "role": "", "groups": ["qa:lead", "@api"], "mesh": "team", "other": [1]}"#,
        );
        let file = file.unwrap();
        assert_eq!((file.name.as_deref(), file.role, file.mesh.as_deref()), (Some("backend"), None, Some("team")));
        let groups = file.groups.unwrap();
        assert_eq!((groups[0].name.as_str(), groups[0].role.as_deref()), ("qa", Some("lead")));
        assert_eq!(groups[1].name, "api");
        assert_eq!(written(r#"{"groups": "a,b:c"}"#).1.unwrap().groups.unwrap().len(), 2);
        assert_eq!(ProjectFile::read(tempfile::tempdir().unwrap().path()), Ok(ProjectFile::default()));
    }

    #[test]
    fn a_damaged_file_says_where_and_why() {
        for (text, reason) in [
            ("not json", "expected"),
            (r#"{"name": 5}"#, "string"),
            (r#"{"groups": 5}"#, "groups"),
            (r#"{"groups": [5]}"#, "groups"),
            (r#"{"groups": "a b"}"#, "group name"),
            ("[]", "expected"),
        ] {
            // An empty list is an empty struct to serde; everything else is refused.
            let (_dir, read) = written(text);
            match read {
                Err(error) => {
                    assert!(error.to_string().contains(reason) && error.to_string().contains(FILE), "{error}");
                }
                Ok(file) => assert_eq!((text, file), ("[]", ProjectFile::default())),
            }
        }
        let (_dir, huge) = written(&format!(r#"{{"name": "{}"}}"#, "x".repeat(70_000)));
        assert!(huge.is_err());
    }

    #[test]
    fn the_strongest_source_that_says_something_names_the_session() {
        let some = |text: &str| Some(text.to_owned());
        let all = NameSources { chosen: some("flag"), env: some("env"), config: some("config"), file: some("file") };
        let project = Path::new("/nowhere/shop");
        assert_eq!(all.clone().name(project), "flag");
        assert_eq!(NameSources { chosen: None, ..all.clone() }.name(project), "env");
        assert_eq!(NameSources { chosen: some("  "), env: None, ..all.clone() }.name(project), "config");
        assert_eq!(NameSources { chosen: None, env: None, config: some(""), file: some("file") }.name(project), "file");
        assert_eq!(NameSources::default().name(project), "shop");
        assert_eq!(NameSources::default().name(Path::new("/")), NAMELESS);
    }
}
