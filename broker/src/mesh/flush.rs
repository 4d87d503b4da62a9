//! When a mesh hands what is pending to the journal, and what it does when that is written.

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use claudemesh_protocol::error::ErrorCode;

use super::actor::Mesh;
use super::context::FlushWanted;
use super::step;
use crate::journal::BATCH_WINDOW;
use crate::refusal::Refusal;

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
                    FlushWanted::Expected => self.core.expected_window,
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
        let batch = step::collect(&mut self.core, &mut self.features, wanted);
        if batch.is_empty() {
            self.committed(&Ok(()), ctx);
            return;
        }
        self.writing = true;
        let journal = self.core.journal.clone();
        let job = tokio::spawn(async move { journal.commit(batch).await });
        ctx.spawn(job.into_actor(self).map(move |done, mesh, ctx| {
            mesh.writing = false;
            let result = done.unwrap_or(Err(ErrorCode::Internal)).map_err(|code| {
                // The journal has logged the cause; senders are told an incident that leads there.
                let refusal = Refusal::fault(code, "the journal did not write a batch");
                refusal.log(Some(&mesh.core.id), "batch");
                refusal
            });
            mesh.committed(&result, ctx);
        }));
    }

    fn committed(&mut self, result: &Result<(), Refusal>, ctx: &mut Context<Self>) {
        self.step(ctx, None, |features, cx| features.committed(cx, result));
        if self.draining.is_some() && !step::is_settled(&mut self.core, &self.features) {
            // Not at once: what is not settled may wait for more than a batch, and an empty batch comes back here.
            self.core.flush_wanted = self.core.flush_wanted.max(FlushWanted::Soon);
            self.arm_flush(ctx);
        }
        self.end_when_drained(ctx);
    }

    /// Ends a mesh that was told to, once storage has everything and no work is under way.
    pub(super) fn end_when_drained(&mut self, ctx: &mut Context<Self>) {
        let busy = self.writing || !self.lanes.is_empty();
        if self.draining.is_none() || busy || !step::is_settled(&mut self.core, &self.features) {
            return;
        }
        for done in self.draining.take().into_iter().flatten() {
            // A caller that gave up waiting for the drain does not need the answer.
            let _ = done.send(());
        }
        ctx.stop();
    }
}
