//! What is held in memory for one socket: counted in bytes from the moment the mesh hands a frame over until the HTTP
//! server has taken it, so that a peer that does not read costs a fixed amount whatever the size of its frames.
//!
//! The mesh holds the [`PeerSender`], the session the [`SendQueue`], and `socket.rs` says when a frame has left. Frames wait in the
//! queue, and the session's mailbox only says that there are some: under load one notice brings many. Events wait there without a
//! notice until the mesh gives one, so that many events cost a peer one wake-up.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix::Recipient;
use bytestring::ByteString;
use claudemesh_protocol::limits;

use super::{CloseReason, Out};
use crate::metrics::METRICS;

/// What a frame costs beside its text: its place in the queue and the header on the wire. Also bounds their number.
pub const FRAME_OVERHEAD_BYTES: usize = 128;

/// Bytes on their way to one socket.
#[derive(Debug, Default)]
pub struct SendQueue {
    waiting: Mutex<Waiting>,
    /// In the queue, being encoded, or encoded and not taken by the HTTP server.
    held_bytes: AtomicUsize,
    /// The part of it that has left the queue.
    taken_bytes: AtomicUsize,
    /// Everything that was ever handed over.
    enqueued_bytes: AtomicU64,
    /// The part of it that has left for the HTTP server's buffer.
    written_bytes: AtomicU64,
    /// Why the socket has to be closed although no notice of it fitted into the mailbox.
    closing: OnceLock<CloseReason>,
    /// The peer has closed its side.
    peer_is_done: AtomicBool,
}

/// Frames that the session has not taken.
#[derive(Debug, Default)]
struct Waiting {
    frames: Vec<ByteString>,
    /// The session was told that there are some.
    told: bool,
    /// The mesh was told that the session has to be.
    listed: bool,
}

/// What came of an event for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The peer has too much before it; the event is lost.
    Full,
    /// It leaves with what is before it.
    Behind,
    /// It leaves after [`PeerSender::wake`], which the caller has to see to.
    First,
}

impl SendQueue {
    /// Bytes held now.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Acquire)
    }

    /// The session takes the frames that wait, to encode them. The queue keeps no memory behind: most sockets are idle.
    pub fn take(&self) -> Vec<ByteString> {
        let frames = {
            let mut waiting = self.waiting();
            waiting.told = false;
            std::mem::take(&mut waiting.frames)
        };
        self.taken_bytes.fetch_add(frames.iter().map(cost_of).sum(), Ordering::AcqRel);
        frames
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // It is whole at every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was taken so far has left for the HTTP server's buffer.
    pub fn mark_written(&self) {
        let bytes = self.taken_bytes.swap(0, Ordering::AcqRel);
        self.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.written_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// The peer has closed its side: it sends nothing more, and waits for the end of the connection.
    pub fn note_goodbye(&self) {
        self.peer_is_done.store(true, Ordering::Release);
    }

    /// Whether the peer has closed its side.
    pub fn peer_is_done(&self) -> bool {
        self.peer_is_done.load(Ordering::Acquire)
    }

    /// A reason to close that did not fit into the mailbox.
    pub fn closing(&self) -> Option<CloseReason> {
        self.closing.get().copied()
    }
}

/// The mesh's end of a socket.
#[derive(Clone)]
pub struct PeerSender {
    socket: Recipient<Out>,
    queue: Arc<SendQueue>,
}

impl PeerSender {
    /// Frames for that session, counted there.
    pub fn new(socket: Recipient<Out>, queue: Arc<SendQueue>) -> Self {
        Self { socket, queue }
    }

    /// Bytes held for this socket.
    pub fn held_bytes(&self) -> usize {
        self.queue.held_bytes()
    }

    /// Hands over a message or an event; `false` when the peer has too much before it. A message then waits in storage, an
    /// event is lost. One frame always fits an empty queue, whatever its size.
    pub fn push(&self, frame: ByteString) -> bool {
        self.push_marked(frame).is_some()
    }

    /// As [`PeerSender::push`]; with the mark at which [`PeerSender::written_bytes`] stands once the frame has left.
    pub fn push_marked(&self, frame: ByteString) -> Option<u64> {
        let cost = self.room_for(&frame)?;
        self.enqueue(frame, cost)
    }

    /// Hands over an event without waking the peer's session; what is pushed or answered later takes it along, in order.
    pub fn push_event(&self, frame: ByteString) -> Queued {
        let Some(cost) = self.room_for(&frame) else { return Queued::Full };
        let mut waiting = self.queue.waiting();
        self.put(&mut waiting, frame, cost);
        if waiting.told || std::mem::replace(&mut waiting.listed, true) { Queued::Behind } else { Queued::First }
    }

    /// Wakes the session when something waits that it was not told of; `false` when it has ended.
    pub fn wake(&self) -> bool {
        let mut waiting = self.queue.waiting();
        waiting.listed = false;
        waiting.frames.is_empty() || self.tell(waiting)
    }

    /// What a frame costs, if there is room for it.
    fn room_for(&self, frame: &ByteString) -> Option<usize> {
        let (cost, held) = (cost_of(frame), self.queue.held_bytes());
        (held == 0 || held + cost <= limits::MAX_QUEUED_PUSH_BYTES).then_some(cost)
    }

    /// How much of what was handed over has left for the HTTP server's buffer.
    pub fn written_bytes(&self) -> u64 {
        self.queue.written_bytes.load(Ordering::Acquire)
    }

    /// Hands over an answer. A peer that asks on and on without reading is closed: an answer that is left out without a word
    /// would make its client wait for ever.
    pub fn answer(&self, frame: ByteString) -> bool {
        let cost = cost_of(&frame);
        let fits = self.queue.held_bytes() < limits::MAX_QUEUED_BYTES && self.enqueue(frame, cost).is_some();
        if !fits {
            METRICS.answers_dropped.inc();
            self.close(CloseReason::SlowReader);
        }
        fits
    }

    /// Closes the socket after what was handed over before; at once when the notice does not fit.
    pub fn close(&self, reason: CloseReason) {
        self.wake();
        if self.socket.try_send(Out::Close(reason)).is_err() {
            // The first reason stays: the later ones follow from it.
            let _ = self.queue.closing.set(reason);
        }
    }

    fn enqueue(&self, frame: ByteString, cost: usize) -> Option<u64> {
        let mut waiting = self.queue.waiting();
        let mark = self.put(&mut waiting, frame, cost);
        self.tell(waiting).then_some(mark)
    }

    /// Puts a frame behind the others; answers its mark.
    fn put(&self, waiting: &mut Waiting, frame: ByteString, cost: usize) -> u64 {
        // Counted first: the session may take it as soon as the lock is free.
        self.queue.held_bytes.fetch_add(cost, Ordering::AcqRel);
        let mark = self.queue.enqueued_bytes.fetch_add(cost as u64, Ordering::AcqRel) + cost as u64;
        waiting.frames.push(frame);
        mark
    }

    /// Tells the session, once, that frames wait; `false` when it has ended.
    fn tell(&self, mut waiting: std::sync::MutexGuard<'_, Waiting>) -> bool {
        if std::mem::replace(&mut waiting.told, true) {
            return true;
        }
        drop(waiting);
        if self.socket.try_send(Out::Ready).is_ok() {
            return true;
        }
        // What no one will take is let go, so that the next one is told again.
        let frames = self.queue.take();
        let bytes: usize = frames.iter().map(cost_of).sum();
        self.queue.taken_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.queue.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
        false
    }
}

fn cost_of(frame: &ByteString) -> usize {
    frame.len() + FRAME_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};

    use super::*;

    /// A session whose mailbox is not looked at as long as the test does not yield.
    #[derive(Default)]
    struct Silent;

    impl Actor for Silent {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(crate::session::socket::MAILBOX);
        }
    }

    impl Handler<Out> for Silent {
        type Result = ();

        fn handle(&mut self, _: Out, _: &mut Self::Context) {}
    }

    async fn sender() -> PeerSender {
        let socket = Silent.start();
        // `started` has run when the first message is handled.
        socket.send(Out::Close(CloseReason::Disconnected)).await.unwrap();
        PeerSender::new(socket.recipient(), Arc::default())
    }

    fn frame(bytes: usize) -> ByteString {
        "x".repeat(bytes).into()
    }

    #[actix_rt::test]
    async fn what_is_held_for_a_peer_never_passes_the_bound_whatever_the_size_of_its_frames() {
        for size in [0, 100, 16 * 1024, 300_000, limits::MAX_FRAME_BYTES] {
            let sender = sender().await;
            let mut pushed = 0;
            while sender.push(frame(size)) {
                pushed += 1;
                let held = sender.held_bytes();
                assert!(held <= limits::MAX_QUEUED_PUSH_BYTES, "{pushed} frames of {size} bytes hold {held}");
            }
            assert!(
                pushed * (size + FRAME_OVERHEAD_BYTES) + size + FRAME_OVERHEAD_BYTES > limits::MAX_QUEUED_PUSH_BYTES
            );
        }
    }

    #[actix_rt::test]
    async fn answers_have_room_when_pushes_have_none_and_one_too_many_ends_the_socket() {
        let sender = sender().await;
        while sender.push(frame(1_000)) {}
        let mut answered = 0;
        while sender.answer(frame(1_000)) {
            answered += 1;
            assert!(sender.held_bytes() <= limits::MAX_QUEUED_BYTES + 1_000 + FRAME_OVERHEAD_BYTES);
        }
        assert!(answered > 1_000, "{answered}");
    }

    #[actix_rt::test]
    async fn a_frame_counts_until_it_has_left() {
        let sender = sender().await;
        let (first, second) = (frame(1_000), frame(500));
        let marks = [sender.push_marked(first.clone()), sender.push_marked(second.clone())].map(Option::unwrap);
        assert_eq!(sender.written_bytes(), 0);
        assert_eq!(sender.queue.take(), [first.clone(), second.clone()], "in their order");
        assert_eq!(sender.held_bytes(), 1_500 + 2 * FRAME_OVERHEAD_BYTES, "encoded is not gone");
        let third = sender.push_marked(second.clone()).unwrap();
        sender.queue.mark_written();
        assert!(marks[0] < marks[1] && marks[1] == sender.written_bytes() && sender.written_bytes() < third);
        assert_eq!(sender.held_bytes(), 500 + FRAME_OVERHEAD_BYTES, "what came after is not gone");
        sender.queue.mark_written();
        assert_eq!(sender.held_bytes(), 500 + FRAME_OVERHEAD_BYTES, "nothing more was taken");
        assert_eq!(sender.queue.take(), [second]);
        sender.queue.mark_written();
        assert_eq!(sender.held_bytes(), 0);
        // Even what passes every bound goes out when nothing is before it.
        assert!(sender.push(frame(limits::MAX_QUEUED_BYTES)));
        assert!(!sender.push(frame(1)));
    }
}
