//! Transfers that run: how many a member has, which one may write an upload, and how far its hash is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::{FileId, MemberId, MeshId};
use sha2::Sha256;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// Hashes of unfinished uploads that are remembered; of others it is counted again from the store.
const MAX_HASHES: usize = 4_096;
/// Longest wait until a transfer that was told to stop has stored what it has.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// The registry. Cheap to clone.
#[derive(Clone, Default)]
pub struct Transfers(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    of_member: HashMap<(MeshId, MemberId), u64>,
    uploads: HashMap<FileId, Slot>,
    hashes: HashMap<FileId, (u64, Sha256)>,
    last: u64,
}

/// Who writes an upload now.
struct Slot {
    lock: Arc<AsyncMutex<()>>,
    stop: CancellationToken,
    number: u64,
}

/// One transfer of a member; it counts until it is dropped.
pub struct Counted {
    of: (MeshId, MemberId),
    all: Transfers,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.with(|inner| {
            if let Some(count) = inner.of_member.get_mut(&self.of) {
                *count -= 1;
                if *count == 0 {
                    inner.of_member.remove(&self.of);
                }
            }
        });
    }
}

/// The right to write an upload, until it is dropped.
pub struct Turn {
    file: FileId,
    number: u64,
    all: Transfers,
    /// Another one wants to write: store what is there, and end.
    pub stop: CancellationToken,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.all.with(|inner| {
            if inner.uploads.get(&self.file).is_some_and(|slot| slot.number == self.number) {
                inner.uploads.remove(&self.file);
            }
        });
    }
}

impl Transfers {
    fn with<T>(&self, run: impl FnOnce(&mut Inner) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a transfer of a member.
    ///
    /// # Errors
    /// How many it has, when these are `most` already.
    pub fn count(&self, mesh: &MeshId, member: &MemberId, most: u64) -> Result<Counted, u64> {
        let of = (mesh.clone(), member.clone());
        self.with(|inner| {
            let count = inner.of_member.entry(of.clone()).or_default();
            if *count >= most {
                return Err(*count);
            }
            *count += 1;
            Ok(())
        })?;
        Ok(Counted { of, all: self.clone() })
    }

    /// Takes over the writing of an upload: who writes it is told to stop, and has stored what it has when this returns.
    ///
    /// # Errors
    /// `busy` when it does not stop in time.
    pub async fn take_over(&self, file: &FileId) -> Result<Turn, Refusal> {
        let (lock, stop, number) = self.with(|inner| {
            inner.last += 1;
            let number = inner.last;
            let stop = CancellationToken::new();
            let lock = match inner.uploads.get(file) {
                Some(before) => {
                    before.stop.cancel();
                    Arc::clone(&before.lock)
                }
                None => Arc::default(),
            };
            inner.uploads.insert(file.clone(), Slot { lock: Arc::clone(&lock), stop: stop.clone(), number });
            (lock, stop, number)
        });
        let late = |_| Refusal::new(ErrorCode::Busy, "another transfer of this upload does not end");
        let guard = tokio::time::timeout(STOP_DEADLINE, lock.lock_owned()).await.map_err(late)?;
        Ok(Turn { file: file.clone(), number, all: self.clone(), stop, _guard: guard })
    }

    /// Remembers how far the hash of an upload is.
    pub fn keep_hash(&self, file: &FileId, bytes: u64, hash: Sha256) {
        self.with(|inner| {
            if inner.hashes.len() >= MAX_HASHES
                && !inner.hashes.contains_key(file)
                && let Some(one) = inner.hashes.keys().next().cloned()
            {
                inner.hashes.remove(&one);
            }
            inner.hashes.insert(file.clone(), (bytes, hash));
        });
    }

    /// The hash of the first bytes of an upload, if it is remembered up to there. It is forgotten by that.
    pub fn take_hash(&self, file: &FileId, bytes: u64) -> Option<Sha256> {
        let kept = self.with(|inner| inner.hashes.remove(file));
        kept.filter(|(at, _)| *at == bytes).map(|(_, hash)| hash)
    }
}

#[cfg(test)]
mod tests {
    use sha2::Digest;

    use super::*;

    #[test]
    fn a_member_has_so_many_transfers_and_no_more() {
        let (transfers, mesh, ada, bob) =
            (Transfers::default(), MeshId::from("m"), MemberId::from("ada"), MemberId::from("bob"));
        let first = transfers.count(&mesh, &ada, 2).ok().unwrap();
        let _second = transfers.count(&mesh, &ada, 2).ok().unwrap();
        assert_eq!(transfers.count(&mesh, &ada, 2).err(), Some(2));
        assert!(transfers.count(&mesh, &bob, 2).is_ok());
        assert!(transfers.count(&MeshId::from("other"), &ada, 2).is_ok());
        drop(first);
        assert!(transfers.count(&mesh, &ada, 2).is_ok());
        drop(_second);
        assert!(transfers.with(|inner| inner.of_member.is_empty()));
    }

    #[tokio::test]
    async fn a_later_transfer_stops_the_one_before_and_waits_for_it() {
        let (transfers, file) = (Transfers::default(), FileId::from("f"));
        let first = transfers.take_over(&file).await.unwrap();
        assert!(!first.stop.is_cancelled());
        let (again, same) = (transfers.clone(), file.clone());
        let second = tokio::spawn(async move { again.take_over(&same).await });
        first.stop.cancelled().await;
        assert!(!second.is_finished(), "it waits until the first has stored what it has");
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert!(!second.stop.is_cancelled());
        drop(second);
        assert!(transfers.with(|inner| inner.uploads.is_empty()), "nothing is kept of an upload that no one writes");
    }

    #[test]
    fn a_hash_goes_on_from_where_it_is_and_from_nowhere_else() {
        let (transfers, file) = (Transfers::default(), FileId::from("f"));
        let hash = || Sha256::new().chain_update(b"abc");
        transfers.keep_hash(&file, 3, hash());
        assert!(transfers.take_hash(&file, 2).is_none());
        transfers.keep_hash(&file, 3, hash());
        assert_eq!(transfers.take_hash(&file, 3).unwrap().finalize(), Sha256::digest(b"abc"));
        assert!(transfers.take_hash(&file, 3).is_none(), "once");
        for number in 0..MAX_HASHES + 9 {
            transfers.keep_hash(&FileId::from(format!("f{number}")), 0, Sha256::new());
        }
        assert_eq!(transfers.with(|inner| inner.hashes.len()), MAX_HASHES);
    }
}
