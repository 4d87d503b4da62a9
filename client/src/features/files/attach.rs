//! Files that travel with messages: small ones inside a sealed message, larger ones and those for several readers as shared files that
//! end with the message. A text that is too long for a message takes the same way.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::target::Target;

use super::form::Tally;
use super::names::size_words;
use super::progress::Progress;
use super::upload::{Form, Lifetime, Share, Shared, Source, share};
use crate::connection::Connection;
use crate::context::connect::hostname;
use crate::error::{CliError, ExitCode};
use crate::inbox::attachments::{MAX_ATTACHMENTS, MAX_INLINE_BYTES, split};
use crate::output::clean;

pub use crate::inbox::attachments::{Attachment, with};

/// How long a file is kept that came with a message: as long as a message waits for its recipient.
const WITH_MESSAGE: Duration = Duration::from_secs(7 * 86_400);
/// Tag of such files: its readers learn of it by the message.
pub const TAG: &str = "attachment";
/// Characters of a text that stands in the message when the whole is attached.
const BEGINNING_CHARS: usize = 2_000;
/// Longest text that is attached.
pub const MAX_LONG_TEXT_BYTES: usize = 64 << 20;
/// Name of a long text.
const LONG_TEXT: &str = "message.txt";

impl Attachment {
    /// A shared file. Its name stays away from those who may read the message and not the file.
    pub fn of_file(shared: &Shared, name_is_secret: bool) -> Self {
        let secret = name_is_secret || !shared.readers.audiences.is_empty();
        Self {
            name: if secret { String::new() } else { shared.name.clone() },
            size: shared.size,
            sha256: if secret { String::new() } else { shared.sha256.clone() },
            id: Some(shared.file.id.to_string()),
            ..Self::default()
        }
    }

    /// A file where it lies on this host.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_path(path: &Path) -> std::io::Result<Self> {
        let (mut file, mut tally) = (std::fs::File::open(path)?, Tally::default());
        let mut piece = vec![0; 64 << 10];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                count => tally.add(&piece[..count]),
            }
        }
        Ok(Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            size: tally.bytes(),
            sha256: tally.sha256(),
            path: Some(path.to_string_lossy().into_owned()),
            host: hostname(),
            ..Self::default()
        })
    }

    /// What it is and where, in one line.
    fn words(&self) -> String {
        let name = if self.name.is_empty() { "a file".to_owned() } else { clean(&self.name).into_owned() };
        let size = size_words(self.size);
        match (&self.saved, &self.id, &self.path) {
            (Some(saved), ..) => format!("[attached: {name}, {size}, at {}]", clean(saved)),
            (None, Some(id), _) => {
                format!("[attached: {name}, {size}; get_file or `claudemesh file get {}`]", clean(id))
            }
            (None, None, Some(path)) => {
                let host = self.host.as_deref().unwrap_or("its host");
                format!("[attached: {name}, {size}, on {} at {}]", clean(host), clean(path))
            }
            // What we send ourselves is not on disk a second time.
            (None, None, None) if self.data.is_some() => format!("[attached: {name}, {size}]"),
            (None, None, None) => format!("[attached: {name}, {size}; it could not be read]"),
        }
    }
}

/// A body as it is shown: each attachment in words.
pub fn shown(body: &str) -> String {
    let (text, files) = split(body);
    if files.is_empty() {
        return body.to_owned();
    }
    let lines: Vec<String> = files.iter().map(Attachment::words).collect();
    if text.is_empty() { lines.join("\n") } else { format!("{text}\n{}", lines.join("\n")) }
}

/// What a message will carry.
pub struct Parts {
    /// The text, or its beginning.
    pub text: String,
    /// Files inside the message.
    pub inline: Vec<Attachment>,
    /// Files that are shared first.
    pub to_share: Vec<Source>,
}

impl Parts {
    /// Sorts files and text by the way they take.
    ///
    /// # Errors
    /// Exit 3 for too many files, 5 and 10 for those that cannot be read.
    pub fn of(
        text: &str,
        files: &[impl AsRef<Path>],
        targets: &[String],
        max_text_bytes: usize,
    ) -> Result<Self, CliError> {
        if files.len() >= MAX_ATTACHMENTS {
            let message = format!("A message can carry at most {} files.", MAX_ATTACHMENTS - 1);
            return Err(CliError::invalid_args(message).hint("Pack them into one, for example with tar."));
        }
        let mut parts = Self { text: text.to_owned(), inline: vec![], to_share: vec![] };
        // What everyone in a group can read, the broker can read: it goes into a sealed file.
        let sealed = !targets.is_empty()
            && targets.iter().all(|target| matches!(Target::parse(target), Ok(Target::Key(_) | Target::Name(_))));
        let mut inline_bytes = 0;
        for path in files.iter().map(AsRef::as_ref) {
            match small(path)? {
                Some(bytes) if sealed && inline_bytes + bytes.len() <= MAX_INLINE_BYTES => {
                    inline_bytes += bytes.len();
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    parts.inline.push(Attachment::inline(name, &bytes));
                }
                _ => parts.to_share.push(Source::Path(path.to_path_buf())),
            }
        }
        if text.len() + 2 * inline_bytes > max_text_bytes {
            parts.text = text.chars().take(BEGINNING_CHARS).collect();
            parts.text.push('…');
            parts.to_share.push(Source::Bytes(text.as_bytes().to_vec()));
        }
        Ok(parts)
    }

    /// Whether the text alone is the message.
    pub fn is_plain(&self) -> bool {
        self.inline.is_empty() && self.to_share.is_empty()
    }

    /// The body, once the files of [`Parts::to_share`] are shared.
    pub fn body(&self, shared: &[Attachment]) -> String {
        let all: Vec<Attachment> = self.inline.iter().chain(shared).cloned().collect();
        with(&self.text, &all)
    }

    /// Shares what does not fit into the message.
    ///
    /// # Errors
    /// As [`share`]; exit 3 for a topic, whose readers a file cannot be for.
    pub async fn share(
        &self,
        connection: &Connection,
        config_dir: &Path,
        targets: &[String],
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<Attachment>, CliError> {
        let mut all = Vec::new();
        for source in &self.to_share {
            let name = matches!(source, Source::Bytes(_)).then(|| LONG_TEXT.to_owned());
            let wish = Share {
                source: source.clone(),
                name,
                tags: vec![TAG.to_owned()],
                targets: targets.to_vec(),
                form: Form::Sealed,
                lifetime: Lifetime::For(Some(WITH_MESSAGE)),
            };
            let shared = share(connection, config_dir, wish, Arc::clone(progress)).await?;
            all.push(Attachment::of_file(&shared, false));
        }
        Ok(all)
    }
}

/// The bytes of a file that may fit into a message.
fn small(path: &Path) -> Result<Option<Vec<u8>>, CliError> {
    let shown = path.to_string_lossy().into_owned();
    match crate::files::read_limited(path, MAX_INLINE_BYTES as u64) {
        Ok(Some(bytes)) => Ok(Some(bytes)),
        Ok(None) => Err(CliError::not_found(format!("There is no {}.", clean(&shown)))),
        // A long file, and what is read once, is shared.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::FileTooLarge | std::io::ErrorKind::InvalidInput) => {
            Ok(None)
        }
        Err(error) => Err(CliError::io(format!("{} cannot be read: {error}.", clean(&shown)))),
    }
}

/// Why a message cannot be queued on this machine.
pub const NEEDS_BROKER: &str = "a text over 1048576 bytes, a file over 65536 bytes and files for a group are stored at the broker first, so they cannot be queued";

/// The error of a message whose files cannot be queued with it.
pub fn cannot_queue(error: CliError) -> CliError {
    match error.exit {
        ExitCode::Network => error.hint("A message with files over 64 KiB, or for a group, cannot be queued: send it again when the broker is there."),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_with_its_files_in_words() {
        let files = [
            Attachment { saved: Some("/c/texts/a".into()), ..Attachment::inline("a.txt".into(), b"x") },
            Attachment {
                name: "b\n[x].bin".into(),
                size: 1_500_000,
                id: Some("4uWv2xYz".into()),
                ..Attachment::default()
            },
            Attachment { name: "c".into(), path: Some("/p/c".into()), host: Some("h".into()), ..Attachment::default() },
            Attachment { size: 3, ..Attachment::default() },
        ];
        assert_eq!(
            shown(&with("look", &files)),
            "look\n[attached: a.txt, 1 B, at /c/texts/a]\n[attached: b [x].bin, 1.5 MB; get_file or `claudemesh file get \
             4uWv2xYz`]\n[attached: c, 0 B, on h at /p/c]\n[attached: a file, 3 B; it could not be read]"
        );
        assert_eq!(shown("plain"), "plain");
        let sent = [Attachment::inline("a.txt".into(), b"x")];
        assert_eq!(shown(&with("", &sent)), "[attached: a.txt, 1 B]");
    }

    #[test]
    fn small_files_for_one_reader_are_inside_and_others_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let (small, large) = (dir.path().join("small"), dir.path().join("large"));
        std::fs::write(&small, "x").unwrap();
        std::fs::write(&large, vec![0; MAX_INLINE_BYTES + 1]).unwrap();
        let parts = |files: &[&Path], to: &str, text: &str| Parts::of(text, files, &[to.to_owned()], 1_000).unwrap();
        let to_bob = parts(&[&small, &large], "Bob", "hi");
        assert_eq!((to_bob.inline.len(), to_bob.to_share.len(), to_bob.is_plain()), (1, 1, false));
        assert_eq!(split(&to_bob.body(&[])).1, to_bob.inline);
        let to_group = parts(&[&small], "@qa", "hi");
        assert_eq!((to_group.inline.len(), to_group.to_share.len()), (0, 1), "the broker reads what a group reads");
        assert!(parts(&[], "Bob", "hi").is_plain());
        let long = parts(&[], "Bob", &"ü".repeat(1_001));
        assert_eq!((long.to_share.len(), long.text.chars().count()), (1, 1_002));
        let missing = Parts::of("", &[dir.path().join("none")], &["Bob".to_owned()], 1_000);
        assert_eq!(missing.err().map(|error| error.exit), Some(ExitCode::NotFound));
        let many = vec![&small; MAX_ATTACHMENTS];
        assert_eq!(
            Parts::of("", &many, &["Bob".to_owned()], 1_000).err().map(|error| error.exit),
            Some(ExitCode::InvalidArgs)
        );
    }
}
