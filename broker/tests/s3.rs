//! Files in a bucket of a real S3 server that checks signatures. `cargo xtask test` installs the server and runs this: it names its
//! program in `CLAUDEMESH_TEST_S3RVER`, and sets the keys that the server knows (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::http;
use claudemesh_testkit::identity::Member;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::wait;
use serde_json::{Value, json};

const BUCKET: &str = "files";

/// A running S3 server; killed on drop.
struct S3 {
    program: PathBuf,
    port: u16,
    data: tempfile::TempDir,
    child: Child,
}

impl S3 {
    fn start() -> Result<Self> {
        let program = std::env::var_os("CLAUDEMESH_TEST_S3RVER").context("CLAUDEMESH_TEST_S3RVER names the server")?;
        let (program, data) = (PathBuf::from(program), tempfile::tempdir()?);
        // It comes back at the same address after it was killed.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = spawn(&program, port, data.path())?;
        Ok(Self { program, port, data, child })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.program, self.port, self.data.path())?;
        Ok(())
    }

    /// Its objects, as it keeps them.
    fn objects(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let one = |path: PathBuf| match path.is_dir() {
                true => count(&path),
                false => usize::from(path.to_string_lossy().ends_with("_object")),
            };
            entries.map(|entry| one(entry.path())).sum()
        }
        count(self.data.path())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

fn spawn(program: &Path, port: u16, data: &Path) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "--configure-bucket", BUCKET, "-d"]).arg(data);
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("starting the S3 server")?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let ready = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening")));
    ensure!(ready.is_some(), "the S3 server ended before it was ready");
    // It writes a line for each request, and would stop when no one reads them.
    std::thread::spawn(move || lines.for_each(drop));
    Ok(child)
}

async fn broker(database: Database, s3: &S3, presign: bool) -> Result<TestBroker> {
    let (url, endpoint) = (format!("s3://{BUCKET}/team"), s3.url());
    let builder = Builder::new(database).config(|config| {
        config.files.url = Some(url);
        config.files.endpoint = Some(endpoint);
        config.files.region = Some("us-east-1".into());
        config.files.presign = presign;
    });
    builder.start().await
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at as u64).wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

async fn start(peer: &mut TestPeer, name: &str, size: usize) -> Result<Value> {
    let frame = json!({"type": "start_upload", "client_upload_id": name, "name": name, "size": size});
    peer.call(frame, "upload_started").await
}

async fn finish(peer: &mut TestPeer, id: &Value, bytes: &[u8]) -> Result<()> {
    let frame = json!({"type": "finish_upload", "fileId": id, "sha256": sha256_hex(bytes)});
    peer.call(frame, "upload_finished").await?;
    Ok(())
}

async fn share(peer: &mut TestPeer, name: &str, bytes: &[u8]) -> Result<Value> {
    let started = start(peer, name, bytes.len()).await?;
    let url = started["url"].as_str().context("url")?;
    let reply = http::send("PATCH", url, &[("upload-offset", "0")], bytes).await?;
    ensure!(reply.status == 200, "{reply:?}");
    finish(peer, &started["fileId"], bytes).await?;
    Ok(started["fileId"].clone())
}

async fn file_url(peer: &mut TestPeer, id: &Value) -> Result<(String, bool)> {
    let found = peer.call(json!({"type": "get_file", "fileId": id}), "file_url").await?;
    Ok((found["url"].as_str().context("url")?.to_owned(), found["presigned"] == true))
}

async fn kept_and_read(database: Database) -> Result<()> {
    let s3 = S3::start()?;
    let broker = broker(database, &s3, true).await?;
    let mesh = broker.mesh("team")?;
    let alice: Arc<Member> = mesh.member("alice")?;
    let mut peer = broker.join(&alice).await?;
    let (large, small) = (content(9 << 20), content(70_000));
    let (large_id, small_id) = (share(&mut peer, "large", &large).await?, share(&mut peer, "small", &small).await?);
    assert_eq!(s3.objects(), 6, "9 MiB in parts of 2 MiB, and one");
    // Of several objects: through the broker.
    let (url, presigned) = file_url(&mut peer, &large_id).await?;
    assert!(!presigned && url.starts_with(&broker.base()), "{url}");
    assert!(http::send("GET", &url, &[], b"").await?.body == large);
    let part = http::send("GET", &url, &[("range", "bytes=4194300-8388700")], b"").await?;
    assert!(part.status == 206 && part.body == large[4_194_300..=8_388_700]);
    // Of one: from the bucket, for those who have the signature.
    let (url, presigned) = file_url(&mut peer, &small_id).await?;
    assert!(presigned && url.starts_with(&s3.url()), "{url}");
    assert!(http::send("GET", &url, &[], b"").await?.body == small);
    // This server knows keys and does not compute signatures of the fourth version, so it shows no more than that.
    assert!(url.contains("X-Amz-Signature=") && url.contains("X-Amz-Expires=300"), "{url}");
    let foreign = url.replacen("S3RVER", "OTHER", 1);
    assert_eq!(http::send("GET", &foreign, &[], b"").await?.status, 403, "{foreign}");
    for id in [&large_id, &small_id] {
        peer.call(json!({"type": "delete_file", "fileId": id, "confirm": true}), "done").await?;
    }
    assert_eq!(s3.objects(), 0, "deleted means gone");
    Ok(())
}

#[tokio::test]
#[ignore = "needs an S3 server"]
async fn a_bucket_keeps_files_and_clients_may_read_from_it() -> Result<()> {
    kept_and_read(Database::Sqlite).await?;
    if claudemesh_testkit::broker::postgres_available() {
        kept_and_read(Database::Postgres).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs an S3 server"]
async fn an_upload_survives_a_bucket_that_goes_away() -> Result<()> {
    let mut s3 = S3::start()?;
    let mut broker = broker(Database::Sqlite, &s3, false).await?;
    let mesh = broker.mesh("team")?;
    let alice = mesh.member("alice")?;
    let mut peer = broker.join(&alice).await?;
    let bytes = content(40 << 20);
    let started = start(&mut peer, "large", bytes.len()).await?;
    let (id, url) = (started["fileId"].clone(), started["url"].as_str().context("url")?.to_owned());
    let length = bytes.len().to_string();
    let announced = [("upload-offset", "0"), ("content-length", length.as_str())];
    let mut part = http::begin("PATCH", &url, &announced).await?;
    part.write(&bytes[..34 << 20]).await?;
    s3.kill()?;
    // Whatever is sent now cannot be stored.
    part.write(&bytes[34 << 20..]).await.ok();
    let reply = part.reply().await?;
    assert_eq!(reply.failure(), (503, "unavailable".into()));
    let told: usize = reply.header("upload-offset").parse()?;
    assert!(told <= 34 << 20, "{told}");
    assert_eq!(peer.refused(json!({"type": "get_file", "fileId": id})).await?, "not_found");
    s3.restart()?;
    broker.restart().await?;
    let mut peer = broker.join(&alice).await?;
    let status = peer.call(json!({"type": "upload_status", "fileId": id}), "upload_started").await?;
    let at = usize::try_from(status["offset"].as_u64().context("offset")?)?;
    assert_eq!(at, told, "what was told is what is there");
    let offset = at.to_string();
    let url = status["url"].as_str().context("url")?;
    let reply = http::send("PATCH", url, &[("upload-offset", &offset)], &bytes[at..]).await?;
    assert_eq!((reply.status, &reply.json()["sha256"]), (200, &json!(sha256_hex(&bytes))));
    finish(&mut peer, &id, &bytes).await?;
    let (url, presigned) = file_url(&mut peer, &id).await?;
    assert!(!presigned);
    let got = http::send("GET", &url, &[], b"").await?.body;
    assert!(got == bytes);
    // Objects whose rows never came are swept; those of the file stay.
    let parts = |size: usize| size.div_ceil(2 << 20);
    let most = parts(at) + parts(bytes.len() - at);
    wait::until("the rest to be swept", Duration::from_secs(30), async || Ok((s3.objects() <= most).then_some(())))
        .await?;
    let Ok(mut broken) = http::begin("GET", &url, &[]).await else { bail!("the broker is there") };
    broken.head().await?;
    s3.kill()?;
    let rest = broken.reply().await;
    assert!(rest.is_err(), "a download that cannot go on breaks off, and is no shorter file");
    Ok(())
}
