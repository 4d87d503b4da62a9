//! The rule for what comes in: accept, hold or refuse, per sender and mesh. It stands before every route into a session.
//!
//! The host has such a rule of its own for what other sessions post; ours is at least as strict, so that no route goes
//! around it. Default: accept, but hold what other people write to a session that acts without asking (in bypass or auto mode),
//! because there no one stands between a text and a tool.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ConfigStore};
use crate::inbox::{InboxError, MAX_LIST, Message, Verdict};
use crate::session::admit::Intercept;
use crate::session::{JoinedMesh, Session};

pub mod cli;

pub use crate::session::routes::permission_mode::{AUTO, BYPASS};

/// One line of the rule: the first that fits decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// Member or session key of the sender, or at least the first 8 digits of it; absent means everyone. Names are not unique, so
    /// they are no ground for trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Slug of a mesh; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// What happens.
    pub verdict: Verdict,
}

/// `inbound.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// Always 1.
    pub version: u64,
    /// In order.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// For other people's messages to a session without permission prompts.
    #[serde(default = "hold")]
    pub bypass: Verdict,
    /// For other people's messages to a session in auto mode, which acts without asking its user.
    #[serde(default = "hold")]
    pub auto: Verdict,
}

fn hold() -> Verdict {
    Verdict::Hold
}

impl Default for Rules {
    fn default() -> Self {
        Self { version: 1, rules: vec![], bypass: Verdict::Hold, auto: Verdict::Hold }
    }
}

/// Who wrote and who reads.
pub struct Case<'a> {
    /// The sender's session key.
    pub sender_pubkey: &'a str,
    /// The sender's member key.
    pub sender_member: &'a str,
    /// Slug of the mesh.
    pub mesh: &'a str,
    /// Our own member key: own sessions are no strangers.
    pub own_member: &'a str,
    /// The session's permission mode, once it is known.
    pub mode: Option<&'a str>,
}

impl Rules {
    /// Reads the file; without one the default applies.
    ///
    /// # Errors
    /// [`ConfigError`]; the caller must hold everything then, not accept it.
    pub fn load(store: &ConfigStore) -> Result<Self, ConfigError> {
        let path = Self::path(store.dir());
        match store.read(&path, 1 << 20)? {
            None => Ok(Self::default()),
            Some(bytes) => crate::config::parse(&path, &bytes),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn save(&self, store: &ConfigStore) -> Result<(), ConfigError> {
        store.write_json(&Self::path(store.dir()), self)
    }

    fn path(dir: &Path) -> std::path::PathBuf {
        dir.join("inbound.json")
    }

    /// What becomes of a message. A rule that names the sender beats the care for sessions without prompts; one for
    /// everyone does not loosen it.
    pub fn decide(&self, case: &Case<'_>) -> Verdict {
        let fits = |rule: &&Rule| {
            let mesh = rule.mesh.as_ref().is_none_or(|mesh| mesh == case.mesh);
            let from = rule.from.as_ref().is_none_or(|from| {
                from.len() >= 8 && (case.sender_member.starts_with(from) || case.sender_pubkey.starts_with(from))
            });
            mesh && from
        };
        let rule = self.rules.iter().find(fits);
        let verdict = rule.map_or(Verdict::Accept, |rule| rule.verdict);
        let named = rule.is_some_and(|rule| rule.from.is_some());
        if verdict == Verdict::Accept && !named && case.sender_member != case.own_member {
            return self.in_mode(case.mode);
        }
        verdict
    }

    /// What becomes of other people's messages in this permission mode when no rule names their sender.
    pub fn in_mode(&self, mode: Option<&str>) -> Verdict {
        match mode {
            Some(BYPASS) => self.bypass,
            Some(AUTO) => self.auto,
            _ => Verdict::Accept,
        }
    }
}

/// Applies the rules to what has come and was not looked at.
pub struct InboundRule;

impl Intercept for InboundRule {
    async fn intercept(session: &Session, bound: &JoinedMesh) -> Result<(), InboxError> {
        loop {
            let reader = bound.reader();
            let fresh = bound.mailbox.run(move |inbox| inbox.undecided(&reader)).await?;
            if !fresh.is_empty() {
                decide(session, bound, &fresh).await?;
            }
            // What comes meanwhile brings its own look.
            if i64::try_from(fresh.len()).is_ok_and(|count| count < MAX_LIST) {
                return Ok(());
            }
        }
    }
}

async fn decide(session: &Session, bound: &JoinedMesh, fresh: &[Message]) -> Result<(), InboxError> {
    let rules = Rules::load(session.store());
    if let Err(error) = &rules {
        tracing::error!(%error, "the rule for incoming messages cannot be read: everything is held");
    }
    let own_member = bound.connection.identity().member.public().to_hex();
    let mode = session.routes.permission_mode();
    let verdict = |message: &Message| match &rules {
        Ok(rules) => rules.decide(&Case {
            sender_pubkey: &message.sender_pubkey,
            sender_member: &message.sender_member,
            mesh: &bound.tag.slug,
            own_member: &own_member,
            mode: mode.as_deref(),
        }),
        Err(_) => Verdict::Hold,
    };
    let decided: Vec<(i64, Verdict)> = fresh.iter().map(|message| (message.seq, verdict(message))).collect();
    let (reader, now) = (bound.reader(), crate::clock::now_ms());
    bound.mailbox.run(move |inbox| inbox.decide(&reader, &decided, now)).await
}

/// Whether a change of the permission mode may hold more than before.
pub fn is_stricter(before: Option<&str>, now: Option<&str>) -> bool {
    before != now && matches!(now, Some(BYPASS | AUTO))
}

/// The session asks no one any more: what was let through before, and not shown yet, is looked at again.
pub async fn reconsider(session: &Session) {
    for bound in session.meshes() {
        let reader = bound.reader();
        if let Err(error) = bound.mailbox.run(move |inbox| inbox.reconsider(&reader)).await {
            tracing::error!(mesh.slug = bound.tag.slug, %error, "messages that wait keep the verdict of another mode");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let (me, bob) = ("aa".repeat(32), "bb".repeat(32));
        let rule = |from: Option<&str>, mesh: Option<&str>, verdict| Rule {
            from: from.map(str::to_owned),
            mesh: mesh.map(str::to_owned),
            verdict,
        };
        let decide = |rules: Vec<Rule>, sender: &str, bypass: bool| {
            let mode = bypass.then_some(BYPASS);
            let case = Case { sender_pubkey: sender, sender_member: sender, mesh: "team", own_member: &me, mode };
            Rules { rules, ..Rules::default() }.decide(&case)
        };
        assert_eq!(decide(vec![], &bob, false), Verdict::Accept);
        // No one asks before that session acts: other people's texts wait, our own sessions' do not.
        assert_eq!(decide(vec![], &bob, true), Verdict::Hold);
        assert_eq!(decide(vec![], &me, true), Verdict::Accept);
        assert_eq!(decide(vec![rule(None, None, Verdict::Accept)], &bob, true), Verdict::Hold);
        assert_eq!(decide(vec![rule(Some("bbbbbbbb"), None, Verdict::Accept)], &bob, true), Verdict::Accept);
        assert_eq!(decide(vec![rule(None, Some("other"), Verdict::Refuse)], &bob, false), Verdict::Accept);
        let both = vec![rule(Some("bbbbbbbb"), Some("team"), Verdict::Refuse), rule(None, None, Verdict::Accept)];
        assert_eq!(decide(both, &bob, false), Verdict::Refuse);
        // A session in auto mode asks no one either; each mode has a verdict of its own.
        let case = |mode| Case { sender_pubkey: &bob, sender_member: &bob, mesh: "team", own_member: &me, mode };
        let rules = Rules { auto: Verdict::Accept, ..Rules::default() };
        assert_eq!(
            (Rules::default().decide(&case(Some(AUTO))), rules.decide(&case(Some(AUTO)))),
            (Verdict::Hold, Verdict::Accept)
        );
        assert_eq!(
            (rules.decide(&case(Some(BYPASS))), rules.decide(&case(Some("plan")))),
            (Verdict::Hold, Verdict::Accept)
        );
        assert!(
            is_stricter(None, Some(AUTO)) && !is_stricter(Some(AUTO), Some(AUTO)) && !is_stricter(Some(AUTO), None)
        );
        // A file of before has no line for it.
        assert_eq!(serde_json::from_str::<Rules>(r#"{"version": 1}"#).unwrap(), Rules::default());
        // Too short to mean one sender.
        assert_eq!(decide(vec![rule(Some("bb"), None, Verdict::Refuse)], &bob, false), Verdict::Accept);
    }
}
