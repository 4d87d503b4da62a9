//! Who may look at what is in an inbox. What peers wrote is read through [`Mail`], for the model of a session, or through
//! [`Person`]; the inbox itself gives none of it out.

use std::ops::{Deref, DerefMut};

use super::{Inbox, InboxError, Mailbox};

/// The mail of one reader, after everything that looks at incoming messages first has done so: [`crate::session::Session::admit`] makes
/// it. What comes later is not in it before it was admitted itself.
#[must_use = "what was admitted is to be read"]
pub struct Admitted<'a> {
    mailbox: &'a Mailbox,
    reader: String,
}

impl<'a> Admitted<'a> {
    /// For a session that has admitted its mail, and for its shell once the session's server has. A test lists who calls it.
    pub(crate) fn new(mailbox: &'a Mailbox, reader: String) -> Self {
        Self { mailbox, reader }
    }

    /// As [`Mailbox::run`].
    ///
    /// # Errors
    /// As [`Mailbox::run`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Mail<'_>) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, InboxError> {
        let reader = self.reader.clone();
        self.mailbox.run(move |inbox| work(&mut Mail::new(inbox, &reader))).await
    }
}

/// What a reader got and the rule for incoming messages has let through.
pub struct Mail<'a> {
    inbox: &'a mut Inbox,
    pub(super) reader: &'a str,
}

impl<'a> Mail<'a> {
    pub(super) fn new(inbox: &'a mut Inbox, reader: &'a str) -> Self {
        Self { inbox, reader }
    }

    /// Whose mail it is.
    pub fn reader(&self) -> &'a str {
        self.reader
    }
}

impl Deref for Mail<'_> {
    type Target = Inbox;

    fn deref(&self) -> &Inbox {
        self.inbox
    }
}

impl DerefMut for Mail<'_> {
    fn deref_mut(&mut self) -> &mut Inbox {
        self.inbox
    }
}

/// The inbox as the member reads it, in a shell outside of sessions. No rule stands before a person.
pub struct Person<'a>(pub(super) &'a mut Inbox);

impl Inbox {
    /// For a person, never for a model.
    pub fn person(&mut self) -> Person<'_> {
        Person(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::rooms::sources;

    /// Files with one of these words, this folder aside.
    fn files_with(word: &str) -> Vec<String> {
        let with = sources().into_iter().filter(|(name, text)| !name.starts_with("inbox/") && text.contains(word));
        with.map(|(name, _)| name).collect()
    }

    #[test]
    fn nobody_else_goes_around_the_rule() {
        // The session, its shell behind the session's server, and the two of the demo, who write to each other only.
        let admits = [
            "features/messaging/cli/follow.rs",
            "features/messaging/cli/inbox.rs",
            "features/questions/cli.rs",
            "local/demo.rs",
            "session/admit.rs",
        ];
        assert_eq!(files_with("Admitted::new("), admits);
        // The completions offer ids, never a text.
        let people = [
            "cli/complete.rs",
            "features/messaging/cli/follow.rs",
            "features/messaging/cli/inbox.rs",
            "features/questions/cli.rs",
            "features/top/cli.rs",
        ];
        assert_eq!(files_with(".person()"), people);
        // Both halves of conversations: in a session only what it got and sent itself.
        assert_eq!(files_with(".letters("), ["features/messaging/cli/history.rs"]);
    }
}
