//! The files of `deploy/` that put TLS in front of a broker, with the real programs: Caddy and nginx, where they are installed (or
//! named by CLAUDEMESH_TEST_CADDY and CLAUDEMESH_TEST_NGINX). Elsewhere the test says so.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::cli::CommandLine;
use serde_json::Value;

use super::team::{program, stderr, stdout, texts};

/// How long a proxy may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy that ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of this machine.
#[expect(clippy::print_stderr, reason = "a person who runs the tests by hand sees what was left out")]
fn installed(name: &str, variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let usual =
        ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(name));
    let found = named.or_else(|| usual.into_iter().find(|path| path.exists()));
    if found.is_none() {
        eprintln!("not shown: {name} is not installed");
    }
    found
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// Waits until something listens, or until the proxy has ended.
fn listens(proxy: &mut Proxy, port: u16) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(proxy.0.try_wait()?.is_none(), "the proxy ended");
        ensure!(Instant::now() < deadline, "the proxy does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Two people in a mesh behind TLS: enrolment over HTTPS, messages over WebSocket, and no metrics.
fn a_team_works_behind(broker: &TestBroker, port: u16, root: &Path) -> Result<()> {
    let (ann, bob) = (program()?, program()?);
    let run = |who: &CommandLine, args: &[&str]| -> Result<Output> {
        Ok(who.command(args).env("SSL_CERT_FILE", root).env("NO_PROXY", "localhost").output()?)
    };
    let json = |who: &CommandLine, args: &[&str]| -> Result<Value> {
        let output = run(who, args)?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{args:?}: {}{}", stdout(&output), stderr(&output)))
    };
    let url = format!("wss://localhost:{port}/ws");
    let made = json(&ann, &["create", "team", "--broker", &url, "--name", "Ann", "--json"])?;
    assert_eq!(made["slug"], "team", "{made}");
    let invite = json(&ann, &["invite", "--json"])?;
    let link = invite["url"].as_str().with_context(|| invite.to_string())?;
    assert!(
        link.starts_with(&format!("https://localhost:{port}/i/")),
        "a link keeps the TLS that it was made over: {link}"
    );
    let joined = json(&bob, &["join", link, "--name", "Bob", "--json"])?;
    assert_eq!(joined["slug"], "team", "{joined}");
    json(&bob, &["send", "Ann", "over TLS", "--json"])?;
    assert_eq!(texts(&json(&ann, &["inbox", "--json"])?), ["over TLS"]);
    // Without the root nobody is talked to.
    let blind = ann.run(&["peers", "--json"])?;
    assert_ne!(blind.status.code(), Some(0), "{}", stdout(&blind));
    // The numbers are there for this machine, and not through the proxy.
    let direct = claudemesh_testkit::enrol::get(&broker.base(), "/metrics", None)?;
    assert_eq!(direct.status, 200);
    let passed = claudemesh_testkit::enrol::request(
        "GET",
        &broker.base(),
        "/metrics",
        b"",
        None,
        &[("x-forwarded-for", "10.0.0.9")],
    )?;
    assert_eq!((passed.status, passed.code()), (403, "forbidden"));
    let through = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--cacert"])
        .arg(root)
        .arg(format!("https://localhost:{port}/metrics"))
        .output();
    // curl is no part of the product; where it is missing the two lines above have shown it.
    if let Ok(answer) = through {
        assert_eq!(stdout(&answer), "404");
    }
    Ok(())
}

#[tokio::test]
async fn caddy_puts_tls_in_front_of_a_broker() -> Result<()> {
    let Some(caddy) = installed("caddy", "CLAUDEMESH_TEST_CADDY") else { return Ok(()) };
    let broker = Builder::new(Database::Sqlite).start().await?;
    let folder = tempfile::tempdir()?;
    let (port, http) = (free_port()?, free_port()?);
    let mut command = Command::new(caddy);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(deploy("Caddyfile"));
    command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path());
    command.env("CLAUDEMESH_HOST", "localhost").env("CLAUDEMESH_TLS", "internal");
    command.env("CLAUDEMESH_HTTPS_PORT", port.to_string()).env("CLAUDEMESH_HTTP_PORT", http.to_string());
    command.env("CLAUDEMESH_BROKER", broker.base().trim_start_matches("http://"));
    let mut proxy = Proxy(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    listens(&mut proxy, port)?;
    a_team_works_behind(&broker, port, &folder.path().join("caddy/pki/authorities/local/root.crt"))
}

#[tokio::test]
async fn nginx_puts_tls_in_front_of_a_broker() -> Result<()> {
    let (Some(nginx), Some(openssl)) =
        (installed("nginx", "CLAUDEMESH_TEST_NGINX"), installed("openssl", "CLAUDEMESH_TEST_OPENSSL"))
    else {
        return Ok(());
    };
    let broker = Builder::new(Database::Sqlite).start().await?;
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = Command::new(openssl)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()?;
    ensure!(made.status.success(), "{}", stderr(&made));
    let port = free_port()?;
    let server = std::fs::read_to_string(deploy("nginx.conf"))?
        .replace("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl"))
        .replace("mesh.example.org;", "localhost;")
        .replace("/etc/ssl/mesh.example.org.pem", &certificate.display().to_string())
        .replace("/etc/ssl/private/mesh.example.org.key", &key.display().to_string())
        .replace("127.0.0.1:7900", broker.base().trim_start_matches("http://"));
    let place = folder.path().display();
    let whole = format!(
        "daemon off; pid {place}/pid; error_log {place}/error.log; worker_processes 1;\nevents {{}}\nhttp {{\n\
         client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f; \
         uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n{server}\n}}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, whole)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file).arg("-e").arg(folder.path().join("error.log"));
    let mut proxy = Proxy(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    listens(&mut proxy, port)?;
    a_team_works_behind(&broker, port, &certificate)
}
