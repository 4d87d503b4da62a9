//! Every route with every role and every word about every capability that a route needs, against the model.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::capabilities::Changes;
use claudemesh_protocol::id::MemberId;
use diesel_async::RunQueryDsl;

use super::*;
use crate::audit::{self, By};
use crate::db::members::Role;
use crate::db::rights::{self, Subject};
use crate::features::Features;
use crate::features::capabilities::model::{WORDS, Word, model};
use crate::http::routes::{Needs, Route};

/// Who calls: a member of the role, itself and another member beside it.
struct Asker {
    key: SecretKey,
    own: MemberId,
    other: MemberId,
}

/// Whether a member signs the requests of a route. Those with an API key are in `api.rs`.
fn is_signed(route: &Route) -> bool {
    !matches!(route.needs, Needs::Open | Needs::Key(_))
}

/// Requests of a route that are right in all but the capability: about the caller itself, or about another member (`true`).
fn samples<'a>(route: &Route, team: &Team, asker: &'a Asker, number: usize) -> Vec<(Call<'a>, bool)> {
    let path = |member: &MemberId| {
        let path = route.path.replace("{id}", team.id.as_str()).replace("{slug}", "team");
        format!("{}?n={number}", path.replace("{member}", member.as_str()).replace("{invite}", "no-such-invite"))
    };
    let to = |member: &MemberId, body: Value| call(route.method, path(member)).json(&body).by(&asker.key);
    let policy = json!({"displayName": true, "roleTag": true, "groups": true, "messageMode": true});
    let body = match (route.method, route.path) {
        ("GET" | "DELETE", _)
        | (_, "/mesh/{id}/archive" | "/mesh/{id}/restore" | "/mesh/{id}/invites/{invite}/revoke") => json!({}),
        (_, "/mesh/{id}") => json!({"name": format!("name {number}")}),
        (_, "/mesh/{id}/invites") => {
            let invite_id = InviteId::random(&mut rand::rngs::OsRng);
            let expires_at = NOW / 1_000 + 3_600;
            let canonical = signed::invite_v2(&team.id, &invite_id, expires_at, "member", &team.owner.public());
            let signature_v2 = asker.key.sign(canonical.as_bytes());
            let code = random_code(&mut rand::rngs::OsRng);
            json!({"invite_id": invite_id, "code": code, "role": "member", "max_uses": 1, "expires_at": expires_at,
                   "signature_v2": signature_v2})
        }
        (_, "/mesh/{id}/settings") => json!({"selfEditable": policy, "limits": {"topics.per_mesh": 1 + number % 2}}),
        (_, "/mesh/{id}/grants") => json!({"grants": {}}),
        (_, "/mesh/{id}/member/{member}") => json!({"roleTag": format!("tag {number}")}),
        (_, "/cli/mesh/{slug}/permissions") => {
            json!({"member_id": asker.other, "permissions": {"canSend": null}})
        }
        other => panic!("{other:?} needs a sample here"),
    };
    match route.needs {
        Needs::OfOthers(_) => vec![(to(&asker.own, body.clone()), false), (to(&asker.other, body), true)],
        _ => vec![(to(&asker.own, body), false)],
    }
}

async fn set_word(state: &AppState, team: &Team, asker: &Asker, word: Word, capability: Capability) {
    let (own, start) = match word {
        Word::Nothing => (None, None),
        Word::Own(own) => (Some(own), None),
        Word::Start(start) => (None, Some(start)),
        Word::Both(own, start) => (Some(own), Some(start)),
    };
    let storage = state.storage(&team.id);
    for (subject, to) in [(Subject::Member(asker.own.clone()), own), (Subject::Start, start)] {
        let change = Changes::from([(capability, to)]);
        // No one has a word about the owner.
        let _ = rights::edit(&storage, &subject, &change, &By::nobody(NOW)).await;
    }
    state.directory.reload_members(&team.id).await;
}

async fn reopen(state: &AppState) {
    let reopen = diesel::sql_query(
        "UPDATE meshes SET archived_at_ms = NULL, deleted_at_ms = NULL, slug = 'team', name = 'team'",
    );
    let run = async || Ok::<_, crate::db::DbError>(crate::with_conn!(&state.db, |conn| reopen.execute(conn).await?));
    run().await.unwrap();
}

#[actix_rt::test]
async fn every_route_asks_for_its_capability_and_for_no_other() {
    let bench = bench(|config| config.limits = crate::config::LimitsMode::Off).await;
    let app = app!(bench);
    let team = team(&app, "team").await;
    let (_, other) = enrol(&app, &team, "member").await;
    let routes: Vec<&Route> = Features::routes().into_iter().filter(|route| is_signed(route)).collect();
    let of = |route: &Route| match route.needs {
        Needs::Capability(needed) | Needs::OfOthers(needed) => Some(needed),
        Needs::Open | Needs::Membership | Needs::Key(_) => None,
    };
    let mut needed: Vec<Capability> = routes.iter().filter_map(|route| of(route)).collect();
    needed.sort();
    needed.dedup();
    assert!(needed.contains(&Capability::CanInvite) && needed.contains(&Capability::CanDeleteMesh), "{needed:?}");
    let (mut refused, mut passed, mut number) = (0, 0, 0);
    for role in [Role::Member, Role::Admin, Role::Owner] {
        let (key, own) = match role {
            Role::Owner => (team.creator.clone(), owner(&bench.state, &team).await),
            role => {
                let (key, claimed) = enrol(&app, &team, role.as_str()).await;
                (key, claimed.member_id)
            }
        };
        let asker = Asker { key, own, other: other.member_id.clone() };
        for (spoken_of, word) in needed.iter().flat_map(|one| WORDS.map(|word| (*one, word))) {
            set_word(&bench.state, &team, &asker, word, spoken_of).await;
            for route in &routes {
                for (call, foreign) in samples(route, &team, &asker, number) {
                    number += 1;
                    let asked = of(route).filter(|_| foreign || !matches!(route.needs, Needs::OfOthers(_)));
                    let may =
                        asked.is_none_or(|one| model(role, if one == spoken_of { word } else { Word::Nothing }, one));
                    let before = audit::head(&bench.state.storage(&team.id)).await.unwrap();
                    let (status, body) = send(&app, call).await;
                    let case = format!("{} {}: {role:?}, {word:?} {spoken_of:?}: {body}", route.method, route.path);
                    let lacks = body["message"].as_str().filter(|text| text.starts_with("this needs the capability"));
                    if may {
                        assert_eq!(lacks, None, "{case}");
                        passed += 1;
                    } else {
                        let expected = format!("this needs the capability {}", asked.unwrap().as_str());
                        assert_eq!((status, lacks), (403, Some(expected.as_str())), "{case}");
                        let after = audit::head(&bench.state.storage(&team.id)).await.unwrap();
                        assert_eq!(after, before, "nothing was changed: {case}");
                        refused += 1;
                    }
                    if (route.path.ends_with("/archive") || route.method == "DELETE") && may {
                        assert_eq!(status, 200, "{case}");
                        reopen(&bench.state).await;
                    }
                }
            }
            set_word(&bench.state, &team, &asker, Word::Nothing, spoken_of).await;
        }
    }
    assert!(refused > 100 && passed > refused, "{refused} {passed}");
}

async fn owner(state: &AppState, team: &Team) -> MemberId {
    crate::db::members::owner(&state.storage(&team.id)).await.unwrap().unwrap().id
}

#[actix_rt::test]
async fn no_route_lets_a_stranger_or_a_member_of_another_mesh_in() {
    let bench = bench(|config| config.limits = crate::config::LimitsMode::Off).await;
    let app = app!(bench);
    let (here, there) = (team(&app, "team").await, team(&app, "there").await);
    let own = owner(&bench.state, &here).await;
    let mut number = 0;
    for key in [key(), there.creator.clone(), there.owner.clone()] {
        let asker = Asker { key, own: own.clone(), other: own.clone() };
        for route in Features::routes().into_iter().filter(|route| is_signed(route)) {
            for (call, _) in samples(route, &here, &asker, number) {
                let unsigned =
                    Call { headers: vec![], body: call.body.clone(), ..super::call(call.method, &call.path) };
                assert_eq!(code(&send(&app, call).await), (401, "unauthorized"), "{} {}", route.method, route.path);
                assert_eq!(code(&send(&app, unsigned).await), (401, "unauthorized"), "{} {}", route.method, route.path);
                number += 1;
            }
        }
    }
}

/// The document names every route with what it needs.
#[test]
fn the_document_has_every_route() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/capabilities.md")).unwrap();
    for route in Features::routes() {
        let needs = match route.needs {
            Needs::Open => continue,
            Needs::Key(one) => format!("an API key with `{}`", one.as_str()),
            Needs::Membership => "membership".to_owned(),
            Needs::Capability(one) => format!("`{}`", one.as_str()),
            Needs::OfOthers(one) => format!("membership; for other members `{}`", one.as_str()),
        };
        let path = route.path.replace("{slug}", "<slug>").replace("{id}", "<id>");
        let path = path.replace('{', "<").replace('}', ">");
        let line = format!("| `{} {path}` | {needs} |", route.method);
        assert!(text.contains(&line), "{line}");
    }
}
