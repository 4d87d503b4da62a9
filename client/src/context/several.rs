//! Verbs that are about several meshes: one that cannot be reached hides no other.

use crate::config::MeshEntry;
use crate::context::Context;
use crate::error::{CliError, ExitCode, exit_of};
use crate::output::clean;

/// Meshes of one call that did not answer.
#[derive(Debug)]
pub struct Troubles {
    /// The call is about this many meshes.
    meshes: usize,
    list: Vec<(String, CliError)>,
}

impl Troubles {
    /// For a call about so many meshes.
    pub const fn of(meshes: usize) -> Self {
        Self { meshes, list: vec![] }
    }

    /// What a mesh answered. `None` when it did not: another one may.
    ///
    /// # Errors
    /// What is wrong on this machine or with the arguments, in every mesh alike; and any failure of the only mesh.
    pub fn sift<T>(&mut self, entry: &MeshEntry, answer: Result<T, CliError>) -> Result<Option<T>, CliError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if self.meshes == 1 => Err(error),
            Err(error) => match error.exit {
                ExitCode::InvalidArgs | ExitCode::Internal | ExitCode::Io | ExitCode::Cancelled => Err(error),
                _ => {
                    self.list.push((entry.slug.clone(), error));
                    Ok(None)
                }
            },
        }
    }

    /// Says on stderr which meshes did not answer, one line for each. Answers the exit code that the call ends with: 4 when one
    /// was not reached, that of a refusal, or 0.
    ///
    /// # Errors
    /// No mesh answered.
    pub fn tell(&self, cx: &Context) -> Result<ExitCode, CliError> {
        let none_answered = !self.list.is_empty() && self.list.len() == self.meshes;
        for (slug, error) in self.list.iter().skip(usize::from(none_answered)) {
            cx.out.warn(&line(slug, error));
        }
        match self.list.first() {
            Some((slug, error)) if none_answered => {
                Err(CliError { message: format!("{}: {}", clean(slug), error.message), ..error.clone() })
            }
            _ => Ok(exit_of(self.list.iter().map(|(_, error)| error))),
        }
    }
}

/// One mesh and what is wrong with it.
pub fn line(slug: &str, error: &CliError) -> String {
    let hint = error.hint.as_deref().map(|hint| format!(" {}", clean(hint))).unwrap_or_default();
    format!("{}: {}{hint}", clean(slug), clean(&error.message))
}

/// Asks each mesh that a reading verb is about. Answers those that answered, and the exit code that the verb ends with; the others
/// are named on stderr.
///
/// # Errors
/// As [`Troubles::sift`] and [`Troubles::tell`].
pub fn each<T>(
    cx: &Context,
    mut one: impl FnMut(&MeshEntry) -> Result<T, CliError>,
) -> Result<(Vec<(MeshEntry, T)>, ExitCode), CliError> {
    let entries = cx.mesh_entries()?;
    let (mut troubles, mut answers) = (Troubles::of(entries.len()), vec![]);
    for entry in entries {
        let answer = one(&entry);
        if let Some(answer) = troubles.sift(&entry, answer)? {
            answers.push((entry, answer));
        }
    }
    let exit = troubles.tell(cx)?;
    Ok((answers, exit))
}

/// The same error, saying in which mesh: its advice names a command of that mesh.
#[must_use]
pub fn of_mesh(error: CliError, entry: &MeshEntry) -> CliError {
    let slug = clean(&entry.slug);
    let hint = match error.code.as_str() {
        "mesh_archived" => format!("Its owner can bring it back with `claudemesh mesh restore {slug}`."),
        "mesh_deleted" => format!("`claudemesh leave {slug}` takes it off this machine."),
        _ => return error,
    };
    error.hint(hint).field("mesh", entry.slug.as_str())
}
