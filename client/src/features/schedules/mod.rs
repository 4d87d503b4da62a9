//! Messages that are sent later, once or again and again.

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::clock::GetClock;
use claudemesh_protocol::features::messaging::Candidate;
use claudemesh_protocol::features::schedules::{
    CancelScheduled, EditScheduled, ListScheduled, Misfire, PauseScheduled, ResumeScheduled, Schedule, ScheduleClock,
    ScheduledAck, ScheduledEntry,
};
use claudemesh_protocol::id::{PublicKey, ScheduleId};
use claudemesh_protocol::target::{Target, TargetField};
use claudemesh_protocol::time::parse_iso;

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod tools;
pub mod when;

use when::When;

/// What stands for the member itself.
pub const SELF: &str = "self";
/// Entries that are asked for at once.
const PAGE: u32 = 200;

/// What is to be sent, who gets it and when.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// A name, key, `@group`, `#topic`, `*`, or [`SELF`].
    pub to: Option<String>,
    /// The text.
    pub text: String,
    /// When.
    pub when: When,
    /// Time zone of a cron expression; this machine's when `None`.
    pub tz: Option<String>,
    /// Plan for missed times.
    pub misfire: Option<Misfire>,
    /// Clock.
    pub clock: Option<ScheduleClock>,
}

/// Who a scheduled text is for.
struct Address {
    to: TargetField,
    /// The key that it is sealed for; `None`: an audience, which the broker has to reach.
    sealed_for: Option<PublicKey>,
    /// In words.
    shown: String,
    own: bool,
}

/// What was scheduled.
#[derive(Debug)]
pub struct Scheduled {
    /// The broker's word.
    pub ack: ScheduledAck,
    /// Who it is for, in words.
    pub to: String,
}

/// What of an entry is to be changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Other targets, with the text anew.
    pub to: Option<String>,
    /// Another text.
    pub text: Option<String>,
    /// Another time.
    pub when: Option<When>,
    /// Another time zone.
    pub tz: Option<String>,
    /// Another plan for missed times.
    pub misfire: Option<Misfire>,
    /// Another clock.
    pub clock: Option<ScheduleClock>,
}

impl Connection {
    /// Schedules a text: sealed for one recipient or for the member itself, readable for an audience.
    ///
    /// # Errors
    /// What the broker says, above all `invalid_cron`; or of the transport.
    pub async fn schedule(&self, order: Order) -> Result<Scheduled, ConnectionError> {
        let address = self.address(order.to.as_deref()).await?;
        let (message, nonce, ciphertext) = self.body(&address, &order.text)?;
        let clock = order.clock.unwrap_or_default();
        let (deliver_at, cron) = self.time(order.when, clock).await?;
        let ack = self
            .request(Schedule {
                to: address.to,
                message,
                deliver_at: Some(deliver_at),
                subtype: address.own.then(|| "reminder".to_owned()),
                recurring: cron.is_some().then_some(true),
                tz: order.tz.or_else(|| cron.as_ref().and_then(|_| when::own_zone())),
                cron,
                misfire: order.misfire,
                clock: order.clock,
                nonce,
                ciphertext,
            })
            .await?;
        Ok(Scheduled { ack, to: address.shown })
    }

    /// The entries of this member, or of all with `everyone`, with their texts opened as far as its key opens them.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn scheduled(&self, filter: ListScheduled, most: usize) -> Result<Vec<ScheduledEntry>, ConnectionError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.request(ListScheduled { cursor, limit: Some(PAGE), ..filter.clone() }).await?;
            all.extend(page.messages.into_iter().map(|entry| self.opened(entry)));
            cursor = page.next;
            if cursor.is_none() || all.len() >= most {
                all.truncate(most);
                return Ok(all);
            }
        }
    }

    /// Ends an entry; answers its whole id.
    ///
    /// # Errors
    /// `not_found` when there is none that could be ended, what the broker says, or of the transport.
    pub async fn cancel_scheduled(&self, id: &str) -> Result<ScheduleId, ConnectionError> {
        let done = self.request(CancelScheduled { scheduled_id: id.into() }).await?;
        if done.ok {
            return Ok(done.scheduled_id);
        }
        let message = format!("no entry of yours that waits begins with `{}`", crate::output::clean(id));
        Err(ErrorFrame::new(ErrorCode::NotFound, message).into())
    }

    /// Lets an entry wait.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn pause_scheduled(&self, id: &str) -> Result<ScheduledEntry, ConnectionError> {
        Ok(self.opened(self.request(PauseScheduled { scheduled_id: id.into() }).await?.entry))
    }

    /// Lets a paused entry go on.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn resume_scheduled(&self, id: &str) -> Result<ScheduledEntry, ConnectionError> {
        Ok(self.opened(self.request(ResumeScheduled { scheduled_id: id.into() }).await?.entry))
    }

    /// Changes an entry.
    ///
    /// # Errors
    /// What the broker says, or of the transport; `not_found` when there is no such entry.
    pub async fn edit_scheduled(&self, id: &str, changes: Changes) -> Result<ScheduledEntry, ConnectionError> {
        // A text is sealed for its recipient: with one of the two changed, the other has to be known.
        let needs_entry = changes.to.is_some() || changes.text.is_some() || changes.when.is_some();
        let before = if needs_entry { Some(self.entry(id).await?) } else { None };
        let mut edit = EditScheduled {
            scheduled_id: before.as_ref().map_or_else(|| id.into(), |entry| entry.id.clone()),
            tz: changes.tz,
            misfire: changes.misfire,
            clock: changes.clock,
            expected_version: before.as_ref().map(|entry| entry.version),
            ..EditScheduled::default()
        };
        if let Some(entry) = &before {
            if changes.to.is_some() || changes.text.is_some() {
                let address = match &changes.to {
                    Some(to) => self.address(Some(to)).await?,
                    None => Self::address_of(entry),
                };
                let text = match changes.text {
                    Some(text) => text,
                    None if entry.ciphertext.is_some() && entry.message.is_empty() => {
                        let message = "the text of this entry cannot be opened here; give it again";
                        return Err(ErrorFrame::new(ErrorCode::Invalid, message).into());
                    }
                    None => entry.message.clone(),
                };
                (edit.message, edit.nonce, edit.ciphertext) = self.body(&address, &text)?;
                edit.to = changes.to.is_some().then_some(address.to);
            }
            if let Some(when) = changes.when {
                let (deliver_at, cron) = self.time(when, changes.clock.unwrap_or(entry.clock)).await?;
                edit.deliver_at = cron.is_none().then_some(deliver_at);
                if cron.is_some() && edit.tz.is_none() && entry.cron.is_none() {
                    edit.tz = when::own_zone();
                }
                edit.cron = cron;
            }
        }
        Ok(self.opened(self.request(edit).await?.entry))
    }

    /// The entry of this member that an id or its beginning names.
    async fn entry(&self, id: &str) -> Result<ScheduledEntry, ConnectionError> {
        let all = self.scheduled(ListScheduled::default(), usize::MAX).await?;
        let mut found: Vec<ScheduledEntry> =
            all.into_iter().filter(|entry| id.len() >= 8 && entry.id.as_str().starts_with(id)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(entry), true) => Ok(entry),
            (Some(_), false) => {
                Err(ErrorFrame::new(ErrorCode::AmbiguousPrefix, "several entries begin so; give more of the id").into())
            }
            (None, _) => {
                let message = format!("no entry of yours begins with `{}`", crate::output::clean(id));
                Err(ErrorFrame::new(ErrorCode::NotFound, message).into())
            }
        }
    }

    /// Who a target means at the time of the message: a session that is here now may be gone by then, so its member is meant. On a
    /// mesh of this machine all sessions are one member, and there the session is.
    async fn address(&self, to: Option<&str>) -> Result<Address, ConnectionError> {
        let own = self.identity().member.public();
        let to = to.map(str::trim).unwrap_or(SELF);
        let of_key = |key: PublicKey, shown: String| Address {
            to: key.to_hex().into(),
            sealed_for: Some(key),
            shown,
            own: key == own,
        };
        if to.eq_ignore_ascii_case(SELF) {
            return Ok(of_key(own, SELF.into()));
        }
        let parsed =
            Target::parse(to).map_err(|error| ErrorFrame::new(ErrorCode::InvalidArgs, format!("'{to}': {error}")))?;
        if !parsed.is_direct() {
            return Ok(Address { to: to.into(), sealed_for: None, shown: to.into(), own: false });
        }
        let (key, found) = self.recipient(to, true).await?;
        let key = match &found {
            Some(found) if found.member_pubkey != own => found.member_pubkey,
            _ => key,
        };
        let shown = match &found {
            _ if key == own => SELF.into(),
            Some(found) => member_name(found),
            None => key.short(),
        };
        Ok(of_key(key, shown))
    }

    /// Who an entry is for.
    fn address_of(entry: &ScheduledEntry) -> Address {
        let sealed_for = match entry.to.parts() {
            [only] if entry.ciphertext.is_some() => PublicKey::parse(only),
            _ => None,
        };
        Address { to: entry.to.clone(), sealed_for, shown: String::new(), own: false }
    }

    /// `message`, `nonce`, `ciphertext`. The member sends it, so the member's key seals it.
    #[expect(clippy::type_complexity, reason = "three fields of a frame")]
    fn body(
        &self,
        address: &Address,
        text: &str,
    ) -> Result<(Option<String>, Option<String>, Option<String>), ConnectionError> {
        let Some(key) = &address.sealed_for else { return Ok((Some(text.to_owned()), None, None)) };
        let sealed = envelope::seal_direct(text, key, &self.identity().member, &mut rand::rngs::OsRng)?;
        Ok((None, Some(sealed.nonce), Some(sealed.ciphertext)))
    }

    /// `deliverAt` and `cron`. A wait is counted from what the entry's clock shows.
    async fn time(&self, when: When, clock: ScheduleClock) -> Result<(i64, Option<String>), ConnectionError> {
        Ok(match when {
            When::At(at_ms) => (at_ms, None),
            When::Cron(cron) => (0, Some(cron)),
            When::In(wait) => {
                let now_ms = match clock {
                    ScheduleClock::Wall => crate::clock::now_ms(),
                    ScheduleClock::Mesh => {
                        let clock = self.request(GetClock {}).await?;
                        parse_iso(&clock.sim_time).unwrap_or_else(crate::clock::now_ms)
                    }
                };
                (now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)), None)
            }
        })
    }

    /// The entry with its text, when this member's key opens it.
    fn opened(&self, mut entry: ScheduledEntry) -> ScheduledEntry {
        if let (Some(nonce), Some(ciphertext), [to]) = (&entry.nonce, &entry.ciphertext, entry.to.parts())
            && let Some(key) = PublicKey::parse(to)
            && let Ok(text) = envelope::open_direct(nonce, ciphertext, &key, &self.identity().member)
        {
            entry.message = text;
        }
        entry
    }
}

/// The member behind a candidate, in words.
fn member_name(found: &Candidate) -> String {
    found.member_name.clone().unwrap_or_else(|| found.name.clone())
}

/// The beginning of an id, as lists show it.
fn short(id: &ScheduleId) -> String {
    id.as_str().chars().take(8).collect()
}

/// Who an entry is for, in words: `self`, the beginning of a key, or what stands there.
fn target_words(entry: &ScheduledEntry, own: &PublicKey) -> String {
    let word = |part: &String| match PublicKey::parse(part) {
        Some(key) if key == *own => SELF.to_owned(),
        Some(key) => key.short(),
        None => part.clone(),
    };
    entry.to.parts().iter().map(word).collect::<Vec<_>>().join(", ")
}
