//! Kill the broker with SIGKILL under load, start it again, compare what it promised with what is there.
//!
//! A round: every subject loads the broker, the broker is killed at a moment that the seed gives, it starts again, and every subject
//! completes what was left open until all that was promised is there. Then the broker is at rest and is asked for the rest.
//!
//! | file | what it does |
//! |---|---|
//! | `mod` | the rounds, and what a subject is |
//! | `cast` | the connections of one part of a round, and asking a broker at rest |
//! | `messages`, `older` | messages to clients of ours and of before |
//! | `stay` | a client of before that stays for half a minute |
//! | `asked` | what connections ask one after the other, and what became of it |
//! | `state`, `tasks`, `streams`, `memory`, `contexts`, `clock`, `skills`, `schedules` | what the features of these names promise |
//! | `audit` | the audit log: whole, extended, and with one entry for each change that a subject names |
//!
//! A feature with a promise of its own adds one file with an `impl Subject`, and a line in [`subjects`].

mod asked;
mod audit;
mod cast;
mod clock;
mod contexts;
mod memory;
mod messages;
mod older;
mod schedules;
mod skills;
mod state;
mod stay;
mod streams;
mod tasks;

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::audit::{Audited, Chain, Mark};
use self::cast::{Board, Cast, Quiet};
use self::clock::Clock;
use self::contexts::Contexts;
use self::memory::Memory;
use self::messages::Messages;
use self::schedules::Schedules;
use self::skills::Skills;
use self::state::State;
use self::streams::Streams;
use self::tasks::Tasks;
use crate::enrol::OwnedMesh;
use crate::identity::Session;
use crate::process::BrokerProcess;

/// Longest time in which all that was promised has to be there after a restart. Much beyond what it takes, because a disk on which
/// hundreds of other tests write is slow; what is lost never comes.
const SETTLE: Duration = Duration::from_secs(120);
/// What takes longer is told.
const SLOW: Duration = Duration::from_secs(30);

/// What to do.
pub struct Options<'a> {
    /// Rounds of kill and restart.
    pub rounds: u32,
    /// The same seed gives the same kill times.
    pub seed: u64,
    /// Further arguments of the broker.
    pub broker_args: &'a [&'a str],
    /// Also let a client of before stay for half a minute, at the end.
    pub stay: bool,
    /// Only these features beside the messages; empty: all.
    pub only: &'a [String],
}

/// What happened in a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// Rounds of kill and restart.
    pub rounds: u32,
    /// What each subject did and found, a sentence each.
    pub subjects: Vec<String>,
}

/// What a feature promises: a workload, and what must hold of it after a kill.
trait Subject {
    /// A word for reports.
    fn name(&self) -> &'static str;

    /// Adds the connections that load the broker until it is killed.
    fn load(&mut self, cast: &mut Cast);

    /// Adds the connections that complete what was left open. Also called once before the first round.
    fn settle(&mut self, cast: &mut Cast);

    /// All that was promised is there, and nothing is open.
    fn settled(&self) -> bool;

    /// What is not there yet.
    fn missing(&self) -> String;

    /// Asks the broker at rest, after all subjects are settled.
    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        let _ = quiet;
        async { Ok(()) }.boxed_local()
    }

    /// Entries of the audit log that tell of its changes.
    fn audited(&self) -> &'static [Audited] {
        &[]
    }

    /// Changes that were confirmed since the last call: each has exactly one entry.
    fn confirmed(&mut self) -> Vec<Mark> {
        Vec::new()
    }

    /// Changes in all, confirmed or not, as [`Self::check`] found them: so many entries there are. `None` when that is not known.
    fn changes(&self) -> Option<u64> {
        None
    }

    /// What it did and found, for the last line.
    fn summary(&self) -> String;
}

/// What the subjects of a run share.
struct Ground {
    mesh: OwnedMesh,
    board: Rc<Board>,
}

impl Ground {
    /// That many members with one session each.
    fn sessions(&self, prefix: &str, count: usize) -> Result<Vec<Session>> {
        let members = self.mesh.members(prefix, u32::try_from(count)?)?;
        Ok(members.iter().enumerate().map(|(index, member)| member.session(&format!("{prefix}-{index}"))).collect())
    }
}

fn subjects(ground: &Ground) -> Result<Vec<Box<dyn Subject>>> {
    Ok(vec![
        Box::new(State::new(ground)?),
        Box::new(Tasks::new(ground)?),
        Box::new(Streams::new(ground)?),
        Box::new(Memory::new(ground)?),
        Box::new(Contexts::new(ground)?),
        Box::new(Clock::new(ground)?),
        Box::new(Skills::new(ground)?),
        Box::new(Schedules::new(ground)?),
    ])
}

struct Run {
    broker: BrokerProcess,
    ground: Ground,
    /// Apart from the others, because [`stay`] goes on with it.
    messages: Messages,
    others: Vec<Box<dyn Subject>>,
    chain: Chain,
    _data: tempfile::TempDir,
}

/// Runs the rounds.
///
/// # Errors
/// A promise was broken; the message says which, in which round and with which seed.
pub async fn run(binary: &Path, options: &Options<'_>) -> Result<Summary> {
    let data = tempfile::tempdir()?;
    let broker = BrokerProcess::start(binary, data.path(), options.broker_args)?;
    let ground = Ground { mesh: OwnedMesh::create(&broker.base(), "torture")?, board: Rc::default() };
    let (messages, mut others) = (Messages::new(&ground)?, subjects(&ground)?);
    others.retain(|subject| options.only.is_empty() || options.only.iter().any(|only| only == subject.name()));
    let chain = Chain::new(&ground.mesh);
    let mut run = Run { broker, ground, messages, others, chain, _data: data };
    let mut random = StdRng::seed_from_u64(options.seed);
    // Every session is known to the broker before anyone writes to it.
    run.settle().await.context("before the first round")?;
    for round in 1..=options.rounds {
        let (rounds, seed) = (options.rounds, options.seed);
        let delay = Duration::from_millis(random.gen_range(5..400));
        let context =
            || format!("round {round} of {rounds}, seed {seed}, killed after {delay:?}; repeat with --seed {seed}");
        run.round(delay).await.with_context(context)?;
    }
    if options.stay {
        stay::run(&mut run).await.context("a client of before that stays for half a minute")?;
    }
    run.chain.finish(&run.quiet()).await.context("the audit log at the end")?;
    let status = run.broker.terminate()?;
    if !status.success() {
        bail!("SIGTERM after the last round: the broker ended with {status}");
    }
    let subjects = run.subjects().map(|subject| format!("{}: {}", subject.name(), subject.summary()));
    let subjects = subjects.chain([format!("audit: {}", run.chain.summary())]).collect();
    Ok(Summary { rounds: options.rounds, subjects })
}

impl Run {
    fn subjects(&self) -> impl Iterator<Item = &dyn Subject> {
        std::iter::once(&self.messages as &dyn Subject).chain(self.others.iter().map(AsRef::as_ref))
    }

    fn subjects_mut(&mut self) -> impl Iterator<Item = &mut (dyn Subject + 'static)> {
        std::iter::once(&mut self.messages as &mut dyn Subject).chain(self.others.iter_mut().map(AsMut::as_mut))
    }

    fn quiet(&self) -> Quiet {
        Quiet { address: self.broker.address }
    }

    fn cast(&self) -> Cast {
        Cast::new(self.broker.address, &self.ground.board)
    }

    async fn round(&mut self, delay: Duration) -> Result<()> {
        let mut cast = self.cast();
        self.subjects_mut().for_each(|subject| subject.load(&mut cast));
        cast.all_ready().await?;
        cast.begin();
        cast.go_on_for(delay).await?;
        self.broker.kill()?;
        cast.drained().await;
        self.ground.board.check()?;
        self.broker.restart()?;
        self.settle().await
    }

    /// Everyone is there, until all that was left open is done and all that was promised is here.
    async fn settle(&mut self) -> Result<()> {
        let mut cast = self.cast();
        self.subjects_mut().for_each(|subject| subject.settle(&mut cast));
        let (board, start) = (self.ground.board.clone(), Instant::now());
        let settled = async {
            cast.all_ready().await?;
            cast.begin();
            cast.until(|| self.subjects().all(Subject::settled)).await
        };
        match tokio::time::timeout(SETTLE, settled).await {
            Ok(result) => {
                result?;
                if start.elapsed() > SLOW {
                    println!("  it took {:.0?} until all was here", start.elapsed());
                }
            }
            Err(_) => {
                let open = self.subjects().filter(|subject| !subject.settled());
                let open: Vec<String> =
                    open.map(|subject| format!("{}: {}", subject.name(), subject.missing())).collect();
                bail!("after {:?} it is not all here: {}", start.elapsed(), open.join("; "));
            }
        }
        cast.end().await?;
        board.check()?;
        self.check().await
    }

    /// Asks the broker at rest.
    async fn check(&mut self) -> Result<()> {
        let Self { broker, ground, messages, others, chain, .. } = self;
        let quiet = Quiet { address: broker.address };
        messages.check(&quiet).await.context("messages")?;
        for subject in others.iter_mut() {
            subject.check(&quiet).await.with_context(|| subject.name())?;
        }
        let mut all: Vec<&mut dyn Subject> = vec![messages];
        all.extend(others.iter_mut().map(|subject| subject.as_mut() as &mut dyn Subject));
        chain.check(&quiet, &ground.board, &mut all).await.context("audit")?;
        ground.board.check()
    }
}
