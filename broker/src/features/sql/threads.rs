//! Threads of their own for what databases of meshes compute: with a lower priority than the threads that pass on messages, and
//! few of them for one mesh, so that a runaway statement costs others nothing.

use std::sync::{Arc, LazyLock};

use claudemesh_protocol::error::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::refusal::Refusal;

/// Statements that run at once over the whole broker.
const MAX_RUNNING: usize = 32;
/// Statements of one mesh that read at once. Beside them one writes.
pub(super) const READERS: usize = 2;

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_RUNNING)));

/// Runs work on a thread of its own, once there is a place for it in the mesh and in the broker. The places are free when the
/// thread ends, also when no one waits for it any more.
///
/// # Errors
/// `busy` when no thread can be made, `internal` when it panicked.
pub(super) async fn run<T: Send + 'static>(
    of_mesh: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let places = (place(of_mesh).await?, place(&PLACES).await?);
    let (done, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("mesh sql".into()).spawn(move || {
        let _places = places;
        lower_priority();
        // No one waits when the caller gave up.
        let _ = done.send(work());
    });
    if thread.is_err() {
        return Err(ErrorCode::Busy.into());
    }
    answer.await.unwrap_or_else(|_| Err(Refusal::fault(ErrorCode::Internal, "a thread of SQL panicked")))
}

async fn place(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    // They are never closed.
    Arc::clone(of).acquire_owned().await.map_err(|_| ErrorCode::ShuttingDown.into())
}

/// On Linux a priority belongs to the thread, elsewhere to the process.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "one plain system call on numbers; the standard library has none for it")]
fn lower_priority() {
    /// As `nice` has it by default.
    const NICE: i32 = 10;
    // SAFETY: the call takes numbers; 0 means the calling thread. A refusal changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
