//! Who a file is for: the targets as the broker takes them, and the members whose keys open it.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::target::Target;

use crate::connection::{Connection, ConnectionError};

/// The readers of a file at the time of sharing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Targets: keys of members, `@group`, `*`.
    pub targets: Vec<String>,
    /// Keys of the members that are meant now, each once.
    pub members: Vec<PublicKey>,
    /// Those of the targets that others may join later: `@group` and `*`.
    pub audiences: Vec<String>,
    /// Every target is a session on the host with this name.
    pub one_host: Option<String>,
}

impl Connection {
    /// The readers that targets mean; everyone without one.
    ///
    /// # Errors
    /// `unknown_target`, `ambiguous_target` with candidates, `invalid` for a topic, or of the transport.
    pub async fn readers_of(&self, targets: &[String]) -> Result<Readers, ConnectionError> {
        let mut readers = Readers::default();
        let mut hosts: Vec<Option<String>> = Vec::new();
        let everyone = ["*".to_owned()];
        for target in if targets.is_empty() { &everyone } else { targets } {
            let parsed = Target::parse(target)
                .map_err(|error| ErrorFrame::new(ErrorCode::InvalidArgs, format!("'{target}': {error}")))?;
            match parsed {
                Target::Everyone => {
                    let members = self.list_members().await?.into_iter().map(|member| member.pubkey).collect();
                    readers.audience("*".into(), members);
                    hosts.push(None);
                }
                Target::Group(name) => {
                    let below = format!("{name}/");
                    let groups = self.list_groups().await?;
                    let meant = groups.into_iter().filter(|group| group.name == name || group.name.starts_with(&below));
                    let members = meant.flat_map(|group| group.members).map(|member| member.member_pubkey).collect();
                    readers.audience(format!("@{name}"), members);
                    hosts.push(None);
                }
                Target::Topic(_) => {
                    let message = format!("'{target}' is a topic; a file is for peers, groups or everyone");
                    return Err(ErrorFrame::new(ErrorCode::Invalid, message).into());
                }
                Target::Key(_) | Target::Name(_) => {
                    let found = self.resolve_target(target).await?;
                    hosts.push(found.hostname.filter(|_| found.kind == "session"));
                    readers.targets.push(found.member_pubkey.to_hex());
                    readers.add(found.member_pubkey);
                }
            }
        }
        let first = hosts.first().cloned().flatten();
        readers.one_host = first.filter(|first| hosts.iter().all(|host| host.as_ref() == Some(first)));
        Ok(readers)
    }
}

impl Readers {
    fn audience(&mut self, target: String, members: Vec<PublicKey>) {
        self.targets.push(target.clone());
        self.audiences.push(target);
        members.into_iter().for_each(|key| self.add(key));
    }

    fn add(&mut self, key: PublicKey) {
        if !self.members.contains(&key) {
            self.members.push(key);
        }
    }
}
