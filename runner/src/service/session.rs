//! MCP with one process: requests to it and from it, over lines of JSON.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use claudemesh_protocol::runner::{FailCode, Failure, Note};
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::message::{self, Message};
use crate::link::StreamWriter;
use crate::log::{From, Log};

/// Messages that wait to be read by the server.
const INPUT_MESSAGES: usize = 64;
/// Requests that one server may have open; more are refused, so that one which never answers does not keep everything.
const MAX_PENDING: usize = 1_024;
/// Requests of the server itself that are open.
const MAX_ASKED: usize = 64;

/// What a server answered: the text of its result, or of its error.
#[derive(Debug)]
pub(crate) enum Reply {
    Result(Bytes),
    Error(Bytes),
}

struct Pending {
    reply: oneshot::Sender<Result<Reply, Failure>>,
    /// Where its progress goes.
    progress: Option<StreamWriter>,
    /// The broker's stream, when it is a request of the broker.
    stream: Option<u64>,
}

/// What the server says by itself.
pub(crate) enum Heard {
    /// A request; the answer goes to [`Session::answer`].
    Request { id: String, method: String, params: Vec<u8> },
    /// It no longer wants an answer.
    Cancelled { id: String },
    /// A notification but progress.
    Notification { method: String, params: Vec<u8> },
}

/// How a request is made.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) progress: Option<StreamWriter>,
    pub(crate) stream: Option<u64>,
}

/// A process that speaks MCP.
pub(crate) struct Session {
    input: mpsc::Sender<Vec<u8>>,
    pending: Mutex<HashMap<u64, Pending>>,
    next: AtomicU64,
    /// Ids of requests of the server that are not answered.
    asked: Mutex<HashMap<String, oneshot::Sender<()>>>,
    /// Messages that came: a server that speaks is alive.
    heard: AtomicU64,
    /// The output has ended.
    ended: watch::Sender<bool>,
    /// The input is to end.
    close: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The failure of requests whose process is gone.
pub(crate) fn gone() -> Failure {
    Failure {
        code: FailCode::Restarting,
        message: "the service ended before it answered; it is started again, try again soon".into(),
    }
}

impl Session {
    /// Speaks with a process; what it says by itself comes out of the receiver.
    pub(crate) fn start(
        stdin: pipe::Sender,
        stdout: pipe::Receiver,
        log: Arc<Log>,
    ) -> (Arc<Self>, mpsc::Receiver<Heard>) {
        let (input, queue) = mpsc::channel(INPUT_MESSAGES);
        let (tell, heard) = mpsc::channel(INPUT_MESSAGES);
        let session = Arc::new(Self {
            input,
            pending: Mutex::default(),
            next: AtomicU64::new(1),
            asked: Mutex::default(),
            heard: AtomicU64::new(0),
            ended: watch::Sender::new(false),
            close: Arc::default(),
        });
        tokio::spawn(write(stdin, queue, session.close.clone()));
        tokio::spawn(session.clone().listen(stdout, tell, log));
        (session, heard)
    }

    /// Ends the input of the process.
    pub(crate) fn close(&self) {
        self.close.notify_one();
    }

    /// How many messages came by now.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Requests that are not answered.
    pub(crate) fn calls(&self) -> u32 {
        u32::try_from(lock(&self.pending).len()).unwrap_or(u32::MAX)
    }

    /// The broker's streams of requests that are not answered.
    pub(crate) fn streams(&self) -> Vec<u64> {
        let mut streams: Vec<u64> = lock(&self.pending).values().filter_map(|pending| pending.stream).collect();
        streams.sort_unstable();
        streams
    }

    /// Waits until the output of the process has ended.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Sends a request and waits for its answer. Dropping the future cancels the request at the server.
    ///
    /// # Errors
    /// [`FailCode::Timeout`], [`FailCode::Restarting`] when the process ended, [`FailCode::TooLarge`] for an answer that is.
    pub(crate) async fn request(
        &self,
        method: &str,
        params: &[u8],
        timeout: Duration,
        asked: Asked,
    ) -> Result<Reply, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let token = asked.progress.is_some().then_some(id);
        let line = message::request(id, method, params, token).ok_or_else(|| Failure {
            code: FailCode::Invalid,
            message: "expected params that are a JSON object".into(),
        })?;
        let (reply, answer) = oneshot::channel();
        {
            let mut pending = lock(&self.pending);
            if *self.ended.borrow() {
                return Err(gone());
            }
            if pending.len() >= MAX_PENDING {
                return Err(Failure {
                    code: FailCode::Limit,
                    message: "too many requests of the service are not answered".into(),
                });
            }
            pending.insert(id, Pending { reply, progress: asked.progress, stream: asked.stream });
        }
        let mut forget = Forget { session: self, id, reason: "the caller no longer waits" };
        let waited = tokio::time::timeout(timeout, async {
            if self.input.send(line).await.is_err() {
                return Err(gone());
            }
            answer.await.unwrap_or_else(|_| Err(gone()))
        });
        match waited.await {
            Ok(answered) => answered,
            Err(_) => {
                forget.reason = "it took too long";
                let seconds = timeout.as_secs_f32();
                Err(Failure {
                    code: FailCode::Timeout,
                    message: format!("the service did not answer {method} within {seconds} s"),
                })
            }
        }
    }

    /// Sends a notification; `false` when the process does not read and enough waits for it already.
    pub(crate) fn notify(&self, method: &str, params: &[u8]) -> bool {
        message::notification(method, params).is_some_and(|line| self.input.try_send(line).is_ok())
    }

    /// Answers a request of the server.
    pub(crate) async fn answer(&self, id: &str, reply: &Reply) {
        lock(&self.asked).remove(id);
        if let Some(line) = message::answer(id, reply) {
            let _ = self.input.send(line).await;
        }
    }

    /// Notes that a request of the server is being answered: the receiver fires when it is cancelled. `None` when there are too many.
    pub(crate) fn ask(&self, id: &str) -> Option<oneshot::Receiver<()>> {
        let (cancel, cancelled) = oneshot::channel();
        let mut asked = lock(&self.asked);
        (asked.len() < MAX_ASKED && !asked.contains_key(id)).then(|| {
            asked.insert(id.to_owned(), cancel);
            cancelled
        })
    }

    /// The server cancelled its request.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(cancel) = lock(&self.asked).remove(id) {
            let _ = cancel.send(());
        }
    }

    async fn listen(self: Arc<Self>, stdout: pipe::Receiver, tell: mpsc::Sender<Heard>, log: Arc<Log>) {
        let mut lines = message::Lines::new(stdout);
        while let Some(line) = lines.next().await {
            match line {
                message::Line::Whole(line) => self.take(line, &tell, &log).await,
                message::Line::TooLong { ends } => {
                    log.add(From::Runner, "a line of more than 50 MB was left out");
                    if let Some(id) = message::id_in(&ends) {
                        self.settle(
                            id,
                            Err(Failure {
                                code: FailCode::TooLarge,
                                message: "the result is larger than 50 MB".into(),
                            }),
                        );
                    }
                }
            }
        }
        self.ended.send_replace(true);
        lock(&self.pending).clear();
        lock(&self.asked).clear();
    }

    async fn take(&self, line: Bytes, tell: &mpsc::Sender<Heard>, log: &Log) {
        let Some(messages) = message::read(&line) else {
            let text = String::from_utf8_lossy(&line[..line.len().min(64 << 10)]);
            if !text.trim().is_empty() {
                log.add(From::Stdout, text.trim_end());
            }
            return;
        };
        for message in messages {
            self.heard.fetch_add(1, Ordering::Relaxed);
            let heard = match message {
                Message::Result { id, result } => {
                    self.settle(id, Ok(Reply::Result(result)));
                    continue;
                }
                Message::Error { id, error } => {
                    self.settle(id, Ok(Reply::Error(error)));
                    continue;
                }
                Message::Request { id, method, params } => Heard::Request { id, method, params: params.to_vec() },
                Message::Notification { method, params } if method == "notifications/progress" => {
                    self.progress(&params).await;
                    continue;
                }
                Message::Notification { method, params } if method == "notifications/cancelled" => {
                    let Some(id) = message::field(&params, "requestId") else { continue };
                    Heard::Cancelled { id }
                }
                Message::Notification { method, params } => Heard::Notification { method, params: params.to_vec() },
            };
            // Whoever speaks faster than it is listened to waits.
            let _ = tell.send(heard).await;
        }
    }

    fn settle(&self, id: u64, reply: Result<Reply, Failure>) {
        if let Some(pending) = lock(&self.pending).remove(&id) {
            let _ = pending.reply.send(reply);
        }
    }

    async fn progress(&self, params: &Bytes) {
        let id = message::field(params, "progressToken").and_then(|token| token.parse::<u64>().ok());
        let writer = id.and_then(|id| lock(&self.pending).get(&id)?.progress.clone());
        if let Some(writer) = writer {
            writer.note(&Note::Progress, params.to_vec()).await;
        }
    }
}

/// Forgets a request however its waiting ends, and tells the server when it has not answered.
struct Forget<'a> {
    session: &'a Session,
    id: u64,
    reason: &'static str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if lock(&self.session.pending).remove(&self.id).is_some() {
            let params = serde_json::json!({"requestId": self.id, "reason": self.reason});
            self.session.notify("notifications/cancelled", params.to_string().as_bytes());
        }
    }
}

async fn write(mut stdin: pipe::Sender, mut queue: mpsc::Receiver<Vec<u8>>, close: Arc<Notify>) {
    let writing = async {
        while let Some(line) = queue.recv().await {
            if stdin.write_all(&line).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = close.notified() => {}
    }
}

/// Whether a text is one JSON value.
pub(crate) fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok()
}
