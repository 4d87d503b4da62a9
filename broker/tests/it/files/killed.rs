//! The broker as a process: killed in the middle, and measured.

use std::path::Path;

use anyhow::{Context, Result};
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_testkit::enrol::OwnedMesh;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::process::BrokerProcess;
use claudemesh_testkit::{http, wait};
use serde_json::json;

use super::{PATIENCE, content, finish, get, names, objects, share, start, text, url_of};

/// The broker's own process is killed in the middle of an upload: what it had stored is there, what it had half stored is not.
#[tokio::test]
async fn an_upload_survives_a_broker_that_is_killed() -> Result<()> {
    let data = tempfile::tempdir()?;
    let binary = Path::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
    let mut broker = BrokerProcess::start(binary, data.path(), &[])?;
    let mesh = OwnedMesh::create(&broker.base(), "team")?;
    let alice = mesh.member("alice")?;
    let mut peer = TestPeer::session(&broker.url(), &alice.session("s")).await?;
    let bytes = content(100 << 20);
    let started = start(&mut peer, "large", bytes.len(), json!({})).await?;
    let id = started["fileId"].clone();
    let (mut url, mut at, mut killed) = (text(&started["url"]).to_owned(), 0, 0);
    while at < bytes.len() {
        let rest = (bytes.len() - at).to_string();
        let mut part =
            http::begin("PATCH", &url, &[("upload-offset", &at.to_string()), ("content-length", &rest)]).await?;
        let until = if killed < 2 { at + (40 << 20) } else { bytes.len() };
        for piece in bytes[at..until].chunks(1 << 16) {
            part.write(piece).await?;
        }
        if until == bytes.len() {
            let reply = part.reply().await?;
            assert_eq!((reply.status, &reply.json()["sha256"]), (200, &json!(sha256_hex(&bytes))));
            break;
        }
        wait::until("some of it to be stored", PATIENCE, async || {
            let status = peer.call(json!({"type": "upload_status", "fileId": id}), "upload_started").await?;
            Ok(status["offset"].as_u64().filter(|offset| *offset > at as u64))
        })
        .await?;
        broker.kill()?;
        killed += 1;
        broker.restart()?;
        peer = TestPeer::session(&broker.url(), &alice.session(&format!("s{killed}"))).await?;
        assert_eq!(names(&mut peer, json!({})).await?, Vec::<String>::new(), "half a file is no file");
        let status = peer.call(json!({"type": "upload_status", "fileId": id}), "upload_started").await?;
        let offset = usize::try_from(status["offset"].as_u64().context("offset")?)?;
        assert!(offset > at && offset <= until, "{at} {offset} {until}");
        (url, at) = (text(&status["url"]).to_owned(), offset);
    }
    assert_eq!(killed, 2);
    finish(&mut peer, &id, &bytes).await?;
    let url = url_of(&mut peer, &id).await?;
    let mut got = get(&url, "bytes=0-39999999").await?.body;
    broker.kill()?;
    broker.restart()?;
    peer = TestPeer::session(&broker.url(), &alice.session("reader")).await?;
    let url = url_of(&mut peer, &id).await?;
    got.extend(get(&url, "bytes=40000000-").await?.body);
    assert_eq!(sha256_hex(&got), sha256_hex(&bytes));
    // Nothing but the file is left.
    let folder = data.path().join("files");
    let size = || objects(&folder).iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum::<u64>();
    wait::until("the rest to be swept", PATIENCE, async || Ok((size() == bytes.len() as u64).then_some(()))).await?;
    peer.call(json!({"type": "delete_file", "fileId": id, "confirm": true}), "done").await?;
    assert_eq!(size(), 0);
    Ok(())
}

/// Bytes by which a transfer of 256 MiB may enlarge this build of the broker. Beside other tests more threads and connections to the
/// database come to life meanwhile, each with a cache of its own, so this is far from what a transfer holds; a file it is not.
const MOST: u64 = 48 << 20;

/// Neither direction holds a file in memory, nor does a reader that takes nothing.
#[tokio::test]
async fn a_large_file_needs_little_memory() -> Result<()> {
    let data = tempfile::tempdir()?;
    let binary = Path::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
    let broker = BrokerProcess::start(binary, data.path(), &[])?;
    let mesh = OwnedMesh::create(&broker.base(), "team")?;
    let alice = mesh.member("alice")?;
    let mut peer = TestPeer::session(&broker.url(), &alice.session("s")).await?;
    // What the first use of everything costs.
    let small = share(&mut peer, "small", &content(8 << 20), json!({})).await?;
    get(&url_of(&mut peer, &small).await?, "").await?;
    let before = broker.rss()?;
    let piece = content(1 << 20);
    let pieces = 256;
    let started = start(&mut peer, "large", piece.len() * pieces, json!({})).await?;
    let length = (piece.len() * pieces).to_string();
    let mut part =
        http::begin("PATCH", text(&started["url"]), &[("upload-offset", "0"), ("content-length", &length)]).await?;
    let mut most = before;
    for _ in 0..pieces {
        part.write(&piece).await?;
        most = most.max(broker.rss()?);
    }
    let reply = part.reply().await?;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(most.saturating_sub(before) <= MOST, "an upload needed {} KiB", (most - before) >> 10);
    let before = broker.rss()?;
    let mut most = before;
    let sha256 = reply.json()["sha256"].clone();
    peer.call(json!({"type": "finish_upload", "fileId": started["fileId"], "sha256": sha256}), "upload_finished")
        .await?;
    let url = url_of(&mut peer, &started["fileId"]).await?;
    let mut idle = http::begin("GET", &url, &[]).await?;
    idle.head().await?;
    let mut reader = http::begin("GET", &url, &[]).await?;
    let mut got = reader.head().await?.body.len();
    loop {
        let piece = reader.piece().await?;
        if piece.is_empty() {
            break;
        }
        got += piece.len();
        most = most.max(broker.rss()?);
    }
    assert_eq!(got, piece.len() * pieces);
    assert!(most.saturating_sub(before) <= MOST, "a download needed {} KiB", (most - before) >> 10);
    Ok(())
}
