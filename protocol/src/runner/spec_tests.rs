use super::*;

fn command(command: &str) -> Source {
    Source::Command { command: command.into() }
}

fn field(change: impl FnOnce(&mut ServiceSpec)) -> Option<String> {
    let mut spec = ServiceSpec::new("s-1", "time", "m", command("python3"));
    change(&mut spec);
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ServiceSpec>(&text).unwrap(), spec);
    spec.check().err().map(|error| error.field)
}

fn source(source: Source) -> Option<String> {
    field(|spec| spec.source = source)
}

fn npm(package: &str) -> Option<String> {
    source(Source::Npm { package: package.into(), bin: None })
}

#[test]
fn sources_are_names_and_never_options_or_paths() {
    for good in ["server", "@modelcontextprotocol/server-everything@2026.8.31", "a@^1.2.3", "a@latest"] {
        assert_eq!(npm(good), None, "{good}");
    }
    for bad in [
        "",
        "-g",
        "--prefix",
        "../x",
        "/etc",
        "git+ssh://x",
        "user/repo",
        "a@../x",
        "@a",
        "@/a",
        "@a/b/c",
        "a b",
        "a;b",
        "$(x)",
        "file:x",
        "a\nb",
    ] {
        assert_eq!(npm(bad).as_deref(), Some("source.package"), "{bad}");
    }
    let pypi = |package: &str| source(Source::Pypi { package: package.into(), bin: None });
    assert_eq!((pypi("mcp-server-time"), pypi("mcp[cli]==2.3.0")), (None, None));
    for bad in ["-r", "@x", "a @ https://x", "./x", "a;b"] {
        assert_eq!(pypi(bad).as_deref(), Some("source.package"), "{bad}");
    }
    let git = |url: &str, commit: &str| source(Source::Git { url: url.into(), commit: commit.into(), auth: None });
    let commit = "0123456789012345678901234567890123456789";
    assert_eq!(git("https://host/x.git", commit), None);
    for bad in
        ["ext::sh -c x", "file:///etc", "-uX", "https://", "https://user:pw@host/x", "https://-x", "https://h/a b"]
    {
        assert_eq!(git(bad, commit).as_deref(), Some("source.url"), "{bad}");
    }
    assert_eq!(git("https://host/x", "main").as_deref(), Some("source.commit"));
    assert_eq!(source(command("-x")).as_deref(), Some("source.command"));
    let bin = Source::Npm { package: "a".into(), bin: Some("../x".into()) };
    assert_eq!(source(bin).as_deref(), Some("source.bin"));
    assert_eq!(
        source(Source::Zip { sha256: "00".repeat(32), bytes: MAX_BUNDLE_BYTES + 1 }).as_deref(),
        Some("source.bytes")
    );
}

#[test]
fn ids_variables_and_paths_stay_where_they_belong() {
    for bad in ["", "A", "../x", "-x", "a/b", "a.b"] {
        assert_eq!(field(|spec| spec.id = bad.into()).as_deref(), Some("id"), "{bad}");
    }
    for bad in [
        "PATH",
        "LD_PRELOAD",
        "https_proxy",
        "HTTP_PROXY",
        "NODE_OPTIONS",
        "1A",
        "A B",
        "",
        "A=B",
        "CLAUDEMESH_RUNNER_KEY",
    ] {
        let env = vec![EnvVar { name: bad.into(), value: Text::Plain("x".into()) }];
        assert_eq!(field(|spec| spec.env = env), Some(format!("env.{bad}")));
    }
    for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", ".", "a\\b", "a\0"] {
        let files = vec![SecretFile { path: bad.into(), value: Text::Sealed("x".into()) }];
        assert_eq!(field(|spec| spec.files = files), Some(format!("files.{bad}")));
    }
    assert_eq!(field(|spec| spec.args = vec!["a\0".into()]).as_deref(), Some("args"));
    assert_eq!(format!("{:?}", Text::Plain("secret".into())), "Plain(…)");
}
