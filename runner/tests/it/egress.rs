//! The way out: through the proxy, as streams to the broker, and no other way.

use std::sync::Arc;

use claudemesh_protocol::runner::{Phase, RunnerAsk};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Route, Runner, python};

/// An HTTP server that answers with what it was asked.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", head.len());
                let _ = socket.write_all(&[answer.as_bytes(), &head].concat()).await;
            });
        }
    });
    address
}

fn only(host: &'static str, address: String) -> Route {
    Arc::new(move |asked, port| (asked == host && port == 80).then(|| address.clone()))
}

#[tokio::test]
async fn an_allowed_host_is_reached_and_any_other_is_refused_with_the_reason() {
    let runner = Runner::with(&[], only("allowed.example", echo().await)).await;
    runner.run(&python("s")).await;
    let answer = runner.call("s", "get", json!({"url": "http://allowed.example/x?y=1"})).await;
    assert_eq!(answer["status"], 200, "{answer}");
    let seen = answer["text"].as_str().unwrap();
    assert!(seen.starts_with("GET /x?y=1 HTTP/1.1\r\nHost: allowed.example\r\n"), "{seen}");
    assert!(!seen.to_lowercase().contains("proxy"), "{seen}");
    for url in [
        "http://refused.example/",
        "http://allowed.example:81/",
        "http://169.254.169.254/",
        "http://[::1]/",
        "http://127.0.0.1/",
    ] {
        let answer = runner.call("s", "get", json!({"url": url})).await;
        assert_eq!(answer["status"], 403, "{url}: {answer}");
        assert!(answer["text"].as_str().unwrap().contains("no rule allows"), "{answer}");
    }
    runner.logged("s", "no connection to 169.254.169.254:80").await;
    let asked = runner.asked(|ask| Some(ask.clone())).await;
    assert_eq!(
        asked,
        RunnerAsk::Egress { id: "s".into(), host: "allowed.example".into(), port: 80, phase: Phase::Run }
    );
    // An HTTPS host: the tunnel is refused, too.
    let answer = runner.call("s", "get", json!({"url": "https://refused.example/"})).await;
    assert!(answer["error"].as_str().unwrap().contains("403"), "{answer}");
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_ends_on_either_side() {
    let runner = Runner::with(&[], only("allowed.example", echo().await)).await;
    runner.run(&python("s")).await;
    let proxy = runner.call("s", "env", json!({})).await["HTTPS_PROXY"].as_str().unwrap().to_owned();
    let port: u16 = proxy.rsplit(':').next().unwrap().parse().unwrap();
    let tunnel = "CONNECT allowed.example:80 HTTP/1.1\r\nHost: allowed.example\r\n\r\nGET /inner HTTP/1.1\r\n\r\n";
    let answer = runner.call("s", "connect", json!({"port": port, "text": tunnel})).await;
    let answer = answer.as_str().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
            && answer.ends_with("GET /inner HTTP/1.1\r\n\r\n"),
        "{answer}"
    );
    for (text, status) in [
        ("CONNECT refused.example:80 HTTP/1.1\r\n\r\n", "403"),
        ("GET /relative HTTP/1.1\r\n\r\n", "400"),
        ("CONNECT allowed.example:80@x HTTP/1.1\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}garbage\r\n\r\n", "400"),
    ] {
        let answer = runner.call("s", "connect", json!({"port": port, "text": text})).await;
        assert!(answer.as_str().unwrap().starts_with(&format!("HTTP/1.1 {status} ")), "{text}: {answer}");
    }
    // Another service cannot take the way of this one.
    if runner.hello.users {
        runner.run(&python("other")).await;
        let answer = runner.call("other", "connect", json!({"port": port, "text": tunnel})).await;
        assert!(answer.as_str().unwrap().contains("another service"), "{answer}");
    }
}
