use super::*;
use crate::db::members as people;
use crate::db::testing::{NOW, key, member, mesh, of, store, store_suite};

const INVITE: Capability = Capability::CanInvite;
const SEND: Capability = Capability::CanSend;
const MANAGE: Capability = Capability::CanManagePermissions;

fn one(capability: Capability, change: Option<bool>) -> Changes {
    [(capability, change)].into()
}

#[test]
fn a_members_own_word_goes_before_the_start_and_the_start_before_the_role() {
    let mut rights = Rights::default();
    let bob: MemberId = "bob".into();
    assert!(rights.allows(&bob, Role::Member, SEND) && !rights.allows(&bob, Role::Member, INVITE));
    rights.put(&Subject::Start, [(SEND, false), (INVITE, true)].into());
    assert!(!rights.allows(&bob, Role::Member, SEND) && rights.allows(&bob, Role::Member, INVITE));
    assert!(rights.allows(&bob, Role::Admin, SEND), "the start is of plain members");
    rights.put(&Subject::Member(bob.clone()), [(SEND, true), (INVITE, false)].into());
    for role in [Role::Member, Role::Admin] {
        assert!(rights.allows(&bob, role, SEND) && !rights.allows(&bob, role, INVITE), "{role:?}");
    }
    for &capability in Capability::ALL {
        assert!(rights.allows(&bob, Role::Owner, capability), "the owner has {capability:?}");
    }
}

store_suite! {
    async fn nobody_gives_what_they_do_not_have_and_nobody_edits_the_owner(db: Db) {
        let (mesh, owner) = mesh(&db, "here", key()).await;
        let here = store(&db, &mesh.id);
        let [ann, abe, bob] = [("ann", Role::Admin), ("abe", Role::Admin), ("bob", Role::Member)]
            .map(|(name, role)| member(&mesh.id, name, role));
        for member in [&ann, &abe, &bob] {
            people::insert(&here, member).await.unwrap();
        }
        let of_one = |id: &MemberId| Subject::Member(id.clone());
        let refused = async |by: &MemberId, subject: Subject, changes: Changes| {
            match edit(&here, &subject, &changes, &By::member(by, NOW)).await {
                Err(WriteError::Refused(error)) => Some(error),
                other => {
                    other.unwrap();
                    None
                }
            }
        };
        let give = |capability| one(capability, Some(true));
        assert_eq!(refused(&bob.id, of_one(&bob.id), give(INVITE)).await, Some(EditError::NotAnEditor));
        assert_eq!(refused(&ann.id, of_one(&owner.id), one(SEND, Some(false))).await, Some(EditError::Owner));
        assert_eq!(refused(&owner.id, of_one(&owner.id), one(SEND, Some(false))).await, Some(EditError::Owner));
        assert_eq!(refused(&ann.id, of_one(&abe.id), one(SEND, Some(false))).await, Some(EditError::OtherAdmin));
        let delete = Capability::CanDeleteMesh;
        assert_eq!(refused(&ann.id, of_one(&bob.id), give(delete)).await, Some(EditError::NotYours(delete)));
        assert_eq!(refused(&ann.id, Subject::Start, give(delete)).await, Some(EditError::NotYours(delete)));
        assert_eq!(refused(&ann.id, of_one(&"none".into()), give(SEND)).await, Some(EditError::NoMember));
        assert_eq!(refused(&ann.id, of_one(&bob.id), Changes::new()).await, Some(EditError::Nothing));
        assert!(load(&here).await.unwrap() == Rights::default(), "what is refused changes nothing");

        // What the owner took from an admin, that admin can neither give back to itself nor give to others.
        assert_eq!(refused(&owner.id, of_one(&ann.id), one(INVITE, Some(false))).await, None);
        for change in [Some(true), None] {
            assert_eq!(refused(&ann.id, of_one(&ann.id), one(INVITE, change)).await, Some(EditError::NotYours(INVITE)));
        }
        assert_eq!(refused(&ann.id, of_one(&bob.id), give(INVITE)).await, Some(EditError::NotYours(INVITE)));
        assert_eq!(refused(&abe.id, of_one(&bob.id), give(INVITE)).await, None);
        // A plain member that may manage permissions is no editor for that.
        assert_eq!(refused(&owner.id, of_one(&bob.id), give(MANAGE)).await, None);
        assert_eq!(refused(&bob.id, of_one(&bob.id), give(SEND)).await, Some(EditError::NotAnEditor));
        // The key of the mesh is the owner.
        edit(&here, &Subject::Start, &one(SEND, Some(false)), &By::nobody(NOW)).await.unwrap();
        assert_eq!(refused(&owner.id, of_one(&abe.id), one(MANAGE, Some(false))).await, None);
        assert_eq!(refused(&abe.id, of_one(&bob.id), give(INVITE)).await, Some(EditError::NotAnEditor));
        // A banned admin edits nothing.
        people::revoke(&here, &ann.id, None, &By::member(&owner.id, NOW)).await.unwrap();
        assert_eq!(refused(&ann.id, of_one(&bob.id), give(SEND)).await, Some(EditError::NotAnEditor));
    }

    async fn edits_are_kept_and_told_of_in_the_audit_log(db: Db) {
        let (mesh, owner) = mesh(&db, "here", key()).await;
        let (here, by) = (store(&db, &mesh.id), By::member(&owner.id, NOW));
        let bob = member(&mesh.id, "bob", Role::Member);
        people::insert(&here, &bob).await.unwrap();
        let subject = Subject::Member(bob.id.clone());
        let both: Changes = [(INVITE, Some(true)), (SEND, Some(false))].into();
        let kept = edit(&here, &subject, &both, &by).await.unwrap();
        assert_eq!(kept, Overrides::from([(INVITE, true), (SEND, false)]));
        assert_eq!(edit(&here, &subject, &one(SEND, Some(false)), &by).await.unwrap(), kept);
        assert_eq!(edit(&here, &subject, &one(SEND, None), &by).await.unwrap(), Overrides::from([(INVITE, true)]));
        edit(&here, &Subject::Start, &one(SEND, Some(false)), &by).await.unwrap();
        let rights = load(&of(&db, &mesh.id)).await.unwrap();
        assert!(rights.allows(&bob.id, Role::Member, INVITE) && !rights.allows(&bob.id, Role::Member, SEND));
        let filter = crate::audit::Filter { event: Some("permissions_changed".into()), ..Default::default() };
        let entries = crate::audit::query(&here, &filter, 9).await.unwrap();
        let payloads: Vec<&str> = entries.iter().map(|entry| entry.payload.as_str()).collect();
        let member = bob.id.as_str();
        assert_eq!(
            payloads,
            [
                r#"{"default":true,"permissions":{"canSend":false}}"#.to_owned(),
                format!(r#"{{"member":"{member}","permissions":{{"canSend":null}}}}"#),
                format!(r#"{{"member":"{member}","permissions":{{"canInvite":true,"canSend":false}}}}"#),
            ],
            "an edit that changes nothing has no entry"
        );
        assert_eq!(entries[0].actor_member_id, Some(owner.id.clone()));
    }
}
