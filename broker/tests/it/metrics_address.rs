//! `--metrics-listen`: an address of their own for the numbers, and for nothing else.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result};
use claudemesh_testkit::enrol;
use claudemesh_testkit::process::BrokerProcess;

#[test]
fn the_metrics_address_answers_everyone_and_has_nothing_but_metrics_and_health() -> Result<()> {
    let data = tempfile::tempdir()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let binary = Path::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
    let broker = BrokerProcess::start(binary, data.path(), &["--metrics-listen", &address])?;
    let (numbers, usual) = (format!("http://{address}"), broker.base());
    // Every request comes as a proxy would pass it on: for someone who is not on this machine.
    let ask = |base: &str, path: &str| enrol::request("GET", base, path, b"", None, &[("x-forwarded-for", "10.0.0.9")]);
    for (base, path, status) in [
        (&numbers, "/metrics", 200),
        (&numbers, "/health", 200),
        (&numbers, "/health/ready", 200),
        (&numbers, "/ws", 404),
        (&numbers, "/i/ABCDEF23", 404),
        (&numbers, "/mesh/m/members", 404),
        (&usual, "/metrics", 403),
        (&usual, "/health", 200),
    ] {
        let answer = ask(base, path).with_context(|| format!("{base}{path}"))?;
        assert_eq!(answer.status, status, "{base}{path}: {}", answer.body);
    }
    assert_eq!(enrol::get(&usual, "/metrics", None)?.status, 200, "a process of this machine asks for itself");
    Ok(())
}
