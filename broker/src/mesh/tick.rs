//! What a mesh does once a second: leases, expiries, sleep.

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use claudemesh_protocol::features::presence::PeerStatus;

use super::actor::{Mesh, TICK_MS};
use super::context::{PRESENCE_FRAMES_PER_SECOND, system_push};
use super::known;
use super::load::reload_members;
use super::peers::{PeerRef, StatusSource};
use crate::features::messaging::journaling;
use crate::metrics::METRICS;

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

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let mono = self.core.clock.mono_ms();
        self.core.presence_budget = PRESENCE_FRAMES_PER_SECOND;
        self.expire_leases(mono, ctx);
        self.expire_working(mono, ctx);
        self.step(ctx, None, |features, cx| {
            journaling::tick(&mut features.messaging, cx);
            if cx.core.members_stale {
                reload_members(cx, None);
            }
        });
        if self.core.presence_skipped > 0 {
            let data = serde_json::json!({ "peers": self.core.roster.len(), "changes": self.core.presence_skipped });
            self.core.presence_skipped = 0;
            let frame = system_push(&self.core.id, "roster_changed", data, self.core.clock.now_ms());
            let (cx, _) = self.context(None);
            cx.push_all(&frame, |_| false);
        }
        if mono >= self.next_forget_mono_ms {
            self.next_forget_mono_ms = mono + FORGET_MS;
            known::forget(&mut self.core);
        }
        self.retire_when_idle(mono, ctx);
    }

    fn expire_working(&mut self, mono: i64, ctx: &mut Context<Self>) {
        let ttl = i64::from(self.core.connections.working_ttl_seconds) * 1_000;
        let expired: Vec<PeerRef> = self
            .core
            .roster
            .iter()
            .filter(|peer| peer.status == PeerStatus::Working && mono - peer.status_mono_ms >= ttl)
            .map(|peer| peer.at)
            .collect();
        for peer in expired {
            METRICS.ttl_expired.inc();
            self.step(ctx, None, |_, cx| {
                cx.set_status(peer, PeerStatus::Idle, StatusSource::Expired);
            });
        }
    }

    /// A mesh without peers leaves memory after a while; storage has everything.
    fn retire_when_idle(&mut self, mono: i64, ctx: &mut Context<Self>) {
        if !self.core.roster.is_empty() {
            self.empty_since_mono_ms = None;
            return;
        }
        let since = *self.empty_since_mono_ms.get_or_insert(mono);
        let (cx, features) = self.context(None);
        let settled = journaling::is_settled(&features.messaging, &cx);
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
