//! Names that a person chooses: for a member, for a session.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::name;

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

#[cfg(test)]
mod tests {
    use super::*;

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
