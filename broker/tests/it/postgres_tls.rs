//! TLS to a real PostgreSQL, with certificates made here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use claudemesh_broker::db::{Db, DbError, DbOptions};
use claudemesh_testkit::broker::{Builder, postgres_available};
use claudemesh_testkit::postgres::{self, Postgres};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

/// A server with `ssl=on` whose certificate is for `localhost`, and the authority that signed it.
struct Secure {
    server: Postgres,
    root: PathBuf,
    other_root: PathBuf,
}

fn authority() -> Result<(Issuer<'static, KeyPair>, String)> {
    let mut params = CertificateParams::new(vec![])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

impl Secure {
    fn start() -> Result<Self> {
        let (issuer, root_pem) = authority()?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".into()])?.signed_by(&key, &issuer)?;
        let server = Postgres::start(&postgres::programs().context("PostgreSQL is here")?)?;
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = server.folder().join(name);
            std::fs::write(&path, text)?;
            server.give(&path)?;
            Ok(path)
        };
        let (certificate, key) = (write("server.crt", &certificate.pem())?, write("server.key", &key.serialize_pem())?);
        let (root, other_root) = (write("root.crt", &root_pem)?, write("other.crt", &authority()?.1)?);
        let conf = server.folder().join("data/postgresql.auto.conf");
        let settings =
            format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n", certificate.display(), key.display());
        std::fs::write(&conf, settings)?;
        server.give(&conf)?;
        let mut this = Self { server, root, other_root };
        this.admit("host all all 127.0.0.1/32 trust")?;
        Ok(this)
    }

    /// Starts the server again, with this line about who may come in over TCP.
    fn admit(&mut self, line: &str) -> Result<()> {
        let conf = self.server.folder().join("data/pg_hba.conf");
        std::fs::write(&conf, format!("local all all trust\n{line}\n"))?;
        self.server.kill()?;
        self.server.restart()
    }

    /// Over the Unix socket, where there is no TLS.
    fn admin(&self) -> String {
        format!(
            "postgres:///postgres?user=postgres&host={}&port={}",
            self.server.folder().display(),
            self.server.port()
        )
    }

    fn url(&self, host: &str, options: &str) -> String {
        format!("postgres://postgres@{host}:{}/postgres?{options}", self.server.port())
    }
}

async fn opened(url: &str) -> Result<Db, DbError> {
    Db::open(url, DbOptions { connections: 1, ..DbOptions::default() }).await
}

#[derive(diesel::QueryableByName)]
struct Seen {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    ssl: bool,
}

/// Whether the connections of this name are encrypted, as the server sees it.
async fn encrypted(admin: &str, name: &str) -> Result<bool> {
    let mut admin = AsyncPgConnection::establish(admin).await?;
    let seen: Vec<Seen> =
        diesel::sql_query("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = $1")
            .bind::<diesel::sql_types::Text, _>(name)
            .load(&mut admin)
            .await?;
    ensure!(!seen.is_empty(), "no one is called {name}");
    ensure!(seen.iter().all(|one| one.ssl == seen[0].ssl), "some are, some are not");
    Ok(seen[0].ssl)
}

fn root(path: &Path) -> String {
    format!("sslrootcert={}", path.display())
}

async fn refusal(url: &str) -> String {
    match opened(url).await {
        Ok(_) => panic!("{url} opens"),
        Err(error) => {
            assert_eq!(error.code(), claudemesh_protocol::error::ErrorCode::Unavailable, "{error:?}");
            error.to_string()
        }
    }
}

#[tokio::test]
async fn postgres_over_tls_is_as_safe_as_the_url_asks_for() -> Result<()> {
    if !postgres_available() {
        return Ok(());
    }
    let mut secure = Secure::start()?;
    let (good, bad) = (root(&secure.root), root(&secure.other_root));
    let cases = [
        ("localhost", "sslmode=disable", false),
        ("localhost", "sslmode=prefer", true),
        ("localhost", "connect_timeout=5", true),
        ("127.0.0.1", "sslmode=require", true),
        ("127.0.0.1", &format!("sslmode=require&{good}"), true),
        ("127.0.0.1", &format!("sslmode=verify-ca&{good}"), true),
        ("localhost", &format!("sslmode=verify-full&{good}"), true),
    ];
    for (number, (host, options, wanted)) in cases.into_iter().enumerate() {
        let url = secure.url(host, options);
        let name = format!("probe{number}");
        let _db = opened(&format!("{url}&application_name={name}")).await.with_context(|| url.clone())?;
        assert_eq!(encrypted(&secure.admin(), &name).await?, wanted, "{url}");
    }
    let unknown = "there is no safe connection to storage: no trusted root signed its certificate";
    let wrong_name = "there is no safe connection to storage: its certificate is for another host name";
    for (host, options, expected) in [
        ("localhost", format!("sslmode=verify-full&{bad}"), unknown),
        ("localhost", format!("sslmode=verify-ca&{bad}"), unknown),
        // As libpq: with a root at hand, `require` looks at it.
        ("localhost", format!("sslmode=require&{bad}"), unknown),
        // The roots of the system know nothing of ours.
        ("localhost", "sslmode=verify-full".into(), unknown),
        ("localhost", "sslmode=verify-full&sslrootcert=system".into(), unknown),
        ("127.0.0.1", format!("sslmode=verify-full&{good}"), wrong_name),
    ] {
        assert_eq!(refusal(&secure.url(host, &options)).await, expected, "{options}");
    }
    // The pool, the migrations and the connection with the lock: a whole broker with nothing but verified connections.
    secure.admit("hostssl all all 127.0.0.1/32 trust")?;
    let url = secure.url("localhost", &format!("sslmode=verify-full&{good}"));
    let mut broker = Builder::at(url).start().await?;
    let mesh = broker.mesh("team")?;
    let (mut alice, bob) = (broker.join(&mesh.member("alice")?).await?, mesh.member("bob")?);
    assert_eq!(alice.say(&bob.pubkey(), "kept", json!({})).await?["queued"], true);
    broker.stop();
    assert_eq!(refusal(&secure.url("localhost", "sslmode=disable")).await, "storage cannot be reached");
    // `prefer` takes plain where TLS is refused.
    secure.admit("hostnossl all all 127.0.0.1/32 trust")?;
    let _db = opened(&secure.url("localhost", "sslmode=prefer&application_name=fallback")).await?;
    assert!(!encrypted(&secure.admin(), "fallback").await?);
    assert_eq!(refusal(&secure.url("localhost", "sslmode=require")).await, "storage cannot be reached");
    Ok(())
}

#[tokio::test]
async fn a_postgres_without_tls_is_refused_where_tls_is_asked_for() -> Result<()> {
    if !postgres_available() {
        return Ok(());
    }
    let server = std::env::var("CLAUDEMESH_TEST_POSTGRES")?;
    let with = |option: &str| format!("{server}{}{option}", if server.contains('?') { '&' } else { '?' });
    for mode in ["require", "verify-ca", "verify-full"] {
        let expected = "there is no safe connection to storage: it does not offer TLS";
        assert_eq!(refusal(&with(&format!("sslmode={mode}"))).await, expected, "{mode}");
    }
    for mode in ["disable", "prefer"] {
        let name = format!("plain-{mode}");
        let _db = opened(&with(&format!("sslmode={mode}&application_name={name}"))).await?;
        assert!(!encrypted(&server, &name).await?, "{mode}");
    }
    Ok(())
}
