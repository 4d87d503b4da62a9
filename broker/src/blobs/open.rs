//! Finding the store that the operator named.

use std::collections::HashSet;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use tokio::sync::Semaphore;

use super::tickets::Tickets;
use super::transfers::Transfers;
use super::{Blobs, MAX_BUFFERED, PERMIT_BYTES, Reach};
use crate::config::{Config, Files};

/// A bucket that does not answer is asked again for so long; then the transfer ends, and its client tries again.
#[cfg(feature = "s3")]
const RETRY_FOR: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error("cannot use the folder of files `{path}`: {error}")]
    Folder {
        /// As configured.
        path: PathBuf,
        /// From the system.
        error: std::io::Error,
    },
    /// The URL names no store that this program knows.
    #[error("expected `s3://bucket/prefix` or `file:///folder`, and no keys in the URL")]
    Url,
    /// The program was built without S3.
    #[error("this program was built without S3")]
    WithoutS3,
    /// The store refuses its settings.
    #[error("cannot use the store of files: {0}")]
    Store(#[from] object_store::Error),
}

/// What a URL of a store means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Folder(PathBuf),
    Bucket { name: &'a str, prefix: &'a str },
}

/// Reads the URL of a store.
///
/// # Errors
/// [`OpenError::Url`]. Keys in the URL are refused: it stands in logs.
pub(crate) fn place(url: &str) -> Result<Place<'_>, OpenError> {
    if let Some(path) = url.strip_prefix("file://") {
        let path = FsPath::new(path);
        return if path.is_absolute() { Ok(Place::Folder(path.into())) } else { Err(OpenError::Url) };
    }
    let rest = url.strip_prefix("s3://").ok_or(OpenError::Url)?;
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if name.len() < 3 || !name.bytes().all(fine) || prefix.contains(['?', '#']) {
        return Err(OpenError::Url);
    }
    Ok(Place::Bucket { name, prefix: prefix.trim_matches('/') })
}

/// Checks the URL of a store.
///
/// # Errors
/// What was expected.
pub fn check_url(url: &str) -> Result<(), String> {
    match place(url) {
        Ok(Place::Bucket { .. }) if cfg!(not(feature = "s3")) => Err(OpenError::WithoutS3.to_string()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

impl Blobs {
    /// The store of a configuration. A folder is made, for this user only; what a broker that was killed had half written there is
    /// removed.
    ///
    /// # Errors
    /// [`OpenError`]. Whether a bucket can be reached shows when it is used.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let reach = Reach { public_url: config.public_url.clone(), listen: config.listen };
        match &config.files.url {
            None => Self::in_folder(config.data_dir.join("files"), reach),
            Some(url) => match place(url)? {
                Place::Folder(path) => Self::in_folder(path, reach),
                Place::Bucket { name, prefix } => Self::in_bucket(name, prefix, &config.files, reach),
            },
        }
    }

    fn in_folder(path: PathBuf, reach: Reach) -> Result<Self, OpenError> {
        let prepared = prepare(&path).and_then(|()| remove_halves(&path));
        prepared.map_err(|error| OpenError::Folder { path: path.clone(), error })?;
        let store = LocalFileSystem::new_with_prefix(&path)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self::of(Arc::new(store), Path::default(), reach))
    }

    #[cfg(not(feature = "s3"))]
    fn in_bucket(_: &str, _: &str, _: &Files, _: Reach) -> Result<Self, OpenError> {
        Err(OpenError::WithoutS3)
    }

    #[cfg(feature = "s3")]
    fn in_bucket(name: &str, prefix: &str, files: &Files, reach: Reach) -> Result<Self, OpenError> {
        use object_store::RetryConfig;
        use object_store::aws::AmazonS3Builder;

        // The HTTP client under it takes the TLS of the process; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retries = RetryConfig { max_retries: 5, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(name).with_retry(retries);
        if let Some(endpoint) = &files.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(region) = &files.region {
            builder = builder.with_region(region);
        }
        if let Some(path_style) = files.path_style {
            builder = builder.with_virtual_hosted_style_request(!path_style);
        }
        let signing = match (&files.presign, &files.presign_endpoint) {
            (false, _) => None,
            (true, None) => Some(builder.clone()),
            (true, Some(endpoint)) => Some(builder.clone().with_endpoint(endpoint)),
        };
        let store = Arc::new(builder.build()?);
        let signer = match signing {
            None => None,
            Some(builder) => Some(Arc::new(builder.build()?) as Arc<dyn object_store::signer::Signer>),
        };
        Ok(Self { signer, ..Self::of(store, Path::from(prefix), reach) })
    }

    fn of(store: Arc<dyn ObjectStore>, root: Path, reach: Reach) -> Self {
        Self {
            store,
            root,
            #[cfg(feature = "s3")]
            signer: None,
            writing: Arc::new(Mutex::new(HashSet::new())),
            memory: Arc::new(Semaphore::new(MAX_BUFFERED / PERMIT_BYTES)),
            tickets: Tickets::default(),
            transfers: Transfers::default(),
            reach,
        }
    }
}

fn prepare(path: &FsPath) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Removes what was half written: the store writes an object as `name#1` beside its place and renames it. Nothing else is being
/// written at the start, because a folder has one broker.
fn remove_halves(folder: &FsPath) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            remove_halves(&entry.path())?;
        } else if kind.is_file() && is_half(&entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_half(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_stores_are_read_and_others_refused() {
        let bucket = |name, prefix| Place::Bucket { name, prefix };
        assert_eq!(place("s3://files").unwrap(), bucket("files", ""));
        assert_eq!(place("s3://files/a/b/").unwrap(), bucket("files", "a/b"));
        assert_eq!(place("file:///srv/files").unwrap(), Place::Folder("/srv/files".into()));
        for bad in [
            "",
            "files",
            "file://files",
            "s3://",
            "s3://a",
            "s3://key:secret@files",
            "s3://Files",
            "gs://files",
            "s3://files/a?b",
        ] {
            let error = place(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn halves_are_told_by_their_names() {
        assert!(is_half("0-ab#1") && is_half("x#123"));
        assert!(!is_half("0-ab") && !is_half("x#") && !is_half("x#1a"));
    }
}
