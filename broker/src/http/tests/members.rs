//! Members, what they may edit, grants, the end of a mesh.

use super::*;

#[actix_rt::test]
async fn members_edit_themselves_admins_others_and_nobody_another_mesh() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let (here, there) = (team(&app, "here").await, team(&app, "there").await);
    let (bob, bob_row) = enrol(&app, &here, "member").await;
    let (eve, eve_row) = enrol(&app, &here, "member").await;
    let (admin, _) = enrol(&app, &here, "admin").await;
    let path = |team: &Team, id: &str| format!("/mesh/{}/member/{id}", team.id);
    let rename = json!({"displayName": " Robert "});
    let bob_path = path(&here, bob_row.member_id.as_str());
    let edited = send(&app, call("PATCH", bob_path.clone()).json(&rename).by(&bob)).await;
    assert_eq!((edited.0, &edited.1["member"]["displayName"]), (200, &json!("Robert")), "{}", edited.1);
    assert_eq!(edited.1["changes"], json!({"displayName": "Robert"}));
    for bad in ["@all", "*", "#x", "deadbeef"] {
        let renamed = call("PATCH", bob_path.clone()).json(&json!({"displayName": bad})).by(&bob);
        assert_eq!(code(&send(&app, renamed).await), (400, "invalid_name"), "{bad}");
    }
    let by_eve = call("PATCH", bob_path.clone()).json(&rename).by(&eve);
    assert_eq!(code(&send(&app, by_eve).await), (403, "forbidden"));
    let by_admin = call("PATCH", bob_path.clone()).json(&json!({"roleTag": "ops"})).by(&admin);
    assert_eq!(send(&app, by_admin).await.1["member"]["roleTag"], "ops");
    for signer in [&bob, &admin] {
        let promote = call("PATCH", bob_path.clone()).json(&json!({"permission": "admin"})).by(signer);
        assert_eq!(code(&send(&app, promote).await), (403, "forbidden"), "only the owner gives roles");
    }
    let promote = call("PATCH", bob_path.clone()).json(&json!({"permission": "admin"})).by(&here.creator);
    assert_eq!(send(&app, promote).await.1["member"]["permission"], "admin");
    // The owner of another mesh, naming a member of this one through its own mesh.
    let across = call("PATCH", path(&there, eve_row.member_id.as_str())).json(&rename).by(&there.creator);
    assert_eq!(code(&send(&app, across).await), (404, "not_found"));
    let foreign = call("PATCH", path(&here, eve_row.member_id.as_str())).json(&rename).by(&there.creator);
    assert_eq!(code(&send(&app, foreign).await), (401, "unauthorized"));
    let header_only = call("PATCH", bob_path.clone()).json(&rename).header("x-member-id", bob_row.member_id.as_str());
    assert_eq!(code(&send(&app, header_only).await), (401, "unauthorized"));
    let empty = call("PATCH", bob_path).json(&json!({})).by(&bob);
    assert_eq!(code(&send(&app, empty).await), (400, "invalid_args"));
    let listed = send(&app, call("GET", format!("/mesh/{}/members", here.id)).by(&eve)).await;
    assert_eq!(listed.1["members"].as_array().unwrap().len(), 4);
    let open = send(&app, call("GET", format!("/mesh/{}/members", here.id))).await;
    assert_eq!(code(&open), (401, "unauthorized"));
}

/// As over frames: `a_member_that_may_manage_members_renames_members_and_no_admins`.
#[actix_rt::test]
async fn a_member_that_may_manage_members_edits_members_and_no_admins() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (eve, eve_row) = enrol(&app, &team, "member").await;
    let (_, bob) = enrol(&app, &team, "member").await;
    let (_, carl) = enrol(&app, &team, "admin").await;
    let allow = async |change: serde_json::Value| {
        let body = json!({"member_id": eve_row.member_id, "permissions": change});
        let done = send(&app, call("POST", "/cli/mesh/team/permissions").json(&body).by(&team.owner)).await;
        assert_eq!(done.0, 200, "{}", done.1);
    };
    let edit = async |member: &str, change: serde_json::Value| {
        let path = format!("/mesh/{}/member/{member}", team.id);
        send(&app, call("PATCH", path).json(&change).by(&eve)).await
    };
    allow(json!({"canModerate": true})).await;
    for change in [json!({"displayName": "Zed"}), json!({"roleTag": "ops"})] {
        let refused = edit(bob.member_id.as_str(), change).await;
        assert_eq!(code(&refused), (403, "forbidden"));
        assert!(refused.1["message"].as_str().unwrap().ends_with("canManageMembers"), "{}", refused.1);
    }
    allow(json!({"canManageMembers": true, "canModerate": null})).await;
    assert_eq!(code(&edit(carl.member_id.as_str(), json!({"displayName": "Zed"})).await), (403, "forbidden"));
    let renamed = edit(bob.member_id.as_str(), json!({"displayName": "Zed"})).await;
    assert_eq!((renamed.0, &renamed.1["member"]["displayName"]), (200, &json!("Zed")), "{}", renamed.1);
}

#[actix_rt::test]
async fn renamings_over_http_and_over_frames_share_one_bound() {
    use claudemesh_protocol::features::members::RenameMember;

    use crate::mesh::principal::Principal;

    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (bob, row) = enrol(&app, &team, "member").await;
    let path = format!("/mesh/{}/member/{}", team.id, row.member_id);
    let patch = async |change: serde_json::Value| send(&app, call("PATCH", path.clone()).json(&change).by(&bob)).await;
    let over_frames = async |name: &str| {
        let from = Principal::Member(row.member_id.clone());
        let rename = RenameMember { name: name.into(), member: None };
        bench.state.directory.request(&team.id.clone(), from, rename).await.map_err(|refusal| refusal.code)
    };
    for number in 0..3 {
        assert_eq!(patch(json!({"displayName": format!("Robert {number}")})).await.0, 200);
        over_frames(&format!("Bob {number}")).await.unwrap();
    }
    let refused = patch(json!({"displayName": "Rob"})).await;
    assert_eq!(code(&refused), (429, "rate_limited"), "{}", refused.1);
    assert_eq!(over_frames("Rob").await, Err(ErrorCode::RateLimited));
    // What is no other name does not count, and neither do the names that others give themselves.
    assert_eq!(patch(json!({"displayName": "Bob 2", "roleTag": "ops"})).await.0, 200);
    let by_owner = call("PATCH", path.clone()).json(&json!({"displayName": "Rob"})).by(&team.owner);
    assert_eq!(send(&app, by_owner).await.0, 200);
}

#[actix_rt::test]
async fn the_policy_limits_what_members_change_of_themselves() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (bob, row) = enrol(&app, &team, "member").await;
    let policy = json!({"selfEditable": {"displayName": false, "roleTag": true, "groups": true, "messageMode": true}});
    let settings = format!("/mesh/{}/settings", team.id);
    let by_member = send(&app, call("PATCH", settings.clone()).json(&policy).by(&bob)).await;
    assert_eq!(code(&by_member), (403, "forbidden"));
    assert_eq!(send(&app, call("PATCH", settings).json(&policy).by(&team.owner)).await.0, 200);
    let path = format!("/mesh/{}/member/{}", team.id, row.member_id);
    let rename = call("PATCH", path.clone()).json(&json!({"displayName": "Robert"})).by(&bob);
    assert_eq!(code(&send(&app, rename).await), (403, "forbidden"));
    let groups = call("PATCH", path).json(&json!({"groups": [{"name": "a/b"}]})).by(&bob);
    assert_eq!(send(&app, groups).await.1["member"]["groups"], json!([{"name": "a/b"}]));
}

#[actix_rt::test]
async fn grants_are_the_callers_own() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (bob, _) = enrol(&app, &team, "member").await;
    let (path, eve) = (format!("/mesh/{}/grants", team.id), key().public().to_hex());
    let change = json!({"grants": {eve.clone(): ["dm", "dm"]}});
    let changed = send(&app, call("POST", path.clone()).json(&change).by(&bob)).await;
    assert_eq!(changed.1["grants"], json!({eve.clone(): ["dm"]}), "{}", changed.1);
    assert_eq!(send(&app, call("GET", path.clone()).by(&team.creator)).await.1["grants"], json!({}));
    let removed = call("POST", path.clone()).json(&json!({"grants": {eve: null}})).by(&bob);
    assert_eq!(send(&app, removed).await.1["grants"], json!({}));
    let unknown = call("POST", path).json(&json!({"grants": {"x": ["dm"]}})).by(&bob);
    assert_eq!(code(&send(&app, unknown).await), (400, "invalid_args"));
}

#[actix_rt::test]
async fn an_archived_mesh_accepts_nothing() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let invite = invite_request(&team, "member", 1);
    let invites = format!("/mesh/{}/invites", team.id);
    assert_eq!(send(&app, call("POST", invites.clone()).json(&invite).by(&team.owner)).await.0, 201);
    let (bob, _) = enrol(&app, &team, "admin").await;
    let archive = format!("/mesh/{}/archive", team.id);
    assert_eq!(code(&send(&app, call("POST", archive.clone()).by(&bob)).await), (403, "forbidden"));
    assert_eq!(send(&app, call("POST", archive.clone()).by(&team.creator)).await.0, 200);
    assert_eq!(code(&send(&app, call("POST", archive).by(&team.owner)).await), (410, "mesh_archived"));
    assert_eq!(code(&send(&app, call("GET", invites).by(&team.owner)).await), (410, "mesh_archived"));
    let recipient = crypto_box::SecretKey::generate(&mut rand::rngs::OsRng);
    let claim = claim_request(&invite.code, &key(), &recipient);
    let late = send(&app, call("POST", format!("/invites/{}/claim", invite.code)).json(&claim)).await;
    assert_eq!(code(&late), (404, "mesh_not_found"));
    let unknown = send(&app, call("GET", "/mesh/none/members").by(&team.owner)).await;
    assert_eq!(code(&unknown), (404, "mesh_not_found"));
}

#[actix_rt::test]
async fn permissions_are_for_signers_who_may_and_change_what_others_may_do() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let (here, there) = (team(&app, "here").await, team(&app, "there").await);
    let (bob, bob_row) = enrol(&app, &here, "member").await;
    let (admin, admin_row) = enrol(&app, &here, "admin").await;
    let path = "/cli/mesh/here/permissions";
    let open = send(&app, call("GET", path)).await;
    assert_eq!(code(&open), (401, "unauthorized"));
    assert_eq!(code(&send(&app, call("GET", path).by(&there.creator)).await), (401, "unauthorized"));
    let unknown = send(&app, call("GET", "/cli/mesh/nowhere/permissions").by(&bob)).await;
    assert_eq!(code(&unknown), (401, "unauthorized"), "a stranger does not learn which meshes there are");
    let own = send(&app, call("GET", path).by(&bob)).await;
    assert_eq!((own.0, own.1["members"].as_array().unwrap().len()), (200, 1), "{}", own.1);
    assert_eq!(own.1["members"][0]["permissions"]["canInvite"], false);
    assert_eq!(send(&app, call("GET", path).by(&here.owner)).await.1["members"].as_array().unwrap().len(), 3);
    let edit = |member: &str, change: serde_json::Value| json!({"member_id": member, "permissions": change});
    let (bob_id, admin_id) = (bob_row.member_id.as_str(), admin_row.member_id.as_str());
    let raise = edit(bob_id, json!({"canInvite": true}));
    assert_eq!(code(&send(&app, call("POST", path).json(&raise).by(&bob)).await), (403, "forbidden"));
    // Naming another requester in the body proves nothing.
    let named = json!({"requester_id": admin_id, "member_id": bob_id, "permissions": {"canInvite": true}});
    assert_eq!(code(&send(&app, call("POST", path).json(&named).by(&bob)).await), (403, "forbidden"));
    let raised = send(&app, call("POST", path).json(&raise).by(&admin)).await;
    assert_eq!((raised.0, &raised.1["members"][0]["overrides"]), (200, &json!({"canInvite": true})), "{}", raised.1);
    let beyond = edit(bob_id, json!({"canDeleteMesh": true}));
    assert_eq!(code(&send(&app, call("POST", path).json(&beyond).by(&admin)).await), (403, "forbidden"));
    assert_eq!(send(&app, call("POST", path).json(&beyond).by(&here.owner)).await.0, 200);
    let lower = edit(admin_id, json!({"canManagePermissions": false}));
    assert_eq!(send(&app, call("POST", path).json(&lower).by(&here.creator)).await.0, 200);
    assert_eq!(code(&send(&app, call("POST", path).json(&raise).by(&admin)).await), (403, "forbidden"));
    for bad in
        [json!({"permissions": {"canSend": false}}), edit(bob_id, json!({"canFly": true})), edit(bob_id, json!({}))]
    {
        assert_eq!(
            code(&send(&app, call("POST", path).json(&bad).by(&here.owner)).await),
            (400, "invalid_args"),
            "{bad}"
        );
    }
    let start = json!({"default": true, "permissions": {"canSend": false}});
    let done = send(&app, call("POST", path).json(&start).by(&here.owner)).await;
    assert_eq!((done.0, &done.1["defaults"]), (200, &json!({"canSend": false})));
    let members = send(&app, call("GET", path).by(&bob)).await;
    assert_eq!(members.1["members"][0]["permissions"]["canSend"], false);
}
