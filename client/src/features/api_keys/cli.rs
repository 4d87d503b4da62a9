//! `apikey create`, `list`, `revoke`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use claudemesh_protocol::features::api_keys::{
    ApikeyCreate, ApikeyCreated, ApikeyEntry, ApikeyList, ApikeyRevoke, ApikeyRevokeResponse, KeyCapability,
};
use claudemesh_protocol::time::iso;

use crate::clock::shown;
use crate::context::Context;
use crate::context::connect::in_mesh;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Style, word};
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

verbs! {
    /// Make and revoke API keys: programs reach the mesh over HTTP with one.
    #[command(
        after_help = "Examples:\n  claudemesh apikey create ci --cap send --topic builds --expires 30d\n  \
                      claudemesh apikey list\n  claudemesh apikey revoke cm_1a2b3c4d\n\n\
                      A key acts for you, and never may more than you."
    )]
    pub struct ApikeyArgs: enum ApikeyAction {
        Create => CreateArgs,
        List => ListArgs,
        Revoke => RevokeArgs,
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cap {
    /// Write to topics.
    Send,
    /// Read topics, members and shared things.
    Read,
    /// Write state, memory and tasks.
    #[value(name = "state_write", alias = "state-write")]
    StateWrite,
    /// All that you may.
    Admin,
}

impl From<Cap> for KeyCapability {
    fn from(cap: Cap) -> Self {
        match cap {
            Cap::Send => Self::Send,
            Cap::Read => Self::Read,
            Cap::StateWrite => Self::StateWrite,
            Cap::Admin => Self::Admin,
        }
    }
}

/// Make a key. Its secret is printed once and cannot be read again.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh apikey create ci --cap send --cap read --topic builds\n  \
                        claudemesh apikey create backup --cap read --expires 7d --json=secret")]
pub struct CreateArgs {
    /// What it is for, for lists.
    label: String,
    /// What it may do; once for each [default: read].
    #[arg(long, value_name = "CAP", value_enum)]
    cap: Vec<Cap>,
    /// Confine it to this topic; once for each. Then it reaches nothing else.
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// End it after this time, for example 12h or 30d [default: never].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// Make it for this member; needs canManageKeys [default: you].
    #[arg(long, value_name = "NAME")]
    member: Option<String>,
}

impl Verb for CreateArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ApikeyCreated>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<ApikeyCreated>>()]
    }

    /// Exit 7 for more than you may and when a bound is hit, 5 for a topic or a member that is not there.
    fn run(self, cx: &Context) -> Ran {
        let caps = if self.cap.is_empty() { vec![Cap::Read] } else { self.cap };
        let ends = |time: Duration| {
            iso(crate::clock::now_ms().saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
        };
        let create = ApikeyCreate {
            label: self.label,
            capabilities: caps.into_iter().map(|cap| KeyCapability::from(cap).as_str().to_owned()).collect(),
            topic_scopes: Some(self.topic).filter(|topics| !topics.is_empty()),
            expires_at: self.expires.map(ends),
            member: self.member,
        };
        let (mesh, made) = in_mesh(cx, |connection| async move { connection.request(create).await })?;
        let text = |out: &Output| {
            let label = word(&made.label, out);
            let may = made.capabilities.join(", ");
            let secret = out.paint(Style::Bold, &word(&made.secret, out)).into_owned();
            format!("{} made {label}: {may}\n\n  {secret}\n\nKeep it now: it is not shown again.\n", out.tick())
        };
        cx.out.answer(&InMesh::new(&mesh, &made), text).map(done)
    }
}

/// List your keys; with canManageKeys those of everyone.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh apikey list\n  claudemesh apikey list --json=label,lastUsedAt")]
pub struct ListArgs {}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ApikeyEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<ApikeyEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.request(ApikeyList {}).await })?;
        cx.out
            .answer(&InMesh::all(&mesh, &found.keys), |out| {
                if found.keys.is_empty() {
                    return "no keys; `claudemesh apikey create <label>` makes one\n".into();
                }
                found.keys.iter().map(|key| key_text(key, out)).collect()
            })
            .map(done)
    }
}

fn key_text(key: &ApikeyEntry, out: &Output) -> String {
    let mut details = vec![key.capabilities.join(", ")];
    if let Some(topics) = &key.topic_scopes {
        details.push(format!("only {}", topics.iter().map(|topic| format!("#{topic}")).collect::<Vec<_>>().join(" ")));
    }
    details.extend(key.member_name.as_ref().map(|name| format!("for {name}")));
    details.push(key.last_used_at.as_deref().map_or("never used".into(), |at| format!("used {}", shown(at))));
    details.extend(key.revoked_at.as_deref().map(|at| format!("revoked {}", shown(at))));
    details.extend(key.expires_at.as_deref().map(|at| format!("ends {}", shown(at))));
    let label = out.paint(Style::Cyan, &word(&key.label, out)).into_owned();
    format!("{label}  {}  {}\n", word(&key.prefix, out), word(&details.join(" · "), out))
}

/// Revoke a key: it is refused from now on, and its open streams end.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh apikey revoke cm_1a2b3c4d\n  claudemesh apikey revoke 9f3c")]
pub struct RevokeArgs {
    /// Its prefix or id, or at least the first 4 characters of one.
    id: String,
}

impl Verb for RevokeArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<ApikeyRevokeResponse>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<ApikeyRevokeResponse>>()]
    }

    /// Exit 5 when there is no such key, 3 when several begin so.
    fn run(self, cx: &Context) -> Ran {
        let revoke = ApikeyRevoke { id: self.id.clone() };
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.request(revoke).await })?;
        match found.status.as_str() {
            "revoked" => {
                let text = |out: &Output| format!("{} revoked {}\n", out.tick(), word(&self.id, out));
                cx.out.answer(&InMesh::new(&mesh, &found), text).map(done)
            }
            "not_unique" => {
                let message = format!("{} keys begin so.", found.matches.unwrap_or(2));
                Err(CliError::new(ExitCode::InvalidArgs, "not_unique", message).hint("Write more of it."))
            }
            _ => Err(CliError::not_found("There is no such key.").hint("`claudemesh apikey list` shows the keys.")),
        }
    }
}
