//! The wire: garbage, a broker that is started again, logs.

use claudemesh_protocol::crypto::keys;
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::runner::frame::{Frame, Session};
use claudemesh_protocol::runner::{Answer, Ask, Event, FailCode, FromRunner, Hello, Status, ToRunner};
use serde_json::json;

use crate::harness::{Runner, patiently, python};

#[tokio::test]
async fn the_hello_proves_its_key() {
    let runner = Runner::start().await;
    let hello = &runner.hello;
    let key = PublicKey::parse(&hello.public_key).unwrap();
    keys::verify(&key, Hello::proof_text(&hello.public_key, &hello.session).as_bytes(), &hello.proof).unwrap();
    assert!(hello.programs.contains(&"python3".to_owned()), "{hello:?}");
}

#[tokio::test]
async fn bytes_that_are_no_frames_are_skipped() {
    let runner = Runner::start().await;
    let mut foreign = Vec::new();
    Frame::credit(2, 5).encode(&Session::random(&mut rand::thread_rng()), &mut foreign).unwrap();
    runner.garbage(&[b"cmR1\0\xff hello \n".repeat(1_000), foreign].concat());
    runner.run(&python("s")).await;
    // Heads that are no requests, streams that are not there, answers that nobody asked for.
    runner.garbage(b"cmR1");
    runner.tell(&ToRunner::Unknown, b"");
    let mut bad = runner.begin(&Ask::Unknown, b"").await;
    assert!(matches!(bad.answer().await.0, Answer::Failed(failure) if failure.code == FailCode::Unsupported));
    assert_eq!(runner.call("s", "say", json!({"text": "x"})).await, "said");
}

#[tokio::test]
async fn a_broker_that_is_started_again_finds_its_services_running() {
    let mut runner = Runner::start().await;
    runner.run(&python("s")).await;
    let pid = runner.call("s", "who", json!({})).await["pid"].clone();
    let _waiting = runner.begin(&Runner::call_ask("s", false), &Runner::params("wait", &json!({}))).await;
    // The broker died in the middle of a frame.
    let before = runner.said_so_far();
    let mut begun = Vec::new();
    Frame::data(2, vec![b'x'; 60_000], false).encode(&Session::random(&mut rand::thread_rng()), &mut begun).unwrap();
    let key = runner.hello.public_key.clone();
    let hello = runner.attach_again(&begun[..1_000]).await;
    assert_eq!((hello.public_key, hello.services[0].status), (key, Status::Running));
    runner
        .said(|said| {
            said[before..].iter().find_map(|(said, body)| match said {
                FromRunner::Event { event: Event::Running { .. }, .. } => {
                    serde_json::from_slice::<serde_json::Value>(body).ok()
                }
                _ => None,
            })
        })
        .await;
    // What the broker of before had asked is cancelled.
    runner.logged("s", "cancelled: ").await;
    assert_eq!(runner.call("s", "who", json!({})).await["pid"], pid);
}

#[tokio::test]
async fn a_log_is_read_from_its_end_and_followed() {
    let runner = Runner::start().await;
    runner.run(&python("s")).await;
    for at in 0..5 {
        runner.call("s", "say", json!({"text": format!("line {at}")})).await;
    }
    runner.logged("s", "line 4").await;
    let mut followed = runner.begin(&Ask::Logs { id: "s".into(), lines: 2, follow: true }, b"").await;
    let mut text = String::new();
    patiently("the last lines", async {
        while !text.contains("line 4") {
            text.push_str(&String::from_utf8(followed.frame().await.unwrap().body).unwrap());
        }
    })
    .await;
    assert!(text.contains("line 3") && !text.contains("line 2"), "{text}");
    runner.call("s", "say", json!({"text": "line 5"})).await;
    patiently("the next line", async {
        while !text.contains("line 5") {
            text.push_str(&String::from_utf8(followed.frame().await.unwrap().body).unwrap());
        }
    })
    .await;
    assert_eq!(text.matches("line 4").count(), 1);
    assert_eq!(runner.fails(Ask::Logs { id: "no".into(), lines: 1, follow: false }, b"").await, FailCode::NotFound);
}
