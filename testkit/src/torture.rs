//! Kill the broker with SIGKILL under load, start it again, compare what it promised with what arrives.
//!
//! The promise: a message whose ack said `queued:true` reaches its recipient, in the order of its sender, once after
//! the client's own dedup, and under the id that the ack named. Senders retry what was not acknowledged with the same
//! `client_message_id`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::enrol::OwnedMesh;
use crate::identity::Session;
use crate::process::BrokerProcess;
use crate::wire::{END, Out, Peer, Socket, field, is};

const SENDERS: usize = 4;
const WINDOW: usize = 24;
const SETTLE: Duration = Duration::from_secs(30);

/// How a recipient behaves while the broker is under load. In between all of them are there and acknowledge.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    /// Online, acknowledges.
    Acknowledges,
    /// Online, never acknowledges.
    Silent,
    /// Away.
    Away,
}

const RECIPIENTS: [Habit; 6] =
    [Habit::Acknowledges, Habit::Acknowledges, Habit::Silent, Habit::Silent, Habit::Away, Habit::Away];

/// What happened in a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// Rounds of kill and restart.
    pub rounds: u32,
    /// Messages acknowledged with `queued:true`.
    pub acked: u64,
    /// Messages that were retried after a kill.
    pub retried: u64,
    /// Copies that the recipients' own dedup removed.
    pub duplicates: u64,
}

/// Runs that many rounds; the same seed gives the same kill times.
///
/// # Errors
/// A promise was broken; the message says which, in which round and with which seed.
pub async fn run(binary: &Path, rounds: u32, seed: u64, broker_args: &[&str]) -> Result<Summary> {
    let data = tempfile::tempdir()?;
    let mut broker = BrokerProcess::start(binary, data.path(), broker_args)?;
    let mesh = OwnedMesh::create(&broker.base(), "torture")?;
    let sessions = |prefix: &str, count: usize| -> Result<Vec<Session>> {
        let members = mesh.members(prefix, u32::try_from(count)?)?;
        Ok(members.iter().enumerate().map(|(index, member)| member.session(&format!("{prefix}-{index}"))).collect())
    };
    let (senders, recipients) = (sessions("sender", SENDERS)?, sessions("recipient", RECIPIENTS.len())?);
    let targets = recipients.iter().map(Session::pubkey).collect();
    let state = Rc::new(RefCell::new(State::new(targets)));
    let mut random = StdRng::seed_from_u64(seed);
    // Every session is known to the broker before anybody writes to it.
    cast(&broker, &state, &senders, &recipients, Part::Settle, None).await.context("before the first round")?;
    for round in 1..=rounds {
        let delay = Duration::from_millis(random.gen_range(5..400));
        let context =
            || format!("round {round} of {rounds}, seed {seed}, killed after {delay:?}; repeat with --seed {seed}");
        let killing = Some((&mut broker, delay));
        load(killing, &state, &senders, &recipients).await.with_context(context)?;
        broker.restart().with_context(context)?;
        cast(&broker, &state, &senders, &recipients, Part::Settle, None).await.with_context(context)?;
        if let Some(fault) = state.borrow().fault.clone() {
            return Err(anyhow::anyhow!(fault).context(context()));
        }
    }
    let status = broker.terminate()?;
    if !status.success() {
        bail!("SIGTERM after the last round: the broker ended with {status}");
    }
    let state = state.borrow();
    Ok(Summary { rounds, acked: state.acked, retried: state.retried, duplicates: state.duplicates })
}

struct Entry {
    recipient: usize,
    number: u32,
    /// Broker's id, once it promised.
    promised: Option<String>,
}

struct State {
    targets: Vec<String>,
    /// Per sender, in send order.
    sent: Vec<Vec<Entry>>,
    /// (sender, recipient) -> messages so far.
    numbers: HashMap<(usize, usize), u32>,
    /// (recipient, sender) -> the next number that must arrive.
    next: HashMap<(usize, usize), u32>,
    acked: u64,
    retried: u64,
    duplicates: u64,
    fault: Option<String>,
    changed: Rc<Notify>,
}

impl State {
    fn new(targets: Vec<String>) -> Self {
        Self {
            targets,
            sent: (0..SENDERS).map(|_| Vec::new()).collect(),
            numbers: HashMap::new(),
            next: HashMap::new(),
            acked: 0,
            retried: 0,
            duplicates: 0,
            fault: None,
            changed: Rc::default(),
        }
    }

    fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
        self.changed.notify_one();
    }

    /// Everything sent was promised, and everything promised arrived.
    fn settled(&self) -> bool {
        self.fault.is_some()
            || (self.sent.iter().flatten().all(|entry| entry.promised.is_some())
                && self.numbers.iter().all(|(&(sender, recipient), &count)| {
                    self.next.get(&(recipient, sender)).copied().unwrap_or_default() == count
                }))
    }

    fn missing(&self) -> String {
        let mut lines = Vec::new();
        let unpromised = self.sent.iter().flatten().filter(|entry| entry.promised.is_none()).count();
        lines.push(format!("{unpromised} messages without an ack"));
        for (&(sender, recipient), &count) in &self.numbers {
            let next = self.next.get(&(recipient, sender)).copied().unwrap_or_default();
            if next != count {
                let habit = RECIPIENTS[recipient];
                lines.push(format!("sender {sender} to recipient {recipient} ({habit:?}): {next} of {count} arrived"));
            }
        }
        lines.join("; ")
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Load,
    Settle,
}

struct Writer {
    sender: usize,
    part: Part,
    state: Rc<RefCell<State>>,
    random: StdRng,
}

impl Writer {
    fn write(&self, index: usize, out: &mut Out) {
        let state = self.state.borrow();
        let entry = &state.sent[self.sender][index];
        let body = format!("{:04x}{:04x}{:08x}", self.sender, entry.recipient, entry.number);
        let frame = json!({
            "type": "send", "id": index.to_string(), "targetSpec": state.targets[entry.recipient], "priority": "now",
            "nonce": "", "ciphertext": format!("{body}{}", "A".repeat(200)),
            "client_message_id": format!("t-{}-{index}", self.sender),
        });
        out.text(&[frame.to_string().as_bytes()]);
    }

    fn write_new(&mut self, out: &mut Out) {
        let recipient = self.random.gen_range(0..RECIPIENTS.len());
        let index = {
            let mut state = self.state.borrow_mut();
            let counter = state.numbers.entry((self.sender, recipient)).or_default();
            let number = *counter;
            *counter += 1;
            state.sent[self.sender].push(Entry { recipient, number, promised: None });
            state.sent[self.sender].len() - 1
        };
        self.write(index, out);
    }
}

impl Peer for Writer {
    fn phase(&mut self, _phase: u32, out: &mut Out) {
        // What was in flight at the kill goes out again first, in its order and under its old names.
        let open: Vec<usize> = {
            let state = self.state.borrow();
            let entries = state.sent[self.sender].iter().enumerate();
            entries.filter(|(_, entry)| entry.promised.is_none()).map(|(index, _)| index).collect()
        };
        for &index in &open {
            self.write(index, out);
        }
        self.state.borrow_mut().retried += open.len() as u64;
        if self.part == Part::Load {
            for _ in 0..WINDOW {
                self.write_new(out);
            }
        }
    }

    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if is(text, "ack") && memchr::memmem::find(text, b"\"queued\":true").is_some() {
            let index = text_field(text, "id").and_then(|id| id.parse::<usize>().ok());
            let (Some(index), Some(message)) = (index, text_field(text, "messageId")) else {
                return self.state.borrow_mut().fail(format!("an ack without ids: {}", String::from_utf8_lossy(text)));
            };
            {
                let mut state = self.state.borrow_mut();
                let entry = &mut state.sent[self.sender][index];
                let before = entry.promised.replace(message.clone());
                match before {
                    None => state.acked += 1,
                    Some(before) if before != message => {
                        state.fail(format!(
                            "message t-{}-{index} was acknowledged as {before} and as {message}",
                            self.sender
                        ));
                    }
                    Some(_) => {}
                }
                if state.settled() {
                    state.changed.notify_one();
                }
            }
            if self.part == Part::Load {
                self.write_new(out);
            }
        } else if !is(text, "push") {
            let what = String::from_utf8_lossy(text).into_owned();
            self.state.borrow_mut().fail(format!("sender {} was refused: {what}", self.sender));
        }
    }
}

struct Reader {
    recipient: usize,
    acknowledges: bool,
    part: Part,
    state: Rc<RefCell<State>>,
}

impl Peer for Reader {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        let mark = field(text, "ciphertext").filter(|body| body.len() == 216).and_then(read_mark);
        let (Some((sender, recipient, number)), Some(id)) = (mark, text_field(text, "messageId")) else {
            return; // an event of the broker
        };
        let mut state = self.state.borrow_mut();
        if recipient != self.recipient {
            return state.fail(format!("recipient {} got a message for {recipient}", self.recipient));
        }
        let next = state.next.get(&(recipient, sender)).copied().unwrap_or_default();
        if number > next {
            let habit = RECIPIENTS[recipient];
            return state.fail(format!(
                "recipient {recipient} ({habit:?}) got number {number} of sender {sender} before number {next}"
            ));
        }
        if number < next {
            state.duplicates += 1;
        } else {
            state.next.insert((recipient, sender), next + 1);
        }
        if self.part == Part::Settle {
            let entry = state.sent[sender].iter().find(|entry| entry.recipient == recipient && entry.number == number);
            let promised = entry.and_then(|entry| entry.promised.clone());
            if promised.as_ref().is_some_and(|promised| *promised != id) {
                return state.fail(format!("a message was promised as {promised:?} and came as {id}"));
            }
        }
        if state.settled() {
            state.changed.notify_one();
        }
        if self.acknowledges {
            out.text(&[b"{\"type\":\"client_ack\",\"brokerMessageId\":\"", id.as_bytes(), b"\"}"]);
        }
    }
}

fn text_field(text: &[u8], key: &str) -> Option<String> {
    Some(std::str::from_utf8(field(text, key)?).ok()?.to_owned())
}

fn read_mark(body: &[u8]) -> Option<(usize, usize, u32)> {
    let text = std::str::from_utf8(&body[..16]).ok()?;
    let number = |from: usize, to: usize| u32::from_str_radix(&text[from..to], 16).ok();
    Some((number(0, 4)? as usize, number(4, 8)? as usize, number(8, 16)?))
}

type Actors = (JoinSet<Result<()>>, watch::Sender<u32>);

fn act<P: Peer + 'static>(actors: &mut Actors, address: SocketAddr, hello: String, mut peer: P, ready: &Rc<Ready>) {
    let (phases, ready) = (actors.1.subscribe(), ready.clone());
    ready.wanted.set(ready.wanted.get() + 1);
    actors.0.spawn_local(async move {
        let mut socket = Socket::connect(address).await?;
        // The recipient's first pushes come right behind the answer to its hello, so it reads from there on.
        socket.hello(&hello).await?;
        ready.count.set(ready.count.get() + 1);
        ready.changed.notify_one();
        socket.drive(&mut peer, None, phases).await
    });
}

#[derive(Default)]
struct Ready {
    wanted: std::cell::Cell<usize>,
    count: std::cell::Cell<usize>,
    changed: Notify,
}

fn assemble(
    address: SocketAddr,
    state: &Rc<RefCell<State>>,
    senders: &[Session],
    recipients: &[Session],
    part: Part,
) -> (Actors, Rc<Ready>) {
    let (mut actors, ready) = ((JoinSet::new(), watch::Sender::new(0)), Rc::new(Ready::default()));
    for (index, session) in recipients.iter().enumerate() {
        let habit = RECIPIENTS[index];
        if part == Part::Load && habit == Habit::Away {
            continue;
        }
        let acknowledges = part == Part::Settle || habit == Habit::Acknowledges;
        let reader = Reader { recipient: index, acknowledges, part, state: state.clone() };
        act(&mut actors, address, session.hello(json!({})).to_string(), reader, &ready);
    }
    for (index, session) in senders.iter().enumerate() {
        let random = StdRng::seed_from_u64(index as u64 + state.borrow().acked);
        let writer = Writer { sender: index, part, state: state.clone(), random };
        act(&mut actors, address, session.hello(json!({})).to_string(), writer, &ready);
    }
    (actors, ready)
}

async fn all_ready(actors: &mut Actors, ready: &Ready) -> Result<()> {
    while ready.count.get() < ready.wanted.get() {
        tokio::select! {
            () = ready.changed.notified() => {}
            Some(ended) = actors.0.join_next() => {
                ended.context("a peer's task panicked")?.context("a peer failed before the kill")?;
            }
        }
    }
    Ok(())
}

/// Full load until the kill.
async fn load(
    killing: Option<(&mut BrokerProcess, Duration)>,
    state: &Rc<RefCell<State>>,
    senders: &[Session],
    recipients: &[Session],
) -> Result<()> {
    let (broker, delay) = killing.context("a broker to kill")?;
    let (mut actors, ready) = assemble(broker.address, state, senders, recipients, Part::Load);
    all_ready(&mut actors, &ready).await?;
    actors.1.send_replace(1);
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        Some(ended) = actors.0.join_next() => {
            ended.context("a peer's task panicked")?.context("a peer failed before the kill")?;
        }
    }
    broker.kill()?;
    // Everybody reads what the kernel still holds of the dead broker's last words: an ack in there is a promise.
    while actors.0.join_next().await.is_some() {}
    Ok(())
}

/// Everybody is there and acknowledges, until all that was sent has been promised and all that was promised is here.
async fn cast(
    broker: &BrokerProcess,
    state: &Rc<RefCell<State>>,
    senders: &[Session],
    recipients: &[Session],
    part: Part,
    limit: Option<Duration>,
) -> Result<()> {
    let (mut actors, ready) = assemble(broker.address, state, senders, recipients, part);
    let start = Instant::now();
    let changed = state.borrow().changed.clone();
    let settle = async {
        all_ready(&mut actors, &ready).await?;
        actors.1.send_replace(1);
        while !state.borrow().settled() {
            tokio::select! {
                () = changed.notified() => {}
                Some(ended) = actors.0.join_next() => {
                    ended.context("a peer's task panicked")?.context("a peer lost its connection")?;
                }
            }
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(limit.unwrap_or(SETTLE), settle).await {
        Ok(result) => result?,
        Err(_) => bail!("after {:?} it is not all here: {}", start.elapsed(), state.borrow().missing()),
    }
    actors.1.send_replace(END);
    while let Some(ended) = actors.0.join_next().await {
        ended.context("a peer's task panicked")??;
    }
    Ok(())
}
