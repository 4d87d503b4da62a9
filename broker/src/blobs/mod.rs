//! The bytes that are too large for the database: a folder or a bucket, behind one interface.
//!
//! An object is written once, as a whole, and never changed. Who writes one says so before with [`Blobs::begin`], and keeps the
//! [`Writing`] until its row is committed: so the sweep can tell an object that is about to get its row from one that was left
//! over. The store knows nothing of files, meshes and members; the first part of an object's name is the mesh.

mod open;
mod read;
pub mod tickets;
pub mod transfers;

use std::collections::HashSet;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use claudemesh_protocol::error::ErrorCode;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
#[cfg(feature = "s3")]
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::open::{OpenError, check_url};
use self::tickets::Tickets;
use self::transfers::Transfers;
use crate::refusal::Refusal;

/// Bytes of uploads that are in memory at once, over the whole broker: what was read from sockets and is not stored yet.
const MAX_BUFFERED: usize = 128 << 20;
/// One permit of the budget of [`MAX_BUFFERED`].
const PERMIT_BYTES: usize = 1 << 10;
/// Longest time that one object may take to be stored or removed.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It has no such object.
    #[error("the store has no object `{0}`")]
    Missing(String),
    /// It did not answer in time.
    #[error("the store did not answer in time")]
    Late,
    /// There is no room.
    #[error("the store is full: {0}")]
    Full(object_store::Error),
    /// Anything else.
    #[error(transparent)]
    Other(object_store::Error),
    /// The rows that name its objects could not be read.
    #[error("the rows of files could not be read: {0}")]
    Rows(String),
    /// The folder could not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl BlobError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing(_) => ErrorCode::Internal,
            Self::Full(_) => ErrorCode::StorageFull,
            Self::Late | Self::Other(_) | Self::Rows(_) | Self::Io(_) => ErrorCode::Unavailable,
        }
    }
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::Missing(path),
            error if is_full(&error) => Self::Full(error),
            error => Self::Other(error),
        }
    }
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        Self::fault(error.code(), error)
    }
}

/// Whether somewhere below an error the disk or the user's share of it is full.
fn is_full(error: &object_store::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Where bytes are kept, and what is under way.
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// What object names begin with in a bucket.
    root: Path,
    /// Signs URLs, of a bucket whose URLs clients may use.
    #[cfg(feature = "s3")]
    signer: Option<Arc<dyn Signer>>,
    writing: Arc<Mutex<HashSet<String>>>,
    memory: Arc<Semaphore>,
    /// Who may transfer what.
    pub tickets: Tickets,
    /// Transfers that run.
    pub transfers: Transfers,
    /// How the outside reaches the broker, when the operator has said it; else where it listens.
    reach: Reach,
}

/// How URLs of the broker begin.
#[derive(Clone, Debug)]
pub struct Reach {
    /// As configured.
    pub public_url: Option<String>,
    /// Where it listens.
    pub listen: std::net::SocketAddr,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Blobs({})", self.store)
    }
}

/// An object that is being written, until its row is committed.
#[derive(Debug)]
pub struct Writing {
    name: String,
    all: Arc<Mutex<HashSet<String>>>,
}

impl Writing {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Blobs {
    /// The beginning of URLs for someone who reached the broker at `reached` (`http://host`), if that is known.
    pub fn base_url(&self, reached: Option<&str>) -> String {
        match (&self.reach.public_url, reached) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(reached)) => reached.to_owned(),
            (None, None) => format!("http://{}", self.reach.listen),
        }
    }

    /// Announces an object; nothing is written yet.
    pub fn begin(&self, name: String) -> Writing {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Writing { name, all: Arc::clone(&self.writing) }
    }

    /// Objects that are being written now.
    pub fn being_written(&self) -> HashSet<String> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Room for bytes that were read and are not stored yet, if there is some.
    pub fn room_now(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.memory).try_acquire_many_owned(permits(bytes)).ok()
    }

    /// As [`Blobs::room_now`], and waits for it.
    ///
    /// # Errors
    /// `shutting_down`.
    pub async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.memory).acquire_many_owned(permits(bytes)).await;
        permit.map_err(|_| ErrorCode::ShuttingDown.into())
    }

    /// Stores an object as a whole; it is on stable storage then.
    ///
    /// # Errors
    /// Nothing can be read under that name, but something may lie there that the sweep removes.
    pub async fn put(&self, object: &Writing, bytes: Vec<Bytes>) -> Result<(), BlobError> {
        let payload: PutPayload = bytes.into_iter().collect();
        in_time(self.store.put(&self.path(object.name()), payload)).await?;
        Ok(())
    }

    /// Removes objects. Those that are gone already are fine.
    ///
    /// # Errors
    /// The store fails; some may be left, which the sweep removes.
    pub async fn remove(&self, names: Vec<String>) -> Result<(), BlobError> {
        if names.is_empty() {
            return Ok(());
        }
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let removed = self.store.delete_stream(stream::iter(paths).boxed());
        let gone = removed.filter_map(|done| async move {
            match done {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => None,
                Err(error) => Some(error),
            }
        });
        let mut gone = Box::pin(gone);
        match tokio::time::timeout(DEADLINE, gone.next()).await {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error.into()),
            Err(_) => Err(BlobError::Late),
        }
    }

    /// Names and sizes of all objects whose name begins with `prefix/`.
    ///
    /// # Errors
    /// The store fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, BlobError> {
        let root = self.path(prefix);
        let objects: Vec<_> = self.store.list(Some(&root)).try_collect().await?;
        let named = |meta: object_store::ObjectMeta| self.name_of(&meta.location).map(|name| (name, meta.size));
        Ok(objects.into_iter().filter_map(named).collect())
    }

    /// The first parts of all object names.
    ///
    /// # Errors
    /// The store fails.
    pub async fn prefixes(&self) -> Result<Vec<String>, BlobError> {
        let root = Some(&self.root).filter(|root| !root.as_ref().is_empty());
        let found = self.store.list_with_delimiter(root).await?;
        Ok(found.common_prefixes.iter().filter_map(|path| self.name_of(path)).collect())
    }

    /// Whether there is an object.
    ///
    /// # Errors
    /// The store fails.
    pub async fn exists(&self, name: &str) -> Result<bool, BlobError> {
        match in_time(self.store.head(&self.path(name))).await {
            Ok(_) => Ok(true),
            Err(BlobError::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether clients may read from the store itself.
    pub fn presigns(&self) -> bool {
        #[cfg(feature = "s3")]
        return self.signer.is_some();
        #[cfg(not(feature = "s3"))]
        false
    }

    /// A URL under which the store itself gives an object to anyone, for a time; `None` unless the operator wants it.
    ///
    /// # Errors
    /// The store's keys cannot be had.
    #[cfg_attr(not(feature = "s3"), expect(clippy::unused_async, reason = "a folder has no URLs"))]
    pub async fn presigned(&self, name: &str, lives: Duration) -> Result<Option<String>, BlobError> {
        #[cfg(feature = "s3")]
        if let Some(signer) = &self.signer {
            let url = signer.signed_url(object_store::signer::Method::GET, &self.path(name), lives).await?;
            return Ok(Some(url.to_string()));
        }
        let _ = (name, lives);
        Ok(None)
    }

    fn path(&self, name: &str) -> Path {
        self.root.parts().chain(Path::from(name).parts()).collect()
    }

    fn name_of(&self, path: &Path) -> Option<String> {
        let parts: Vec<_> = path.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned()).collect();
        Some(parts.join("/"))
    }
}

/// Permits for so many bytes, at least one and never more than there are.
fn permits(bytes: usize) -> u32 {
    let wanted = bytes.div_ceil(PERMIT_BYTES).clamp(1, MAX_BUFFERED / PERMIT_BYTES);
    u32::try_from(wanted).unwrap_or(u32::MAX)
}

async fn in_time<T>(work: impl Future<Output = object_store::Result<T>>) -> Result<T, BlobError> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(BlobError::Late),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::config::Config;

    /// A store in a folder.
    pub(crate) fn blobs(folder: &std::path::Path) -> Arc<Blobs> {
        let config = Config { data_dir: folder.to_owned(), ..Config::default() };
        Arc::new(Blobs::open(&config).expect("a folder can be used"))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::blobs;
    use super::*;

    async fn read(blobs: &Blobs, name: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>, BlobError> {
        let chunks: Vec<Bytes> = blobs.read(name, range).try_collect().await?;
        Ok(chunks.concat())
    }

    #[tokio::test]
    async fn an_object_is_there_as_a_whole_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = blobs(folder.path());
        let object = blobs.begin("mesh/file/1".into());
        assert!(blobs.being_written().contains("mesh/file/1"));
        assert!(!blobs.exists("mesh/file/1").await.unwrap());
        blobs.put(&object, vec![Bytes::from_static(b"hel"), Bytes::from_static(b"lo")]).await.unwrap();
        drop(object);
        assert!(blobs.being_written().is_empty());
        assert_eq!(read(&blobs, "mesh/file/1", 0..5).await.unwrap(), b"hello");
        assert_eq!(read(&blobs, "mesh/file/1", 1..3).await.unwrap(), b"el");
        assert_eq!(blobs.list("mesh").await.unwrap(), [("mesh/file/1".to_owned(), 5)]);
        assert!(blobs.list("other").await.unwrap().is_empty());
        assert_eq!(blobs.prefixes().await.unwrap(), ["mesh"]);
        assert_eq!(blobs.presigned("mesh/file/1", DEADLINE).await.unwrap(), None);
        blobs.remove(vec!["mesh/file/1".into(), "mesh/file/2".into()]).await.unwrap();
        assert!(!blobs.exists("mesh/file/1").await.unwrap());
        assert!(matches!(read(&blobs, "mesh/file/1", 0..5).await, Err(BlobError::Missing(_))));
    }

    #[tokio::test]
    async fn a_store_of_its_own_is_for_its_user_only_and_forgets_halves() {
        let folder = tempfile::tempdir().unwrap();
        let first = blobs(folder.path());
        let object = first.begin("mesh/file/1".into());
        first.put(&object, vec![Bytes::from_static(b"whole")]).await.unwrap();
        // What a broker that is killed while it writes leaves.
        let half = folder.path().join("files/mesh/file/2#1");
        std::fs::write(&half, b"half").unwrap();
        let again = blobs(folder.path());
        assert!(!half.exists(), "a half object is removed at the start");
        assert!(again.exists("mesh/file/1").await.unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("files")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[tokio::test]
    async fn memory_for_uploads_is_bounded_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = blobs(folder.path());
        let all = blobs.room_now(MAX_BUFFERED).unwrap();
        assert!(blobs.room_now(1).is_none());
        drop(all);
        assert!(blobs.room_now(1).is_some());
        assert!(blobs.room(MAX_BUFFERED * 2).await.is_ok(), "more than there is waits for all of it");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let wrapped = |kind: std::io::ErrorKind| object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(std::io::Error::from(kind)),
        };
        let code = |kind| BlobError::from(wrapped(kind)).code();
        assert_eq!(code(std::io::ErrorKind::StorageFull), ErrorCode::StorageFull);
        assert_eq!(code(std::io::ErrorKind::PermissionDenied), ErrorCode::Unavailable);
    }
}
