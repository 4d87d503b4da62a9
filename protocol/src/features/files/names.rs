//! What a file may be called. One rule for client and broker.

use unicode_normalization::is_nfc;

use super::limits::MAX_NAME_BYTES;
use crate::name::is_invisible;

/// Why a text is no name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// Nothing, or over [`MAX_NAME_BYTES`].
    #[error("expected a file name of 1 to {MAX_NAME_BYTES} bytes")]
    Length,
    /// It leads to another folder.
    #[error("expected a file name without `/` and `\\`, other than `.` and `..`")]
    Path,
    /// It has controls, line ends, or characters that cannot be seen or that change the direction of others.
    #[error("expected a file name without control characters and characters that cannot be seen")]
    Invisible,
    /// It is not in composed form, or begins or ends with a space.
    #[error("expected a file name in composed form (NFC) without spaces at its ends")]
    Form,
}

/// Checks that a text can be the name of a file: one step of a path, in one line, as it is seen.
///
/// # Errors
/// [`FileNameError`].
pub fn check_name(text: &str) -> Result<(), FileNameError> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES {
        return Err(FileNameError::Length);
    }
    if text.contains(['/', '\\']) || text == "." || text == ".." {
        return Err(FileNameError::Path);
    }
    if text.chars().any(is_invisible) {
        return Err(FileNameError::Invisible);
    }
    if text.trim() != text || !is_nfc(text) {
        return Err(FileNameError::Form);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_names_and_nothing_else() {
        for good in ["a", "report.pdf", "Bericht (2).pdf", "übersicht.txt", ".env", "a b", "...", &"x".repeat(255)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        let bad = [
            ("", FileNameError::Length),
            (long.as_str(), FileNameError::Length),
            ("a/b", FileNameError::Path),
            ("..\\b", FileNameError::Path),
            (".", FileNameError::Path),
            ("..", FileNameError::Path),
            ("a\0b", FileNameError::Invisible),
            ("a\nb", FileNameError::Invisible),
            ("a\r", FileNameError::Invisible),
            ("gpj.\u{202e}exe", FileNameError::Invisible),
            ("a\u{200b}", FileNameError::Invisible),
            (" a", FileNameError::Form),
            ("a ", FileNameError::Form),
            ("u\u{308}", FileNameError::Form),
        ];
        for (name, error) in bad {
            assert_eq!(check_name(name), Err(error), "{name:?}");
        }
    }
}
