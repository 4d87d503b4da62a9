//! Files: sharing, reading, who may read. The bytes travel over HTTP ([`upload`], [`download`]), sealed for their readers unless that
//! was not wanted; names of sealed files are opened here and nowhere else ([`view`]).

use claudemesh_protocol::crypto::file::FileKey;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::files::limits::MAX_PAGE;
use claudemesh_protocol::features::files::{
    DeleteFile, FileReader, FileReaders, FileStatus, FileStatusResult, FileUrl, GetFile, GrantFileAccess, ListFiles,
    RevokeFileAccess,
};
use claudemesh_protocol::id::{FileId, PublicKey};

use crate::connection::{Connection, ConnectionError};
use view::FileView;

pub mod attach;
pub mod cli;
pub mod download;
pub mod form;
mod http;
pub mod names;
pub mod notes;
mod place;
pub mod progress;
pub mod readers;
mod retry;
pub mod tools;
mod transfers;
pub mod upload;
pub mod view;

/// Characters of a whole id; fewer are its beginning.
const ID_CHARS: usize = 32;
/// Files that are looked through for the beginning of an id.
const MAX_LOOKED_THROUGH: usize = 2_000;

/// What is looked for in a list.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// A part of the name, whatever its case; of sealed names, too.
    pub query: Option<String>,
    /// Who shared it.
    pub from: Option<String>,
    /// A tag; of sealed files, too.
    pub tag: Option<String>,
    /// Those of others that are not for us, too.
    pub all: bool,
    /// At most so many.
    pub most: usize,
    /// Where a list before has ended.
    pub cursor: Option<String>,
}

/// Files, and where to go on.
#[derive(Default)]
pub struct Found {
    /// The newest first.
    pub files: Vec<FileView>,
    /// There is more.
    pub next: Option<String>,
}

impl Connection {
    /// Files for us or of our own. Names and tags are compared here, because the broker cannot read sealed ones.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn files(&self, wanted: &Wanted) -> Result<Found, ConnectionError> {
        let mut found = Found { next: wanted.cursor.clone(), ..Found::default() };
        let mut looked = 0;
        loop {
            // No more than fit: a cursor is where a page ends.
            let room = wanted.most.saturating_sub(found.files.len()).clamp(1, MAX_PAGE as usize);
            let request = ListFiles {
                from: wanted.from.clone(),
                all: wanted.all,
                limit: u32::try_from(room).ok(),
                cursor: found.next.take(),
                ..ListFiles::default()
            };
            let page = self.request(request).await?;
            looked += page.files.len();
            let views = page.files.into_iter().map(|entry| FileView::of(entry, self.identity()));
            found.files.extend(views.filter(|file| file.fits(wanted.query.as_deref(), wanted.tag.as_deref())));
            found.next = page.next;
            if found.next.is_none() || found.files.len() >= wanted.most || looked >= MAX_LOOKED_THROUGH {
                return Ok(found);
            }
        }
    }

    /// The whole id that begins so.
    ///
    /// # Errors
    /// `not_found`, `ambiguous_prefix`, what the broker says, or of the transport.
    pub async fn file_id(&self, text: &str) -> Result<FileId, ConnectionError> {
        let text = text.trim();
        if text.len() >= ID_CHARS {
            return Ok(FileId::from(text));
        }
        let refused = |code, words: String| ConnectionError::from(ErrorFrame::new(code, words));
        let shown = crate::output::clean(text).into_owned();
        let not_found = || refused(ErrorCode::NotFound, format!("there is no file '{shown}' for you"));
        if text.len() < crate::inbox::listed::SHORT_ID {
            return Err(not_found());
        }
        let all = self.files(&Wanted { most: MAX_LOOKED_THROUGH, ..Wanted::default() }).await?;
        let mut fitting = all.files.into_iter().map(|file| file.entry.id).filter(|id| id.as_str().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(not_found()),
            _ => Err(refused(ErrorCode::AmbiguousPrefix, format!("several files begin with '{shown}'"))),
        }
    }

    /// Where a file can be read from.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `no_file_key`, or of the transport.
    pub async fn get_file(&self, id: &FileId) -> Result<FileUrl, ConnectionError> {
        self.request(GetFile { file_id: id.clone() }).await
    }

    /// Who asked for a file.
    ///
    /// # Errors
    /// As [`Connection::get_file`].
    pub async fn file_status(&self, id: &FileId) -> Result<FileStatusResult, ConnectionError> {
        self.request(FileStatus { file_id: id.clone() }).await
    }

    /// Who may read a file, and who has a key.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for others than its owner, or of the transport.
    pub async fn file_readers(&self, id: &FileId) -> Result<(Vec<String>, Vec<FileReader>), ConnectionError> {
        let (mut readers, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.request(FileReaders { file_id: id.clone(), cursor }).await?;
            readers.extend(page.readers);
            cursor = page.next;
            if cursor.is_none() {
                return Ok((page.targets, readers));
            }
        }
    }

    /// Deletes a file and its bytes.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, or of the transport.
    pub async fn delete_file(&self, id: &FileId) -> Result<(), ConnectionError> {
        self.write(DeleteFile { file_id: id.clone() }).await.map(drop)
    }

    /// Lets members read a file: seals its key for them.
    ///
    /// # Errors
    /// As [`Connection::get_file`]; [`ConnectionError::Seal`] is not among them: a key that is no point has no reader.
    pub async fn grant_file(&self, id: &FileId, readers: &[PublicKey]) -> Result<(), ConnectionError> {
        let url = self.get_file(id).await?;
        let key = match url.encrypted {
            true => Some(view::key_of(&url, self.identity()).ok_or_else(no_key)?),
            false => None,
        };
        for reader in readers {
            self.grant_one(id, reader, key.as_ref()).await?;
        }
        Ok(())
    }

    async fn grant_one(&self, id: &FileId, reader: &PublicKey, key: Option<&FileKey>) -> Result<(), ConnectionError> {
        let sealed = key.map(|key| key.seal_for(reader, &mut rand::rngs::OsRng)).transpose();
        let sealed_key =
            sealed.map_err(|error| ErrorFrame::new(ErrorCode::InvalidArgs, format!("{}: {error}", reader.to_hex())))?;
        let grant = GrantFileAccess { file_id: id.clone(), peer_pubkey: reader.to_hex(), sealed_key };
        self.request(grant).await.map(drop)
    }

    /// Seals the key for everyone who may read a file and has none. Answers how many these were.
    pub(crate) async fn grant_to_readers_without_key(
        &self,
        id: &FileId,
        key: &FileKey,
    ) -> Result<usize, ConnectionError> {
        let (_, readers) = self.file_readers(id).await?;
        let own = self.identity().member.public();
        let without: Vec<PublicKey> = readers
            .into_iter()
            .filter(|reader| !reader.has_key && !reader.revoked && reader.pubkey != own)
            .map(|reader| reader.pubkey)
            .collect();
        for reader in &without {
            self.grant_one(id, reader, Some(key)).await?;
        }
        Ok(without.len())
    }

    /// Takes a file away from members; of a group that we are in, from the others. Answers from which.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, or of the transport.
    pub async fn revoke_file(
        &self,
        id: &FileId,
        mut readers: Vec<PublicKey>,
    ) -> Result<Vec<PublicKey>, ConnectionError> {
        if readers.len() > 1 {
            let own = self.identity().member.public();
            readers.retain(|reader| *reader != own);
        }
        for reader in &readers {
            self.request(RevokeFileAccess { file_id: id.clone(), peer_pubkey: reader.to_hex() }).await?;
        }
        Ok(readers)
    }
}

fn no_key() -> ConnectionError {
    ErrorFrame::new(ErrorCode::NoFileKey, "the key of this file cannot be opened with your keys").into()
}
