//! What this member sent from this machine: the other half of every conversation. Read by `sent`, `history` and `export`, and by lists
//! that say which question an answer is for.

use std::path::PathBuf;

use claudemesh_protocol::id::MeshId;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;

use super::schema::{hidden_keys, messages, sent};
use super::{Inbox, InboxError, MAX_LIST, Mailbox, Message};

/// A message that the broker accepted.
#[derive(Clone, Debug, PartialEq, Eq, Insertable)]
#[diesel(table_name = sent)]
pub struct NewSent {
    /// The broker's id.
    pub message_id: String,
    /// What was addressed: a key in hex, `@group`, `#topic`, `*`; several are joined by commas.
    pub target: String,
    /// Name of the one recipient.
    pub to_name: Option<String>,
    /// Key of the one recipient: session key, else member key.
    pub to_pubkey: Option<String>,
    /// Member key of the one recipient, when it is known.
    pub to_member: Option<String>,
    /// Key that it was sent with.
    pub from_pubkey: String,
    /// `now`, `next` or `low`.
    pub priority: String,
    /// `question`, `reply` or `decline`.
    pub subtype: Option<String>,
    /// Id of the message that it answers.
    pub reply_to_id: Option<String>,
    /// The text.
    pub body: String,
    /// Unix ms, by this machine's clock.
    pub sent_at_ms: i64,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = sent, check_for_backend(diesel::sqlite::Sqlite))]
pub struct Sent {
    /// Local order.
    pub seq: i64,
    /// As in [`NewSent`].
    pub message_id: String,
    /// As in [`NewSent`].
    pub target: String,
    /// As in [`NewSent`].
    pub to_name: Option<String>,
    /// As in [`NewSent`].
    pub to_pubkey: Option<String>,
    /// As in [`NewSent`].
    pub from_pubkey: String,
    /// As in [`NewSent`].
    pub priority: String,
    /// As in [`NewSent`].
    pub subtype: Option<String>,
    /// As in [`NewSent`].
    pub reply_to_id: Option<String>,
    /// As in [`NewSent`].
    pub body: String,
    /// As in [`NewSent`].
    pub sent_at_ms: i64,
}

/// Where a connection notes what it sent: an open inbox, or one that is opened when there is something to note.
#[derive(Clone)]
pub enum SentBook {
    /// This one.
    Open(Mailbox),
    /// The one of this mesh below the config folder.
    At(PathBuf, MeshId),
}

impl SentBook {
    /// Notes a message.
    ///
    /// # Errors
    /// [`InboxError`]
    pub async fn note(&self, row: NewSent) -> Result<(), InboxError> {
        let mailbox = match self {
            Self::Open(mailbox) => mailbox.clone(),
            Self::At(dir, mesh) => Mailbox::open(dir, mesh).await?,
        };
        mailbox.run(move |inbox| inbox.note_sent(&row)).await
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// It was received.
    In(Box<Message>),
    /// It was sent.
    Out(Box<Sent>),
}

impl Letter {
    /// The broker's id.
    pub fn message_id(&self) -> &str {
        match self {
            Self::In(message) => &message.message_id,
            Self::Out(sent) => &sent.message_id,
        }
    }

    /// Unix ms of its arrival or sending, by this machine's clock: the one order in which both halves can be put.
    pub fn at_ms(&self) -> i64 {
        match self {
            Self::In(message) => message.received_at_ms,
            Self::Out(sent) => sent.sent_at_ms,
        }
    }

    fn order(&self) -> (i64, u8, i64) {
        match self {
            Self::In(message) => (message.received_at_ms, 0, message.seq),
            Self::Out(sent) => (sent.sent_at_ms, 1, sent.seq),
        }
    }
}

/// Which letters are meant.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The other side: keys of sessions and members, or the name of an audience. `None`: with everyone.
    pub with: Option<With>,
    /// Only what was received by this reader and sent with its key: the shell of a session sees no other mail.
    pub reader: Option<String>,
    /// Only what was sent.
    pub sent_only: bool,
    /// Only what is older than the message with this id.
    pub before: Option<String>,
    /// At most this many, the newest.
    pub limit: i64,
}

/// Who a conversation is with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum With {
    /// Keys of sessions and members.
    Keys(Vec<String>),
    /// `@group`, `#topic` or `*`.
    Audience(String),
}

/// Someone who wrote, or was written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Name at that time.
    pub name: String,
    /// Session key, else member key.
    pub pubkey: String,
    /// Member key, when it is known.
    pub member: Option<String>,
}

/// Messages that are read at once beyond the wanted ones: those of the same millisecond as the one where a page begins.
const TIES: i64 = 64;

impl Inbox {
    /// Notes what was sent. A retry of the same message changes nothing.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn note_sent(&mut self, row: &NewSent) -> Result<(), InboxError> {
        diesel::insert_or_ignore_into(sent::table).values(row).execute(&mut self.db)?;
        Ok(())
    }

    /// The text of a message that was sent or received, by its whole id.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn text_of(&mut self, message_id: &str) -> Result<Option<String>, InboxError> {
        let ours = sent::table.filter(sent::message_id.eq(message_id)).select(sent::body).first(&mut self.db);
        if let Some(text) = ours.optional()? {
            return Ok(Some(text));
        }
        let theirs = messages::table.filter(messages::message_id.eq(message_id)).select(messages::body);
        Ok(theirs.first::<Option<String>>(&mut self.db).optional()?.flatten())
    }

    /// Letters, oldest first: the newest that are wanted. Empty when `before` names none.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn letters(&mut self, wanted: &Wanted) -> Result<Vec<Letter>, InboxError> {
        let limit = wanted.limit.clamp(1, MAX_LIST);
        let edge = match &wanted.before {
            None => None,
            Some(id) => match self.letter(id)? {
                Some(letter) => Some(letter.order()),
                None => return Ok(vec![]),
            },
        };
        let hidden = hidden(&mut self.db)?;
        let mut all: Vec<Letter> = sent_letters(&mut self.db, wanted, &hidden, edge.map(|edge| edge.0), limit)?;
        if !wanted.sent_only {
            all.extend(received_letters(&mut self.db, wanted, &hidden, edge.map(|edge| edge.0), limit)?);
        }
        all.retain(|letter| edge.is_none_or(|edge| letter.order() < edge));
        all.sort_unstable_by_key(Letter::order);
        let surplus = all.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        Ok(all.split_off(surplus))
    }

    /// The letter with this id, or the only one whose id starts with this prefix of at least 8 characters.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn letter(&mut self, id: &str) -> Result<Option<Letter>, InboxError> {
        if let Some(message) = self.find(id)? {
            return Ok(Some(Letter::In(Box::new(message))));
        }
        if id.len() < 8 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Ok(None);
        }
        let mut found: Vec<Sent> = sent::table
            .filter(sent::message_id.like(format!("{id}%")))
            .limit(2)
            .select(Sent::as_select())
            .load(&mut self.db)?;
        Ok(if found.len() == 1 { found.pop().map(|one| Letter::Out(Box::new(one))) } else { None })
    }

    /// Everyone who wrote or was written to, with each name that they had.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn known_peers(&mut self) -> Result<Vec<Known>, InboxError> {
        let hidden = hidden(&mut self.db)?;
        let wrote: Vec<(Option<String>, String, String)> = messages::table
            .filter(messages::sender_pubkey.ne_all(&hidden))
            .select((messages::sender_name, messages::sender_pubkey, messages::sender_member))
            .distinct()
            .limit(MAX_LIST)
            .load(&mut self.db)?;
        let read: Vec<(Option<String>, Option<String>, Option<String>)> = sent::table
            .filter(sent::to_pubkey.is_not_null())
            .select((sent::to_name, sent::to_pubkey, sent::to_member))
            .distinct()
            .limit(MAX_LIST)
            .load(&mut self.db)?;
        let mut all: Vec<Known> = vec![];
        let mut add = |name: Option<String>, pubkey: String, member: Option<String>| {
            let one = Known { name: name.unwrap_or_default(), pubkey, member };
            if !hidden.contains(&one.pubkey) && !all.contains(&one) {
                all.push(one);
            }
        };
        for (name, pubkey, member) in wrote {
            add(name, pubkey, Some(member));
        }
        for (name, pubkey, member) in read {
            add(name, pubkey.unwrap_or_default(), member);
        }
        Ok(all)
    }

    /// Hides the messages of a session of the doctor, which has this key. One that died is forgotten on the way.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn hide(&mut self, pubkey: &str, now_ms: i64) -> Result<(), InboxError> {
        const RUNS_AT_MOST_MS: i64 = 3_600_000;
        let old: Vec<String> = hidden_keys::table
            .filter(hidden_keys::since_ms.lt(now_ms.saturating_sub(RUNS_AT_MOST_MS)))
            .select(hidden_keys::pubkey)
            .load(&mut self.db)?;
        for key in old {
            self.forget_hidden(&key)?;
        }
        let row = (hidden_keys::pubkey.eq(pubkey), hidden_keys::since_ms.eq(now_ms));
        diesel::insert_or_ignore_into(hidden_keys::table).values(row).execute(&mut self.db)?;
        Ok(())
    }

    /// Removes the messages of a hidden key, and the key.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is removed then.
    pub fn forget_hidden(&mut self, pubkey: &str) -> Result<(), InboxError> {
        self.db.immediate_transaction(|db| {
            let to_it =
                messages::recipient_pubkey.is_not_null().and(messages::recipient_pubkey.assume_not_null().eq(pubkey));
            diesel::delete(messages::table.filter(messages::sender_pubkey.eq(pubkey).or(to_it))).execute(db)?;
            let to_it = sent::to_pubkey.is_not_null().and(sent::to_pubkey.assume_not_null().eq(pubkey));
            diesel::delete(sent::table.filter(sent::from_pubkey.eq(pubkey).or(to_it))).execute(db)?;
            diesel::delete(hidden_keys::table.filter(hidden_keys::pubkey.eq(pubkey))).execute(db)?;
            QueryResult::Ok(())
        })?;
        Ok(())
    }
}

/// Keys whose messages no list shows.
pub(super) fn hidden(db: &mut SqliteConnection) -> QueryResult<Vec<String>> {
    hidden_keys::table.select(hidden_keys::pubkey).limit(MAX_LIST).load(db)
}

fn sent_letters(
    db: &mut SqliteConnection,
    wanted: &Wanted,
    hidden: &[String],
    until_ms: Option<i64>,
    limit: i64,
) -> QueryResult<Vec<Letter>> {
    let open = sent::to_pubkey.is_null().or(sent::to_pubkey.assume_not_null().ne_all(hidden.to_vec()));
    let mut query =
        sent::table.filter(open).order(sent::seq.desc()).limit(limit + TIES).select(Sent::as_select()).into_boxed();
    if let Some(until) = until_ms {
        query = query.filter(sent::sent_at_ms.le(until));
    }
    if let Some(reader) = &wanted.reader {
        query = query.filter(sent::from_pubkey.eq(reader));
    }
    match &wanted.with {
        None => {}
        Some(With::Keys(keys)) => {
            let session = sent::to_pubkey.is_not_null().and(sent::to_pubkey.assume_not_null().eq_any(keys));
            let member = sent::to_member.is_not_null().and(sent::to_member.assume_not_null().eq_any(keys));
            query = query.filter(session.or(member));
        }
        Some(With::Audience(name)) => {
            let among = format!("%,{name},%");
            let list = diesel::dsl::sql::<diesel::sql_types::Text>("',' || target || ','");
            query = query.filter(sent::target.eq(name).or(list.like(among)));
        }
    }
    Ok(query.load(db)?.into_iter().map(|one| Letter::Out(Box::new(one))).collect())
}

fn received_letters(
    db: &mut SqliteConnection,
    wanted: &Wanted,
    hidden: &[String],
    until_ms: Option<i64>,
    limit: i64,
) -> QueryResult<Vec<Letter>> {
    use super::Verdict;
    use super::schema::deliveries;

    let to_others =
        messages::recipient_pubkey.is_null().or(messages::recipient_pubkey.assume_not_null().ne_all(hidden.to_vec()));
    let mut query = messages::table
        .filter(messages::sender_pubkey.ne_all(hidden.to_vec()))
        .filter(to_others)
        .order(messages::seq.desc())
        .limit(limit + TIES)
        .select(Message::as_select())
        .into_boxed();
    if let Some(until) = until_ms {
        query = query.filter(messages::received_at_ms.le(until));
    }
    if let Some(reader) = &wanted.reader {
        let accepted = deliveries::table
            .filter(deliveries::seq.eq(messages::seq))
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::inbound.eq(Verdict::Accept.as_str()));
        query = query.filter(diesel::dsl::exists(accepted));
    }
    match &wanted.with {
        None => {}
        Some(With::Keys(keys)) => {
            query = query.filter(messages::sender_pubkey.eq_any(keys).or(messages::sender_member.eq_any(keys)));
        }
        Some(With::Audience(name)) => {
            let topic = name.trim_start_matches('#').to_owned();
            let named = messages::target_spec.is_not_null().and(messages::target_spec.assume_not_null().eq(name));
            let in_topic = messages::topic.is_not_null().and(messages::topic.assume_not_null().eq(topic));
            query = query.filter(named.or(in_topic));
        }
    }
    Ok(query.load(db)?.into_iter().map(|one| Letter::In(Box::new(one))).collect())
}
