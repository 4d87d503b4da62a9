//! At which commit a branch is: asked of the repository itself, over HTTP, under the rules of egress.

use claudemesh_protocol::runner::{FailCode, Failure};

use super::egress::Rules;

fn failure(message: impl Into<String>) -> Failure {
    Failure { code: FailCode::InstallFailed, message: message.into() }
}

/// The commit in a repository's list of what it has (the answer of `info/refs`): of a branch or a tag, or of the default branch when
/// `branch` is empty.
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "only with an HTTP client"))]
fn commit_in(list: &[u8], branch: &str) -> Option<String> {
    let (mut rest, mut found) = (list, None::<(u8, String)>);
    let wanted: Vec<(u8, String)> = match branch {
        "" => vec![(0, "HEAD".into())],
        branch => vec![
            (0, format!("refs/heads/{branch}")),
            // A tag with a text of its own names the commit behind it by this.
            (1, format!("refs/tags/{branch}^{{}}")),
            (2, format!("refs/tags/{branch}")),
        ],
    };
    while let Some((length, after)) = rest.split_at_checked(4) {
        let bytes = usize::from_str_radix(std::str::from_utf8(length).ok()?, 16).ok()?;
        if bytes < 4 {
            rest = after;
            continue;
        }
        let (line, next) = after.split_at_checked(bytes - 4)?;
        rest = next;
        let text = String::from_utf8_lossy(line);
        let text = text.split('\0').next().unwrap_or_default().trim_end();
        let Some((commit, name)) = text.split_once(' ') else { continue };
        let is_commit = matches!(commit.len(), 40 | 64) && commit.bytes().all(|digit| digit.is_ascii_hexdigit());
        if let Some((rank, _)) = wanted.iter().find(|(_, wanted)| wanted == name).filter(|_| is_commit)
            && found.as_ref().is_none_or(|(best, _)| rank < best)
        {
            found = Some((*rank, commit.to_owned()));
        }
    }
    found.map(|(_, commit)| commit)
}

/// Asks a repository.
#[cfg(feature = "s3")]
pub(super) async fn resolve(url: &str, branch: &str, private: &Rules) -> Result<String, Failure> {
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    /// Bytes of a list: a repository with a hundred thousand branches.
    const MAX_LIST_BYTES: usize = 16 << 20;

    /// Resolves names to addresses that may be reached.
    struct Public {
        private: Rules,
        port: u16,
    }

    impl reqwest::dns::Resolve for Public {
        fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
            let (host, port, private) = (name.as_str().to_owned(), self.port, self.private.clone());
            Box::pin(async move {
                let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
                let fits = |at: &SocketAddr| super::egress::is_public(at.ip()) || private.permit(&host, port);
                let found: Vec<SocketAddr> = found.filter(fits).collect();
                if found.is_empty() {
                    return Err("the host has no public address".into());
                }
                let addresses: reqwest::dns::Addrs = Box::new(found.into_iter());
                Ok(addresses)
            })
        }
    }

    let parsed = reqwest::Url::parse(url).map_err(|_| failure("the address of the repository is no URL"))?;
    let port = parsed.port_or_known_default().unwrap_or(443);
    let host = parsed.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok_and(|address| !super::egress::is_public(address)) && !private.permit(host, port) {
        return Err(failure(
            "the repository has a private address; the operator can allow it in `services.allow_private`",
        ));
    }
    // One that is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .dns_resolver(Arc::new(Public { private: private.clone(), port }))
        .build()
        .map_err(|error| failure(format!("the repository cannot be asked: {error}")))?;
    let list = format!("{}/info/refs?service=git-upload-pack", url.trim_end_matches('/'));
    let unreachable = |error: reqwest::Error| failure(format!("the repository cannot be reached: {error}"));
    let mut answer = client.get(list).send().await.map_err(unreachable)?;
    if !answer.status().is_success() {
        return Err(failure(format!("the repository answers {}", answer.status())));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(unreachable)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_LIST_BYTES {
            return Err(failure("the repository has too many branches"));
        }
    }
    commit_in(&bytes, branch).ok_or_else(|| match branch {
        "" => failure("the repository has no commit"),
        branch => failure(format!("the repository has no branch or tag \"{branch}\"")),
    })
}

/// A build without HTTP client cannot ask.
#[cfg(not(feature = "s3"))]
#[allow(clippy::unused_async, reason = "as the other one")]
pub(super) async fn resolve(_: &str, _: &str, _: &Rules) -> Result<String, Failure> {
    Err(failure("this broker cannot look up branches: name the commit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_of_a_branch_is_found_in_the_list() {
        let line = |text: String| format!("{:04x}{text}\n", text.len() + 5);
        let of = |digit: &str| digit.repeat(40);
        let list = [
            line("# service=git-upload-pack".into()),
            "0000".into(),
            line(format!("{} HEAD\0multi_ack symref=HEAD:refs/heads/main", of("a"))),
            line(format!("{} refs/heads/main", of("a"))),
            line(format!("{} refs/heads/next", of("b"))),
            line(format!("{} refs/tags/v1", of("c"))),
            line(format!("{} refs/tags/v1^{{}}", of("d"))),
            line(format!("{} refs/tags/v2", of("e"))),
            "0000".into(),
        ]
        .concat();
        for (branch, commit) in [
            ("", Some("a")),
            ("main", Some("a")),
            ("next", Some("b")),
            ("v1", Some("d")),
            ("v2", Some("e")),
            ("none", None),
        ] {
            assert_eq!(commit_in(list.as_bytes(), branch), commit.map(of), "{branch}");
        }
        assert_eq!(commit_in(b"<html>", ""), None);
        assert_eq!(commit_in(b"ffff", ""), None);
    }
}
