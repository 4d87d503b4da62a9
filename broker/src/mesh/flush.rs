//! When a mesh hands what is pending to the journal, and what it does when that is written.

use std::time::Duration;

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use claudemesh_protocol::error::ErrorCode;

use super::actor::Mesh;
use super::context::FlushWanted;
use crate::features::messaging::journaling;
use crate::journal::BATCH_WINDOW;

impl Mesh {
    pub(super) fn arm_flush(&mut self, ctx: &mut Context<Self>) {
        if self.writing {
            return;
        }
        match self.core.flush_wanted {
            FlushWanted::No => {}
            FlushWanted::Now => self.flush(ctx),
            wanted if self.flush_armed.is_some_and(|(armed, _)| armed >= wanted) => {}
            wanted => {
                if let Some((_, later)) = self.flush_armed.take() {
                    ctx.cancel_future(later);
                }
                let window = match wanted {
                    FlushWanted::Expected => Duration::from_millis(self.features.messaging.hold.period_ms),
                    FlushWanted::No | FlushWanted::Soon | FlushWanted::Now => BATCH_WINDOW,
                };
                // The batch window is real time even under a manual clock: it is about the disk, not about the mesh.
                let timer = ctx.run_later(window, |mesh, ctx| {
                    mesh.flush_armed = None;
                    if !mesh.writing {
                        mesh.flush(ctx);
                    }
                });
                self.flush_armed = Some((wanted, timer));
            }
        }
    }

    /// Hands what is pending to the journal; one batch at a time, so that batches of a mesh commit in order.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        let wanted = std::mem::take(&mut self.core.flush_wanted);
        let (mut cx, features) = self.context(None);
        let (batch, ticket) = journaling::take_batch(&mut features.messaging, &mut cx, wanted);
        if batch.is_empty() {
            self.committed(ticket, Ok(()), ctx);
            return;
        }
        self.writing = true;
        let journal = self.core.journal.clone();
        let job = tokio::spawn(async move { journal.commit(batch).await });
        ctx.spawn(job.into_actor(self).map(move |done, mesh, ctx| {
            mesh.writing = false;
            mesh.committed(ticket, done.unwrap_or(Err(ErrorCode::Internal)), ctx);
        }));
    }

    fn committed(&mut self, ticket: journaling::Ticket, result: Result<(), ErrorCode>, ctx: &mut Context<Self>) {
        self.step(ctx, None, |features, cx| journaling::committed(&mut features.messaging, cx, ticket, result));
        if let Some(waiting) = self.draining.take() {
            let (cx, features) = self.context(None);
            if journaling::is_settled(&features.messaging, &cx) {
                for done in waiting {
                    // Whoever gave up waiting for the drain does not need the answer.
                    let _ = done.send(());
                }
                ctx.stop();
            } else {
                self.draining = Some(waiting);
                self.core.flush_wanted = FlushWanted::Now;
                self.arm_flush(ctx);
            }
        }
    }
}
