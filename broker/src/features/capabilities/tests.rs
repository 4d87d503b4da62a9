use claudemesh_protocol::features::capabilities::{Changes, Overrides};
use claudemesh_protocol::message::{ClientMessage, Failure, ServerMessage};
use claudemesh_protocol::testing::client_samples;
use serde_json::json;

use super::model::{WORDS, Word, model};
use super::*;
use crate::db::members::{self, MemberPatch, Role};
use crate::mesh::context::FlushWanted;
use crate::mesh::peers::PeerHandle;
use crate::mesh::testing::{Frames, TestMesh, key};

fn set_word(mesh: &mut TestMesh, member: &MemberId, word: Word, capability: Capability) {
    let (own, start) = match word {
        Word::Nothing => (None, None),
        Word::Own(own) => (Some(own), None),
        Word::Start(start) => (None, Some(start)),
        Word::Both(own, start) => (Some(own), Some(start)),
    };
    let overrides = |word: Option<bool>| word.map(|word| (capability, word)).into_iter().collect::<Overrides>();
    mesh.core.rights = Rights::default();
    mesh.core.rights.put(&Subject::Member(member.clone()), overrides(own));
    mesh.core.rights.put(&Subject::Start, overrides(start));
}

async fn with_role(mesh: &mut TestMesh, name: &str, number: u8, role: Role) -> (MemberId, PeerHandle, Frames) {
    let member = mesh.member(name, number).await;
    if role != Role::Member {
        let patch = MemberPatch { role: Some(role), ..MemberPatch::default() };
        members::update(&mesh.core.storage(), &member, &patch, &By::nobody(0)).await.unwrap();
        mesh.core.roster.member_mut(&member).unwrap().role = role;
    }
    let (at, frames) = mesh.peer(&member, name, Some(number + 100));
    (member, at, frames)
}

/// Samples that ask for what is of others, and the capability which that needs beside the one of the request.
const SECOND: [(&str, Capability); 3] = [
    ("vault_", Capability::CanManageVault),
    ("list_files/full", Capability::CanManageFiles),
    // A key is given no more than its maker has.
    ("apikey_create", Capability::CanSend),
];

/// Every request with every role and every word about every capability that a request needs: what the model denies is refused
/// with the capability's name and sets nothing in motion, what it allows is not refused for that reason.
#[actix_rt::test]
async fn every_request_asks_for_its_capability_and_for_no_other() {
    let needed: Vec<Capability> = Capability::ALL
        .iter()
        .copied()
        .filter(|one| ClientMessage::rows().iter().any(|(_, row)| row.needs == Some(*one)))
        .collect();
    assert!(needed.contains(&Capability::CanModerate), "{needed:?}");
    let (mut refused, mut allowed) = (0, 0);
    for role in [Role::Member, Role::Admin, Role::Owner] {
        for (spoken_of, word) in needed.iter().flat_map(|one| WORDS.map(|word| (*one, word))) {
            let mut mesh = TestMesh::new().await;
            let (member, at, frames) = with_role(&mut mesh, "asker", 1, role).await;
            mesh.settle().await;
            frames.lock().unwrap().clear();
            set_word(&mut mesh, &member, word, spoken_of);
            // First what is denied, so that nothing else has moved by then.
            let (denied, passed): (Vec<_>, Vec<_>) = client_samples().into_iter().partition(|(_, request)| {
                let needs = request.row().needs;
                needs.is_some_and(|needs| !model(role, if needs == spoken_of { word } else { Word::Nothing }, needs))
            });
            let rights = mesh.core.rights.clone();
            for (name, request) in denied {
                let needs = request.row().needs.unwrap().as_str();
                let outcome = mesh.step(Some(at), |features, cx| features.dispatch(cx, request));
                let error = outcome.err().unwrap_or_else(|| panic!("{name} passed: {role:?}, {word:?} {spoken_of:?}"));
                let expected = (ErrorCode::Forbidden, format!("this needs the capability {needs}"));
                assert_eq!((error.code, error.message), expected, "{name}");
                refused += 1;
            }
            assert!(mesh.core.work.is_empty() && mesh.core.events.is_empty() && mesh.core.dirty.is_empty());
            assert_eq!((mesh.core.flush_wanted, mesh.core.rights == rights), (FlushWanted::No, true));
            mesh.settle_frames().await;
            assert!(frames.lock().unwrap().is_empty(), "a refusal is told to the caller alone, by its answer");
            for (name, request) in passed {
                if request.tag() == "hello" || request.tag() == "session_hello" {
                    continue;
                }
                let outcome = mesh.step(Some(at), |features, cx| features.dispatch(cx, request));
                if let Err(error) = outcome {
                    let missing = error.message.strip_prefix("this needs the capability ");
                    // What is of others needs a second one, when the first is there.
                    let second = SECOND.iter().find(|(of, _)| name.starts_with(of)).map(|(_, needed)| needed.as_str());
                    assert!(
                        missing.is_none() || missing == second,
                        "{name} was refused: {role:?}, {word:?} {spoken_of:?}, {missing:?}"
                    );
                }
                mesh.core.work.clear();
                allowed += 1;
            }
        }
    }
    assert!(refused > 100 && allowed > refused, "{refused} {allowed}");
}

/// The default of the roles is the published one.
#[test]
fn roles_have_what_the_document_says() {
    let rights = Rights::default();
    for role in [Role::Member, Role::Admin, Role::Owner] {
        for &one in Capability::ALL {
            assert_eq!(rights.allows(&"x".into(), role, one), model(role, Word::Nothing, one), "{role:?} {one:?}");
        }
    }
}

fn code(answer: &ServerMessage) -> &str {
    match answer {
        ServerMessage::Failure(Failure::Error(error)) => &error.code,
        _ => "",
    }
}

fn change(member: &str, capability: Capability, to: Option<bool>) -> SetPermissions {
    SetPermissions { member: Some(member.into()), default: false, permissions: Changes::from([(capability, to)]) }
}

#[actix_rt::test]
async fn a_change_takes_effect_on_open_connections_and_after_a_restart() {
    let mut mesh = TestMesh::new().await;
    let (_, boss, _) = with_role(&mut mesh, "boss", 1, Role::Owner).await;
    let (bob, at, _) = with_role(&mut mesh, "bob", 2, Role::Member).await;
    let (_, eve, _) = with_role(&mut mesh, "eve", 3, Role::Member).await;
    let list = || claudemesh_protocol::features::moderation::ListBans {};
    assert_eq!(code(&mesh.ask(at, list()).await), "forbidden");
    let answer = mesh.ask(boss, change("bob", Capability::CanModerate, Some(true))).await;
    let text: serde_json::Value = serde_json::from_str(&answer.write(None)).unwrap();
    assert_eq!(text["members"][0]["overrides"], json!({"canModerate": true}), "{text}");
    assert_eq!(text["members"].as_array().map(Vec::len), Some(1));
    assert_eq!(code(&mesh.ask(at, list()).await), "");
    assert_eq!(code(&mesh.ask(eve, list()).await), "forbidden");
    // As after a restart.
    assert_eq!(rights::load(&mesh.core.storage()).await.unwrap(), mesh.core.rights);
    mesh.ask(boss, change(bob.as_str(), Capability::CanModerate, None)).await;
    assert_eq!(code(&mesh.ask(at, list()).await), "forbidden");
    let start = Changes::from([(Capability::CanModerate, Some(true))]);
    mesh.ask(boss, SetPermissions { member: None, default: true, permissions: start }).await;
    assert_eq!(code(&mesh.ask(eve, list()).await), "");
    let neither = SetPermissions { permissions: [(Capability::CanSend, None)].into(), ..SetPermissions::default() };
    assert_eq!(code(&mesh.ask(boss, neither).await), "invalid_args");
    assert_eq!(code(&mesh.ask(boss, change("nobody", Capability::CanSend, None)).await), "not_found");
}

#[actix_rt::test]
async fn members_see_themselves_and_managers_see_all() {
    let mut mesh = TestMesh::new().await;
    let (_, boss, _) = with_role(&mut mesh, "boss", 1, Role::Owner).await;
    let (bob, at, _) = with_role(&mut mesh, "bob", 2, Role::Member).await;
    let names = |answer: ServerMessage| {
        let text: serde_json::Value = serde_json::from_str(&answer.write(None)).unwrap();
        let rows = text["members"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["display_name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(mesh.ask(boss, GetPermissions { member: None }).await), ["boss", "bob"]);
    assert_eq!(names(mesh.ask(at, GetPermissions { member: None }).await), ["bob"]);
    assert_eq!(names(mesh.ask(at, GetPermissions { member: Some(key(2).to_hex()) }).await), ["bob"]);
    let other = mesh.ask(at, GetPermissions { member: Some("boss".into()) }).await;
    assert_eq!(code(&other), "forbidden");
    mesh.core.roster.member_mut(&bob).unwrap().revoked_at_ms = Some(1);
    assert_eq!(names(mesh.ask(boss, GetPermissions { member: None }).await), ["boss"]);
}

#[actix_rt::test]
async fn what_is_ones_own_needs_no_capability() {
    let mut mesh = TestMesh::new().await;
    let (bob, at, _) = with_role(&mut mesh, "bob", 2, Role::Member).await;
    let needed = Capability::CanManageFiles;
    let own = mesh.step(Some(at), |_, cx| cx.require_own(&bob, needed));
    assert_eq!(own, Ok(()));
    let foreign = |mesh: &mut TestMesh| mesh.step(Some(at), |_, cx| cx.require_own(&"eve".into(), needed));
    assert_eq!(foreign(&mut mesh).unwrap_err().code, ErrorCode::Forbidden);
    set_word(&mut mesh, &bob, Word::Own(true), needed);
    assert_eq!(foreign(&mut mesh), Ok(()));
}
