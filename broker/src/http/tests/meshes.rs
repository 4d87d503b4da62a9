//! The life of a mesh after it was made.

use super::*;

fn path(team: &Team, rest: &str) -> String {
    format!("/mesh/{}{rest}", team.id)
}

/// Events of the audit log, oldest first.
async fn events(bench: &Bench, mesh: &MeshId) -> Vec<String> {
    let page = crate::audit::page(&bench.state.storage(mesh), 0, 200).await.unwrap();
    page.into_iter().map(|entry| entry.event_type).collect()
}

#[actix_rt::test]
async fn a_mesh_is_renamed_by_those_who_may_and_its_old_slug_is_free() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let (here, there) = (team(&app, "here").await, team(&app, "there").await);
    let (bob, row) = enrol(&app, &here, "member").await;
    let (admin, _) = enrol(&app, &here, "admin").await;
    let rename = json!({"slug": "kitchen", "name": " The kitchen "});
    for (signer, expected) in [(&bob, (403, "forbidden")), (&there.creator, (401, "unauthorized"))] {
        assert_eq!(code(&send(&app, call("PATCH", path(&here, "")).json(&rename).by(signer)).await), expected);
    }
    let renamed = send(&app, call("PATCH", path(&here, "")).json(&rename).by(&admin)).await;
    let got = (renamed.0, &renamed.1["slug"], &renamed.1["name"], &renamed.1["members"]);
    assert_eq!(got, (200, &json!("kitchen"), &json!("The kitchen"), &json!(3)));
    let shown = send(&app, call("GET", path(&here, "")).by(&bob)).await;
    assert_eq!((&shown.1["slug"], &shown.1["role"]), (&json!("kitchen"), &json!("member")));
    for (bad, expected) in [
        (json!({"slug": "there"}), (409, "already_exists")),
        (json!({"slug": "A b"}), (400, "invalid_name")),
        (json!({"name": ""}), (400, "invalid_name")),
        (json!({}), (400, "invalid_args")),
    ] {
        assert_eq!(
            code(&send(&app, call("PATCH", path(&here, "")).json(&bad).by(&here.owner)).await),
            expected,
            "{bad}"
        );
    }
    // A capability of its own makes a plain member one who may.
    let raise = json!({"member_id": row.member_id, "permissions": {"canManageMesh": true}});
    assert_eq!(send(&app, call("POST", "/cli/mesh/kitchen/permissions").json(&raise).by(&here.owner)).await.0, 200);
    let again = send(&app, call("PATCH", path(&here, "")).json(&json!({"slug": "bakery"})).by(&bob)).await;
    assert_eq!((again.0, &again.1["name"]), (200, &json!("The kitchen")), "what is not named stays");
    team(&app, "kitchen").await;
    let log = events(&bench, &here.id).await;
    assert_eq!(log.iter().filter(|event| *event == "mesh_renamed").count(), 2, "{log:?}");
}

#[actix_rt::test]
async fn an_archived_mesh_is_still_there_for_its_members_and_comes_back() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (bob, _) = enrol(&app, &team, "member").await;
    let restore = path(&team, "/restore");
    assert_eq!(code(&send(&app, call("POST", restore.clone()).by(&team.owner)).await), (400, "invalid"));
    assert_eq!(send(&app, call("POST", path(&team, "/archive")).by(&team.creator)).await.0, 200);
    let shown = send(&app, call("GET", path(&team, "")).by(&bob)).await;
    assert_eq!((shown.0, shown.1["archivedAt"].is_string()), (200, true));
    assert_eq!(code(&send(&app, call("GET", path(&team, "/settings")).by(&bob)).await), (410, "mesh_archived"));
    let rename = call("PATCH", path(&team, "")).json(&json!({"slug": "x2"})).by(&team.owner);
    assert_eq!(code(&send(&app, rename).await), (410, "mesh_archived"));
    let back = json!({"member_pubkey": key().public(), "display_name": "Ada"});
    let rejoin = call("POST", path(&team, "/rejoin")).json(&back).by(&team.owner);
    assert_eq!(code(&send(&app, rejoin).await), (410, "mesh_archived"));
    assert_eq!(code(&send(&app, call("POST", restore.clone()).by(&bob)).await), (403, "forbidden"));
    let restored = send(&app, call("POST", restore).by(&team.owner)).await;
    assert_eq!((restored.0, &restored.1["archivedAt"]), (200, &Value::Null));
    assert_eq!(send(&app, call("GET", path(&team, "/settings")).by(&bob)).await.0, 200);
    let log = events(&bench, &team.id).await;
    assert_eq!(log[log.len() - 2..], ["mesh_archived", "mesh_restored"]);
}

#[actix_rt::test]
async fn a_deleted_mesh_is_gone_for_everyone_and_its_slug_is_somebody_elses() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team_of_before = team(&app, "team").await;
    let (admin, _) = enrol(&app, &team_of_before, "admin").await;
    let open = invite_request(&team_of_before, "member", 1);
    let invites = path(&team_of_before, "/invites");
    assert_eq!(send(&app, call("POST", invites).json(&open).by(&team_of_before.owner)).await.0, 201);
    let delete = path(&team_of_before, "");
    assert_eq!(code(&send(&app, call("DELETE", delete.clone()).by(&admin)).await), (403, "forbidden"));
    assert_eq!(code(&send(&app, call("DELETE", delete.clone())).await), (401, "unauthorized"));
    let deleted = send(&app, call("DELETE", delete.clone()).by(&team_of_before.owner)).await;
    assert_eq!((deleted.0, &deleted.1["deleted"]), (200, &json!("team")));
    for (method, rest) in [("DELETE", ""), ("GET", ""), ("GET", "/members"), ("POST", "/restore"), ("GET", "/invites")]
    {
        let late = send(&app, call(method, path(&team_of_before, rest)).by(&team_of_before.owner)).await;
        assert_eq!(code(&late), (410, "mesh_deleted"), "{method} {rest}");
    }
    let recipient = crypto_box::SecretKey::generate(&mut rand::rngs::OsRng);
    let claim = claim_request(&open.code, &key(), &recipient);
    let late = send(&app, call("POST", format!("/invites/{}/claim", open.code)).json(&claim)).await;
    assert_eq!(late.0, 404, "{}", late.1);
    let refused = bench.state.directory.get(&team_of_before.id).await.err().map(|refusal| refusal.code);
    assert_eq!(refused, Some(claimed_code()));
    let now = team(&app, "team").await;
    assert_ne!(now.id, team_of_before.id);
    crate::db::erase::erase(&bench.state.db, &team_of_before.id).await.unwrap();
    let left = crate::db::members::load_all(&bench.state.storage(&team_of_before.id)).await.unwrap();
    assert_eq!(left, []);
    assert_eq!(events(&bench, &team_of_before.id).await.last().map(String::as_str), Some("mesh_deleted"));
}

fn claimed_code() -> claudemesh_protocol::error::ErrorCode {
    claudemesh_protocol::error::ErrorCode::MeshDeleted
}

#[actix_rt::test]
async fn the_owners_key_lets_its_holder_in_again_and_there_is_one_owner() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (bob, _) = enrol(&app, &team, "admin").await;
    let fresh = key();
    let body = json!({"member_pubkey": fresh.public(), "display_name": "Ada again"});
    let rejoin = path(&team, "/rejoin");
    for signer in [&bob, &team.creator, &fresh] {
        let refused = send(&app, call("POST", rejoin.clone()).json(&body).by(signer)).await;
        assert_eq!(code(&refused), (403, "forbidden"), "only the owner's key itself");
    }
    let back = send(&app, call("POST", rejoin.clone()).json(&body).by(&team.owner)).await;
    assert_eq!((back.0, &back.1["alreadyMember"]), (200, &json!(false)), "{}", back.1);
    assert_eq!(back.1["former"].as_array().map(Vec::len), Some(1));
    let roles = |listed: &Value| -> Vec<String> {
        let all = listed["members"].as_array().unwrap().iter();
        let word = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        let mut roles: Vec<_> =
            all.map(|one| format!("{} {}", word(one, "displayName"), word(one, "permission"))).collect();
        roles.sort();
        roles
    };
    let listed = send(&app, call("GET", path(&team, "/members")).by(&fresh)).await.1;
    assert_eq!(roles(&listed), ["Ada again owner", "Ada member", "Bob admin"]);
    // With a key of before it is that member again, under its own name; asked twice it changes nothing.
    let body = json!({"member_pubkey": team.creator.public(), "display_name": "@all"});
    for _ in 0..2 {
        let back = send(&app, call("POST", rejoin.clone()).json(&body).by(&team.owner)).await;
        assert_eq!((&back.1["alreadyMember"], &back.1["displayName"]), (&json!(true), &json!("Ada")), "{}", back.1);
    }
    let log = events(&bench, &team.id).await;
    assert_eq!(log.iter().filter(|event| *event == "owner_rejoined").count(), 2, "{log:?}");
    let reserved = json!({"member_pubkey": key().public(), "display_name": "@all"});
    let refused = send(&app, call("POST", rejoin).json(&reserved).by(&team.owner)).await;
    assert_eq!(code(&refused), (400, "invalid_name"));
}

#[actix_rt::test]
async fn settings_are_read_by_members_and_changed_by_those_who_may() {
    let bench = bench(|config| config.limit.trace_budget = 30).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (bob, _) = enrol(&app, &team, "member").await;
    let (admin, _) = enrol(&app, &team, "admin").await;
    let settings = path(&team, "/settings");
    let value = |settings: &Value, name: &str| {
        let all = settings["limits"].as_array().unwrap();
        all.iter().find(|limit| limit["name"] == name).map(|limit| limit["value"].as_u64().unwrap())
    };
    let read = send(&app, call("GET", settings.clone()).by(&bob)).await.1;
    assert_eq!((value(&read, "messages.trace_budget"), &read["selfEditable"]["groups"]), (Some(30), &json!(true)));
    let change = json!({"selfEditable": {"groups": false}, "limits": {"messages.trace_budget": 5}});
    assert_eq!(code(&send(&app, call("PATCH", settings.clone()).json(&change).by(&bob)).await), (403, "forbidden"));
    let changed = send(&app, call("PATCH", settings.clone()).json(&change).by(&admin)).await;
    assert_eq!((changed.0, value(&changed.1, "messages.trace_budget")), (200, Some(5)), "{}", changed.1);
    assert_eq!(
        changed.1["selfEditable"],
        json!({"displayName": true, "roleTag": true, "groups": false, "messageMode": true})
    );
    // In force in the mesh itself, at once and after it was loaded anew.
    let in_force = || async {
        bench.state.directory.get(&team.id).await.unwrap();
        bench.state.directory.with_loaded(&team.id, |core, _| core.limits.trace_budget).await
    };
    assert_eq!(in_force().await, Some(5));
    let back = json!({"limits": {"messages.trace_budget": null}});
    assert_eq!(send(&app, call("PATCH", settings.clone()).json(&back).by(&team.owner)).await.0, 200);
    assert_eq!(in_force().await, Some(30));
    for bad in [
        json!({}),
        json!({"limits": {"messages.trace_budget": 31}}),
        json!({"limits": {"messages.trace_budget": 0}}),
        json!({"limits": {"messages.bogus": 3}}),
    ] {
        let refused = send(&app, call("PATCH", settings.clone()).json(&bad).by(&team.owner)).await;
        assert_eq!(code(&refused), (400, "invalid_args"), "{bad}");
    }
}
