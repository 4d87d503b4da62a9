//! Shared things that wait for the journal: a queue per mesh, and how much of them one transaction may take.
//!
//! Messages go first and are limited by nothing here. What shared things add to a transaction is what a message can be made to
//! wait, so it is a fixed amount however much waits: [`TRANSACTION_ROWS`] in all, [`MESH_ROWS`] of one mesh, in turn.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use claudemesh_protocol::id::MeshId;

use super::tx::Job;

/// Rows of shared things in one transaction: some milliseconds of SQLite, the same order as the sync that ends it.
pub const TRANSACTION_ROWS: usize = 64;
/// Of them from one mesh, so that four busy meshes share a transaction and a flood never fills one.
pub const MESH_ROWS: usize = 16;
/// Writes of one mesh that may wait; the next one is refused with `busy`. Four seconds of a slow disk.
pub const MESH_WAITING: usize = 256;
/// Writes of all meshes that may wait here; then they wait in the channel, and their callers with them.
pub const WAITING: usize = 4_096;

/// Waiting writes, first come first served within a mesh, meshes in turn.
#[derive(Default)]
pub(super) struct SharedQueue {
    meshes: HashMap<MeshId, VecDeque<Arc<dyn Job>>>,
    turns: VecDeque<MeshId>,
    waiting: usize,
}

impl SharedQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting >= WAITING
    }

    /// Lets a write wait; gives it back when its mesh has too many.
    pub(super) fn push(&mut self, job: Arc<dyn Job>) -> Result<(), Arc<dyn Job>> {
        let mesh = job.mesh().clone();
        let queue = self.meshes.entry(mesh.clone()).or_default();
        if queue.len() >= MESH_WAITING {
            return Err(job);
        }
        if queue.is_empty() {
            self.turns.push_back(mesh);
        }
        queue.push_back(job);
        self.waiting += 1;
        Ok(())
    }

    /// Takes what one transaction may carry. A write that is larger than a budget goes when it is first.
    pub(super) fn take(&mut self) -> Vec<Arc<dyn Job>> {
        let (mut taken, mut rows) = (Vec::new(), 0);
        let mut rounds = self.turns.len();
        while rows < TRANSACTION_ROWS
            && let Some(mesh) = self.turns.pop_front()
        {
            let Some(queue) = self.meshes.get_mut(&mesh) else { continue };
            let mut own = 0;
            while let Some(job) = queue.front()
                && own < MESH_ROWS
                && (own == 0 || own + job.rows() <= MESH_ROWS)
                && (rows == 0 || rows + job.rows() <= TRANSACTION_ROWS)
            {
                own += job.rows().max(1);
                rows += job.rows().max(1);
                taken.extend(queue.pop_front());
            }
            if queue.is_empty() {
                self.meshes.remove(&mesh);
            } else if own == 0 {
                // Its first write did not fit beside what is there: the next transaction begins with it.
                self.turns.push_front(mesh);
                break;
            } else {
                self.turns.push_back(mesh);
            }
            rounds -= 1;
            if rounds == 0 {
                break;
            }
        }
        self.waiting -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::error::ErrorCode;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::audit::Audit;
    use crate::db::DbError;

    struct Waiting(MeshId, usize);

    impl Job for Waiting {
        fn mesh(&self) -> &MeshId {
            &self.0
        }

        fn rows(&self) -> usize {
            self.1
        }

        #[cfg(feature = "sqlite")]
        fn sqlite<'a>(&'a self, _: &'a mut crate::db::JournalSqlite) -> BoxFuture<'a, Result<Audit, Option<DbError>>> {
            unreachable!("these only wait")
        }

        #[cfg(feature = "postgres")]
        fn postgres<'a>(
            &'a self,
            _: &'a mut diesel_async::AsyncPgConnection,
        ) -> BoxFuture<'a, Result<Audit, Option<DbError>>> {
            unreachable!("these only wait")
        }

        fn failed(&self, _: DbError) {}

        fn finish(&self, _: Result<(), ErrorCode>) {}
    }

    fn push(queue: &mut SharedQueue, mesh: &str, rows: usize) -> bool {
        queue.push(Arc::new(Waiting(mesh.into(), rows))).is_ok()
    }

    fn counts(taken: &[Arc<dyn Job>], mesh: &str) -> usize {
        taken.iter().filter(|job| job.mesh().as_str() == mesh).map(|job| job.rows()).sum()
    }

    #[test]
    fn a_flood_of_one_mesh_takes_its_share_and_the_others_pass() {
        let mut queue = SharedQueue::default();
        let accepted = (0..1_000).filter(|_| push(&mut queue, "flood", 1)).count();
        assert_eq!(accepted, MESH_WAITING);
        assert!(push(&mut queue, "other", 1));
        let taken = queue.take();
        assert_eq!((counts(&taken, "flood"), counts(&taken, "other")), (MESH_ROWS, 1));
        for number in 0..10 {
            for _ in 0..MESH_ROWS {
                assert!(push(&mut queue, &format!("m{number}"), 1));
            }
        }
        let mut total = 0;
        while !queue.is_empty() {
            let taken = queue.take();
            let rows: usize = taken.iter().map(|job| job.rows()).sum();
            assert!((1..=TRANSACTION_ROWS).contains(&rows), "{rows}");
            assert!(counts(&taken, "flood") <= MESH_ROWS);
            total += rows;
        }
        assert_eq!(total, MESH_WAITING - MESH_ROWS + 10 * MESH_ROWS);
        assert!(queue.turns.is_empty() && queue.meshes.is_empty());
    }

    #[test]
    fn a_large_write_is_not_passed_over_for_ever() {
        let mut queue = SharedQueue::default();
        push(&mut queue, "small", 1);
        push(&mut queue, "large", TRANSACTION_ROWS * 3);
        push(&mut queue, "small", 1);
        assert_eq!(counts(&queue.take(), "large"), 0, "beside others it does not fit");
        let taken = queue.take();
        assert_eq!(taken.len(), 1);
        assert_eq!(counts(&taken, "large"), TRANSACTION_ROWS * 3);
        assert!(queue.is_empty());
    }
}
