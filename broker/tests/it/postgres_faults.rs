//! PostgreSQL has a bad day: connections ended, the server killed, the answer to a commit lost, the disk full. What was promised
//! arrives, what was not is said, and the broker goes on by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::broker::{Builder, TestBroker, postgres_available};
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::postgres::{self, Postgres};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn programs() -> Result<std::path::PathBuf> {
    postgres::programs().context("PostgreSQL is here")
}

/// A server that keeps what it promises over a crash.
fn durable() -> Result<Postgres> {
    Postgres::start_with(&programs()?, &["shared_buffers=16MB"])
}

async fn ack_of(sender: &mut TestPeer, id: &str) -> Result<Value> {
    sender.find("ack", |frame| frame["type"] == "ack" && frame["id"] == id).await
}

/// Sends `count` messages one after the other to someone who is away; all must be promised. `between` runs before each.
async fn promise(
    sender: &mut TestPeer,
    to: &str,
    count: usize,
    mut between: impl AsyncFnMut(usize) -> Result<()>,
) -> Result<()> {
    for number in 0..count {
        between(number).await?;
        let ack = sender.say(to, &number.to_string(), json!({"client_message_id": format!("m{number}")})).await?;
        ensure!(ack["queued"] == true && ack["stage"] == "stored", "{number}: {ack}");
    }
    Ok(())
}

/// Everything arrives, in order, once.
async fn collect(broker: &TestBroker, who: &Arc<claudemesh_testkit::identity::Member>, count: usize) -> Result<()> {
    let mut receiver = broker.join(who).await?;
    for number in 0..count {
        assert_eq!(receiver.text().await?, number.to_string());
    }
    assert_eq!(receiver.waiting_messages().await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn connections_that_end_under_load_cost_nothing() -> Result<()> {
    if !postgres_available() {
        return Ok(());
    }
    let server = durable()?;
    let broker = Builder::at(server.url()).start().await?;
    let mesh = broker.mesh("team")?;
    let (mut alice, bob) = (broker.join(&mesh.member("alice")?).await?, mesh.member("bob")?);
    let mut admin = AsyncPgConnection::establish(&server.url()).await?;
    promise(&mut alice, &bob.pubkey(), 60, async |number| {
        if number % 3 == 1 {
            let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                          WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
            admin.batch_execute(others).await?;
        }
        Ok(())
    })
    .await?;
    collect(&broker, &bob, 60).await
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_loses_nothing_and_the_broker_goes_on() -> Result<()> {
    if !postgres_available() {
        return Ok(());
    }
    let mut server = durable()?;
    let broker = Builder::at(server.url()).start().await?;
    let mesh = broker.mesh("team")?;
    let (mut alice, bob) = (broker.join(&mesh.member("alice")?).await?, mesh.member("bob")?);
    let to = bob.pubkey();
    for round in 0..3 {
        // Twenty are under way when it dies.
        let mut ids = Vec::new();
        for number in 0..20 {
            let number = round * 20 + number;
            let frame =
                alice.message_frame(&to, &number.to_string(), json!({"client_message_id": format!("m{number}")}))?;
            ids.push(frame["id"].as_str().context("the frame has an id")?.to_owned());
            alice.send(&frame).await?;
        }
        server.kill()?;
        server.restart()?;
        for id in ids {
            let ack = ack_of(&mut alice, &id).await?;
            assert_eq!(ack["queued"], true, "{ack}");
        }
    }
    collect(&broker, &bob, 60).await
}

/// Idempotency key of the message whose commit is not answered.
const DOUBTFUL: &str = "the-doubtful-one";

/// Between broker and server: loses the answer to the commit of that message, and then lets no one through.
struct Wire {
    address: SocketAddr,
    lose_its_commit: Arc<AtomicBool>,
    down: Arc<AtomicBool>,
}

impl Wire {
    async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (lose_its_commit, down) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (lose, shut) = (lose_its_commit.clone(), down.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !shut.load(Ordering::SeqCst) {
                    tokio::spawn(carry(client, port, lose.clone(), shut.clone()));
                }
            }
        });
        Ok(Self { address, lose_its_commit, down })
    }
}

async fn carry(client: TcpStream, port: u16, lose: Arc<AtomicBool>, down: Arc<AtomicBool>) -> Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
    let committing = Arc::<AtomicBool>::default();
    let asks = {
        let committing = committing.clone();
        async move {
            let (mut buffer, mut concerned) = (vec![0; 65_536], false);
            loop {
                let read = from_client.read(&mut buffer).await?;
                if read == 0 || down.load(Ordering::SeqCst) {
                    return anyhow::Ok(());
                }
                let says = |text: &str| buffer[..read].windows(text.len()).any(|part| part == text.as_bytes());
                concerned |= says(DOUBTFUL);
                if concerned && says("COMMIT") && lose.swap(false, Ordering::SeqCst) {
                    down.store(true, Ordering::SeqCst);
                    committing.store(true, Ordering::SeqCst);
                }
                to_server.write_all(&buffer[..read]).await?;
            }
        }
    };
    let answers = async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let read = from_server.read(&mut buffer).await?;
            // The server has committed: it says so, and no one hears it.
            if read == 0 || committing.load(Ordering::SeqCst) {
                return anyhow::Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        done = asks => done,
        done = answers => done,
    }
}

// The kit's HTTP calls block, and the wire has to go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled() -> Result<()> {
    if !postgres_available() {
        return Ok(());
    }
    let server = durable()?;
    let wire = Wire::to(server.port()).await?;
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", wire.address);
    let broker = Builder::at(url).start().await?;
    let mesh = broker.mesh("team")?;
    let mut alice = broker.join(&mesh.member("alice")?).await?;
    let (bob, carol, dave) = (mesh.member("bob")?, mesh.member("carol")?, broker.join(&mesh.member("dave")?).await?);
    let mut dave = dave;
    assert_eq!(alice.say(&bob.pubkey(), "before", json!({})).await?["queued"], true);

    // One message, so that both deliveries are in the commit whose answer is lost.
    let doubtful = json!({
        "type": "send", "id": "d", "targetSpec": [bob.pubkey(), carol.pubkey()], "priority": "next", "nonce": "",
        "ciphertext": "in doubt", "client_message_id": DOUBTFUL,
    });
    wire.lose_its_commit.store(true, Ordering::SeqCst);
    alice.send(&doubtful).await?;
    let ack = ack_of(&mut alice, "d").await?;
    assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("unavailable")), "{ack}");
    // Between peers that are here nothing needs storage; what does is refused at once as long as it is away.
    alice.say(&dave.pubkey(), "live", json!({})).await?;
    assert_eq!(dave.text().await?, "live");
    let ack = alice.say(&bob.pubkey(), "refused", json!({})).await?;
    assert_eq!(ack["code"], "unavailable", "{ack}");

    // No one asks for it again: once a second the mesh looks for what it was not sure of. Nothing else waits for carol, so
    // nothing else makes it look.
    wire.down.store(false, Ordering::SeqCst);
    let mut receiver = broker.join(&carol).await?;
    let seconds = async {
        // Fewer than it takes until a silent peer is thought gone.
        for _ in 0..50 {
            broker.advance(Duration::from_secs(1));
            alice.settle().await?;
            dave.settle().await?;
        }
        std::future::pending::<Result<Value>>().await
    };
    let found = tokio::select! {
        push = receiver.message() => push?,
        failed = seconds => failed?,
    };
    assert_eq!(found["ciphertext"], "in doubt");
    drop(receiver);

    // Its sender tries again and is told of the first one, which the other recipient gets once.
    alice.send(&doubtful).await?;
    let ack = ack_of(&mut alice, "d").await?;
    assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(true), &found["messageId"]), "{ack}");
    let mut receiver = broker.join(&bob).await?;
    assert_eq!(receiver.text().await?, "before");
    assert_eq!(receiver.message().await?["messageId"], found["messageId"]);
    assert_eq!(receiver.waiting_messages().await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_full_postgres_disk_is_an_error_and_ends_with_the_disk_being_full() -> Result<()> {
    if !postgres_available() {
        return Ok(());
    }
    if !claudemesh_testkit::postgres::may_mount() {
        assert!(!claudemesh_testkit::tools::strict(), "a small disk needs root in CI");
        eprintln!("full disk of PostgreSQL not run: only root can mount a small one");
        return Ok(());
    }
    let server = Postgres::start_with_small_disk(&programs()?, "6m")?;
    let mut admin = AsyncPgConnection::establish(&server.url()).await?;
    let folder = server.folder().join("small");
    admin.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display())).await?;
    admin.batch_execute("ALTER ROLE postgres SET default_tablespace = 'small'").await?;
    let broker = Builder::at(server.url()).start().await?;
    let mesh = broker.mesh("team")?;
    let (mut alice, bob) = (broker.join(&mesh.member("alice")?).await?, mesh.member("bob")?);
    let body = "A".repeat(40_000);
    let (mut kept, mut refused) = (Vec::new(), None);
    for number in 0..400 {
        let frame = json!({
            "type": "send", "id": number.to_string(), "targetSpec": bob.pubkey(), "priority": "next", "nonce": "",
            "ciphertext": format!("{number:03}{body}"), "client_message_id": format!("m{number}"),
        });
        alice.send(&frame).await?;
        let ack = ack_of(&mut alice, &number.to_string()).await?;
        if ack["queued"] == true {
            kept.push(format!("{number:03}"));
        } else {
            refused = Some((frame, ack));
            break;
        }
    }
    let (frame, ack) = refused.context("six megabytes do not hold four hundred of them")?;
    assert_eq!(ack["code"], "storage_full", "{ack}");
    assert!(kept.len() > 5, "{} were kept", kept.len());
    server.resize_small_disk("60m")?;
    alice.send(&frame).await?;
    let ack = ack_of(&mut alice, frame["id"].as_str().unwrap_or_default()).await?;
    assert_eq!(ack["queued"], true, "{ack}");
    kept.push(format!("{:03}", kept.len()));
    let mut receiver = broker.join(&bob).await?;
    for expected in &kept {
        let push = receiver.message().await?;
        assert_eq!(&push["ciphertext"].as_str().unwrap_or_default()[..3], expected);
    }
    assert_eq!(receiver.waiting_messages().await?.len(), 0);
    Ok(())
}

/// The lock of the schema dies with the connection that holds it. Who comes second then must not find two brokers writing.
// The kit's HTTP calls block, and the wire has to go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_lock_to_another_writes_nothing_more() -> Result<()> {
    if !postgres_available() {
        return Ok(());
    }
    let server = durable()?;
    let wire = Wire::to(server.port()).await?;
    let first = Builder::at(format!("postgres://postgres@{}/postgres?sslmode=disable", wire.address)).start().await?;
    let mesh = first.mesh("team")?;
    let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
    let mut before = first.join(&alice).await?;
    assert_eq!(before.say(&bob.pubkey(), "first", json!({})).await?["queued"], true);
    // These need no row: the next place in its order is one that the other broker will not have used.
    let mut here = first.join(&mesh.member("carol")?).await?;
    for _ in 0..3 {
        before.say(&here.pubkey(), "live", json!({})).await?;
        here.text().await?;
    }
    // The first one is cut off; the second finds the schema free and serves from it.
    wire.down.store(true, Ordering::SeqCst);
    let mut admin = AsyncPgConnection::establish(&server.url()).await?;
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                  WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    admin.batch_execute(others).await?;
    let second = Builder::at(server.url()).start().await?;
    let mut after = second.join(&alice).await?;
    assert_eq!(after.say(&bob.pubkey(), "second", json!({})).await?["queued"], true);
    drop(second);
    // The lock is free again and the wire is back, but what the first one remembers is not true any more.
    wire.down.store(false, Ordering::SeqCst);
    let ack = before.say(&bob.pubkey(), "never", json!({})).await?;
    assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("busy")), "{ack}");
    drop(before);
    drop(first);
    let third = Builder::at(server.url()).start().await?;
    let mut receiver = third.join(&bob).await?;
    assert_eq!(receiver.text().await?, "first");
    assert_eq!(receiver.text().await?, "second");
    assert_eq!(receiver.waiting_messages().await?.len(), 0);
    Ok(())
}
