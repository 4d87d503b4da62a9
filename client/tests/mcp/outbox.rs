//! Messages that are queued on this machine while the broker is away, and arrive once, no matter which process is killed meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::json;
use super::team::{program, session, stderr, stdout, texts, until};

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A broker that can be killed.
struct Broker {
    person: CommandLine,
    port: u16,
    child: Child,
}

impl Broker {
    /// Also answers how to join.
    fn start() -> Result<(Self, String)> {
        let (person, port) = (program()?, free_port()?);
        let (child, link) = Self::up(&person, port)?;
        Ok((Self { person, port, child }, link.context("a link")?))
    }

    fn up(person: &CommandLine, port: u16) -> Result<(Child, Option<String>)> {
        let mut up = person.command(&["up", "--listen", &format!("127.0.0.1:{port}"), "--name", "Ann"]);
        let mut up = up.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut link = None;
        for line in BufReader::new(up.stdout.take().context("piped")?).lines() {
            let line = line?;
            link = link.or_else(|| line.split_whitespace().find(|word| word.contains("/i/")).map(str::to_owned));
            if line.contains("Ctrl-C ends it") {
                break;
            }
        }
        Ok((up, link))
    }

    /// `kill -9`
    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.child = Self::up(&self.person, self.port)?.0;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A way to the broker that passes everything but its word that it has a message, and nothing that comes after that word.
fn way_without_acks(broker: u16) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
            let copy = |mut from: TcpStream, mut to: TcpStream, all: bool| {
                std::thread::spawn(move || {
                    // A word may come in two pieces: the end of the one before is kept.
                    let (mut buffer, mut tail, mut lost) = ([0; 1 << 16], Vec::new(), false);
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        tail.extend_from_slice(&buffer[..count]);
                        lost |= !all && tail.windows(ACK.len()).any(|word| word == ACK);
                        tail.drain(..tail.len().saturating_sub(ACK.len()));
                        if !lost && to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            };
            if let (Ok(one), Ok(two)) = (client.try_clone(), server.try_clone()) {
                copy(one, server, true);
                copy(two, client, false);
            }
        }
    });
    Ok(port)
}

/// How the broker's word begins; what it sends is not masked.
const ACK: &[u8] = b"\"type\":\"ack\"";

/// Lets a person reach the broker at another port.
fn through(person: &CommandLine, from: u16, to: u16) -> Result<()> {
    let path = person.config_dir().join("config.json");
    let text = std::fs::read_to_string(&path)?;
    ensure!(text.contains(&format!(":{from}/")), "{text}");
    std::fs::write(&path, text.replace(&format!(":{from}/"), &format!(":{to}/")))?;
    Ok(())
}

fn read(person: &CommandLine) -> Result<Vec<String>> {
    let list = person.json(&["inbox", "--all", "--json"])?;
    Ok(texts(&list).into_iter().map(str::to_owned).collect())
}

#[tokio::test]
async fn what_cannot_be_sent_is_queued_and_sent_once() -> Result<()> {
    let (mut broker, link) = Broker::start()?;
    let bob = program()?;
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    broker.kill()?;
    let queued = bob.json(&["send", "Ann", "first", "--json"])?;
    json::fits("send", &queued)?;
    assert_eq!(
        (&queued["ok"], &queued["status"], &queued["via"]),
        (&json!(true), &json!("queued_here"), &json!("outbox"))
    );
    let second = bob.run(&["send", "Ann", "second"])?;
    ensure!(
        second.status.success() && stdout(&second).contains("queued here"),
        "{}{}",
        stdout(&second),
        stderr(&second)
    );
    let refused = bob.run(&["send", "Ann", "not this one", "--no-queue"])?;
    assert_eq!(refused.status.code(), Some(4));
    let list = bob.json(&["outbox", "list", "--json"])?;
    json::fits("outbox list", &list)?;
    assert_eq!(texts(&list), ["first", "second"]);
    assert_eq!((&list[1]["to"], &list[0]["failed"]), (&json!(["Ann"]), &Value::Null));
    ensure!(stdout(&bob.run(&["outbox", "list"])?).contains("waits for the broker"));
    let away = bob.run(&["outbox", "send", "--json"])?;
    json::fits("outbox send", &serde_json::from_str(&stdout(&away))?)?;
    assert_eq!(away.status.code(), Some(4));
    bob.json(&["send", "Ann", "dropped", "--json"])?;
    bob.run(&["send", "Nobody,*", "for no one", "--json"])?;
    let list = bob.json(&["outbox", "list", "--json"])?;
    let id = list[2]["id"].as_str().context("an id")?;
    let dropped = bob.json(&["outbox", "drop", &id[..8], "--json"])?;
    json::fits("outbox drop", &dropped)?;
    assert_eq!(dropped["dropped"], json!([id]));
    assert_eq!(bob.run(&["outbox", "drop", "00000000"])?.status.code(), Some(5));

    broker.restart()?;
    // Any verb that reaches the broker sends it, in its order, before what it was called for.
    bob.json(&["send", "Ann", "third", "--json"])?;
    assert_eq!(read(&broker.person)?, ["first", "second", "third"]);
    let list = bob.json(&["outbox", "list", "--json"])?;
    assert_eq!(texts(&list), ["for no one"], "what no one can get stays and says why");
    ensure!(list[0]["failed"].is_string() && list[0]["to"] == json!(["Nobody", "*"]), "{list}");
    bob.json(&["outbox", "drop", "--all", "--json"])?;
    assert_eq!(bob.json(&["outbox", "list", "--json"])?, json!([]));
    let sent = bob.json(&["sent", "--json"])?;
    assert_eq!(texts(&sent), ["first", "second", "third"]);
    Ok(())
}

/// The id that was printed means the message before and after it is sent, and the very next command that reaches the broker sends
/// it, however short ago another one failed.
#[tokio::test]
async fn a_queued_message_keeps_its_id_and_goes_with_the_next_command() -> Result<()> {
    let (mut broker, link) = Broker::start()?;
    let bob = program()?;
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    broker.kill()?;
    let id = bob.json(&["send", "Ann", "later", "--json"])?["messageId"].as_str().context("an id")?.to_owned();
    let status = bob.json(&["msg-status", &id[..8], "--json"])?;
    json::fits("msg-status", &status)?;
    assert_eq!(
        (&status["messageId"], &status["queued"], &status["delivered"]),
        (&json!(id), &json!(true), &json!(false))
    );
    ensure!(stdout(&bob.run(&["msg-status", &id[..8]])?).contains("Ann: queued here"));
    for args in [&["sent", "--json"][..], &["history", "Ann", "--json"]] {
        let listed = bob.json(args)?;
        assert_eq!((&listed[0]["messageId"], &listed[0]["queued"]), (&json!(id), &json!(true)), "{listed}");
    }
    assert_eq!(bob.run(&["peers"])?.status.code(), Some(4), "the broker is away, and now that is known");
    broker.restart()?;
    bob.json(&["peers", "--json"])?;
    assert_eq!(bob.json(&["outbox", "list", "--json"])?, json!([]));
    assert_eq!(read(&broker.person)?, ["later"]);
    let status = bob.json(&["msg-status", &id[..8], "--json"])?;
    assert_eq!((&status["queued"], &status["delivered"]), (&json!(false), &json!(true)), "{status}");
    let sent = bob.json(&["sent", "--json"])?;
    assert_eq!((&sent[0]["messageId"], &sent[0]["queued"]), (&status["messageId"], &json!(false)));
    Ok(())
}

/// `send_message` of a session, over a real kill and restart.
#[tokio::test]
async fn the_tool_queues_for_a_broker_that_is_away_and_it_arrives_once() -> Result<()> {
    let (mut broker, link) = Broker::start()?;
    let bob = program()?;
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    let mut model = session(&bob, "11111111-0000-4000-8000-000000000002", "BobS").await?;
    let before = model.tool("send_message", json!({"to": "Ann", "message": "before"})).await?;
    ensure!(!before.is_error && !before.text.contains("queued here"), "{}", before.text);
    broker.kill()?;
    for (to, text) in [("Ann", "first"), ("Ann", "second"), ("Nobody", "for no one")] {
        let queued = model.tool("send_message", json!({"to": to, "message": text})).await?;
        ensure!(!queued.is_error, "{}", queued.text);
        ensure!(
            queued.text.starts_with(&format!("… {to} → ")) && queued.text.contains("queued here"),
            "{}",
            queued.text
        );
    }
    let long = "x".repeat(1_100_000);
    for (to, text, why) in [("Ann", long.as_str(), "bytes"), ("#", "no topic", "'#'")] {
        let refused = model.tool("send_message", json!({"to": to, "message": text})).await?;
        ensure!(refused.is_error && refused.text.contains(why), "what no broker would take: {}", refused.text);
    }
    assert_eq!(texts(&bob.json(&["outbox", "list", "--json"])?), ["first", "second", "for no one"]);

    broker.restart()?;
    // The session sends by itself, in order, and is told of what can reach no one.
    let note = model.channel_with("cannot be delivered").await?;
    ensure!(note.meta["kind"] == "outbox" && note.content.contains("Nobody"), "{} {:?}", note.content, note.meta);
    assert_eq!(read(&broker.person)?, ["before", "first", "second"]);
    let after = model.tool("send_message", json!({"to": "Ann", "message": "after"})).await?;
    ensure!(!after.is_error && !after.text.contains("queued here"), "{}", after.text);
    assert_eq!(read(&broker.person)?, ["before", "first", "second", "after"]);
    assert_eq!(texts(&bob.json(&["outbox", "list", "--json"])?), ["for no one"]);
    model.end().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_killed_before_it_hears_of_the_delivery_sends_nothing_twice() -> Result<()> {
    let (mut broker, link) = Broker::start()?;
    let bob = program()?;
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    broker.kill()?;
    bob.json(&["send", "Ann", "once", "--json"])?;
    broker.restart()?;
    let deaf = way_without_acks(broker.port)?;
    through(&bob, broker.port, deaf)?;
    let mut sending = bob.command(&["outbox", "send"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    until("it is delivered", || Ok((read(&broker.person)? == ["once"]).then_some(()))).await?;
    sending.kill()?;
    sending.wait()?;
    through(&bob, deaf, broker.port)?;
    assert_eq!(texts(&bob.json(&["outbox", "list", "--json"])?), ["once"], "it did not hear that it arrived");
    let sent = bob.json(&["outbox", "send", "--json"])?;
    assert_eq!((&sent[0]["sent"], &sent[0]["waiting"]), (&json!(1), &json!(0)), "{sent}");
    assert_eq!(read(&broker.person)?, ["once"]);
    assert_eq!(bob.json(&["outbox", "list", "--json"])?, json!([]));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_killed_between_delivery_and_its_word_keeps_one_message() -> Result<()> {
    let (mut broker, link) = Broker::start()?;
    let bob = program()?;
    bob.json(&["join", &link, "--name", "Bob", "--json"])?;
    let deaf = way_without_acks(broker.port)?;
    through(&bob, broker.port, deaf)?;
    // Not queued before: the message itself is on its way when the broker goes.
    let mut sending = bob.command(&["send", "Ann", "once", "--json"]).stdout(Stdio::piped()).spawn()?;
    until("it is delivered", || Ok((read(&broker.person)? == ["once"]).then_some(()))).await?;
    broker.kill()?;
    let mut told = String::new();
    sending.stdout.take().context("piped")?.read_to_string(&mut told)?;
    ensure!(sending.wait()?.success(), "{told}");
    assert_eq!(serde_json::from_str::<Value>(&told)?["status"], "queued_here", "{told}");
    broker.restart()?;
    through(&bob, deaf, broker.port)?;
    let sent = bob.json(&["outbox", "send", "--json"])?;
    assert_eq!((&sent[0]["sent"], &sent[0]["failed"]), (&json!(1), &json!(0)), "{sent}");
    assert_eq!(read(&broker.person)?, ["once"]);
    Ok(())
}
