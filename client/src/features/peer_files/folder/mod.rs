//! A folder that is shown to peers, read-only: [`SharedFolder`].
//!
//! A path is walked part by part below an open folder, and no step follows a link by itself: what a link says is walked as well,
//! within the folder. So nothing that changes meanwhile leads out of it, and every name on the way is looked at, also behind links.

use claudemesh_protocol::error::ErrorCode;

#[cfg(unix)]
mod ignored;
#[cfg(unix)]
mod open;
#[cfg(unix)]
mod read;
#[cfg(all(test, unix))]
mod tests;

#[cfg(unix)]
pub use open::SharedFolder;

/// Why nothing is given.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Too long, or with NUL.
    #[error("expected a path of at most 4096 bytes without NUL")]
    BadPath,
    /// `..`
    #[error("path traversal not allowed")]
    Traversal,
    /// Absolute, or a link that leads out.
    #[error("outside shared directories")]
    Outside,
    /// A name that is never given.
    #[error("not shared: {0}")]
    Refused(&'static str),
    /// Ignored by git.
    #[error("not shared: ignored by git")]
    Ignored,
    /// Nothing there.
    #[error("file not found")]
    Missing,
    /// A folder, pipe, socket or device.
    #[error("not a file")]
    NotAFile,
    /// Something else than a folder.
    #[error("not a directory")]
    NotAFolder,
    /// For an answer that carries whole files.
    #[error("file too large ({size} bytes, at most {most})")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The bound.
        most: u64,
    },
    /// Since the part that was read before, or while this one was read.
    #[error("the file changed while it was read; read it again from the beginning")]
    Changed,
    /// A glob that is none.
    #[error("the glob cannot be read: {0}")]
    BadPattern(String),
    /// Not at its place any more.
    #[error("the shared folder was moved or removed")]
    Gone,
    /// What the system says, without paths.
    #[error("it cannot be read: {0}")]
    Io(std::io::ErrorKind),
}

impl FolderError {
    /// Its stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadPath | Self::BadPattern(_) => ErrorCode::InvalidArgs,
            Self::Traversal | Self::Outside | Self::Refused(_) | Self::Ignored => ErrorCode::PathRefused,
            Self::Missing => ErrorCode::NotFound,
            Self::NotAFile => ErrorCode::NotAFile,
            Self::NotAFolder => ErrorCode::NotAFolder,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::Changed => ErrorCode::Conflict,
            Self::Gone => ErrorCode::NotShared,
            Self::Io(_) => ErrorCode::Unavailable,
        }
    }
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// What was read.
    pub bytes: Vec<u8>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Changes with the file.
    pub version: String,
}

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderList {
    /// By path.
    pub entries: Vec<claudemesh_protocol::features::peer_files::sealed::Entry>,
    /// There is more.
    pub more: bool,
}

/// What a list should have.
#[derive(Clone, Copy, Debug)]
pub struct ListLimits {
    /// Folders that it goes down; 1 for the folder itself.
    pub depth: u32,
    /// Entries.
    pub entries: usize,
    /// Bytes of all paths.
    pub bytes: usize,
}

#[cfg(not(unix))]
pub use elsewhere::SharedFolder;

/// Where folders cannot be walked safely, none is shared.
#[cfg(not(unix))]
mod elsewhere {
    use std::path::{Path, PathBuf};

    use super::{FilePart, FolderError, FolderList, ListLimits};

    /// See the module. There is none on this system.
    #[derive(Debug)]
    pub enum SharedFolder {}

    impl SharedFolder {
        /// Opens a folder.
        ///
        /// # Errors
        /// Always.
        pub fn open(_: &Path) -> std::io::Result<Self> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        /// Where it is.
        pub fn path(&self) -> &Path {
            match *self {}
        }

        /// Where something below it is.
        pub fn local_path(&self, _: &str) -> Option<PathBuf> {
            match *self {}
        }

        /// Reads a part of a file.
        ///
        /// # Errors
        /// [`FolderError`]
        pub fn read(&self, _: &str, _: u64, _: u64, _: Option<&str>) -> Result<FilePart, FolderError> {
            match *self {}
        }

        /// Lists what is in it.
        ///
        /// # Errors
        /// [`FolderError`]
        pub fn list(&self, _: &str, _: Option<&str>, _: ListLimits) -> Result<FolderList, FolderError> {
            match *self {}
        }
    }
}
