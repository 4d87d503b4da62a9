//! Names that a person chooses: for a member, for a session.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::limits;
use claudemesh_protocol::target;

use crate::error::{CliError, ExitCode};
use crate::output::clean;

/// A name without its margins, when others can write to whoever is called so: `send` splits its recipients at commas, and
/// the broker takes `*`, `@group`, `#topic` and the beginnings of keys for something else. Members who have such a name
/// already keep it.
///
/// # Errors
/// Exit 3 `invalid_name`.
pub fn chosen_name(text: &str) -> Result<String, CliError> {
    let name = text.trim();
    let refused = |why: String| {
        let message = format!("'{}' cannot be a name: {why}.", clean(name));
        CliError::new(ExitCode::InvalidArgs, ErrorCode::InvalidName.as_str(), message)
            .hint("A name is what others write to: 1 to 64 printable characters, for example Ann or api-2.")
    };
    if name.is_empty() {
        return Err(refused("it is empty".into()));
    }
    if name.chars().count() > limits::MAX_NAME_CHARS {
        return Err(refused(format!("it has more than {} characters", limits::MAX_NAME_CHARS)));
    }
    if clean(name) != name {
        return Err(refused("it has characters that cannot be seen".into()));
    }
    if name.contains(',') {
        return Err(refused("at a comma `send` begins the next recipient".into()));
    }
    match target::addressable(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(target::NameError::Audience) => {
            Err(refused("`*` and what begins with @ or # mean many, not one peer".into()))
        }
        Err(target::NameError::Key) => Err(refused("it looks like the beginning of a key".into())),
    }
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
        for bad in ["", "  ", "*", "@all", "#x", "a,b", "deadbeef", "a\nb", "a\u{202e}b", &long] {
            let error = chosen_name(bad).unwrap_err();
            assert_eq!((error.exit, error.code.as_str()), (ExitCode::InvalidArgs, "invalid_name"), "{bad:?}");
        }
    }
}
