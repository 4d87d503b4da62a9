//! The files of `deploy/` that put TLS in front of a broker, with the real programs: Caddy and nginx. `cargo xtask setup` installs
//! them; `CLAUDEMESH_TEST_CADDY` and `CLAUDEMESH_TEST_NGINX` name others.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::cli::CommandLine;
use claudemesh_testkit::tools::installed;
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

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// Starts a proxy and reads what it says until it has said each of these: that it listens, and what it needs beside that.
fn listening(mut command: Command, words: &[&str]) -> Result<Proxy> {
    let mut proxy = Proxy(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    let output = proxy.0.stderr.take().context("piped")?;
    let (sender, lines) = mpsc::channel();
    // Reads to the end: a proxy whose output is full stands still.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let (deadline, mut said) = (Instant::now() + PATIENCE, String::new());
    while !words.iter().all(|word| said.contains(word)) {
        let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        said += &line.with_context(|| format!("the proxy does not say {words:?}:\n{said}"))?;
        said.push('\n');
    }
    Ok(proxy)
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
    // Without the root no one is talked to.
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
    let Some(curl) = installed("curl", "curl") else { return Ok(()) };
    let through = Command::new(curl)
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--cacert"])
        .arg(root)
        .arg(format!("https://localhost:{port}/metrics"))
        .output()?;
    assert_eq!(stdout(&through), "404", "{}", stderr(&through));
    Ok(())
}

#[tokio::test]
async fn caddy_puts_tls_in_front_of_a_broker() -> Result<()> {
    let Some(caddy) = installed("caddy", "caddy") else { return Ok(()) };
    let broker = Builder::new(Database::Sqlite).start().await?;
    let folder = tempfile::tempdir()?;
    let (port, http) = (free_port()?, free_port()?);
    let mut command = Command::new(caddy);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(deploy("Caddyfile"));
    command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path());
    command.env("CLAUDEMESH_HOST", "localhost").env("CLAUDEMESH_TLS", "internal");
    command.env("CLAUDEMESH_HTTPS_PORT", port.to_string()).env("CLAUDEMESH_HTTP_PORT", http.to_string());
    command.env("CLAUDEMESH_BROKER", broker.base().trim_start_matches("http://"));
    let _proxy = listening(command, &["serving initial configuration", "certificate obtained successfully"])?;
    a_team_works_behind(&broker, port, &folder.path().join("caddy/pki/authorities/local/root.crt"))
}

#[tokio::test]
async fn nginx_puts_tls_in_front_of_a_broker() -> Result<()> {
    let (Some(nginx), Some(openssl)) = (installed("nginx", "nginx-light"), installed("openssl", "openssl")) else {
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
        "daemon off; pid {place}/pid; error_log stderr notice; worker_processes 1;\nevents {{}}\nhttp {{\n access_log off;\n\
         client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f; \
         uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n{server}\n}}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, whole)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
    let _proxy = listening(command, &["start worker process "])?;
    a_team_works_behind(&broker, port, &certificate)
}
