//! A broker whose name only a forward proxy knows: HTTP and WebSocket take the same way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::cli::CommandLine;
use serde_json::{Value, json};

use super::team::{program, stderr, stdout, texts};

/// No resolver knows it: the name is reserved.
const NAME: &str = "broker.mesh.invalid";

/// A small proxy that opens tunnels to the broker under [`NAME`] for who knows the password, and notes what it was asked.
struct ConnectProxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    fn start(broker: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || {
                    // A client that goes away ends its tunnel.
                    let _ = serve(stream, broker, &notes);
                });
            }
        });
        Ok(Self { port, asked })
    }
}

fn serve(mut client: TcpStream, broker: u16, notes: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    notes.lock().unwrap().push(line.clone());
    // "me:p@ss"
    if !head.to_ascii_lowercase().contains(&"Proxy-Authorization: Basic bWU6cEBzcw==".to_ascii_lowercase()) {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    }
    if !line.starts_with(&format!("CONNECT {NAME}:")) {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    }
    let upstream = TcpStream::connect(("127.0.0.1", broker))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (upstream, client);
    std::io::copy(&mut from, &mut to)?;
    to.shutdown(std::net::Shutdown::Both)
}

fn behind(person: &CommandLine, args: &[&str], proxy: &str) -> Result<Output> {
    let mut command: Command = person.command(args);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    Ok(command.env("ALL_PROXY", proxy).output()?)
}

async fn broker() -> Result<(TestBroker, u16)> {
    let broker = Builder::new(Database::Sqlite).start().await?;
    let port = broker.url().rsplit_once(':').context("a port")?.1.trim_end_matches("/ws").parse()?;
    Ok((broker, port))
}

#[tokio::test]
async fn http_and_websocket_go_through_the_proxy_and_errors_name_it() -> Result<()> {
    let (_broker, port) = broker().await?;
    let proxy = ConnectProxy::start(port)?;
    let way = format!("http://me:p%40ss@127.0.0.1:{}", proxy.port);
    let (ann, bob) = (program()?, program()?);
    let url = format!("ws://{NAME}:{port}/ws");
    let json = |person: &CommandLine, args: &[&str]| -> Result<Value> {
        let output = behind(person, args, &way)?;
        anyhow::ensure!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    json(&ann, &["create", "team", "--broker", &url, "--name", "Ann", "--json"])?;
    let invite = json(&ann, &["invite", "--json"])?;
    json(&bob, &["join", invite["url"].as_str().context("a link")?, "--name", "Bob", "--json"])?;
    json(&ann, &["send", "Bob", "through the wall", "--json"])?;
    assert_eq!(texts(&json(&bob, &["inbox", "--wait", "0", "--json"])?), ["through the wall"]);
    let asked = proxy.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|line| *line == format!("CONNECT {NAME}:{port} HTTP/1.1")), "{asked:?}");
    // Without the proxy no one knows the name; a wrong password is the proxy's word, and no error shows one.
    let alone = behind(&ann, &["peers"], "")?;
    assert_eq!(alone.status.code(), Some(4), "{}", stderr(&alone));
    for verb in [&["peers"][..], &["invite"]] {
        let refused = behind(&ann, verb, &way.replace("p%40ss", "secret"))?;
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(4), "{text}");
        assert!(text.contains(&format!("http://127.0.0.1:{} (ALL_PROXY)", proxy.port)), "{verb:?}: {text}");
        assert!(text.contains("407") && !text.contains("secret") && !text.contains("me:"), "{verb:?}: {text}");
    }
    let other = behind(&ann, &["peers"], "socks5://127.0.0.1:1")?;
    assert!(stderr(&other).contains("socks5"), "{}", stderr(&other));
    let doctor = behind(&ann, &["doctor", "--no-loopback", "--json"], &way)?;
    let doctor: Value = serde_json::from_slice(&doctor.stdout)?;
    let row = doctor["checks"].as_array().into_iter().flatten().find(|row| row["name"] == "broker").context("a row")?;
    assert_eq!(row["level"], json!("ok"));
    assert!(row["detail"].as_str().is_some_and(|text| text.contains("through the proxy http://127.0.0.1:")), "{row}");
    Ok(())
}

#[tokio::test]
async fn this_machine_is_reached_without_the_proxy() -> Result<()> {
    let (broker, port) = broker().await?;
    let proxy = ConnectProxy::start(port)?;
    let way = format!("http://127.0.0.1:{}", proxy.port);
    let ann = program()?;
    let made = behind(&ann, &["create", "team", "--broker", &broker.url(), "--name", "Ann", "--json"], &way)?;
    assert!(made.status.success(), "{}", stdout(&made));
    assert!(behind(&ann, &["peers", "--json"], &way)?.status.success());
    assert_eq!(proxy.asked.lock().unwrap().len(), 0);
    Ok(())
}
