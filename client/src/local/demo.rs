//! `up --demo`: two scripted peers with identities of their own talk over the real wire; what they see is printed.

use std::time::Duration;

use claudemesh_protocol::features::messaging::{Priority, Stage, Trace};
use claudemesh_protocol::version::{CAP_CLIENT_ACK, CAP_PULL};

use super::mesh::LocalMesh;
use crate::config::drafts::Keys;
use crate::config::{ConfigStore, MeshEntry};
use crate::connection::{Connection, ConnectionError, Identity, open_mailbox};
use crate::context::Context;
use crate::error::CliError;
use crate::features::enrolment::{self, InviteWish, Inviter};
use crate::features::groups::Who;
use crate::features::messaging::Draft;
use crate::features::messaging::exchange::new_trace;
use crate::inbox::Verdict;
use crate::inbox::{Admitted, Mailbox, Message, Pick};
use crate::output::{Style, clean, clean_lines};

/// Longest wait for a message on this machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// One scripted peer.
struct Actor {
    name: &'static str,
    connection: Connection,
    mailbox: Mailbox,
}

/// Plays the scene.
///
/// # Errors
/// What any part of it says: the demo is a test of this machine, too.
pub(super) async fn run(cx: &Context, local: &LocalMesh) -> Result<(), CliError> {
    let out = cx.out.clone();
    let say = |text: String| out.note(&text);
    say(format!("\n{}", out.paint(Style::Bold, "Two peers in the mesh")))?;
    let ada = Actor::enter(cx, local, "Ada").await?;
    let grace = Actor::enter(cx, local, "Grace").await?;
    for actor in [&ada, &grace] {
        actor.connection.join_group("demo", None, &Who::Session(None)).await?;
        let key = actor.connection.identity().own_public().short();
        say(format!("  {} joined, key {key}…, group @demo", actor.name))?;
    }

    let trace = new_trace();
    say(format!("\n{}", out.paint(Style::Bold, "Ada → Grace, sealed for Grace's key")))?;
    let text = "Can you review the parser? The fuzzer found a panic in line 212.";
    let question = ada.send(&["Grace"], text, None, &trace).await?;
    let received = grace.next().await?;
    say(format!("  Grace reads: {}", clean_lines(&received.text())))?;
    say(out
        .paint(Style::Dim, &format!("  on the wire and at the broker it was ciphertext; message {question}"))
        .into_owned())?;

    say(format!("\n{}", out.paint(Style::Bold, "Grace → @demo, readable for the group")))?;
    grace.send(&["@demo"], "I take the parser, please stay off src/parse.rs.", None, &new_trace()).await?;
    let group = ada.next().await?;
    let target = group.target_spec.clone().unwrap_or_default();
    say(format!("  Ada reads in {}: {}", clean(&target), clean_lines(&group.text())))?;

    say(format!("\n{}", out.paint(Style::Bold, "Grace → Ada, a reply")))?;
    let next = Trace { hop: trace.hop + 1, ..trace };
    grace.send(&["Ada"], "Fixed: an empty input. Tests are green.", Some(&received.message_id), &next).await?;
    let reply = ada.next().await?;
    let answers = reply.reply_to_id.as_deref() == Some(&question);
    say(format!("  Ada reads: {}", clean_lines(&reply.text())))?;
    let status = ada.connection.message_status(&question).await?;
    let stage = status.stage.map_or("stored", Stage::as_str);
    say(format!(
        "  the first message is {}{}\n",
        out.paint(Style::Green, stage),
        if answers { ", by this reply" } else { "" }
    ))?;
    for actor in [ada, grace] {
        actor.connection.close().await;
    }
    Ok(())
}

impl Actor {
    /// Joins with an invite like anyone else and connects as a session. The identity is kept below the config folder, so
    /// that a second demo does not add members.
    async fn enter(cx: &Context, local: &LocalMesh, name: &'static str) -> Result<Self, CliError> {
        let (store, local) = (ConfigStore::at(cx.store.dir().join("demo").join(name.to_lowercase())), local.clone());
        let dir = store.dir().to_path_buf();
        let (entry, session) = blocking(move || {
            let entry = enrol(&store, &local, name)?;
            let session = store.session_key(&entry.mesh_id, &entry.slug, "demo")?;
            Ok((entry, session))
        })
        .await?;
        let mut identity = Identity::of_mesh(&entry, format!("demo-{name}")).map_err(ConnectionError::from)?;
        identity.session = Some(session);
        identity.cwd = "/demo".into();
        let description = &mut identity.description;
        description.display_name = Some(name.into());
        description.peer_type = Some("ai".into());
        description.channel = Some("demo".into());
        description.capabilities = [CAP_CLIENT_ACK, CAP_PULL].map(str::to_owned).to_vec();
        let mailbox = open_mailbox(&dir, &identity).await?;
        let connection = Connection::once(identity, Some(mailbox.clone())).await?;
        Ok(Self { name, connection, mailbox })
    }

    async fn send(&self, to: &[&str], text: &str, reply_to: Option<&str>, trace: &Trace) -> Result<String, CliError> {
        let to: Vec<String> = to.iter().map(|target| (*target).to_owned()).collect();
        let draft =
            Draft { reply_to: reply_to.map(str::to_owned), trace: trace.clone(), ..Draft::new(text, Priority::Next) };
        let outcome = self.connection.send_to(&to, &draft, false).await.pop();
        let outcome = outcome.ok_or_else(|| CliError::internal("A send had no outcome."))?;
        Ok(outcome.result?.message_id)
    }

    /// The next message for this peer.
    async fn next(&self) -> Result<Message, CliError> {
        let admitted = Admitted::new(&self.mailbox, self.connection.identity().reader());
        let mut events = self.connection.mail_events();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = crate::clock::now_ms();
            let claimed = admitted.run(move |mail| {
                let reader = mail.reader();
                // The two write to each other only, and no model reads it.
                let fresh = mail.undecided(reader)?;
                let accepted: Vec<_> = fresh.iter().map(|message| (message.seq, Verdict::Accept)).collect();
                mail.decide(reader, &accepted, now)?;
                mail.claim("demo", &Pick { limit: 1, ..Pick::default() }, now)
            });
            let claimed = claimed.await?;
            if let Some(message) = claimed.into_iter().next() {
                self.connection.acknowledge(vec![message.message_id.clone()], Stage::Seen, "demo");
                return Ok(message);
            }
            let Some(events) = &mut events else { return Err(CliError::internal("No mail in the demo.")) };
            if tokio::time::timeout_at(deadline, events.recv()).await.is_err() {
                return Err(CliError::network(format!("{} waited in vain for a message.", self.name)));
            }
        }
    }
}

/// Runs blocking work (HTTP, files) beside the scene.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CliError::internal(format!("A task ended early: {error}.")))?
}

fn enrol(store: &ConfigStore, local: &LocalMesh, name: &str) -> Result<MeshEntry, CliError> {
    if let Some(entry) = store.load()?.by_id(&local.entry.mesh_id) {
        let entry = MeshEntry { broker_url: local.entry.broker_url.clone(), ..entry.clone() };
        if enrolment::members(&entry).is_ok() {
            return Ok(entry);
        }
    }
    let wish = InviteWish { role: "member", uses: 1, lifetime: Duration::from_secs(600), preset: None };
    let invite = enrolment::create_invite(&Inviter::owner(&local.owner)?, &local.entry, &wish)?;
    let joined =
        enrolment::join(&store.load()?, &invite.view.url, name, None, |_| None, |_, _| Ok(Keys::random().member))?;
    let mut entry = joined.entry;
    entry.broker_url.clone_from(&local.entry.broker_url);
    store.update(|config| {
        config.put_mesh(entry.clone());
        Ok::<_, CliError>(())
    })?;
    Ok(entry)
}
