//! README.md, followed to the letter: every command of its blocks, in order, in the terminals that it names.
//!
//! What a test cannot run is marked above its block, with the reason:
//!
//! ```text
//! <!-- not run: `cargo build`: the program is built already -->
//! ```
//!
//! marks the commands of the next block that begin so. What stands for something that was printed before is filled in: an invite link
//! by the newest one, `<id …>` by the newest id of a message. `/tmp/` is a folder of the test, and `target/release` of the working
//! folder holds the program under test. A session that is launched gets one prompt instead of a person.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use claudemesh_testkit::model::{Model, Turn};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::lab::Lab;

const README: &str = include_str!("../../../README.md");
/// Nothing in it takes longer, also beside other work.
const PATIENCE: Duration = Duration::from_secs(90);
/// Where `up` listens.
const BROKER: &str = "127.0.0.1:7900";
/// Marks in README.md. One more needs a reason that a reader accepts.
const MARKS: usize = 5;
const DONE: &str = "--- done with status ";

/// Commands of one block.
#[derive(Debug, PartialEq)]
struct Block {
    /// Line of README.md.
    line: usize,
    terminal: u32,
    commands: Vec<String>,
    /// Beginnings of commands that are not run, with the reason.
    marks: Vec<(String, String)>,
}

fn mark(line: &str) -> Option<(String, String)> {
    let text = line.strip_prefix("<!-- not run: `")?.strip_suffix("-->")?;
    let (command, reason) = text.split_once("`: ")?;
    Some((command.into(), reason.trim().into()))
}

/// The number behind the last `**Terminal` of a line.
fn terminal(line: &str) -> Option<u32> {
    line.rsplit_once("**Terminal ")?.1.split(|after: char| !after.is_ascii_digit()).next()?.parse().ok()
}

/// Blocks of shell commands. A line that ends with a backslash goes on in the next.
fn blocks(text: &str) -> Result<Vec<Block>> {
    let (mut found, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    let (mut current, mut marks, mut rest) = (1, Vec::new(), String::new());
    let mut other = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(block) = &mut open {
            if line.trim() == "```" {
                found.extend(open.take());
            } else if let Some(start) = line.strip_suffix('\\') {
                rest += start;
            } else if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
                block.commands.push(std::mem::take(&mut rest) + line);
            }
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            let shell = ["sh", "bash", "console"].contains(&language);
            if !shell && !other {
                ensure!(
                    ["text", "toml", "json", "yaml"].contains(&language),
                    "line {}: what is `{language}`?",
                    number + 1
                );
            }
            if shell {
                let marks = std::mem::take(&mut marks);
                open = Some(Block { line: number + 1, terminal: current, commands: Vec::new(), marks });
            } else {
                other = !other;
            }
        } else if !other {
            current = terminal(line).unwrap_or(current);
            ensure!(!line.starts_with("<!-- not run") || mark(line).is_some(), "line {}: {line}", number + 1);
            marks.extend(mark(line));
        }
    }
    ensure!(open.is_none() && marks.is_empty() && !other, "a block or a mark stands alone at the end");
    Ok(found)
}

impl Block {
    /// Commands that are run.
    fn run(&self) -> Result<Vec<&str>> {
        for (start, reason) in &self.marks {
            ensure!(self.commands.iter().any(|command| command.starts_with(start)), "no command begins with {start}");
            ensure!(reason.len() > 10, "{start} is not run, because: {reason}");
        }
        let marked = |command: &str| self.marks.iter().any(|(start, _)| command.starts_with(start));
        Ok(self.commands.iter().map(String::as_str).filter(|command| !marked(command)).collect())
    }
}

#[test]
fn what_is_not_run_is_counted() {
    let blocks = blocks(README).unwrap();
    assert!(blocks.len() >= 8, "{blocks:#?}");
    let marks: Vec<_> = blocks.iter().flat_map(|block| &block.marks).collect();
    assert_eq!(marks.len(), MARKS, "{marks:#?}");
    let run: usize = blocks.iter().map(|block| block.run().unwrap().len()).sum();
    assert!(run >= 14, "{blocks:#?}");
    assert!(blocks.iter().any(|block| block.terminal == 2));
}

#[test]
fn blocks_have_their_terminal_their_commands_and_their_marks() {
    let text = "**Terminal 1** is Ann.\n\n<!-- not run: `b`: it is not here -->\n\n```sh\na one \\\n  two   # x\n\n# only words\nb\n```\n\n\
                ```text\n**Terminal 9**\n```\nThen **Terminal 2** again:\n```sh\nc\n```\n";
    let read = blocks(text).unwrap();
    let commands = |place: usize| read[place].run().unwrap();
    assert_eq!((commands(0), read[0].terminal), (vec!["a one   two   # x"], 1));
    assert_eq!((commands(1), read[1].terminal), (vec!["c"], 2));
    for wrong in ["```sh\na\n", "<!-- not run: `a`: it is not here -->\n", "<!-- not run: a -->\n```sh\na\n```\n"] {
        assert!(blocks(wrong).is_err(), "{wrong}");
    }
    let stale = blocks("<!-- not run: `z`: it is not here -->\n```sh\na\n```\n").unwrap();
    assert!(stale[0].run().is_err());
}

/// A shell that keeps what it is told.
struct Terminal {
    shell: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Terminal {
    fn start(lab: &Lab, model: &Model, folder: &Path) -> Result<Self> {
        let claude = lab.claude(&[]);
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(folder);
        for (name, value) in claude.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("ANTHROPIC_BASE_URL", model.url()).env("ANTHROPIC_API_KEY", "dummy-key-for-a-loopback-stand-in");
        Self::of(&mut command)
    }

    fn of(command: &mut Command) -> Result<Self> {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().context("starting bash")?;
        let (mut input, output) = (shell.stdin.take().context("piped")?, shell.stdout.take().context("piped")?);
        let (lines, receiver) = channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.send(line).ok())
        });
        // A terminal shows both.
        writeln!(input, "exec 2>&1")?;
        Ok(Self { shell, input, output: receiver })
    }

    /// Types a command; answers what it printed.
    fn run(&mut self, command: &str) -> Result<String> {
        // No one types an answer.
        let answers = if command.contains("claudemesh launch") { "<<<'say hi'" } else { "</dev/null" };
        writeln!(self.input, "{{ {command}\n}} {answers}\nended=$?; echo; echo \"{DONE}$ended\"")?;
        let (end, mut said) = (Instant::now() + PATIENCE, String::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.output.recv_timeout(left).with_context(|| format!("`{command}` does not end:\n{said}"))?;
            match line.strip_prefix(DONE) {
                Some("0") => return Ok(said),
                Some(status) => bail!("`{command}` ended with status {status}:\n{said}"),
                None => said = said + &line + "\n",
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What it started in the background, too.
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::TERM);
        let _ = self.shell.wait();
    }
}

#[test]
fn a_command_that_fails_is_told_with_what_it_said_and_the_shell_goes_on() {
    let mut shell = Command::new("bash");
    let mut terminal = Terminal::of(shell.args(["--noprofile", "--norc"])).unwrap();
    assert_eq!(terminal.run("export A=5   # kept").unwrap().trim(), "");
    let error = terminal.run("echo \"a is $A\"; echo wrong >&2; false").unwrap_err().to_string();
    assert!(error.contains("ended with status 1") && error.contains("a is 5") && error.contains("wrong"), "{error}");
    assert_eq!(terminal.run("cat; echo $A").unwrap().trim(), "5", "no one types an answer");
}

/// What was printed so far and is needed again.
#[derive(Default)]
struct Printed {
    link: Option<String>,
    /// By terminal: what its last `send` printed.
    ids: HashMap<u32, String>,
}

impl Printed {
    fn read(&mut self, terminal: u32, said: &str) {
        for word in said.split(|end: char| end.is_whitespace() || "\"'`(),".contains(end)) {
            if word.contains("/i/") && word.starts_with("http") {
                self.link = Some(word.trim_end_matches('.').into());
            }
        }
        // `✓ Ann → 385be700 (stored, …)`
        let id = said.split("→ ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let id = id.filter(|id| said.starts_with('✓') && id.len() >= 8 && id.chars().all(char::is_alphanumeric));
        self.ids.extend(id.map(|id| (terminal, id.to_owned())));
    }

    fn fill(&self, terminal: u32, command: &str, scratch: &str) -> Result<String> {
        let command = command.split_once("  # ").map_or(command, |(command, _)| command.trim_end());
        let mut command = command.replace("/tmp/", scratch);
        if let Some(start) = command.find("http://127.0.0.1") {
            let end = command[start..].find(char::is_whitespace).map_or(command.len(), |length| start + length);
            command.replace_range(start..end, self.link.as_ref().context("no invite link was printed")?);
        }
        if let Some((before, rest)) = command.split_once("<id ")
            && let Some((_, after)) = rest.split_once('>')
        {
            command = format!("{before}{}{after}", self.ids.get(&terminal).context("no id was printed")?);
        }
        Ok(command)
    }
}

/// The text of `claudemesh send <to> "text"`.
fn sent(command: &str) -> Option<&str> {
    command.strip_prefix("claudemesh send ")?.split('"').nth(1)
}

/// What the shell goes on with only when it is there: a machine may be slower than a reader.
fn listens() -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(BROKER).is_err() {
        ensure!(Instant::now() < end, "nothing listens on {BROKER}");
        #[expect(clippy::disallowed_methods, reason = "a test without a runtime looks whether a port is open")]
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn follow(lab: &Lab, model: &Model) -> Result<()> {
    let home = lab.program.home().canonicalize()?;
    let (folder, scratch) = (home.join("claudemesh"), format!("{}/", home.join("tmp").display()));
    std::fs::create_dir_all(folder.join("target"))?;
    std::fs::create_dir_all(&scratch)?;
    std::os::unix::fs::symlink(home.join("bin"), folder.join("target/release"))?;
    std::os::unix::fs::symlink(lab.claude(&[]).get_program(), home.join("bin/claude"))?;
    let mut terminals: BTreeMap<u32, Terminal> = BTreeMap::new();
    let (mut printed, mut waiting, mut count) = (Printed::default(), Vec::new(), 0);
    for block in blocks(README)? {
        for command in block.run()? {
            let place = || format!("README.md, block of line {}, terminal {}: {command}", block.line, block.terminal);
            let typed = printed.fill(block.terminal, command, &scratch).with_context(place)?;
            let terminal = match terminals.entry(block.terminal) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => place.insert(Terminal::start(lab, model, &folder)?),
            };
            let said = terminal.run(&typed).with_context(place)?;
            println!("{}: {command}\n{said}", block.terminal);
            if command.contains("claudemesh up") {
                listens().with_context(place)?;
            }
            printed.read(block.terminal, &said);
            waiting.retain(|(from, text): &(u32, String)| *from == block.terminal || !said.contains(text));
            waiting.extend(sent(command).map(|text| (block.terminal, text.to_owned())));
            count += 1;
        }
    }
    ensure!(waiting.is_empty(), "never shown in another terminal: {waiting:?}");
    println!("{count} commands in {} terminals", terminals.len());
    Ok(())
}

#[tokio::test]
#[ignore = "needs Claude Code from npm and a network namespace; `cargo xtask test` has both and runs this"]
async fn every_command_of_the_readme_works() -> Result<()> {
    let lab = Lab::new()?;
    let model = Model::start(vec![Turn::text("Ready.").when("say hi")]).await?;
    let (lab, model) = tokio::task::spawn_blocking(move || {
        let followed = follow(&lab, &model);
        // What was started to stay.
        for (pid, _) in lab.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        followed.map(|()| (lab, model))
    })
    .await??;
    // The launched session has the tools of the mesh.
    let tools = model.requests().iter().any(|body| body["tools"].to_string().contains("mcp__claudemesh__list_peers"));
    assert!(tools, "{:?}", lab.calls());
    Ok(())
}
