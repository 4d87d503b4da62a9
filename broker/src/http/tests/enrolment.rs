//! Making a mesh, invites, claims: who gets in.

use super::*;

#[actix_rt::test]
async fn a_mesh_is_made_by_whoever_signs_as_its_owner() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let (owner, creator) = (key(), key());
    let request = mesh_request("team", &owner, &creator);
    let unsigned = send(&app, call("POST", "/mesh").json(&request)).await;
    assert_eq!(code(&unsigned), (401, "unauthorized"));
    let by_other = send(&app, call("POST", "/mesh").json(&request).by(&creator)).await;
    assert_eq!(code(&by_other), (403, "forbidden"));
    let from_page = send(&app, call("POST", "/mesh").json(&request).by(&owner).header("origin", "http://evil")).await;
    assert_eq!(code(&from_page), (403, "forbidden"));
    let made = send(&app, call("POST", "/mesh").json(&request).by(&owner)).await;
    assert_eq!(made.0, 201);
    assert_eq!(made.1["broker_url"], "ws://localhost:8080/ws");
    // The answer may have been lost: the very same request gets the same mesh. Anybody else, or another creator, finds the name taken.
    let again = send(&app, call("POST", "/mesh").json(&request).by(&owner)).await;
    assert_eq!((again.0, &again.1["mesh_id"], &again.1["member_id"]), (201, &made.1["mesh_id"], &made.1["member_id"]));
    let stranger = key();
    for (request, signer) in
        [(mesh_request("team", &stranger, &creator), &stranger), (mesh_request("team", &owner, &stranger), &owner)]
    {
        let taken = send(&app, call("POST", "/mesh").json(&request).by(signer)).await;
        assert_eq!(code(&taken), (409, "already_exists"));
    }
    let bad = send(&app, call("POST", "/mesh").json(&mesh_request("Bad Slug", &owner, &creator)).by(&owner)).await;
    assert_eq!(code(&bad), (400, "invalid_name"));
    let mut loud = mesh_request("loud", &owner, &creator);
    loud.display_name = "@all".into();
    let refused = send(&app, call("POST", "/mesh").json(&loud).by(&owner)).await;
    assert_eq!(code(&refused), (400, "invalid_name"), "who is called so cannot be written to");
    let broken = Call { body: b"{".to_vec(), ..call("POST", "/mesh") };
    assert_eq!(code(&send(&app, broken.by(&owner)).await), (400, "bad_json"));
    assert_eq!(code(&send(&app, call("POST", "/mesh").json(&json!({"slug": 1})).by(&owner)).await).1, "invalid_args");
}

#[actix_rt::test]
async fn a_public_broker_wants_the_operator_token() {
    let bench = bench(|config| config.listen = "0.0.0.0:7900".parse().unwrap()).await;
    let app = app!(bench);
    let token = auth::first_operator_token(&bench.state.db).await.unwrap().unwrap();
    assert_eq!(auth::first_operator_token(&bench.state.db).await.unwrap(), None);
    let (owner, creator) = (key(), key());
    let request = mesh_request("team", &owner, &creator);
    let attempt = |token: Option<String>| {
        let call = call("POST", "/mesh").json(&request).by(&owner);
        match token {
            Some(token) => call.header("authorization", &format!("Bearer {token}")),
            None => call,
        }
    };
    assert_eq!(code(&send(&app, attempt(None)).await), (401, "unauthorized"));
    assert_eq!(code(&send(&app, attempt(Some("0".repeat(64)))).await), (401, "unauthorized"));
    let newer = auth::rotate_operator_token(&bench.state.db).await.unwrap();
    assert_eq!(code(&send(&app, attempt(Some(token))).await), (401, "unauthorized"), "a replaced token is void");
    assert_eq!(send(&app, attempt(Some(newer))).await.0, 201);
}

#[actix_rt::test]
async fn a_captured_request_cannot_be_used_again_or_elsewhere() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let path = format!("/mesh/{}/members", team.id);
    let first = call("GET", path.clone()).by(&team.creator);
    let headers = first.headers.clone();
    assert_eq!(send(&app, first).await.0, 200);
    let again = Call { headers: headers.clone(), ..call("GET", path.clone()) };
    assert_eq!(code(&send(&app, again).await), (401, "replayed"));
    let elsewhere = Call { headers: headers.clone(), ..call("GET", format!("/mesh/{}/grants", team.id)) };
    assert_eq!(code(&send(&app, elsewhere).await), (401, "bad_signature"));
    let other_query = Call { headers: headers.clone(), ..call("GET", format!("{path}?x=1")) };
    assert_eq!(code(&send(&app, other_query).await), (401, "bad_signature"));
    let other_body = Call { headers, body: b"{}".to_vec(), ..call("GET", path.clone()) };
    assert_eq!(code(&send(&app, other_body).await), (401, "bad_signature"));
    let late = call("GET", path).by(&team.creator);
    bench.clock.advance(std::time::Duration::from_secs(62));
    assert_eq!(code(&send(&app, late).await), (401, "timestamp_skew"));
}

/// What others of this kind have and no one should: tokens, devices and permissions without a signature, bridges that take keys.
#[actix_rt::test]
async fn there_are_no_accounts_and_no_page_of_another_origin_is_let_in() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let body = json!({"user_id": "ada", "email": "ada@example.org", "requester_id": "ada", "member_id": "ada"});
    for (method, path) in [
        ("POST", "/cli/token"),
        ("POST", "/cli/device-code"),
        ("POST", "/cli/device-code/ABCD-EFGH/approve"),
        ("GET", "/cli/sessions?user_id=ada"),
        ("POST", "/tg/token"),
    ] {
        assert_eq!(send(&app, call(method, path).json(&body)).await.0, 404, "{method} {path}");
    }
    for method in ["GET", "POST"] {
        let unsigned = send(&app, call(method, "/cli/mesh/team/permissions").json(&body)).await;
        assert_eq!(code(&unsigned), (401, "unauthorized"), "{method}");
    }
    for path in ["/health", "/mesh", "/join", "/hook/set-status"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let request = TestRequest::with_uri(path).method(method.parse().unwrap());
            let request = request.insert_header(("origin", "https://elsewhere.example"));
            let answer = call_service(&app, request.to_request()).await;
            let cors = answer.headers().keys().any(|name| name.as_str().starts_with("access-control-"));
            assert!(!cors, "{method} {path}: {:?}", answer.headers());
        }
    }
}

#[actix_rt::test]
async fn a_large_body_is_refused() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let body = vec![b' '; limits::MAX_HTTP_BODY_BYTES + 1];
    for path in ["/join", "/invites/ABCDEF23/claim", "/hook/set-status"] {
        let large = Call { body: body.clone(), ..call("POST", path) };
        assert_eq!(code(&send(&app, large).await), (413, "payload_too_large"), "{path}");
    }
    // Anyone who may sign is held to it, too; anyone who signs nothing is not even read.
    let owner = key();
    for (method, path) in [
        ("POST", "/mesh"),
        ("POST", "/mesh/x/archive"),
        ("POST", "/mesh/x/invites"),
        ("POST", "/mesh/x/invites/y/revoke"),
        ("POST", "/mesh/x/grants"),
        ("PATCH", "/mesh/x/member/y"),
        ("PATCH", "/mesh/x/settings"),
    ] {
        let large = || Call { body: body.clone(), ..call(method, path) };
        assert_eq!(code(&send(&app, large()).await), (401, "unauthorized"), "{path}");
        assert_eq!(code(&send(&app, large().by(&owner)).await), (413, "payload_too_large"), "{path}");
    }
}

#[actix_rt::test]
async fn an_invite_lets_in_as_often_as_it_says_and_only_whom_it_meets() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (member, claimed) = enrol(&app, &team, "member").await;
    assert_eq!((claimed.role.as_deref(), claimed.mesh_slug.as_deref()), (Some("member"), Some("team")));
    let list = send(&app, call("GET", format!("/mesh/{}/invites", team.id)).by(&team.owner)).await;
    assert_eq!(list.1["invites"][0]["used_count"], 1);
    let link = list.1["invites"][0]["url"].as_str().unwrap().to_owned();
    let code_text = link.rsplit('/').next().unwrap().to_owned();
    assert_eq!(link, format!("http://localhost:8080/i/{code_text}"));
    let path = format!("/invites/{code_text}/claim");
    let recipient = crypto_box::SecretKey::generate(&mut rand::rngs::OsRng);
    let again = send(&app, call("POST", path.clone()).json(&claim_request(&code_text, &member, &recipient))).await;
    assert_eq!((again.0, &again.1["already_member"]), (200, &json!(true)));
    let other = send(&app, call("POST", path.clone()).json(&claim_request(&code_text, &key(), &recipient))).await;
    assert_eq!(code(&other), (410, "exhausted"));
    let forged = Claim { peer_pubkey: key().public(), ..claim_request(&code_text, &member, &recipient) };
    assert_eq!(code(&send(&app, call("POST", path.clone()).json(&forged)).await), (401, "bad_signature"));
    let short = Claim { recipient_x25519_pubkey: "AAAA".into(), ..claim_request(&code_text, &member, &recipient) };
    assert_eq!(code(&send(&app, call("POST", path).json(&short)).await), (400, "malformed"));
    let by_member = call("POST", format!("/mesh/{}/invites", team.id)).json(&invite_request(&team, "admin", 1));
    assert_eq!(code(&send(&app, by_member.by(&member)).await), (403, "forbidden"));
    let raised = CreateInvite { role: "admin".into(), ..invite_request(&team, "member", 1) };
    let raised = call("POST", format!("/mesh/{}/invites", team.id)).json(&raised).by(&team.owner);
    assert_eq!(code(&send(&app, raised).await), (401, "bad_signature"));
}

#[actix_rt::test]
async fn a_members_invite_is_worth_as_much_as_the_member() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (bob, row) = enrol(&app, &team, "member").await;
    let permissions = "/cli/mesh/team/permissions";
    let allow = |word: Value| {
        let body = json!({"member_id": row.member_id, "permissions": {"canInvite": word}});
        call("POST", permissions).json(&body).by(&team.creator)
    };
    assert_eq!(send(&app, allow(json!(true))).await.0, 200);
    let invite = |role: &str| {
        let invite = invite_request(&team, role, 9);
        let canonical = signed::invite_v2(&team.id, &invite.invite_id, invite.expires_at, role, &team.owner.public());
        CreateInvite { signature_v2: bob.sign(canonical.as_bytes()), ..invite }
    };
    let path = format!("/mesh/{}/invites", team.id);
    let admin = call("POST", path.clone()).json(&invite("admin")).by(&bob);
    assert_eq!(code(&send(&app, admin).await), (403, "forbidden"), "only the owner invites admins");
    let older = CreateInvite { v1_token_hash: Some("ab".repeat(32)), ..invite("member") };
    assert_eq!(code(&send(&app, call("POST", path.clone()).json(&older).by(&bob)).await), (400, "invalid_args"));
    let made = invite("member");
    // Signed by one, sent by another: no.
    assert_eq!(code(&send(&app, call("POST", path.clone()).json(&made).by(&team.owner)).await), (401, "bad_signature"));
    assert_eq!(send(&app, call("POST", path).json(&made).by(&bob)).await.0, 201);
    let claim = || {
        let recipient = crypto_box::SecretKey::generate(&mut rand::rngs::OsRng);
        let body = claim_request(&made.code, &key(), &recipient);
        call("POST", format!("/invites/{}/claim", made.code)).json(&body)
    };
    let claimed = send(&app, claim()).await;
    assert_eq!((claimed.0, &claimed.1["signed_by"]), (200, &json!(bob.public())), "{}", claimed.1);
    assert_eq!(send(&app, allow(json!(null))).await.0, 200);
    assert_eq!(code(&send(&app, claim()).await), (403, "revoked"));
    assert_eq!(send(&app, allow(json!(true))).await.0, 200);
    assert_eq!(send(&app, claim()).await.0, 200);
    let by = crate::audit::By::nobody(NOW);
    assert!(crate::db::members::revoke(&bench.state.storage(&team.id), &row.member_id, None, &by).await.unwrap());
    assert_eq!(code(&send(&app, claim()).await), (403, "revoked"), "a ban ends it");
}

#[actix_rt::test]
async fn an_older_link_lets_in_through_its_token() {
    let bench = bench(|_| {}).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let link = InviteV1 {
        v: 1,
        mesh_id: team.id.clone(),
        mesh_slug: "team".into(),
        broker_url: "ws://127.0.0.1:7900/ws".into(),
        expires_at: NOW / 1_000 + 3_600,
        mesh_root_key: root_key_text(&team.id),
        role: "member".into(),
        owner_pubkey: team.owner.public(),
        signature: String::new(),
    }
    .signed(&team.owner);
    let token = link.token();
    let hash = signed_http::sha256_hex(token.as_bytes());
    let invite = CreateInvite { v1_token_hash: Some(hash), ..invite_request(&team, "member", 1) };
    let path = format!("/mesh/{}/invites", team.id);
    let made = send(&app, call("POST", path.clone()).json(&invite).by(&team.owner)).await;
    assert_eq!(made.0, 201);
    let bob = key();
    let join = |token: &str, peer: String| {
        let body = json!({"invite_token": token, "invite_payload": {}, "peer_pubkey": peer, "display_name": "Bob"});
        call("POST", "/join").json(&body)
    };
    let joined = send(&app, join(&token, bob.public().to_hex())).await;
    assert_eq!((joined.0, &joined.1["ok"]), (200, &json!(true)), "{}", joined.1);
    let again = send(&app, join(&token, bob.public().to_hex())).await;
    assert_eq!(again.1["alreadyMember"], true);
    assert_eq!(again.1["memberId"], joined.1["memberId"]);
    assert_eq!(code(&send(&app, join(&token, key().public().to_hex())).await), (410, "invite_exhausted"));
    assert_eq!(code(&send(&app, join(&token, "AB".repeat(32))).await), (400, "malformed"));
    let unregistered = InviteV1 { expires_at: link.expires_at + 1, ..link.clone() }.signed(&team.owner).token();
    assert_eq!(code(&send(&app, join(&unregistered, key().public().to_hex())).await), (404, "invite_not_found"));
    let forged = InviteV1 { role: "admin".into(), ..link }.token();
    assert_eq!(code(&send(&app, join(&forged, key().public().to_hex())).await), (400, "invite_bad_signature"));
    let invites = send(&app, call("GET", path).by(&team.owner)).await.1.to_string();
    assert!(!invites.contains(&token), "a list must not give the token away");
    let revoke = format!("/mesh/{}/invites/{}/revoke", team.id, invite.invite_id);
    assert_eq!(send(&app, call("POST", revoke).by(&team.owner)).await.0, 200);
    assert_eq!(code(&send(&app, join(&token, bob.public().to_hex())).await), (410, "invite_revoked"));
    let unknown = format!("/mesh/{}/invites/none-such/revoke", team.id);
    assert_eq!(code(&send(&app, call("POST", unknown).by(&team.owner)).await), (404, "invite_not_found"));
}

#[actix_rt::test]
async fn codes_cannot_be_guessed_by_trying() {
    let bench = bench(|config| config.limit.enrol_per_minute = 5).await;
    let app = app!(bench);
    let guess = || {
        let code = random_code(&mut rand::rngs::OsRng);
        let recipient = crypto_box::SecretKey::generate(&mut rand::rngs::OsRng);
        call("POST", format!("/invites/{code}/claim")).json(&claim_request(&code, &key(), &recipient))
    };
    for _ in 0..5 {
        assert_eq!(code(&send(&app, guess()).await), (404, "not_found"));
    }
    let limited = send(&app, guess()).await;
    assert_eq!(code(&limited), (429, "rate_limited"));
    assert!(limited.1["retry_after_ms"].as_u64().unwrap() > 0);
    bench.clock.advance(std::time::Duration::from_secs(13));
    assert_eq!(code(&send(&app, guess()).await), (404, "not_found"));
}

#[actix_rt::test]
async fn link_pages_show_the_command_and_nothing_else() {
    let bench = bench(|config| config.public_url = Some("https://mesh.example.org/".into())).await;
    let app = app!(bench);
    let (status, page) = send(&app, call("GET", "/i/ABCDEF23")).await;
    assert_eq!(status, 200);
    assert!(page.as_str().unwrap().contains("claudemesh join https://mesh.example.org/i/ABCDEF23 "));
    assert!(page.as_str().unwrap().contains("Get the program"), "someone without it must learn how to get it");
    // The page of a code that exists says no more, and the code alone tells which mesh it is for, no key and no token.
    let team = team(&app, "team").await;
    let invite = invite_request(&team, "member", 1);
    let made = send(&app, call("POST", format!("/mesh/{}/invites", team.id)).json(&invite).by(&team.owner)).await;
    assert_eq!(made.0, 201);
    let (_, of_invite) = send(&app, call("GET", format!("/i/{}", invite.code))).await;
    assert_eq!(of_invite.as_str().unwrap().replace(&invite.code, "ABCDEF23"), page.as_str().unwrap());
    let told = send(&app, call("GET", format!("/invites/{}", invite.code))).await;
    assert_eq!(told, (200, json!({"mesh_id": team.id, "revoked": false})));
    assert_eq!(send(&app, call("GET", "/i/%3Cscript%3E")).await.0, 404);
    let (status, page) = send(&app, call("GET", format!("/join/{}", "e".repeat(40)))).await;
    assert_eq!(status, 200);
    assert!(page.as_str().unwrap().contains("https://mesh.example.org/join/eee"));
}
