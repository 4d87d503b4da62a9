//! Where the bytes of an upload come from, and whether they can be read again.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use claudemesh_protocol::crypto::file::whole;
use claudemesh_protocol::features::files::limits::PART_BYTES;

use super::super::form::Tally;
use super::{PIECE_BYTES, Source};
use crate::error::{CliError, ExitCode};
use crate::output::clean;

/// Bytes that can be read from the beginning again, or only once.
pub(super) enum Bytes {
    Again { file: File, stamp: Stamp },
    Held(Vec<u8>),
    Once { head: Vec<u8>, rest: Box<dyn Read + Send> },
}

/// What tells that a file was written to.
#[derive(PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    modified: Option<std::time::SystemTime>,
    #[cfg(unix)]
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            length: meta.len(),
            modified: meta.modified().ok(),
            #[cfg(unix)]
            changed: (std::os::unix::fs::MetadataExt::ctime(&meta), std::os::unix::fs::MetadataExt::ctime_nsec(&meta)),
        })
    }
}

impl Bytes {
    /// Opens a source.
    ///
    /// # Errors
    /// Exit 3 for a folder, 5 when there is nothing, 10 when it cannot be read.
    pub(super) fn open(source: &Source) -> Result<Self, CliError> {
        let path = match source {
            Source::Bytes(bytes) => return Ok(Self::Held(bytes.clone())),
            Source::Stdin => return begin_once(Box::new(io::stdin())).map_err(read_error),
            Source::Path(path) => path,
        };
        let shown = path.to_string_lossy().into_owned();
        let wrong = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => CliError::not_found(format!("There is no {}.", clean(&shown))),
            _ => CliError::io(format!("{} cannot be read: {error}.", clean(&shown))),
        };
        let file = File::open(path).map_err(wrong)?;
        let meta = file.metadata().map_err(wrong)?;
        if meta.is_dir() {
            return Err(CliError::invalid_args(format!("{} is a folder.", clean(&shown)))
                .hint("Pack it first, for example with tar, and share the archive."));
        }
        if !meta.is_file() {
            return begin_once(Box::new(file)).map_err(read_error);
        }
        let stamp = Stamp::of(&file).map_err(wrong)?;
        Ok(Self::Again { file, stamp })
    }

    /// The whole of a file that is sealed as a whole.
    ///
    /// # Errors
    /// Exit 3 when it is too long for that.
    pub(super) fn held(self) -> Result<Self, CliError> {
        let most = whole::MAX_BYTES as u64;
        let mut all = Vec::new();
        match self {
            Self::Held(held) => all = held,
            Self::Again { file, .. } => read_up_to(&mut &file, most + 1, &mut all)?,
            Self::Once { head, rest } => read_up_to(&mut Cursor::new(head).chain(rest), most + 1, &mut all)?,
        }
        if all.len() as u64 > most {
            return Err(CliError::new(
                ExitCode::InvalidArgs,
                "payload_too_large",
                format!("Files in the form of older clients have at most {most} bytes."),
            )
            .hint("Share it without --compatible."));
        }
        Ok(Self::Held(all))
    }

    /// Length and hash of the file itself, when it can be read again.
    ///
    /// # Errors
    /// Exit 10.
    pub(super) fn known(&mut self) -> Result<Option<(u64, String)>, CliError> {
        let mut tally = Tally::default();
        match self {
            Self::Once { .. } => return Ok(None),
            Self::Held(held) => tally.add(held),
            Self::Again { file, .. } => {
                let mut piece = vec![0; PIECE_BYTES];
                loop {
                    match file.read(&mut piece).map_err(read_error)? {
                        0 => break,
                        count => tally.add(&piece[..count]),
                    }
                }
                file.seek(SeekFrom::Start(0)).map_err(read_error)?;
            }
        }
        Ok(Some((tally.bytes(), tally.sha256())))
    }

    /// From its beginning.
    ///
    /// # Errors
    /// Exit 10.
    pub(super) fn from_start(&self) -> Result<Box<dyn Read + Send + '_>, CliError> {
        match self {
            Self::Again { file, .. } => {
                let mut start: &File = file;
                start.seek(SeekFrom::Start(0)).map_err(read_error)?;
                Ok(Box::new(file))
            }
            Self::Held(bytes) => Ok(Box::new(bytes.as_slice())),
            Self::Once { .. } => Err(CliError::internal("A stream is read once.")),
        }
    }

    /// Whether it was written to since it was opened.
    pub(super) fn has_changed(&self) -> bool {
        match self {
            Self::Again { file, stamp } => Stamp::of(file).ok().as_ref() != Some(stamp),
            Self::Held(_) | Self::Once { .. } => false,
        }
    }
}

/// The beginning of a stream: when it ends soon, it is known whole.
fn begin_once(mut from: Box<dyn Read + Send>) -> io::Result<Bytes> {
    let mut head = Vec::new();
    (&mut from).take(PART_BYTES).read_to_end(&mut head)?;
    match (head.len() as u64) < PART_BYTES {
        true => Ok(Bytes::Held(head)),
        false => Ok(Bytes::Once { head, rest: from }),
    }
}

fn read_up_to(from: &mut dyn Read, most: u64, into: &mut Vec<u8>) -> Result<(), CliError> {
    from.take(most).read_to_end(into).map(drop).map_err(read_error)
}

pub(super) fn changed() -> CliError {
    CliError::new(ExitCode::Io, "changed", "The file changed while it was read; nothing was shared.")
        .hint("Share it again when it is no longer written to.")
}

pub(super) fn read_error(error: io::Error) -> CliError {
    CliError::io(format!("The file cannot be read: {error}."))
}
