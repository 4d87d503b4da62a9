//! What one frame costs on its way through the codec. `cargo bench -p claudemesh-protocol`.

#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::features::messaging::{Ack, ClientAck, Priority, Push, Send};
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Body of a direct message of 300 bytes, as base64.
const BODY_CHARS: usize = (300 + 16usize).div_ceil(3) * 4;

fn send() -> String {
    let send = Send {
        target_spec: "ab".repeat(32).into(),
        priority: Priority::Next,
        nonce: "A".repeat(32),
        ciphertext: "A".repeat(BODY_CHARS),
        id: Some("42".into()),
        client_message_id: Some("01JH0000000000000000000000".into()),
        ..Send::default()
    };
    claudemesh_protocol::frame::write("send", &send, None)
}

fn push() -> Push {
    Push {
        message_id: "k".repeat(32),
        mesh_id: "m".repeat(32),
        sender_pubkey: "cd".repeat(32),
        sender_member_pubkey: Some("ef".repeat(32)),
        sender_member_id: Some("n".repeat(32).as_str().into()),
        sender_name: Some("Alice".into()),
        nonce: "A".repeat(32),
        ciphertext: "A".repeat(BODY_CHARS),
        created_at: "2026-04-08T09:53:03.000Z".into(),
        ..Push::default()
    }
}

fn read(criterion: &mut Criterion) {
    let send = send();
    let ack = claudemesh_protocol::frame::write(
        "client_ack",
        &ClientAck { broker_message_id: Some("k".repeat(32)), ..ClientAck::default() },
        None,
    );
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(send.len() as u64));
    group.bench_function("head", |bench| bench.iter(|| Head::read(black_box(&send))));
    group.bench_function("head and send", |bench| {
        bench.iter(|| {
            let head = Head::read(black_box(&send)).expect("a frame of ours");
            ClientMessage::read(&head, &send).expect("a frame of ours")
        });
    });
    group.throughput(Throughput::Bytes(ack.len() as u64));
    group.bench_function("head and client_ack", |bench| {
        bench.iter(|| {
            let head = Head::read(black_box(&ack)).expect("a frame of ours");
            ClientMessage::read(&head, &ack).expect("a frame of ours")
        });
    });
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let push = ServerMessage::Messaging(push().into());
    let ack = ServerMessage::Messaging(
        Ack { id: "42".into(), message_id: "k".repeat(32), queued: true, ..Ack::default() }.into(),
    );
    let mut group = criterion.benchmark_group("write");
    group.bench_function("push", |bench| bench.iter(|| black_box(&push).write(None)));
    group.bench_function("ack", |bench| bench.iter(|| black_box(&ack).write(None)));
    group.finish();
}

fn crypto(criterion: &mut Criterion) {
    let (alice, bob) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let (alice_key, bob_key) = (alice.public(), bob.public());
    let text = "x".repeat(300);
    let sealed = envelope::seal_direct_with_nonce(&text, &bob_key, &alice, [3; 24]).expect("usable keys");
    let signature = alice.sign(b"hello");
    let mut group = criterion.benchmark_group("crypto");
    group.bench_function("seal 300 bytes", |bench| {
        bench.iter(|| envelope::seal_direct_with_nonce(black_box(&text), &bob_key, &alice, [3; 24]));
    });
    group.bench_function("open 300 bytes", |bench| {
        bench.iter(|| envelope::open_direct(&sealed.nonce, black_box(&sealed.ciphertext), &alice_key, &bob));
    });
    group.bench_function("verify hello", |bench| {
        bench.iter(|| keys::verify(&alice_key, black_box(b"hello"), &signature));
    });
    group.finish();
}

criterion_group!(benches, read, write, crypto);
criterion_main!(benches);
