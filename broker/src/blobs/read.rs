//! Reading an object piece by piece, no faster than the reader takes it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, GetResultPayload};

use super::{BlobError, Blobs, in_time};

/// Bytes that are read from a folder at once: large enough that the change of threads costs nothing beside it.
const PIECE: u64 = 256 << 10;

impl Blobs {
    /// The bytes of a range of an object, which must lie within it. One piece is in memory at a time.
    ///
    /// Errors end the stream: [`BlobError::Missing`] when there is no such object, or one that is too short.
    pub fn read(&self, name: &str, range: Range<u64>) -> BoxStream<'static, Result<Bytes, BlobError>> {
        let (store, path, name) = (self.store.clone(), self.path(name), name.to_owned());
        let opened = async move {
            if range.is_empty() {
                return Ok(stream::empty().boxed());
            }
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let found = in_time(store.get_opts(&path, options)).await?;
            if found.range != range {
                return Err(BlobError::Missing(name));
            }
            Ok(match found.payload {
                GetResultPayload::File(file, _) => of_file(file, range).boxed(),
                GetResultPayload::Stream(stream) => stream.map_err(BlobError::from).boxed(),
            })
        };
        stream::once(opened).try_flatten().boxed()
    }
}

/// The store's own stream of a file reads 8 KiB at a time, each on another thread.
fn of_file(file: File, range: Range<u64>) -> impl futures_util::Stream<Item = Result<Bytes, BlobError>> + Send {
    stream::try_unfold((file, range), |(mut file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let length = PIECE.min(range.end - range.start);
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<(File, Vec<u8>)> {
            file.seek(SeekFrom::Start(range.start))?;
            let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact(&mut piece)?;
            Ok((file, piece))
        });
        let (file, piece) = read.await.map_err(std::io::Error::other)??;
        Ok(Some((Bytes::from(piece), (file, range.start + length..range.end))))
    })
}
