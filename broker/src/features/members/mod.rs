//! Members: who asks, other names, roles, removal, another owner.
//!
//! Roles and ownership are the owner's, whatever capabilities a member has. What is changed is written with its entry in the audit
//! log, taken over, and told to those who are here.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::capabilities::Overrides;
use claudemesh_protocol::features::members::{
    ListMembers, MemberChanged, MemberRow, MembersList, OwnSession, RemoveMember, RenameMember, RenameSession, Renamed,
    Request, SetMemberRole, TransferMesh, Whoami, WhoamiResult,
};
use claudemesh_protocol::features::presence::event_data;
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::name::{self, Address};
use claudemesh_protocol::time::iso;

use crate::audit::By;
use crate::db::former_names::{self, FormerName, Subject};
use crate::db::members::{self as store, MemberPatch};
use crate::db::{Db, DbError, distinct_names, membership, rights};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::load::{look_alikes, members_lane, put_member, tell_roster};
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::own_sessions::sessions_of;
use crate::mesh::peers::{Member, Peer, PeerHandle, Role};
use crate::mesh::resolve::{is_taken, resolve_name};
use crate::quota::Quota;
use crate::refusal::Refusal;
use crate::session::CloseReason;

#[cfg(test)]
mod tests;

pub mod http;

/// Each renaming leaves a name that means someone for a day, and is told to everyone.
static RENAMES_PER_MINUTE: Quota = Quota::new(
    "members.renames_per_minute",
    6,
    "How often a minute one member may rename itself, its sessions and others.",
);

/// The feature.
pub struct Members;

impl Feature for Members {
    const NAME: &'static str = "members";
    const QUOTAS: &'static [&'static Quota] = &[&RENAMES_PER_MINUTE];
    type Request = Request;
    type Memory = ();

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::Whoami(_) => Self::answer::<Whoami>(whoami(cx)),
            Request::ListMembers(_) => Self::answer::<ListMembers>(list(cx)),
            Request::RenameMember(rename) => Self::answer::<RenameMember>(rename_member(cx, rename)),
            Request::RenameSession(rename) => Self::answer::<RenameSession>(rename_session(cx, rename)),
            Request::SetMemberRole(set) => Self::answer::<SetMemberRole>(set_role(cx, &set)),
            Request::RemoveMember(remove) => Self::answer::<RemoveMember>(remove_member(cx, &remove)),
            Request::TransferMesh(transfer) => Self::answer::<TransferMesh>(transfer_mesh(cx, &transfer)),
        }
    }

    fn on_event((): &mut (), cx: &mut MeshContext<'_>, event: &MeshEvent) {
        if let MeshEvent::Tick = event {
            let now = cx.believed_ms();
            cx.former_mut().expire(now);
        }
    }

    async fn upkeep(db: &Db, now_ms: i64) -> Result<usize, DbError> {
        former_names::forget_before(db, now_ms).await
    }
}

fn whoami(cx: &MeshContext<'_>) -> Result<Outcome<WhoamiResult>, Refusal> {
    let (asker, member) = (cx.asker()?, cx.member()?);
    // Who asks without a connection is in no session.
    let session = asker.acts_for.or(Some(asker.handle)).and_then(|at| cx.roster().get(at));
    let session = session.filter(|session| !session.ephemeral && !session.shell).map(|session| OwnSession {
        pubkey: session.key(),
        name: session.name.clone(),
        address: Address { member: &member.display_name, session: &session.name }.to_string(),
        session_id: session.session_id.clone(),
        cwd: session.cwd.clone(),
        hostname: session.hostname.clone(),
        groups: session.groups.clone(),
        visible: session.visible,
    });
    Ok(Outcome::Answer(WhoamiResult {
        mesh: cx.slug().to_owned(),
        member_id: member.id.clone(),
        pubkey: member.pubkey,
        name: member.display_name.clone(),
        role: member.role.as_str().into(),
        title: member.role_tag.clone(),
        groups: cx.roster().groups_of(&member.id).to_vec(),
        owner_pubkey: cx.owner_key(),
        session,
    }))
}

fn list(cx: &MeshContext<'_>) -> Result<Outcome<MembersList>, Refusal> {
    let own = cx.member()?.id.clone();
    let roster = cx.roster();
    let mut members: Vec<&Member> = roster.members().filter(|member| member.revoked_at_ms.is_none()).collect();
    members.sort_unstable_by_key(|member| (member.joined_at_ms, &member.id));
    let row = |member: &Member| {
        let peers = roster.of_member(&member.id).iter().filter_map(|at| roster.get(*at));
        let seen = peers.filter(|peer| peer.online() && (peer.visible || member.id == own));
        let (shells, sessions): (Vec<&Peer>, Vec<&Peer>) = seen.partition(|peer| peer.shell);
        MemberRow {
            member_id: member.id.clone(),
            pubkey: member.pubkey,
            name: member.display_name.clone(),
            role: member.role.as_str().into(),
            title: member.role_tag.clone(),
            groups: roster.groups_of(&member.id).to_vec(),
            joined_at: iso(member.joined_at_ms),
            last_seen_at: member.last_seen_at_ms.map(iso),
            online: !sessions.is_empty() || !shells.is_empty(),
            sessions: u32::try_from(sessions.len()).unwrap_or(u32::MAX),
            former_names: former_names_of(cx, member),
            looks_like: look_alikes(roster, &member.pubkey, &member.display_name),
        }
    };
    Ok(Outcome::Answer(MembersList { members: members.into_iter().map(row).collect() }))
}

/// The names that a member had until a renaming, without the one it has (again).
fn former_names_of(cx: &MeshContext<'_>, member: &Member) -> Vec<String> {
    let (subject, now) = (Subject::Member(member.id.clone()), name::folded(&member.display_name));
    let of_member = cx.roster().former.of_subject(&subject);
    let mut rows: Vec<&FormerName> = of_member.filter(|row| name::folded(&row.name) != now).collect();
    rows.sort_unstable_by(|one, other| (one.until_ms, &one.name).cmp(&(other.until_ms, &other.name)));
    rows.into_iter().map(|row| row.name.clone()).collect()
}

/// The live member that is meant: by its id, or as everywhere else.
fn named(cx: &MeshContext<'_>, text: &str) -> Result<Member, Refusal> {
    let unknown = || Refusal::new(ErrorCode::NotFound, "no such member in this mesh");
    let live = |id: &MemberId| cx.roster().member(id).filter(|member| member.revoked_at_ms.is_none()).cloned();
    if let Some(member) = live(&MemberId::from(text)) {
        return Ok(member);
    }
    match resolve_name(cx.roster(), text, None) {
        Ok(found) => found.member(cx.roster()).and_then(live).ok_or_else(unknown),
        Err(refusal) if refusal.code == ErrorCode::UnknownTarget => Err(unknown()),
        Err(refusal) => Err(refusal),
    }
}

fn chosen(text: &str) -> Result<String, Refusal> {
    name::chosen(text).map_err(|error| Refusal::new(ErrorCode::InvalidName, error.to_string()))
}

fn rename_member(cx: &mut MeshContext<'_>, rename: RenameMember) -> Result<Outcome<Renamed>, Refusal> {
    let name = chosen(&rename.name)?;
    let own = cx.member()?.clone();
    let member = match &rename.member {
        Some(text) => named(cx, text)?,
        None => own.clone(),
    };
    cx.require_own(&member.id, Capability::CanManageMembers)?;
    // The rules of the route `PATCH /mesh/<id>/member/<member>`.
    if member.role > own.role {
        return Err(Refusal::new(ErrorCode::Forbidden, "your role does not allow to edit this member"));
    }
    if !cx.self_editable().display_name && !cx.may(Capability::CanManageMembers)? {
        return Err(Refusal::new(ErrorCode::Forbidden, "the mesh lets only admins change `displayName`"));
    }
    let answer = |looks_like, former_name: &str, name: &str| Renamed {
        kind: "member".into(),
        pubkey: member.pubkey,
        name: name.to_owned(),
        former_name: former_name.to_owned(),
        address: name.to_owned(),
        looks_like,
    };
    let looks_like = look_alikes(cx.roster(), &member.pubkey, &name);
    let answer = answer(looks_like, &member.display_name, &name);
    if name == member.display_name {
        return Ok(Outcome::Answer(answer));
    }
    // The write looks again; here it costs no renaming.
    if is_taken(cx.roster(), &name, &member.id) {
        return Err(distinct_names::taken(&name));
    }
    cx.count_write(&RENAMES_PER_MINUTE, Some(&own.id))?;
    let (storage, now) = (cx.storage(), cx.now_ms());
    let by = By::member(&own.id, now);
    let slow = async move {
        let patch = MemberPatch { display_name: Some(name), ..MemberPatch::default() };
        let found = store::update(&storage, &member.id, &patch, &by).await?;
        found.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "no such member in this mesh"))
    };
    Ok(Members::work_in(members_lane(), slow, move |(), cx, member| {
        let former = FormerName {
            subject: Subject::Member(member.id.clone()),
            name: answer.former_name.clone(),
            until_ms: former_names::until(now),
        };
        cx.former_mut().put(former);
        take_over(cx, member);
        Ok(Outcome::Answer(answer))
    }))
}

/// Takes over what of a member is kept in its row. When it was seen last is known better here.
fn take_over(cx: &mut MeshContext<'_>, member: Member) {
    let seen = cx.roster().member(&member.id).and_then(|known| known.last_seen_at_ms);
    put_member(cx, Member { last_seen_at_ms: member.last_seen_at_ms.max(seen), ..member });
}

fn rename_session(cx: &mut MeshContext<'_>, rename: RenameSession) -> Result<Outcome<Renamed>, Refusal> {
    let name = chosen(&rename.name)?;
    let one = || Refusal::new(ErrorCode::InvalidArgs, "expected one session: `targetSession` with its id");
    if rename.target.target_session.as_deref() == Some("*") {
        return Err(one());
    }
    let [at] = sessions_of(cx, &rename.target)?.try_into().map_err(|_| one())?;
    let own = cx.member()?.clone();
    let peer = cx.roster().get(at).filter(|peer| !peer.ephemeral && !peer.shell);
    let peer = peer.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "a shell is no session; name one of yours"))?;
    let (key, former_name) = (peer.key(), peer.name.clone());
    let answer = Renamed {
        kind: "session".into(),
        pubkey: key,
        address: Address { member: &own.display_name, session: &name }.to_string(),
        former_name,
        name,
        looks_like: vec![],
    };
    if answer.name == answer.former_name {
        return Ok(Outcome::Answer(answer));
    }
    cx.count_write(&RENAMES_PER_MINUTE, Some(&own.id))?;
    let (storage, now) = (cx.storage(), cx.now_ms());
    let by = By::member(&own.id, now);
    let slow = async move {
        former_names::session_renamed(&storage, &key, (&answer.former_name, &answer.name), &by).await?;
        Ok::<_, Refusal>(answer)
    };
    Ok(Members::work_in(Lane::of::<Members>(format_args!("session {key}")), slow, move |(), cx, answer| {
        let former = FormerName {
            subject: Subject::Session(key),
            name: answer.former_name.clone(),
            until_ms: former_names::until(now),
        };
        cx.former_mut().put(former);
        cx.change_peer(at, |peer| {
            peer.name.clone_from(&answer.name);
            peer.renamed_from = Some(peer.brought_name.clone());
        });
        if let Some(peer) = cx.roster().get(at).filter(|peer| peer.visible) {
            let member = peer.member.clone();
            let event = cx.system_event("session_renamed", event_data(&answer));
            // Its own session is told as well: its program shows the name.
            tell_roster(cx, &event, move |other| other.visible || other.member == member);
        }
        Ok(Outcome::Answer(answer))
    }))
}

/// Refuses everyone but the owner.
fn require_owner(cx: &MeshContext<'_>, what: &str) -> Result<Member, Refusal> {
    let own = cx.member()?.clone();
    if own.role == Role::Owner {
        return Ok(own);
    }
    Err(Refusal::new(ErrorCode::Forbidden, format!("only the owner {what}")))
}

fn set_role(cx: &mut MeshContext<'_>, set: &SetMemberRole) -> Result<Outcome<MemberChanged>, Refusal> {
    let own = require_owner(cx, "changes roles")?;
    let role = match Role::parse(set.role.trim()) {
        Some(role @ (Role::Admin | Role::Member)) => role,
        Some(Role::Owner) => {
            let message = "expected `admin` or `member`; `transfer_mesh` makes another member the owner";
            return Err(Refusal::new(ErrorCode::InvalidArgs, message));
        }
        None => return Err(Refusal::new(ErrorCode::InvalidArgs, "expected the role `admin` or `member`")),
    };
    let member = named(cx, &set.member)?;
    if member.role == Role::Owner {
        let message = "the owner's role cannot be changed; make another member the owner first";
        return Err(Refusal::new(ErrorCode::Invalid, message));
    }
    if member.role == role {
        return Ok(Outcome::Answer(described(&member)));
    }
    let (storage, by) = (cx.storage(), By::member(&own.id, cx.now_ms()));
    let slow = async move {
        let patch = MemberPatch { role: Some(role), ..MemberPatch::default() };
        let found = store::update(&storage, &member.id, &patch, &by).await?;
        found.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "no such member in this mesh"))
    };
    Ok(Members::work_in(members_lane(), slow, |(), cx, member| {
        let answer = described(&member);
        take_over(cx, member);
        tell(cx, "member_role_changed", &answer);
        Ok(Outcome::Answer(answer))
    }))
}

fn remove_member(cx: &mut MeshContext<'_>, remove: &RemoveMember) -> Result<Outcome<MemberChanged>, Refusal> {
    let own = cx.member()?.clone();
    let member = named(cx, &remove.member)?;
    cx.require_own(&member.id, Capability::CanManageMembers)?;
    if member.role == Role::Owner {
        let message = "the owner cannot be removed; make another member the owner first";
        return Err(Refusal::new(ErrorCode::Invalid, message));
    }
    if member.id != own.id && member.role == Role::Admin && own.role != Role::Owner {
        return Err(Refusal::new(ErrorCode::Forbidden, "only the owner removes an admin"));
    }
    let (storage, now) = (cx.storage(), cx.now_ms());
    let by = By::member(&own.id, now);
    let id = member.id.clone();
    let slow = async move { membership::remove(&storage, &id, &by).await };
    Ok(Members::work_in(members_lane(), slow, move |(), cx, _| {
        let answer = MemberChanged { role: None, ..described(&member) };
        cx.change_member(&member.id, |member| {
            member.revoked_at_ms = Some(now);
            member.removed_at_ms = Some(now);
        });
        cx.change_rights(&rights::Subject::Member(member.id.clone()), Overrides::new());
        tell(cx, "member_removed", &answer);
        // Who leaves is answered before its connections are closed. One-shot verbs are not indexed by member.
        let leaves = cx.reply_to().filter(|_| member.id == own.id);
        if let Some(to) = &leaves {
            cx.reply(to, &answer.clone().into());
        }
        let peers: Vec<PeerHandle> =
            cx.roster().iter().filter(|peer| peer.member == member.id).map(|peer| peer.handle).collect();
        for at in peers {
            cx.close(at, CloseReason::Removed);
            cx.end(at, true);
        }
        tracing::info!(mesh.id = %cx.mesh_id(), member.id = %member.id, "member removed");
        cx.emit(MeshEvent::MemberGone { member: member.id });
        Ok(if leaves.is_some() { Outcome::Silent } else { Outcome::Answer(answer) })
    }))
}

fn transfer_mesh(cx: &mut MeshContext<'_>, transfer: &TransferMesh) -> Result<Outcome<MemberChanged>, Refusal> {
    let own = require_owner(cx, "makes another member the owner")?;
    let member = named(cx, &transfer.member)?;
    if member.id == own.id {
        return Err(Refusal::new(ErrorCode::Invalid, "you are the owner"));
    }
    let (storage, by) = (cx.storage(), By::member(&own.id, cx.now_ms()));
    let id = member.id;
    let slow = async move { membership::transfer(&storage, &id, &by).await };
    Ok(Members::work_in(members_lane(), slow, |(), cx, done| {
        cx.change_owner(done.owner.pubkey);
        for former in &done.former {
            cx.change_member(former, |member| member.role = Role::Admin);
        }
        let answer = described(&done.owner);
        take_over(cx, done.owner);
        tell(cx, "mesh_transferred", &answer);
        tracing::info!(mesh.id = %cx.mesh_id(), member.id = %answer.member_id, "the mesh has another owner");
        Ok(Outcome::Answer(answer))
    }))
}

fn described(member: &Member) -> MemberChanged {
    MemberChanged {
        member_id: member.id.clone(),
        pubkey: member.pubkey,
        name: member.display_name.clone(),
        role: Some(member.role.as_str().into()),
    }
}

fn tell(cx: &mut MeshContext<'_>, event: &str, data: &MemberChanged) {
    let event = cx.system_event(event, event_data(data));
    tell_roster(cx, &event, |_| true);
}
