use std::collections::BTreeMap;

use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::features::members::Grant;
use claudemesh_protocol::id::{random_code, random_id};

use super::*;
use crate::audit;
use crate::db::members as roster;
use crate::db::testing::{NOW, key, mesh, of, store, store_suite};

const HOUR: i64 = 3_600_000;

async fn team(db: &Db) -> (MeshRecord, SecretKey) {
    let owner = SecretKey::random(&mut rand::rngs::OsRng);
    let slug = random_id(&mut rand::rngs::OsRng).to_lowercase();
    (mesh(db, &slug, owner.public()).await.0, owner)
}

fn invite(mesh: &MeshRecord, owner: &SecretKey, max_uses: i32) -> Invite {
    let id = InviteId::random(&mut rand::rngs::OsRng);
    let expires_at_ms = NOW + HOUR;
    let canonical = signed::invite_v2(&mesh.id, &id, expires_at_ms / 1_000, "member", &mesh.owner_pubkey);
    Invite {
        mesh_id: mesh.id.clone(),
        version: 2,
        code: Some(random_code(&mut rand::rngs::OsRng)),
        token_hash: Some(sha256_hex(id.as_str().as_bytes())),
        role: Role::Member,
        max_uses,
        used_count: 0,
        expires_at_ms,
        created_at_ms: NOW,
        created_by_key: mesh.owner_pubkey,
        revoked_at_ms: None,
        signature: owner.sign(canonical.as_bytes()),
        canonical,
        preset: None,
        id,
    }
}

fn candidate(pubkey: PublicKey) -> Candidate {
    Candidate { member_id: MemberId::random(&mut rand::rngs::OsRng), pubkey, display_name: "Bob".into() }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Refusal>) -> ErrorCode {
    result.unwrap_err().code
}

async fn uses(db: &Db, invite: &Invite) -> i32 {
    let all = list_invites(&of(db, &invite.mesh_id), 100).await.unwrap();
    all.iter().find(|one| one.id == invite.id).unwrap().used_count
}

store_suite! {
    async fn a_claim_enrols_once_and_a_repeat_is_answered_alike(db: Db) {
        let (mesh, owner) = team(&db).await;
        let preset = InvitePreset { role_tag: Some("ops".into()), ..InvitePreset::default() };
        let invite = Invite { preset: Some(preset), ..invite(&mesh, &owner, 1) };
        create_invite(&store(&db, &invite.mesh_id), &invite, &By::nobody(NOW)).await.unwrap();
        let code = invite.code.clone().unwrap();
        let bob = key();
        let first = claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(bob), NOW).await.unwrap();
        assert!(!first.already_member);
        assert_eq!((first.member.role_tag.as_deref(), first.member.role), (Some("ops"), Role::Member));
        assert_eq!(roster::by_key(&of(&db, &mesh.id), &bob).await.unwrap(), Some(first.member.clone()));
        let again = claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(bob), NOW).await.unwrap();
        assert!(again.already_member);
        assert_eq!(again.member, first.member);
        assert_eq!(uses(&db, &invite).await, 1);
        assert_eq!(refusal(claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(key()), NOW).await), ErrorCode::Exhausted);
        assert_eq!(count_usable(&of(&db, &mesh.id), NOW).await.unwrap(), 0);
    }

    async fn a_newcomer_gets_a_name_that_no_living_member_has(db: Db) {
        let (mesh, owner) = team(&db).await;
        let invite = invite(&mesh, &owner, 9);
        create_invite(&store(&db, &invite.mesh_id), &invite, &By::nobody(NOW)).await.unwrap();
        let code = invite.code.clone().unwrap();
        let journal = Journal::start(db.clone()).0;
        let called = |name: &str| Candidate { display_name: name.into(), ..candidate(key()) };
        let mut names = vec![];
        let mut first = None;
        for name in ["Bob", "bob", "Bob", "Carl"] {
            let one = claim_v2(&db, &journal, &code, &called(name), NOW).await.unwrap().member;
            names.push(one.display_name.clone());
            first.get_or_insert(one);
        }
        assert_eq!(names, ["Bob", "bob-2", "Bob-3", "Carl"]);
        // A banned member loses its name. When it comes back and another member has that name, it gets a number.
        let (here, by) = (store(&db, &mesh.id), By::nobody(NOW));
        let first = first.unwrap();
        assert!(roster::revoke(&here, &first.id, None, &by).await.unwrap());
        assert_eq!(claim_v2(&db, &journal, &code, &called("Bob"), NOW).await.unwrap().member.display_name, "Bob");
        assert!(roster::unrevoke(&here, &first.id, &by).await.unwrap().is_some());
        let back = roster::load(&of(&db, &mesh.id), &first.id).await.unwrap().unwrap();
        assert_eq!(back.display_name, "Bob-4");
        let patch = roster::MemberPatch { display_name: Some("CARL".into()), ..Default::default() };
        assert_eq!(refusal(roster::update(&here, &first.id, &patch, &by).await), ErrorCode::NameTaken);
    }

    async fn five_claims_of_a_single_use_invite_give_one_member(db: Db) {
        let (mesh, owner) = team(&db).await;
        let invite = invite(&mesh, &owner, 1);
        create_invite(&store(&db, &invite.mesh_id), &invite, &By::nobody(NOW)).await.unwrap();
        let code = invite.code.clone().unwrap();
        let claims = (0..5).map(|_| {
            let (db, code) = (db.clone(), code.clone());
            tokio::spawn(async move { claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(key()), NOW).await })
        });
        let mut won = 0;
        for claim in claims.collect::<Vec<_>>() {
            match claim.await.unwrap() {
                Ok(_) => won += 1,
                refused => assert_eq!(refusal(refused), ErrorCode::Exhausted),
            }
        }
        assert_eq!((won, uses(&db, &invite).await), (1, 1));
        assert_eq!(roster::load_all(&of(&db, &mesh.id)).await.unwrap().len(), 2, "the owner and one more");
    }

    async fn the_same_key_five_times_at_once_consumes_one_use(db: Db) {
        let (mesh, owner) = team(&db).await;
        let invite = invite(&mesh, &owner, 9);
        create_invite(&store(&db, &invite.mesh_id), &invite, &By::nobody(NOW)).await.unwrap();
        let (code, bob) = (invite.code.clone().unwrap(), key());
        let claims = (0..5).map(|_| {
            let (db, code) = (db.clone(), code.clone());
            tokio::spawn(async move { claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(bob), NOW).await })
        });
        for claim in claims.collect::<Vec<_>>() {
            assert_eq!(claim.await.unwrap().unwrap().member.pubkey, bob);
        }
        assert_eq!(uses(&db, &invite).await, 1);
    }

    async fn v1_refusals_come_in_the_documented_order(db: Db) {
        let (mesh, owner) = team(&db).await;
        let (other, _) = team(&db).await;
        let invite = invite(&mesh, &owner, 1);
        create_invite(&store(&db, &invite.mesh_id), &invite, &By::nobody(NOW)).await.unwrap();
        let hash = invite.token_hash.clone().unwrap();
        let (someone, owner) = (candidate(key()), owner.public());
        let code = |result| refusal(result);
        assert_eq!(code(claim_v1(&db, &Journal::start(db.clone()).0, &hash, &"none".into(), &owner, &someone, NOW).await), ErrorCode::MeshNotFound);
        let wrong = claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &key(), &someone, NOW).await;
        assert_eq!(code(wrong), ErrorCode::InviteOwnerMismatch);
        let unknown = claim_v1(&db, &Journal::start(db.clone()).0, &sha256_hex(b"x"), &mesh.id, &owner, &someone, NOW).await;
        assert_eq!(code(unknown), ErrorCode::InviteNotFound);
        let elsewhere = claim_v1(&db, &Journal::start(db.clone()).0, &hash, &other.id, &other.owner_pubkey, &someone, NOW).await;
        assert_eq!(code(elsewhere), ErrorCode::InviteMeshMismatch);
        let late = claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &owner, &someone, NOW + HOUR).await;
        assert_eq!(code(late), ErrorCode::InviteExpired);
        assert!(!claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &owner, &someone, NOW).await.unwrap().already_member);
        assert!(claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &owner, &someone, NOW).await.unwrap().already_member);
        let full = claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &owner, &candidate(key()), NOW).await;
        assert_eq!(code(full), ErrorCode::InviteExhausted);
        assert!(revoke_invite(&store(&db, &mesh.id), &invite.id, &By::nobody(NOW)).await.unwrap().is_some());
        let revoked = claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &owner, &someone, NOW + HOUR).await;
        assert_eq!(code(revoked), ErrorCode::InviteRevoked);
        meshes::archive(&store(&db, &mesh.id), &By::nobody(NOW)).await.unwrap();
        assert_eq!(code(claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &owner, &someone, NOW).await), ErrorCode::MeshNotFound);
    }

    async fn v2_refusals_come_in_the_documented_order(db: Db) {
        let (mesh, owner) = team(&db).await;
        let good = invite(&mesh, &owner, 1);
        create_invite(&store(&db, &good.mesh_id), &good, &By::nobody(NOW)).await.unwrap();
        let code = good.code.clone().unwrap();
        assert_eq!(refusal(claim_v2(&db, &Journal::start(db.clone()).0, "NOSUCH22", &candidate(key()), NOW).await), ErrorCode::NotFound);
        assert_eq!(refusal(claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(key()), NOW + HOUR).await), ErrorCode::Expired);
        let raised = Invite { role: Role::Admin, ..invite(&mesh, &owner, 1) };
        create_invite(&store(&db, &raised.mesh_id), &raised, &By::nobody(NOW)).await.unwrap();
        let raised = claim_v2(&db, &Journal::start(db.clone()).0, raised.code.as_deref().unwrap(), &candidate(key()), NOW).await;
        assert_eq!(refusal(raised), ErrorCode::BadSignature, "a role that the owner did not sign");
        revoke_invite(&store(&db, &mesh.id), &good.id, &By::nobody(NOW)).await.unwrap();
        assert_eq!(refusal(claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(key()), NOW + HOUR).await), ErrorCode::Revoked);
    }

    /// A ban holds for the key, whatever invite it comes with next.
    async fn a_banned_key_cannot_enrol_again_until_the_ban_is_lifted(db: Db) {
        let (mesh, owner) = team(&db).await;
        let invite = invite(&mesh, &owner, 5);
        create_invite(&store(&db, &invite.mesh_id), &invite, &By::nobody(NOW)).await.unwrap();
        let (code, bob) = (invite.code.clone().unwrap(), key());
        let member = claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(bob), NOW).await.unwrap().member;
        assert!(roster::revoke(&store(&db, &mesh.id), &member.id, None, &By::nobody(NOW)).await.unwrap());
        assert!(!roster::revoke(&store(&db, &mesh.id), &member.id, None, &By::nobody(NOW)).await.unwrap());
        assert_eq!(refusal(claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(bob), NOW).await), ErrorCode::Revoked);
        let hash = invite.token_hash.clone().unwrap();
        let through_v1 = claim_v1(&db, &Journal::start(db.clone()).0, &hash, &mesh.id, &owner.public(), &candidate(bob), NOW).await;
        assert_eq!(refusal(through_v1), ErrorCode::Revoked);
        assert_eq!(uses(&db, &invite).await, 1);
        assert!(roster::unrevoke(&store(&db, &mesh.id), &member.id, &By::nobody(NOW)).await.unwrap().is_some());
        assert!(claim_v2(&db, &Journal::start(db.clone()).0, &code, &candidate(bob), NOW).await.unwrap().already_member);
    }

    /// One entry for each change, in order, and none for what was refused or changed nothing.
    async fn changes_of_members_are_told_in_the_audit_log(db: Db) {
        let (mesh, owner) = team(&db).await;
        let (here, by) = (store(&db, &mesh.id), By::nobody(NOW));
        let invite = invite(&mesh, &owner, 1);
        create_invite(&here, &invite, &By::nobody(NOW)).await.unwrap();
        let (code, bob) = (invite.code.clone().unwrap(), key());
        let journal = Journal::start(db.clone()).0;
        let member = claim_v2(&db, &journal, &code, &candidate(bob), NOW).await.unwrap().member;
        claim_v2(&db, &journal, &code, &candidate(bob), NOW).await.unwrap();
        assert_eq!(refusal(claim_v2(&db, &journal, &code, &candidate(key()), NOW).await), ErrorCode::Exhausted);
        for _ in 0..2 {
            roster::revoke(&here, &member.id, None, &By::member(&"ada".into(), NOW)).await.unwrap();
        }
        roster::unrevoke(&here, &member.id, &by).await.unwrap();
        let many = (0..=roster::MAX_GRANTS).map(|_| (key(), Some(vec![]))).collect();
        assert!(roster::update_grants(&here, &member.id, &many, &by).await.is_err());
        revoke_invite(&here, &invite.id, &by).await.unwrap();
        let mut told = audit::query(&here, &audit::Filter::default(), 100).await.unwrap();
        told.reverse();
        let events: Vec<_> = told.iter().map(|entry| entry.event_type.as_str()).collect();
        let expected =
            ["mesh_created", "invite_created", "member_joined", "member_banned", "member_unbanned", "invite_revoked"];
        assert_eq!(events, expected);
        assert_eq!((&told[2].actor_member_id, &told[3].actor_member_id), (&Some(member.id.clone()), &Some("ada".into())));
        assert_eq!(told[3].payload, format!(r#"{{"member":"{}"}}"#, member.id));
        assert_eq!(audit::verify(&here).await.unwrap().broken_at, None);
    }

    async fn the_owner_cannot_be_banned(db: Db) {
        let (mesh, _) = team(&db).await;
        let owner = roster::load_all(&of(&db, &mesh.id)).await.unwrap().remove(0);
        assert_eq!(owner.role, Role::Owner);
        assert!(!roster::revoke(&store(&db, &mesh.id), &owner.id, None, &By::nobody(NOW)).await.unwrap());
    }

    async fn members_are_edited_field_by_field(db: Db) {
        let (mesh, _) = team(&db).await;
        let owner = roster::load_all(&of(&db, &mesh.id)).await.unwrap().remove(0);
        let patch = roster::MemberPatch {
            display_name: Some("Ada".into()),
            role_tag: Some(Some("lead".into())),
            ..Default::default()
        };
        let edited = roster::update(&store(&db, &mesh.id), &owner.id, &patch, &By::nobody(NOW)).await.unwrap().unwrap();
        assert_eq!((edited.display_name.as_str(), edited.role_tag.as_deref()), ("Ada", Some("lead")));
        let clear = roster::MemberPatch { role_tag: Some(None), ..Default::default() };
        let cleared = roster::update(&store(&db, &mesh.id), &owner.id, &clear, &By::nobody(NOW)).await.unwrap().unwrap();
        assert_eq!((cleared.display_name.as_str(), cleared.role_tag), ("Ada", None));
        let nothing = roster::MemberPatch::default();
        assert!(roster::update(&store(&db, &mesh.id), &owner.id, &nothing, &By::nobody(NOW)).await.unwrap().is_some());
    }

    async fn grants_are_merged_and_removed(db: Db) {
        let (mesh, _) = team(&db).await;
        let owner = roster::load_all(&of(&db, &mesh.id)).await.unwrap().remove(0);
        let (bob, eve) = (key(), key());
        let change = BTreeMap::from([(bob, Some(vec![Grant::Dm])), (eve, Some(vec![]))]);
        let grants = roster::update_grants(&store(&db, &mesh.id), &owner.id, &change, &By::nobody(NOW)).await.unwrap().unwrap();
        assert_eq!(grants, BTreeMap::from([(bob, vec![Grant::Dm]), (eve, vec![])]));
        let change = BTreeMap::from([(bob, None)]);
        let grants = roster::update_grants(&store(&db, &mesh.id), &owner.id, &change, &By::nobody(NOW)).await.unwrap().unwrap();
        assert_eq!(grants, BTreeMap::from([(eve, vec![])]));
        let many = (0..=roster::MAX_GRANTS).map(|_| (key(), Some(vec![]))).collect();
        let refused = roster::update_grants(&store(&db, &mesh.id), &owner.id, &many, &By::nobody(NOW)).await;
        assert!(matches!(refused, Err(roster::GrantsError::TooMany)));
        assert_eq!(roster::load(&of(&db, &mesh.id), &owner.id).await.unwrap().unwrap().grants, grants);
    }
}
