//! Skills over real sockets: versions, signatures, who may change what, who hears of it, what is refused, pages and bounds.

use std::sync::Arc;

use anyhow::{Context, Result};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_protocol::features::skills::{ShareSkill, SignatureState, Skill};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::identity::{Member, merged};
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

fn frame(name: &str, instructions: &str) -> Value {
    json!({"type": "share_skill", "name": name, "description": format!("How to {name}"), "instructions": instructions})
}

/// The frame as this member signs it.
fn signed(member: &Arc<Member>, name: &str, instructions: &str, manifest: Value) -> Result<Value> {
    let share = merged(frame(name, instructions), json!({"tags": ["ops"], "manifest": manifest}));
    let share: ShareSkill = serde_json::from_value(share)?;
    Ok(merged(json!({"type": "share_skill"}), serde_json::to_value(share.signed(&member.mesh, &member.key, 7))?))
}

async fn share(peer: &mut TestPeer, name: &str, instructions: &str) -> Result<Value> {
    peer.call(frame(name, instructions), "skill_ack").await
}

async fn get(peer: &mut TestPeer, name: &str, extra: Value) -> Result<Value> {
    let asked = merged(json!({"type": "get_skill", "name": name}), extra);
    Ok(peer.call(asked, "skill_data").await?["skill"].clone())
}

async fn names(peer: &mut TestPeer, extra: Value) -> Result<Vec<String>> {
    let list = peer.call(merged(json!({"type": "list_skills"}), extra), "skill_list").await?;
    let rows = list["skills"].as_array().context("rows")?;
    Ok(rows.iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect())
}

async fn remove(peer: &mut TestPeer, name: &str) -> Result<Value> {
    peer.ask(json!({"type": "remove_skill", "name": name})).await
}

broker_suite! {
    async fn what_one_shares_others_read_with_its_versions_also_after_a_restart(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut writer = broker.join(&alice).await?;
        let manifest = json!({"when_to_use": "w", "allowed_tools": ["Bash"], "x": [1.5, null]});
        let first = writer.call(signed(&alice, "deploy", "one", manifest.clone())?, "skill_ack").await?;
        assert_eq!((&first["action"], &first["version"], &first["unchanged"]), (&json!("shared"), &json!(1), &Value::Null));
        let second = writer.call(signed(&alice, "deploy", "two", Value::Null)?, "skill_ack").await?;
        assert_eq!(second["version"], 2);
        let again = writer.call(signed(&alice, "deploy", "two", Value::Null)?, "skill_ack").await?;
        assert_eq!((&again["version"], &again["unchanged"]), (&json!(2), &json!(true)), "a retry is the same version");
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
            }
            let mut reader = broker.join(&bob).await?;
            let newest = get(&mut reader, "deploy", json!({})).await?;
            assert_eq!((&newest["instructions"], &newest["manifest"], &newest["author"]), (&json!("two"), &Value::Null, &json!("alice")));
            assert_eq!((&newest["version"], &newest["latest"], &newest["authorKey"]), (&json!(2), &json!(2), &json!(alice.pubkey())));
            let versions = newest["versions"].as_array().context("versions")?;
            assert_eq!(versions.iter().map(|row| row["version"].as_i64()).collect::<Vec<_>>(), [Some(2), Some(1)]);
            let former = get(&mut reader, "deploy", json!({"version": 1})).await?;
            assert_eq!((&former["instructions"], &former["manifest"], &former["latest"]), (&json!("one"), &manifest, &json!(2)));
            for told in [newest, former] {
                let skill: Skill = serde_json::from_value(told)?;
                assert_eq!(skill.signature_state(&alice.mesh), SignatureState::Verified, "also after storage: {skill:?}");
            }
            assert_eq!(get(&mut reader, "deploy", json!({"version": 3})).await?, Value::Null);
            let info = reader.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert_eq!(info["skillCount"], 1);
            let limits = info["limits"].as_array().context("limits")?;
            assert!(limits.iter().any(|bound| bound["name"] == "skills.per_mesh" && bound["used"] == 1), "{info}");
            reader.close().await?;
        }
        Ok(())
    }

    async fn a_signature_that_is_not_of_this_text_by_this_member_is_refused(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let other = broker.mesh("other")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut peer = broker.join(&alice).await?;
        let fine = signed(&alice, "deploy", "one", Value::Null)?;
        for (change, code) in [
            (json!({"instructions": "two"}), "bad_signature"),
            (json!({"tags": ["ops", "ci"]}), "bad_signature"),
            (json!({"manifest": {"allowed_tools": ["Bash"]}}), "bad_signature"),
            (json!({"signed_at_ms": 8}), "bad_signature"),
            (json!({"signature": "00".repeat(64)}), "bad_signature"),
            (json!({"signature": "zz"}), "invalid_args"),
            (json!({"signature": null}), "invalid_args"),
            (json!({"signed_at_ms": null}), "invalid_args"),
        ] {
            assert_eq!(peer.refused(merged(fine.clone(), change.clone())).await?, code, "{change}");
        }
        assert_eq!(peer.refused(signed(&bob, "deploy", "one", Value::Null)?).await?, "bad_signature", "of another member");
        let elsewhere = signed(&other.member("alice")?, "deploy", "one", Value::Null)?;
        assert_eq!(peer.refused(elsewhere).await?, "bad_signature", "of another mesh");
        assert_eq!(get(&mut peer, "deploy", json!({})).await?, Value::Null, "nothing was stored");
        peer.call(fine, "skill_ack").await?;
        Ok(())
    }

    async fn a_skill_belongs_to_who_shared_it_first(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (mut alice, mut bob) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        share(&mut alice, "deploy", "one").await?;
        assert_eq!(bob.refused(frame("deploy", "evil")).await?, "forbidden");
        assert_eq!(remove(&mut bob, "deploy").await?["code"], "forbidden");
        assert_eq!(get(&mut bob, "deploy", json!({})).await?["instructions"], "one", "nothing was changed");
        assert_eq!(share(&mut owner, "deploy", "two").await?["version"], 2, "the owner may moderate");
        let changed = get(&mut bob, "deploy", json!({})).await?;
        assert!(changed["author"] != "alice" && changed["ownerId"] != changed["memberId"], "{changed}");
        assert_eq!(share(&mut alice, "deploy", "three").await?["version"], 3, "it is still hers");
        assert_eq!(remove(&mut alice, "deploy").await?["action"], "removed");
        for unknown in ["deploy", "", " x", "a\u{1}", &"x".repeat(65)] {
            assert_eq!(remove(&mut alice, unknown).await?["action"], "not_found", "{unknown:?}");
            assert_eq!(get(&mut alice, unknown, json!({})).await?, Value::Null, "{unknown:?}");
        }
        assert_eq!(share(&mut bob, "deploy", "mine").await?["version"], 1, "the name is free again");
        let log = owner.call(json!({"type": "audit_query"}), "audit_result").await?;
        let of = |event: &str| log["entries"].as_array().map_or(0, |rows| rows.iter().filter(|row| row["eventType"] == event).count());
        assert_eq!((of("skill_shared"), of("skill_removed")), (4, 1), "{log}");
        assert!(!log.to_string().contains("three"), "never the text: {log}");
        Ok(())
    }

    async fn everyone_who_may_read_hears_of_a_change_and_older_clients_do_not(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, carl) = (mesh.member("alice")?, mesh.member("carl")?);
        let (mut writer, mut bob) = (broker.join(&alice).await?, broker.join(&mesh.member("bob")?).await?);
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let older = mesh.member("dora")?.session("older");
        let hello = older.hello_at(broker.now_ms(), json!({"capabilities": null, "protocolVersion": null}));
        let mut older = TestPeer::hello(&broker.url(), hello, older.key.clone()).await?;
        let mut denied = broker.join(&carl).await?;
        let deny = json!({"type": "set_permissions", "member": carl.id, "permissions": {"canReadShared": false}});
        assert_ne!(owner.ask(deny).await?["type"], "error");
        share(&mut writer, "deploy", "one").await?;
        for peer in [&mut writer, &mut bob] {
            let told = peer.expect("skills_changed").await?;
            assert_eq!(told, json!({"type": "skills_changed", "name": "deploy", "action": "shared", "version": 1, "by": "alice"}));
        }
        share(&mut writer, "deploy", "one").await?;
        remove(&mut writer, "deploy").await?;
        let told = bob.expect("skills_changed").await?;
        assert_eq!((&told["action"], &told["version"]), (&json!("removed"), &Value::Null), "what changed nothing was not told");
        // An answer comes behind what was told before it.
        for peer in [&mut older, &mut denied] {
            peer.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
            assert!(peer.kept().all(|frame| frame["type"] != "skills_changed"));
        }
        Ok(())
    }

    async fn what_is_wrong_is_refused_and_changes_nothing(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        let with = |extra: Value| merged(frame("deploy", "x"), extra);
        let words = (0..33).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
        let deep = "[".repeat(200) + &"]".repeat(200);
        for (frame, code) in [
            (json!({"type": "share_skill"}), "invalid_args"),
            (with(json!({"name": ""})), "invalid_name"),
            (with(json!({"name": " deploy"})), "invalid_name"),
            (with(json!({"name": "a\nb"})), "invalid_name"),
            (with(json!({"name": "a\u{202e}b"})), "invalid_name"),
            (with(json!({"name": "Jose\u{301}"})), "invalid_name"),
            (with(json!({"name": "x".repeat(65)})), "invalid_name"),
            (with(json!({"name": 7})), "invalid_args"),
            (with(json!({"description": " "})), "invalid_args"),
            (with(json!({"description": "x".repeat(2_049)})), "invalid_args"),
            (with(json!({"description": "a\u{1b}[31m"})), "invalid_args"),
            (with(json!({"instructions": ""})), "invalid_args"),
            (with(json!({"instructions": "a\u{0}b"})), "invalid_args"),
            (with(json!({"instructions": "x".repeat(65_537)})), "limit"),
            (with(json!({"tags": "ops"})), "invalid_args"),
            (with(json!({"tags": [""]})), "invalid_args"),
            (with(json!({"tags": vec!["t"; 17]})), "invalid_args"),
            (with(json!({"tags": ["t".repeat(65)]})), "invalid_args"),
            (with(json!({"manifest": "x"})), "invalid_args"),
            (with(json!({"manifest": ["x"]})), "invalid_args"),
            (with(json!({"manifest": {"when_to_use": "x".repeat(8_200)}})), "invalid_args"),
            (json!({"type": "get_skill"}), "invalid_args"),
            (json!({"type": "get_skill", "name": "x", "version": -1}), "invalid_args"),
            (json!({"type": "list_skills", "query": "x".repeat(1_025)}), "invalid_args"),
            (json!({"type": "list_skills", "query": words}), "invalid_args"),
            (json!({"type": "list_skills", "cursor": ""}), "invalid_args"),
            (json!({"type": "list_skills", "tags": ["\u{0}"]}), "invalid_args"),
            (json!({"type": "remove_skill"}), "invalid_args"),
        ] {
            assert_eq!(peer.refused(frame.clone()).await?, code, "{}", frame.to_string().chars().take(100).collect::<String>());
        }
        peer.send_text(&format!(r#"{{"type":"share_skill","name":"x","description":"x","instructions":"x","manifest":{{"a":{deep}}}}}"#)).await?;
        assert_eq!(peer.expect("error").await?["code"], "invalid_args");
        for query in ["\"", "'", "' OR 1=1 --", "NEAR(a b, 5)", "a AND", "*", "👩‍🚀"] {
            assert_eq!(names(&mut peer, json!({"query": query, "limit": 0})).await?, Vec::<String>::new(), "{query}");
        }
        assert_eq!(names(&mut peer, json!({})).await?, Vec::<String>::new());
        Ok(())
    }

    async fn lists_have_pages_and_words_and_rights(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let carl = mesh.member("carl")?;
        let (mut alice, mut owner) = (broker.join(&mesh.member("alice")?).await?, broker.connect(&mesh.creator.session("owner")).await?);
        for name in ["build", "deploy", "review", "ärger"] {
            share(&mut alice, name, "x").await?;
        }
        assert_eq!(names(&mut owner, json!({})).await?, ["build", "deploy", "review", "ärger"]);
        let mut frame = json!({"type": "list_skills", "limit": 3});
        let first = owner.call(frame.clone(), "skill_list").await?;
        frame["cursor"] = first["next"].clone();
        let rest = owner.call(frame, "skill_list").await?;
        assert_eq!((first["skills"].as_array().map(Vec::len), &rest["skills"][0]["name"], &rest["next"]), (Some(3), &json!("ärger"), &Value::Null));
        assert_eq!(names(&mut owner, json!({"query": "deploying"})).await?, ["deploy"]);
        assert_eq!(names(&mut owner, json!({"query": "how -deploy -build"})).await?, ["review", "ärger"]);
        assert_eq!(names(&mut owner, json!({"query": "nomatch"})).await?, Vec::<String>::new());
        let mut denied = broker.join(&carl).await?;
        let deny = json!({"type": "set_permissions", "member": carl.id, "permissions": {"canWriteState": false, "canReadShared": false}});
        assert_ne!(owner.ask(deny).await?["type"], "error");
        for frame in [
            json!({"type": "share_skill", "name": "x", "description": "x", "instructions": "x"}),
            json!({"type": "get_skill", "name": "deploy"}),
            json!({"type": "list_skills"}),
            json!({"type": "remove_skill", "name": "deploy"}),
        ] {
            assert_eq!(denied.refused(frame.clone()).await?, "forbidden", "{frame}");
        }
        Ok(())
    }

    async fn bounds_are_told_with_their_name_and_use(database: Database) -> Result<()> {
        let small = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            let quotas = std::mem::take(&mut config.limit.quotas);
            config.limit.quotas = quotas.with("skills.per_member", 2).with("skills.bytes_per_skill", 40).with("skills.writes_per_minute", 4);
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let mut alice = broker.join(&mesh.member("alice")?).await?;
        let long = alice.ask(frame("deploy", &"x".repeat(41))).await?;
        assert_eq!((&long["code"], &long["bound"]["name"]), (&json!("limit"), &json!("skills.bytes_per_skill")), "{long}");
        share(&mut alice, "one", "x").await?;
        share(&mut alice, "two", "x").await?;
        let full = alice.ask(frame("three", "x")).await?;
        assert_eq!(full["bound"], json!({"name": "skills.per_member", "limit": 2, "used": 2}), "{full}");
        share(&mut alice, "one", "y").await?;
        assert_eq!(alice.refused(frame("one", "z")).await?, "rate_limited");
        assert_eq!(names(&mut alice, json!({})).await?, ["one", "two"]);
        Ok(())
    }
}
