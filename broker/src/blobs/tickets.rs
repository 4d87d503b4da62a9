//! Tickets: what a URL carries so that its bearer may transfer one file, for a while.
//!
//! A ticket is signed with a key that lives as long as the broker runs; nothing of it is stored. After a restart a client asks for
//! a new URL.

use std::fmt;

use claudemesh_protocol::crypto::keys::{self, SecretKey};
use claudemesh_protocol::id::{FileId, MemberId, MeshId};

/// What a ticket is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Writing the bytes of one upload.
    Upload,
    /// Reading one file.
    Download,
}

/// What a ticket is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What may be done.
    pub purpose: Purpose,
    /// In which mesh.
    pub mesh: &'a MeshId,
    /// With which file.
    pub file: &'a FileId,
}

/// Issues tickets and checks them.
pub struct Tickets {
    key: SecretKey,
}

impl Default for Tickets {
    fn default() -> Self {
        Self { key: SecretKey::random(&mut rand::rngs::OsRng) }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Tickets")
    }
}

impl Tickets {
    /// A ticket for a member, until a time (Unix milliseconds).
    pub fn issue(&self, about: Subject<'_>, member: &MemberId, until_ms: i64) -> String {
        format!("{until_ms}.{member}.{}", self.key.sign(text(about, member.as_str(), until_ms).as_bytes()))
    }

    /// Whose ticket it is; `None` when it is no ticket for this, or its time is over.
    pub fn check(&self, about: Subject<'_>, ticket: &str, now_ms: i64) -> Option<MemberId> {
        let mut parts = ticket.splitn(3, '.');
        let (until_ms, member, signature) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        if until_ms < now_ms {
            return None;
        }
        let signed = text(about, member, until_ms);
        keys::verify(&self.key.public(), signed.as_bytes(), signature).ok()?;
        Some(member.into())
    }
}

fn text(about: Subject<'_>, member: &str, until_ms: i64) -> String {
    let purpose = match about.purpose {
        Purpose::Upload => "upload",
        Purpose::Download => "download",
    };
    format!("claudemesh-ticket|{purpose}|{}|{}|{member}|{until_ms}", about.mesh, about.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_for_one_thing_and_one_member_and_ends() {
        let tickets = Tickets::default();
        let (mesh, file, ada) = (MeshId::from("mesh"), FileId::from("file"), MemberId::from("ada"));
        let about = Subject { purpose: Purpose::Upload, mesh: &mesh, file: &file };
        let ticket = tickets.issue(about, &ada, 1_000);
        assert_eq!(tickets.check(about, &ticket, 1_000), Some(ada));
        assert_eq!(tickets.check(about, &ticket, 1_001), None, "its time is over");
        let (other_mesh, other_file) = (MeshId::from("other"), FileId::from("other"));
        for about in [
            Subject { purpose: Purpose::Download, ..about },
            Subject { mesh: &other_mesh, ..about },
            Subject { file: &other_file, ..about },
        ] {
            assert_eq!(tickets.check(about, &ticket, 0), None, "{about:?}");
        }
        let changed = [ticket.replacen("1000", "2000", 1), ticket.replacen("ada", "bob", 1), format!("{ticket}0")];
        for bad in changed.iter().map(String::as_str).chain(["", ".", "..", "1000.ada", "x.ada.00"]) {
            assert_eq!(tickets.check(about, bad, 0), None, "{bad}");
        }
        assert_eq!(Tickets::default().check(about, &ticket, 0), None, "another broker's");
    }
}
