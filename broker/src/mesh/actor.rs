//! [`Mesh`]: a thin shell. It takes frames in, lets a feature decide, runs slow work in lanes, and keeps time.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use tracing::Instrument;

use super::context::{Caller, Core, FlushWanted, MeshContext, Shared};
use super::directory::Directory;
use super::dispatch::Features;
use super::events::MeshEvent;
use super::hook_statuses::{Match, matches};
use super::lanes::Lanes;
use super::load::{Loaded, reload_members};
use super::messages::{
    Attach, ClientFrame, Detach, Drain, Heartbeat, HookStatus, Inbound, ReloadMembers, Request, Snapshot, Told,
};
use super::outcome::{Apply, Failed, Lane, Outcome, Work};
use super::peers::{PeerHandle, StatusSource};
use super::principal::{Principal, ReplyTo, Way};
use super::step;
use crate::metrics::METRICS;
use crate::refusal::Refusal;
use crate::session::CloseReason;

/// Frames that may wait for a mesh before its sessions stop reading their sockets.
const MAILBOX: usize = 4_096;
/// How often leases, expiries and silent sockets are looked at.
pub(super) const TICK_MS: i64 = 1_000;
/// A piece of slow work is given up after this time.
const WORK_DEADLINE: Duration = Duration::from_secs(30);
/// A handler that takes longer is worth a warning.
const SLOW_HANDLER: Duration = Duration::from_millis(5);

/// The actor of one mesh.
pub struct Mesh {
    pub(super) core: Core,
    pub(super) features: Features,
    pub(super) shared: Shared,
    pub(super) directory: Directory,
    pub(super) lanes: Lanes,
    pub(super) flush_armed: Option<(FlushWanted, SpawnHandle)>,
    pub(super) wake_armed: Option<(i64, SpawnHandle)>,
    pub(super) events_armed: bool,
    pub(super) writing: bool,
    pub(super) next_tick_mono_ms: i64,
    pub(super) next_forget_mono_ms: i64,
    pub(super) empty_since_mono_ms: Option<i64>,
    pub(super) retiring: bool,
    pub(super) draining: Option<Vec<tokio::sync::oneshot::Sender<()>>>,
}

impl Mesh {
    /// A mesh from what storage knows of it.
    pub fn new(loaded: Loaded, shared: Shared, directory: Directory) -> Self {
        let now = shared.clock.mono_ms();
        let (core, features) = loaded.into_parts(&shared);
        Self {
            core,
            features,
            shared,
            directory,
            lanes: Lanes::default(),
            flush_armed: None,
            wake_armed: None,
            events_armed: false,
            writing: false,
            next_tick_mono_ms: now + TICK_MS,
            next_forget_mono_ms: now,
            empty_since_mono_ms: Some(now),
            retiring: false,
            draining: None,
        }
    }

    pub(super) fn context(&mut self, caller: Option<Caller>) -> (MeshContext<'_>, &mut Features) {
        (MeshContext::new(&mut self.core, caller), &mut self.features)
    }

    /// Runs a step on the features, then everything that follows from it: events, work, flush.
    pub(super) fn step<T>(
        &mut self,
        ctx: &mut Context<Self>,
        caller: Option<Caller>,
        step: impl FnOnce(&mut Features, &mut MeshContext<'_>) -> T,
    ) -> T {
        let result = step::step(&mut self.core, &mut self.features, caller, step);
        let work = std::mem::take(&mut self.core.work);
        for work in work {
            self.admit(work, ctx);
        }
        self.arm_flush(ctx);
        self.arm_wake(ctx);
        self.arm_events(ctx);
        result
    }

    fn settle(&mut self, outcome: Result<Outcome, Refusal>, caller: Option<&Caller>, ctx: &mut Context<Self>) -> bool {
        match outcome {
            Ok(Outcome::Silent) => true,
            Ok(Outcome::Answer(message)) => {
                if let Some(caller) = caller {
                    self.answer(caller, &message);
                }
                true
            }
            Ok(Outcome::Work(mut work)) => {
                work.tag = caller.map_or("", |caller| caller.tag);
                let (cx, _) = self.context(caller.cloned());
                work.reply_to = cx.reply_to();
                self.admit(work, ctx);
                true
            }
            Ok(Outcome::Overview(overview)) => {
                let outcome = self.step(ctx, caller.cloned(), overview);
                self.settle(outcome, caller, ctx)
            }
            Err(refusal) => {
                // Of someone who waits without a socket, it leaves the broker, and is logged, elsewhere.
                if caller.is_none_or(|caller| caller.waiting.is_none()) {
                    refusal.log(Some(&self.core.id), caller.map_or("", |caller| caller.tag));
                }
                if let Some(caller) = caller {
                    self.refuse(caller, refusal);
                }
                false
            }
        }
    }

    fn refuse(&mut self, caller: &Caller, refusal: Refusal) {
        let (mut cx, _) = self.context(Some(caller.clone()));
        if let Some(to) = cx.reply_to() {
            cx.refuse(&to, refusal);
        }
    }

    fn answer(&mut self, caller: &Caller, message: &ServerMessage) {
        let (mut cx, _) = self.context(Some(caller.clone()));
        if let Some(to) = cx.reply_to() {
            cx.reply(&to, message);
        }
    }

    fn admit(&mut self, work: Work, ctx: &mut Context<Self>) {
        let caller = work.reply_to.as_ref().map(|to| to.caller(work.tag));
        // The request of a connection that ended is nobody's.
        let of = caller.and_then(|caller| self.context(Some(caller)).0.member().ok().map(|member| member.id.clone()));
        if let Err(work) = self.lanes.admit(work, of)
            && let Some(to) = &work.reply_to
        {
            let (mut cx, _) = self.context(None);
            cx.refuse(to, Refusal::new(ErrorCode::Busy, "too much work is waiting in this mesh, or for this member"));
        }
        self.run_lanes(ctx);
    }

    fn run_lanes(&mut self, ctx: &mut Context<Self>) {
        while let Some((Work { lane, future, on_failure, reply_to, tag }, of)) = self.lanes.start() {
            let span = tracing::debug_span!(
                "work",
                mesh.id = %self.core.id,
                feature = lane.feature,
                lane = lane.key,
                msg.type = tag,
                req.id = reply_to.as_ref().and_then(|to| to.req_id.as_deref()),
            );
            // Spawned on the runtime, not in the actor: a transaction future must not be dropped with the actor.
            let job = tokio::spawn(tokio::time::timeout(WORK_DEADLINE, future.instrument(span)));
            ctx.spawn(job.into_actor(self).map(move |done, mesh, ctx| {
                let result = match done {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => Err(Refusal::new(ErrorCode::Timeout, "storage took too long")),
                    Err(error) => Err(Refusal::fault(ErrorCode::Internal, error)),
                };
                mesh.lanes.finished(&lane, of.as_ref());
                mesh.finished(&lane, (result, on_failure), reply_to, tag, ctx);
            }));
        }
    }

    fn finished(
        &mut self,
        lane: &Lane,
        (result, on_failure): (Result<Apply, Refusal>, Option<Failed>),
        reply_to: Option<ReplyTo>,
        tag: &'static str,
        ctx: &mut Context<Self>,
    ) {
        let caller = reply_to.as_ref().map(|to| to.caller(tag));
        let feature = lane.feature;
        let span = tracing::debug_span!(
            "step",
            mesh.id = %self.core.id,
            feature,
            lane = lane.key,
            msg.type = tag,
            req.id = reply_to.as_ref().and_then(|to| to.req_id.as_deref()),
        );
        let outcome = span.in_scope(|| {
            let apply: Apply = match (result, on_failure) {
                (Ok(apply), _) => apply,
                (Err(refusal), Some(failed)) => Box::new(|features, cx| failed(features, cx, refusal)),
                (Err(refusal), None) => return Err(refusal),
            };
            let step = |mesh: &mut Self, ctx: &mut Context<Self>| match mesh.step(ctx, caller.clone(), apply) {
                Ok(Outcome::Overview(overview)) => mesh.step(ctx, caller, overview),
                outcome => outcome,
            };
            self.timed(feature, tag, ctx, step)
        });
        let waits = matches!(&reply_to, Some(ReplyTo { way: Way::Waiting(_), .. }));
        if let Err(refusal) = &outcome
            && !waits
        {
            refusal.log(Some(&self.core.id), if tag.is_empty() { lane.feature } else { tag });
        }
        match (outcome, reply_to) {
            (Ok(Outcome::Answer(message)), Some(to)) => {
                let (mut cx, _) = self.context(None);
                cx.reply(&to, &message);
            }
            (Ok(Outcome::Work(mut work)), to) => {
                (work.reply_to, work.tag) = (to, tag);
                self.admit(work, ctx);
            }
            (Ok(_), _) => {}
            (Err(refusal), Some(to)) => {
                let (mut cx, _) = self.context(None);
                cx.refuse(&to, refusal);
            }
            (Err(refusal), None) => {
                tracing::warn!(mesh.id = %self.core.id, code = refusal.code.as_str(), lane = ?lane, "background work failed");
            }
        }
        self.run_lanes(ctx);
        self.arm_flush(ctx);
        self.end_when_drained(ctx);
    }
}

impl Actor for Mesh {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        METRICS.meshes_active.inc();
        self.arm_tick(ctx);
        self.arm_wake(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        METRICS.meshes_active.dec();
        // Of an archived mesh, or one that is rebuilt: those who are still in it leave it with it.
        for peer in self.core.roster.iter() {
            if peer.online() {
                METRICS.connections_active.dec();
            }
            if let Some(hash) = peer.hook_token_hash.as_ref().filter(|_| !peer.ephemeral) {
                self.core.hooks.detach(hash, &self.core.id);
            }
        }
    }
}

impl Handler<Inbound> for Mesh {
    type Result = ();

    #[expect(clippy::disallowed_methods, reason = "measures how long a handler takes; decides nothing")]
    fn handle(&mut self, inbound: Inbound, ctx: &mut Self::Context) {
        let Inbound { peer, socket_no, frames } = inbound;
        let (mono, now) = (self.core.clock.mono_ms(), self.core.clock.now_ms());
        let mut started = std::time::Instant::now();
        for ClientFrame { req_id, id, confirm, message } in frames {
            match self.core.roster.get_mut(peer) {
                Some(record) if record.socket_no == socket_no => {
                    record.heard_mono_ms = mono;
                    record.last_seen_ms = now;
                }
                // The frame was on its way while its socket was replaced or closed.
                _ => break,
            }
            let tag = message.tag();
            let feature = Features::owner(&message);
            let caller = Caller { from: Principal::Peer(peer), waiting: None, req_id, id, confirm, tag };
            if !self.frame(caller, feature, message, ctx) {
                return;
            }
            let ended = std::time::Instant::now();
            self.took(ended - std::mem::replace(&mut started, ended), feature, tag);
        }
        self.arm_flush(ctx);
    }
}

impl Handler<Request> for Mesh {
    type Result = Result<(), Box<Request>>;

    #[expect(clippy::disallowed_methods, reason = "measures how long a handler takes; decides nothing")]
    fn handle(&mut self, request: Request, ctx: &mut Self::Context) -> Self::Result {
        if self.retiring {
            return Err(Box::new(request));
        }
        let Request { from, message, waiting } = request;
        if self.draining.is_some() {
            waiting.answer(Err(ErrorCode::ShuttingDown.into()));
            return Ok(());
        }
        // What comes next does not have to load the mesh again.
        self.empty_since_mono_ms = self.empty_since_mono_ms.map(|_| self.core.clock.mono_ms());
        let tag = message.tag();
        let caller = Caller::waiting(from, waiting, tag);
        let known = self.context(Some(caller.clone())).0.asker().map(|_| ());
        if let Err(refusal) = known {
            self.refuse(&caller, refusal);
            return Ok(());
        }
        let (feature, started) = (Features::owner(&message), std::time::Instant::now());
        if self.frame(caller, feature, message, ctx) {
            self.took(started.elapsed(), feature, tag);
            self.arm_flush(ctx);
        }
        Ok(())
    }
}

impl Mesh {
    /// Runs a step that is no frame, and says so when it took long.
    #[expect(clippy::disallowed_methods, reason = "measures how long a step takes; decides nothing")]
    pub(super) fn timed<T>(
        &mut self,
        feature: &'static str,
        tag: &'static str,
        ctx: &mut Context<Self>,
        step: impl FnOnce(&mut Self, &mut Context<Self>) -> T,
    ) -> T {
        let started = std::time::Instant::now();
        let done = step(self, ctx);
        self.warn_slow(started.elapsed(), feature, tag);
        done
    }

    fn took(&self, took: Duration, feature: &'static str, tag: &'static str) {
        METRICS.handler_seconds.observe(took.as_secs_f64());
        self.warn_slow(took, feature, tag);
    }

    fn warn_slow(&self, took: Duration, feature: &'static str, tag: &'static str) {
        if took > SLOW_HANDLER {
            tracing::warn!(
                mesh.id = %self.core.id,
                feature,
                msg.type = tag,
                dur_ms = took.as_millis() as u64,
                "slow handler"
            );
        }
    }

    /// One request of someone who is here; `false` when the mesh ends over it.
    fn frame(
        &mut self,
        caller: Caller,
        feature: &'static str,
        message: ClientMessage,
        ctx: &mut Context<Self>,
    ) -> bool {
        let tag = caller.tag;
        let span = tracing::debug_span!(
            "frame",
            mesh.id = %self.core.id,
            feature,
            msg.type = tag,
            req.id = caller.req_id.as_deref(),
        );
        let _entered = span.enter();
        // A panic in a handler is a fault of that feature: its request fails and the mesh is rebuilt from storage.
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.step(ctx, Some(caller.clone()), |features, cx| features.dispatch(cx, message))
        }));
        let Ok(outcome) = caught else {
            let refusal = Refusal::fault(ErrorCode::Internal, "a handler panicked; the mesh is rebuilt from storage");
            refusal.log(Some(&self.core.id), tag);
            self.refuse(&caller, refusal);
            self.rebuild(ctx);
            return false;
        };
        match &outcome {
            Ok(_) => METRICS.frames.handled(feature),
            Err(refusal) => METRICS.frames.refused(feature, refusal.code.as_str()),
        }
        self.settle(outcome, Some(&caller), ctx);
        true
    }

    /// After a panic the memory may be half changed: end this actor; the directory loads a new one, sessions reconnect.
    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        let (cx, _) = self.context(None);
        for peer in cx.core.roster.refs() {
            cx.close(peer, CloseReason::Restarting);
        }
        let (directory, id) = (self.directory.clone(), self.core.id.clone());
        actix_rt::spawn(async move { directory.retire(&id).await });
        ctx.stop();
    }
}

impl Handler<Heartbeat> for Mesh {
    type Result = ();

    fn handle(&mut self, beat: Heartbeat, _: &mut Self::Context) {
        let mono = self.core.clock.mono_ms();
        if let Some(peer) = self.core.roster.get_mut(beat.peer)
            && peer.socket_no == beat.socket_no
        {
            peer.heard_mono_ms = mono;
        }
    }
}

impl Handler<HookStatus> for Mesh {
    type Result = Vec<String>;

    fn handle(&mut self, hook: HookStatus, ctx: &mut Self::Context) -> Self::Result {
        let HookStatus { token_hash, status } = hook;
        let fits: Vec<(Match, PeerHandle)> = self
            .core
            .roster
            .iter()
            .filter(|peer| !peer.ephemeral && peer.hook_token_hash.as_deref() == Some(&*token_hash))
            .map(|peer| (matches(&status, &peer.session_id, peer.pid, &peer.cwd), peer.handle))
            .collect();
        let best = fits.iter().map(|(fit, _)| *fit).max().unwrap_or(Match::No);
        let chosen: Vec<PeerHandle> = fits.iter().filter(|(fit, _)| *fit == best).map(|(_, peer)| *peer).collect();
        // A directory alone decides only when one session is in it.
        let sure = match best {
            Match::No => false,
            Match::Directory => chosen.len() == 1,
            Match::Process | Match::Session => true,
        };
        if !sure {
            return Vec::new();
        }
        self.step(ctx, None, |_, cx| {
            for peer in &chosen {
                cx.set_status(*peer, status.status, StatusSource::Hook);
            }
        });
        chosen.iter().filter_map(|peer| self.core.roster.get(*peer)).map(|peer| peer.presence.to_string()).collect()
    }
}

impl Handler<Told> for Mesh {
    type Result = ();

    fn handle(&mut self, told: Told, ctx: &mut Self::Context) {
        // Of a mesh without anyone in it: what follows is to be stored before it sleeps.
        self.empty_since_mono_ms = self.empty_since_mono_ms.map(|_| self.core.clock.mono_ms());
        self.step(ctx, None, |_, cx| cx.emit(MeshEvent::Host(Box::new(told.0))));
    }
}

impl Handler<Snapshot> for Mesh {
    type Result = ();

    fn handle(&mut self, snapshot: Snapshot, ctx: &mut Self::Context) {
        (snapshot.0)(&mut self.core, &mut self.features);
        self.step(ctx, None, |_, _| ());
    }
}

impl Handler<ReloadMembers> for Mesh {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: ReloadMembers, ctx: &mut Self::Context) -> Self::Result {
        let (done, reloaded) = tokio::sync::oneshot::channel();
        self.step(ctx, None, |_, cx| reload_members(cx, Some(done)));
        Box::pin(async move {
            let _ = reloaded.await;
        })
    }
}

impl Handler<Attach> for Mesh {
    type Result = Result<PeerHandle, Option<ErrorCode>>;

    fn handle(&mut self, attach: Attach, ctx: &mut Self::Context) -> Self::Result {
        if self.retiring {
            return Err(None);
        }
        if self.draining.is_some() {
            return Err(Some(ErrorCode::ShuttingDown));
        }
        self.empty_since_mono_ms = None;
        self.attach(attach, ctx).map_err(Some)
    }
}

impl Handler<Detach> for Mesh {
    type Result = ();

    fn handle(&mut self, detach: Detach, ctx: &mut Self::Context) {
        self.detach(detach.peer, detach.socket_no, ctx);
    }
}

impl Handler<Drain> for Mesh {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (done, drained) = tokio::sync::oneshot::channel();
        self.draining.get_or_insert_default().push(done);
        self.step(ctx, None, |_, cx| {
            for peer in cx.core.roster.refs() {
                cx.close(peer, drain.0);
            }
            cx.emit(MeshEvent::Stopping);
        });
        // What was read before the close still counts; the flush follows everything that is in the mailbox now.
        self.store_all_presence();
        self.core.flush_wanted = FlushWanted::Now;
        self.arm_flush(ctx);
        Box::pin(async move {
            let _ = drained.await;
        })
    }
}
