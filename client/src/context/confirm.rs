//! Questions before something that cannot be taken back, or that is not what it looks like.

use std::io::IsTerminal;

use inquire::{Confirm, InquireError, Text};

use super::Context;
use crate::error::{CliError, ExitCode};

/// Whether a person can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Asks yes or no on a terminal; Enter means `usual`. What is neither is a no: it may be meant for the next question, or for the shell.
///
/// # Errors
/// The user leaves the question, or the terminal cannot be used.
pub fn yes_or_no(question: &str, usual: bool) -> Result<bool, InquireError> {
    let is_yes = |answer: &str| Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"));
    Confirm::new(question).with_default(usual).with_parser(&is_yes).prompt()
}

impl Context {
    /// Asks on a terminal, where Enter means no. `yes` is the flag that answers beforehand; without it and without a terminal
    /// nothing is done.
    ///
    /// # Errors
    /// Exit 1 when the answer is no, `confirmation_needed` (1) when no one can be asked.
    pub fn confirm(&self, yes: bool, what: &str, question: &str) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        if !can_ask() || self.out.is_json() {
            return Err(CliError::new(ExitCode::Cancelled, "confirmation_needed", what)
                .hint("Nothing was changed. Add --yes to do it without a question."));
        }
        self.out.remark(what);
        match yes_or_no(question, false) {
            Ok(true) => Ok(()),
            Ok(false) | Err(InquireError::OperationCanceled | InquireError::OperationInterrupted) => {
                Err(CliError::cancelled("Cancelled; nothing was changed."))
            }
            Err(error) => Err(CliError::io(format!("The terminal cannot be used for questions: {error}."))
                .hint("Add --yes to do it without a question.")),
        }
    }

    /// Asks for a text on a terminal, where Enter means `usual`; elsewhere it is that without a question.
    ///
    /// # Errors
    /// Exit 1 when the user leaves the question.
    pub fn ask_text(
        &self,
        question: &str,
        usual: &str,
        check: fn(&str) -> Result<(), CliError>,
    ) -> Result<String, CliError> {
        use inquire::validator::Validation;
        if !can_ask() || self.out.is_json() || self.out.is_quiet() {
            return Ok(usual.to_owned());
        }
        let text = Text::new(question).with_default(usual).with_validator(move |text: &str| {
            Ok(match check(text.trim()) {
                Ok(()) => Validation::Valid,
                Err(reason) => Validation::Invalid(reason.message.into()),
            })
        });
        match text.prompt() {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(InquireError::OperationCanceled | InquireError::OperationInterrupted) => {
                Err(CliError::cancelled("Cancelled; nothing was changed."))
            }
            Err(error) => Err(CliError::io(format!("The terminal cannot be used for questions: {error}."))),
        }
    }
}
