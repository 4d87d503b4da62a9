//! The Unix socket beside the TCP address, and one broker per database whatever its data directory.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use claudemesh_broker::config::Config;
use claudemesh_broker::{Broker, Deps, StartError};
use claudemesh_testkit::broker::{Builder, Database};

/// The status line of `GET /health` over a Unix socket.
fn health(path: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_unix_socket_serves_its_user_and_comes_back_after_a_restart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("broker.sock");
    let mut broker =
        Builder::new(Database::Sqlite).config(|config| config.listen_unix = Some(path.clone())).start().await?;
    for _ in 0..2 {
        let own = path.clone();
        assert_eq!(tokio::task::spawn_blocking(move || health(&own)).await??, "HTTP/1.1 200 OK");
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        broker.restart().await?;
    }
    drop(broker);
    Ok(())
}

#[test]
fn a_database_is_served_once_whatever_the_data_directory() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = |name: &str| Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: dir.path().join(name),
        database_url: Some(format!("sqlite:{}", dir.path().join("shared.db").display())),
        workers: Some(1),
        ..Config::default()
    };
    actix_rt::System::new().block_on(async {
        let first = Broker::start(config("one"), Deps::default()).await?;
        let second = Broker::start(config("two"), Deps::default()).await.err();
        assert!(matches!(second, Some(StartError::Db(claudemesh_broker::db::DbError::InUse))), "{second:?}");
        let same = Broker::start(config("one"), Deps::default()).await.err();
        assert!(matches!(same, Some(StartError::Locked(_))), "{same:?}");
        first.shutdown().await;
        Broker::start(config("two"), Deps::default()).await?.shutdown().await;
        Ok(())
    })
}
