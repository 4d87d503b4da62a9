//! Names that a person chooses: for a member, for a session.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::name;

use crate::config::ConfigStore;
use crate::error::{CliError, ExitCode};
use crate::output::clean;

/// A name in the form in which it is kept, when others can write to it; see [`name::chosen`].
///
/// # Errors
/// Exit 3 `invalid_name`.
pub fn chosen_name(text: &str) -> Result<String, CliError> {
    name::chosen(text).map_err(|error| {
        let why = error.to_string();
        let message = format!("'{}' cannot be a name: {why}.", clean(text.trim()));
        CliError::new(ExitCode::InvalidArgs, ErrorCode::InvalidName.as_str(), message)
            .hint("A name is what others write to: 1 to 64 printable characters, for example Ann or api-2.")
    })
}

/// What a person is called in a mesh that was just joined or made.
pub struct Named<'a> {
    /// The name that was asked for.
    pub asked: Option<&'a str>,
    /// The name that the mesh has.
    pub name: &'a str,
    /// Short name of the mesh.
    pub mesh: &'a str,
    /// The key was a member before.
    pub already_member: bool,
}

impl Named<'_> {
    /// Why the name is another one than was asked for, or that no one chose it, and how to change it. `None` when it is as wished.
    pub fn note(&self, store: &ConfigStore) -> Option<String> {
        let config = store.load().ok();
        let usual = config.as_ref().and_then(|config| config.display_name.clone());
        let several = config.is_some_and(|config| config.meshes.len() > 1);
        self.explain(usual.as_deref(), several)
    }

    fn explain(&self, usual: Option<&str>, several: bool) -> Option<String> {
        let (name, mesh) = (clean(self.name), clean(self.mesh));
        let of_mesh = if several { format!(" --mesh {mesh}") } else { String::new() };
        let Some(wished) = self.asked.or(usual).map(str::trim) else {
            return Some(format!(
                "no name was given, so you are {name} here: `claudemesh rename member <name>{of_mesh}` changes that; \
                 `claudemesh config set name <name>` is for meshes of later"
            ));
        };
        if wished == self.name {
            return None;
        }
        let wished = clean(wished);
        let rename = format!("`claudemesh rename member {}{of_mesh}` changes that", argument(&wished));
        let numbered = self.name.strip_prefix(&*wished).and_then(|rest| rest.strip_prefix('-'));
        Some(if self.already_member {
            format!("the mesh knows this member as {name}, not as {wished}: {rename}")
        } else if numbered.is_some_and(|number| number.parse::<u32>().is_ok()) {
            format!(
                "another member is called {wished}, so you are {name}: `claudemesh rename member <name>{of_mesh}` takes another name"
            )
        } else {
            format!("the invite calls this member {name}, not {wished}: {rename}")
        })
    }
}

/// As one argument of a shell.
fn argument(text: &str) -> String {
    let plain = text.chars().all(|symbol| symbol.is_alphanumeric() || "-_.".contains(symbol));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_one_wished_is_explained_with_the_way_to_change_it() {
        let told = |asked, name, already_member, usual, several| {
            Named { asked, name, mesh: "zoo", already_member }.explain(usual, several).unwrap_or_default()
        };
        assert_eq!(told(Some("Ann"), "Ann", false, None, false), "");
        assert_eq!(told(None, "Ann", false, Some("Ann"), true), "");
        let unnamed = told(None, "vm-user", false, None, true);
        for part in
            ["you are vm-user", "`claudemesh rename member <name> --mesh zoo`", "`claudemesh config set name <name>`"]
        {
            assert!(unnamed.contains(part), "{part}: {unnamed}");
        }
        let known = told(Some("Bob"), "vm-user", true, None, false);
        assert!(known.contains("as vm-user, not as Bob: `claudemesh rename member Bob`"), "{known}");
        let taken = told(Some("Ann"), "Ann-2", false, None, false);
        assert!(taken.contains("another member is called Ann, so you are Ann-2"), "{taken}");
        let invited = told(Some("Ann O"), "Guest", false, None, false);
        assert!(
            invited.contains("the invite calls this member Guest") && invited.contains("rename member 'Ann O'`"),
            "{invited}"
        );
    }

    #[test]
    fn only_names_that_can_be_written_to() {
        for good in ["Ann", "  Ann ", "a b", "O'Brien", "ü", "-x", "decade7"] {
            assert_eq!(chosen_name(good).as_deref(), Ok(good.trim()));
        }
        let long = "x".repeat(65);
        for bad in ["", "  ", "*", "@all", "#x", "a,b", "a/b", "\u{3164}", "deadbeef", "a\nb", "a\u{202e}b", &long] {
            let error = chosen_name(bad).unwrap_err();
            assert_eq!((error.exit, error.code.as_str()), (ExitCode::InvalidArgs, "invalid_name"), "{bad:?}");
        }
    }
}
