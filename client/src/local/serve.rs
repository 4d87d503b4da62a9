//! `claudemesh up`: keeps the mesh of this machine up without a session, says how to use it, ends in good order.

use std::pin::Pin;
use std::time::{Duration, Instant};

use super::cli::{Up, UpArgs, you_are};
use super::ensure::Naming;
use super::holder::{self, Plan, USUAL};
use super::mesh::LocalMesh;
use super::store::{HolderKind, HolderNote, Store};
use super::takeover::{Candidate, Role, answering};
use super::{background, demo, ensure, listen, mesh, port};
use crate::context::Context;
use crate::context::connect;
use crate::error::{CliError, ExitCode};
use crate::features::enrolment::{self, InviteWish, Inviter};
use crate::output::{Style, clean};

/// The invite that `up` prints: enough for a team at a desk, not for ever.
const INVITE_USES: u32 = 10;
const INVITE_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// How long a session may take to give its place to `up`.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks at who holds the place, and between two signals.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runs `up` until a signal comes.
///
/// While a session serves the mesh, `up` stands by and takes over when that ends; with `--listen` it takes the place at once,
/// because only then the mesh is where the user wants it.
///
/// # Errors
/// Exit 3 for a bad address, 6 when `up` runs already with these data, 4 when the port is taken, 10 for the data folder.
pub fn up(cx: &Context, args: &UpArgs) -> Result<ExitCode, CliError> {
    if args.demo {
        return in_a_folder_of_its_own(cx, args);
    }
    serve(cx, args)
}

/// The demo leaves nothing behind: its peers are no members of the user's mesh.
fn in_a_folder_of_its_own(cx: &Context, args: &UpArgs) -> Result<ExitCode, CliError> {
    let folder = tempfile::Builder::new().prefix("claudemesh-demo-").tempdir();
    let folder = folder.map_err(|error| CliError::io(format!("No folder for the demo can be made: {error}.")))?;
    let env = cx.env.without(crate::paths::MESH_DB_PATH);
    let there = Context { store: crate::config::ConfigStore::at(folder.path()), env, ..cx.clone() };
    serve(&there, args)
}

fn serve(cx: &Context, args: &UpArgs) -> Result<ExitCode, CliError> {
    let name = args.name.as_deref().map(enrolment::chosen_name).transpose()?;
    let store = match &args.data_dir {
        Some(dir) => Store::at(dir),
        None => Store::locate(&cx.env, cx.store.dir()),
    };
    let before = store.last_holder().and_then(|note| note.address()).map(|address| address.port());
    let usual = before.unwrap_or(USUAL.port());
    let listen = args.listen.as_deref().map(|text| listen::address(text, usual)).transpose()?;
    let wanted = wanted_mesh(cx, &store, listen)?;
    if let (Some(slug), None, Some(note)) = (&wanted.further, listen, answering(&store))
        && note.kind == HolderKind::Up
    {
        let names = Naming { mesh: &wanted.first, member: name.as_deref() };
        return beside(cx, &store, &names, slug, note);
    }
    if let (Some(before), Some(listen)) = (before, listen)
        && before != listen.port()
    {
        cx.out.remark(&format!(
            "This mesh was at port {before}. Members who joined there do not find it elsewhere; they join again with a new link."
        ));
    }
    if args.detach {
        return background::detach(&Context { mesh: wanted.asked, ..cx.clone() }, args);
    }
    background::leave_the_terminal(cx);
    crate::telemetry::start_of_up(&cx.env, cx.store.dir())
        .map_err(|reason| CliError::invalid_args(format!("{reason}.")))?;
    if let Err(error) = claudemesh_broker::raise_open_file_limit() {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    if answering(&store).is_some() {
        refuse_second_up(&store)?;
    }
    crate::files::create_private_dir(store.dir())
        .map_err(|error| CliError::io(format!("{} cannot be made: {error}.", store.dir().display())))?;
    let _note = store
        .note_up()
        .map_err(|error| CliError::io(format!("{} cannot be written: {error}.", store.dir().display())))?;
    let plan = Plan { store: store.clone(), config: cx.store.clone(), kind: HolderKind::Up, listen };
    let candidate = Candidate::start(plan)?;
    let mut url = candidate.served(ensure::PATIENCE)?;
    if listen.is_some() && !is_serving(&candidate) {
        refuse_second_up(&store)?;
        url = take_place(&candidate, &store)?;
    } else if !is_serving(&candidate) {
        refuse_second_up(&store)?;
    }
    connect::block_on(async {
        let names = Naming { mesh: &wanted.first, member: name.as_deref() };
        let run = run(cx, args, &names, wanted.further.as_deref(), &candidate, &store, &url).await;
        if run.is_ok() {
            cx.out.remark("ending");
        }
        candidate.leave().await;
        run.map(|()| ExitCode::Success)
    })
}

/// Makes another mesh on the broker of the `up` that runs already.
fn beside(
    cx: &Context,
    store: &Store,
    names: &Naming<'_>,
    slug: &str,
    running: HolderNote,
) -> Result<ExitCode, CliError> {
    let wish = mesh::Wish {
        env: &cx.env,
        config: &cx.store,
        store,
        broker_url: &running.url,
        name: names.member,
        slug: names.mesh,
        auto: false,
    };
    let first = mesh::ensure(&wish)?;
    let local = mesh::further(cx, store, &first, slug, names.member)?;
    let wish = InviteWish { role: "member", uses: INVITE_USES, lifetime: INVITE_LIFETIME, preset: None };
    let invite = enrolment::create_invite(&Inviter::owner(&local.owner)?, &local.entry, &wish)?;
    let members = enrolment::members(&local.entry)?;
    let own = members.into_iter().find(|member| member.pubkey.to_hex() == local.entry.pubkey);
    let value = Up {
        ok: true,
        listening: running.url.clone(),
        mesh: local.entry.slug.clone(),
        mesh_id: local.entry.mesh_id.clone(),
        name: own.map(|own| own.display_name).unwrap_or_default(),
        broker_url: local.entry.broker_url.clone(),
        invite: invite.view.url.clone(),
        invite_expires_at: invite.view.expires_at.clone(),
        pid: running.pid,
        serving: false,
        holder: Some(running.clone()),
    };
    cx.out.answer(&value, |out| {
        format!(
            "{} mesh {} is up: the `claudemesh up` that runs already (process {}) serves it, on {}\n  join it    claudemesh join {} \
             --name <name>\n  end both   claudemesh down\n",
            out.tick(),
            out.paint(Style::Bold, &clean(&local.entry.slug)),
            running.pid,
            clean(&running.url),
            clean(&invite.view.url),
        )
    })?;
    Ok(ExitCode::Success)
}

/// Which mesh `up` is about.
struct Wanted {
    /// What the first mesh of the store is called, or will be.
    first: String,
    /// Another mesh on the same broker, which is made when it is not there.
    further: Option<String>,
    /// What a process in the background is told.
    asked: Option<String>,
}

/// The mesh that `--mesh` names, else the one of the store. A new one is `local`; one that other machines can join is called
/// after this machine, because `local` means another mesh there.
fn wanted_mesh(cx: &Context, store: &Store, listen: Option<std::net::SocketAddr>) -> Result<Wanted, CliError> {
    if let Some(asked) = &cx.mesh {
        enrolment::check_slug(asked)?;
    }
    let known = mesh::known_slug(&cx.store, store)?;
    let asked = cx.mesh.clone();
    Ok(match (known, asked) {
        (Some(first), None) => Wanted { first, further: None, asked: None },
        (Some(first), Some(asked)) => {
            let further = (first != asked).then(|| asked.clone());
            Wanted { first, further, asked: Some(asked) }
        }
        (None, Some(asked)) => Wanted { first: asked.clone(), further: None, asked: Some(asked) },
        (None, None) if listen.is_some_and(|address| !address.ip().is_loopback()) => {
            let user = cx.env.text("USER").or_else(|| cx.env.text("LOGNAME"));
            let name = listen::mesh_name(connect::hostname().as_deref(), user);
            let first = cx.ask_text("Name of the mesh, as others will see it:", &name, enrolment::check_slug)?;
            Wanted { asked: Some(first.clone()), first, further: None }
        }
        (None, None) => Wanted { first: mesh::SLUG.to_owned(), further: None, asked: None },
    })
}

fn is_serving(candidate: &Candidate) -> bool {
    matches!(candidate.role(), Role::Serving { .. })
}

/// Two that were both started to serve are a mistake; only the first one does.
fn refuse_second_up(store: &Store) -> Result<(), CliError> {
    match store.holder() {
        Some(note) if note.kind == HolderKind::Up && note.pid != std::process::id() => Err(CliError::new(
            ExitCode::AlreadyExists,
            "already_running",
            format!("`claudemesh up` runs already with these data (process {}, {}).", note.pid, clean(&note.url)),
        )
        .hint(
            "Use its mesh. To start it with other options, end it first: `claudemesh down`. For another one beside it give --data-dir \
             and --listen.",
        )),
        _ => Ok(()),
    }
}

/// Takes the place of a session that serves. What it acknowledged is in the store; its clients come over.
fn take_place(candidate: &Candidate, store: &Store) -> Result<String, CliError> {
    let _claim = store
        .claim()
        .map_err(|error| CliError::io(format!("{} cannot be written: {error}.", store.dir().display())))?;
    let deadline = Instant::now() + CLAIM_PATIENCE;
    loop {
        match candidate.role() {
            Role::Serving { url, .. } => return Ok(url),
            Role::Failed(failure) => return Err(failure.into()),
            Role::Waiting | Role::Left => {}
        }
        match store.holder() {
            Some(note) if Instant::now() < deadline => holder::ask_to_give_way(&note),
            Some(note) => {
                let message = format!("Process {} serves the mesh and does not give way.", note.pid);
                return Err(CliError::new(ExitCode::AlreadyExists, "already_running", message)
                    .hint("End that session, or run `claudemesh up` without --listen."));
            }
            None if Instant::now() >= deadline => return candidate.served(Duration::ZERO),
            None => {}
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

async fn run(
    cx: &Context,
    args: &UpArgs,
    names: &Naming<'_>,
    further: Option<&str>,
    candidate: &Candidate,
    store: &Store,
    url: &str,
) -> Result<(), CliError> {
    let (serving, listening) = match candidate.role() {
        Role::Serving { listening, .. } => (true, listening),
        Role::Waiting | Role::Failed(_) | Role::Left => (false, url.to_owned()),
    };
    if !cx.out.is_json() {
        cx.out.write(&format!("listening on {listening}\n"))?;
    }
    if serving && args.listen.is_none() && !listening.contains(&format!(":{}/", USUAL.port())) {
        tell_why_not_there(cx, &listening);
    }
    let mut local = ensure::mesh_of(candidate, &cx.env, &cx.store, store, names, false)?;
    if let Some(slug) = further {
        local = mesh::further(cx, store, &local, slug, names.member)?;
    }
    let wish = InviteWish { role: "member", uses: INVITE_USES, lifetime: INVITE_LIFETIME, preset: None };
    let invite = enrolment::create_invite(&Inviter::owner(&local.owner)?, &local.entry, &wish)?;
    if args.demo {
        demo::run(cx, &local).await?;
        cx.out.note("This mesh lives in a folder of its own and is gone when you press Ctrl-C.")?;
    }
    let slug = &local.entry.slug;
    let members = enrolment::members(&local.entry)?;
    let own = members.into_iter().find(|member| member.pubkey.to_hex() == local.entry.pubkey);
    let name = own.map(|own| own.display_name).unwrap_or_default();
    let other = store.holder().filter(|_| !serving);
    let value = Up {
        ok: true,
        listening: listening.clone(),
        mesh: slug.clone(),
        mesh_id: local.entry.mesh_id.clone(),
        name: name.clone(),
        broker_url: local.entry.broker_url.clone(),
        invite: invite.view.url.clone(),
        invite_expires_at: invite.view.expires_at.clone(),
        pid: std::process::id(),
        serving,
        holder: other.clone(),
    };
    // Before the screen says that Ctrl-C ends it: the system's own way would leave everything as it is.
    let signal = signals()?;
    cx.out.answer(&value, |out| {
        let join = format!("claudemesh join {} --name <name>", clean(&invite.view.url));
        let end = match args.demo {
            true => "Ctrl-C ends it and removes its folder with everything in it.",
            false => "Ctrl-C ends it; messages that wait stay on disk.",
        };
        format!(
            "{} mesh {} is up{}\n{}\n  join it    {}\n             ({INVITE_USES} uses, 24 hours; more with `claudemesh invite`)\n  \
             write      claudemesh send <name> \"hello\"\n  read       claudemesh inbox\n  with Claude Code\n             \
             claudemesh install, then claudemesh launch --mesh {slug}\n\n{end}\n",
            out.tick(),
            out.paint(Style::Bold, slug),
            standing_by(other.as_ref()),
            you_are(&name, names.member, slug),
            out.paint(Style::Bold, &join),
        )
    })?;
    until_signal(cx, candidate, &local, serving, signal).await
}

/// Clients look at the usual port first: who gets another one should know who has that.
fn tell_why_not_there(cx: &Context, listening: &str) {
    if let Some(who) = port::taken_by(USUAL) {
        cx.out.remark(&format!(
            "Port {} is taken by {who}, so this mesh is at {listening}; --listen chooses an address.",
            USUAL.port()
        ));
    }
}

fn standing_by(holder: Option<&HolderNote>) -> String {
    holder.map_or_else(String::new, |note| {
        format!(": {} (process {}) serves it, this process takes over when that ends", note.kind.as_str(), note.pid)
    })
}

/// Waits for the end and says meanwhile when this process takes over.
async fn until_signal(
    cx: &Context,
    candidate: &Candidate,
    local: &LocalMesh,
    mut serving: bool,
    mut signal: Pin<Box<dyn Future<Output = ()>>>,
) -> Result<(), CliError> {
    let mut role = candidate.watch();
    loop {
        tokio::select! {
            () = &mut signal => return Ok(()),
            changed = role.changed() => {
                if changed.is_err() {
                    return Err(CliError::internal("The local broker ended early."));
                }
                match &*role.borrow_and_update() {
                    Role::Serving { listening, .. } if !serving => {
                        serving = true;
                        cx.out.note(&format!("This process serves the mesh {} now, on {listening}.", clean(&local.entry.slug)))?;
                    }
                    Role::Failed(failure) => cx.out.warn(&failure.message),
                    Role::Serving { .. } | Role::Waiting | Role::Left => {}
                }
            }
        }
    }
}

/// Hears signals from now on; the future ends with the first.
fn signals() -> Result<Pin<Box<dyn Future<Output = ()>>>, CliError> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let heard =
            |kind| signal(kind).map_err(|error| CliError::internal(format!("Signals cannot be heard: {error}.")));
        let mut terminate = heard(SignalKind::terminate())?;
        let mut hangup = heard(SignalKind::hangup())?;
        let mut interrupt = heard(SignalKind::interrupt())?;
        Ok(Box::pin(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        }))
    }
    #[cfg(not(unix))]
    Ok(Box::pin(async {
        let _ = tokio::signal::ctrl_c().await;
    }))
}
