//! What a mesh does once a second (leases, sleep), and when a feature wants to be woken.

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::actor::{Mesh, TICK_MS};
use super::context::FlushWanted;
use super::events::MeshEvent;
use super::fan_out::tell_left_out;
use super::known_sessions;
use super::load::reload_members;
use super::step;

/// How often sessions are forgotten that were away for too long.
const FORGET_MS: i64 = 3_600_000;

impl Mesh {
    pub(super) fn arm_tick(&mut self, ctx: &mut Context<Self>) {
        let sleep = self.core.clock.sleep_until(self.next_tick_mono_ms);
        ctx.spawn(sleep.into_actor(self).map(|(), mesh, ctx| {
            mesh.tick(ctx);
            mesh.next_tick_mono_ms = mesh.core.clock.mono_ms() + TICK_MS;
            mesh.arm_tick(ctx);
        }));
    }

    /// Sleeps until the first feature wants to be woken.
    pub(super) fn arm_wake(&mut self, ctx: &mut Context<Self>) {
        let Some(next) = self.core.timers.next_mono_ms() else { return };
        if let Some((armed, sleep)) = self.wake_armed {
            if armed <= next {
                return;
            }
            ctx.cancel_future(sleep);
        }
        let sleep = self.core.clock.sleep_until(next);
        let timer = ctx.spawn(sleep.into_actor(self).map(|(), mesh, ctx| {
            mesh.wake_armed = None;
            let mono = mesh.core.clock.mono_ms();
            while let Some((feature, key)) = mesh.core.timers.due(mono) {
                let span = tracing::debug_span!("wake", mesh.id = %mesh.core.id, feature, key);
                span.in_scope(|| {
                    mesh.timed(feature, "wake", ctx, |mesh, ctx| {
                        mesh.step(ctx, None, |features, cx| features.on_wake(cx, feature, &key));
                    });
                });
            }
            mesh.arm_wake(ctx);
        }));
        self.wake_armed = Some((next, timer));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let mono = self.core.clock.mono_ms();
        self.expire_leases(mono, ctx);
        self.step(ctx, None, |_, cx| {
            if !cx.core.dirty.is_empty() || !cx.core.seen.is_empty() {
                cx.flush(FlushWanted::Soon);
            }
            if cx.core.members_stale {
                reload_members(cx, None);
            }
            cx.emit(MeshEvent::Tick);
        });
        tell_left_out(&mut self.core);
        self.arm_events(ctx);
        if mono >= self.next_forget_mono_ms {
            self.next_forget_mono_ms = mono + FORGET_MS;
            known_sessions::forget(&mut self.core);
        }
        self.retire_when_idle(mono, ctx);
    }

    /// A mesh without peers and open HTTP streams leaves memory after a while; storage has everything.
    fn retire_when_idle(&mut self, mono: i64, ctx: &mut Context<Self>) {
        if !self.core.roster.is_empty() || self.features.keeps_awake() {
            self.empty_since_mono_ms = None;
            return;
        }
        let since = *self.empty_since_mono_ms.get_or_insert(mono);
        let settled = step::is_settled(&mut self.core, &self.features);
        if self.retiring || !settled || self.writing || !self.lanes.is_empty() {
            return;
        }
        if mono - since < i64::from(self.core.connections.idle_mesh_seconds) * 1_000 {
            return;
        }
        self.retiring = true;
        let (directory, id) = (self.directory.clone(), self.core.id.clone());
        ctx.spawn(async move { directory.retire(&id).await }.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}
