//! Files over real sockets: uploads in parts that break off and go on, downloads with ranges, who may do what, bad input, quotas,
//! expiry, the sweep, and a broker that is killed.

mod access;
mod at_once;
mod input;
mod killed;
mod life;
mod parts;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_testkit::broker::{Database, TestBroker};
use claudemesh_testkit::enrol::OwnedMesh;
use claudemesh_testkit::http::{self, Reply};
use claudemesh_testkit::identity::{Member, merged};
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

/// Longest wait for what the broker does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are the same nowhere.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(size).collect()
}

async fn start(peer: &mut TestPeer, name: &str, size: usize, extra: Value) -> Result<Value> {
    let frame = json!({"type": "start_upload", "client_upload_id": format!("up-{name}"), "name": name, "size": size});
    peer.call(merged(frame, extra), "upload_started").await
}

async fn patch(url: &str, offset: usize, body: &[u8]) -> Result<Reply> {
    http::send("PATCH", url, &[("upload-offset", &offset.to_string())], body).await
}

async fn finish(peer: &mut TestPeer, id: &Value, bytes: &[u8]) -> Result<Value> {
    let frame = json!({"type": "finish_upload", "fileId": id, "sha256": sha256_hex(bytes)});
    Ok(peer.call(frame, "upload_finished").await?["file"].clone())
}

/// Shares a file in one part; gives back its id.
async fn share(peer: &mut TestPeer, name: &str, bytes: &[u8], extra: Value) -> Result<Value> {
    let started = start(peer, name, bytes.len(), extra).await?;
    if !bytes.is_empty() {
        let reply = patch(text(&started["url"]), 0, bytes).await?;
        ensure!(reply.status == 200, "{reply:?}");
    }
    Ok(finish(peer, &started["fileId"], bytes).await?["id"].clone())
}

async fn url_of(peer: &mut TestPeer, id: &Value) -> Result<String> {
    let found = peer.call(json!({"type": "get_file", "fileId": id}), "file_url").await?;
    Ok(text(&found["url"]).to_owned())
}

async fn get(url: &str, range: &str) -> Result<Reply> {
    let headers = if range.is_empty() { vec![] } else { vec![("range", range)] };
    http::send("GET", url, &headers, b"").await
}

async fn names(peer: &mut TestPeer, extra: Value) -> Result<Vec<String>> {
    let list = peer.call(merged(json!({"type": "list_files"}), extra), "file_list").await?;
    let rows = list["files"].as_array().context("rows")?;
    let mut names: Vec<String> = rows.iter().map(|row| text(&row["name"]).to_owned()).collect();
    // The clock stands still, so these are of the same time.
    names.sort_unstable();
    Ok(names)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every file below a folder.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(objects(&path)) } else { found.push(path) }
    }
    found
}

fn stored(broker: &TestBroker) -> Vec<PathBuf> {
    objects(&broker.data_dir().join("files"))
}

async fn team(database: Database) -> Result<(TestBroker, OwnedMesh, Arc<Member>, Arc<Member>)> {
    let broker = TestBroker::start(database).await?;
    let mesh = broker.mesh("team")?;
    let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
    Ok((broker, mesh, alice, bob))
}
