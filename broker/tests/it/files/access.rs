//! Whom a file is for, on every route, and the keys of sealed ones.

use std::sync::Arc;

use anyhow::{Context, Result};
use claudemesh_protocol::crypto::http::{headers, sha256_hex};
use claudemesh_testkit::broker::Database;
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::clock::now_ms;
use claudemesh_testkit::http;
use claudemesh_testkit::identity::{Member, merged};
use serde_json::{Value, json};

use super::{get, names, share, stored, team, text, url_of};

broker_suite! {
    async fn a_file_is_for_those_it_names_on_every_route(database: Database) -> Result<()> {
        let (broker, mesh, alice, bob) = team(database).await?;
        let (cyd, eve) = (mesh.member("cyd")?, mesh.member("eve")?);
        let mut a = broker.join(&alice).await?;
        let mut b = broker.join(&bob).await?;
        let mut c = broker.join(&cyd).await?;
        let mut e = broker.join(&eve).await?;
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        c.call(json!({"type": "join_group", "name": "docs/eu", "confirm": true}), "done").await?;
        let named = share(&mut a, "named", b"1", json!({"targetSpec": bob.pubkey()})).await?;
        let grouped = share(&mut a, "grouped", b"2", json!({"targetSpec": "@docs"})).await?;
        let all = share(&mut a, "all", b"3", json!({"targetSpec": "*"})).await?;
        let plain = share(&mut a, "plain", b"4", json!({})).await?;
        for (peer, seen) in [(&mut b, vec!["all", "named", "plain"]), (&mut c, vec!["all", "grouped", "plain"]), (&mut e, vec!["all", "plain"])] {
            assert_eq!(names(peer, json!({})).await?, seen);
            for (name, id) in [("named", &named), ("grouped", &grouped), ("all", &all), ("plain", &plain)] {
                let may = seen.contains(&name);
                let asked = json!({"type": "get_file", "fileId": id});
                let found = if may { get(&url_of(peer, id).await?, "").await?.status == 200 } else { peer.refused(asked).await? == "forbidden" };
                assert!(found, "{name}");
                let status = peer.ask(json!({"type": "file_status", "fileId": id})).await?;
                assert_eq!(status["type"] == "file_status_result", may, "{name}: {status}");
                for change in [
                    json!({"type": "grant_file_access", "fileId": id, "peerPubkey": eve.pubkey()}),
                    json!({"type": "revoke_file_access", "fileId": id, "peerPubkey": bob.pubkey()}),
                    json!({"type": "delete_file", "fileId": id}),
                ] {
                    assert_eq!(peer.refused(change.clone()).await?, "forbidden", "{change}");
                }
                let readers = peer.refused(json!({"type": "file_readers", "fileId": id})).await?;
                assert_eq!(readers, if may { "forbidden" } else { "not_found" }, "{name}");
                assert_eq!(peer.refused(json!({"type": "finish_upload", "fileId": id, "sha256": sha256_hex(b"1")})).await?, "not_found");
                let none = peer.call(json!({"type": "cancel_upload", "fileId": id}), "upload_cancelled").await?;
                assert_eq!(none["found"], false);
            }
        }
        assert_eq!(names(&mut e, json!({"query": "PLA"})).await?, ["plain"]);
        assert_eq!(names(&mut e, json!({"from": "Alice"})).await?.len(), 2);
        assert_eq!(names(&mut e, json!({"from": bob.id})).await?.len(), 0);
        // Over HTTP by a signature: the same rules.
        let signed_get = async |member: &Arc<Member>, id: &Value| -> Result<(u16, String)> {
            let path = format!("/download/{}?mesh={}", text(id), mesh.id);
            let given = headers(&member.key, "GET", &path, b"", now_ms());
            let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Ok(http::send("GET", &format!("{}{path}", broker.base()), &given, b"").await?.failure())
        };
        assert_eq!(signed_get(&bob, &named).await?.0, 200);
        assert_eq!(signed_get(&eve, &named).await?, (403, "forbidden".into()));
        let unsigned = get(&format!("{}/download/{}?mesh={}", broker.base(), text(&plain), mesh.id), "").await?;
        assert_eq!(unsigned.failure(), (401, "unauthorized".into()));
        // Who manages files sees and deletes them, and reads none that is not for it.
        assert_eq!(e.refused(json!({"type": "list_files", "all": true})).await?, "forbidden");
        assert_eq!(names(&mut owner, json!({"all": true})).await?.len(), 4);
        assert_eq!(owner.refused(json!({"type": "get_file", "fileId": named})).await?, "forbidden");
        // A grant lets one more in, a revocation takes it away, also from a group, and ends a URL at once.
        let grant = json!({"type": "grant_file_access", "fileId": named, "peerPubkey": eve.pubkey()});
        a.call(grant, "grant_file_access_ok").await?;
        let granted = e.find("the event", |frame| frame["type"] == "file_change" && frame["what"] == "granted").await?;
        assert_eq!(granted["fileId"], named);
        assert_eq!(get(&url_of(&mut e, &named).await?, "").await?.status, 200);
        let url = url_of(&mut c, &grouped).await?;
        let revoke = json!({"type": "revoke_file_access", "fileId": grouped, "peerPubkey": cyd.pubkey()});
        assert_eq!(a.call(revoke, "file_access_revoked").await?["couldRead"], true);
        assert_eq!(get(&url, "").await?.failure(), (404, "not_found".into()));
        assert_eq!(c.refused(json!({"type": "get_file", "fileId": grouped})).await?, "forbidden");
        assert_eq!(names(&mut c, json!({})).await?, ["all", "plain"]);
        let readers = a.call(json!({"type": "file_readers", "fileId": grouped}), "file_readers_result").await?;
        assert_eq!(readers["targets"], json!(["@docs"]));
        let rows = readers["readers"].as_array().context("readers")?;
        let row = |member: &Arc<Member>| rows.iter().find(|row| row["memberId"] == json!(member.id)).cloned();
        assert_eq!(row(&cyd).context("cyd")?["revoked"], true);
        assert!(row(&alice).is_some() && row(&bob).is_none());
        let own = json!({"type": "revoke_file_access", "fileId": grouped, "peerPubkey": alice.pubkey()});
        assert_eq!(a.refused(own).await?, "invalid");
        // Someone who is banned has a URL no longer.
        let url = url_of(&mut e, &plain).await?;
        owner.call(json!({"type": "ban", "target": eve.pubkey()}), "ban_ack").await?;
        assert_eq!(get(&url, "").await?.failure(), (403, "revoked".into()));
        owner.call(json!({"type": "delete_file", "fileId": named, "confirm": true}), "done").await?;
        assert_eq!(stored(&broker).len(), 3);
        Ok(())
    }

    async fn the_key_of_a_sealed_file_is_asked_for_and_granted(database: Database) -> Result<()> {
        let (broker, mesh, alice, bob) = team(database).await?;
        let cyd = mesh.member("cyd")?;
        let mut b = broker.join(&bob).await?;
        let mut a = broker.join(&alice).await?;
        let keys = json!([{"peerPubkey": alice.pubkey(), "sealedKey": "Zm9yIGFsaWNl"}]);
        let extra = json!({"encryption": "stream", "sealed_meta": "bWV0YQ==", "keys": keys, "regrant": true, "targetSpec": "@docs", "name": null});
        let id = share(&mut a, "secret", b"sealed bytes", extra).await?;
        assert_eq!(names(&mut a, json!({})).await?, [format!("sealed-{}", &text(&id)[..8])]);
        let own = a.call(json!({"type": "list_files"}), "file_list").await?["files"][0].clone();
        assert_eq!((&own["sealedKey"], &own["sealedFor"]), (&json!("Zm9yIGFsaWNl"), &json!(alice.pubkey())));
        assert_eq!((&own["encryption"], &own["sealedMeta"], &own["encrypted"]), (&json!("stream"), &json!("bWV0YQ=="), &json!(true)));
        b.call(json!({"type": "join_group", "name": "docs", "confirm": true}), "done").await?;
        let asked = || json!({"type": "get_file", "fileId": id});
        assert_eq!(b.refused(asked()).await?, "no_file_key");
        let wanted = a.find("the event", |frame| frame["type"] == "file_key_wanted").await?;
        assert_eq!((&wanted["fileId"], &wanted["memberId"], &wanted["pubkey"]), (&id, &json!(bob.id), &json!(bob.pubkey())));
        assert_eq!(b.refused(asked()).await?, "no_file_key");
        a.settle().await?;
        assert_eq!(a.kept_of("file_key_wanted").len(), 0, "asked for once");
        // An owner that comes later is asked then.
        a.close().await?;
        let mut a = broker.connect(&alice.session("later")).await?;
        a.find("the event", |frame| frame["type"] == "file_key_wanted").await?;
        let grant = |pubkey: &str, sealed: Value| merged(json!({"type": "grant_file_access", "fileId": id, "peerPubkey": pubkey}), sealed);
        assert_eq!(a.refused(grant(&bob.pubkey(), json!({}))).await?, "invalid_args");
        a.call(grant(&bob.pubkey(), json!({"sealedKey": "Zm9yIGJvYg=="})), "grant_file_access_ok").await?;
        b.find("the event", |frame| frame["type"] == "file_change" && frame["what"] == "granted").await?;
        let found = b.call(asked(), "file_url").await?;
        assert_eq!((&found["sealedKey"], &found["file"]["sealedFor"]), (&json!("Zm9yIGJvYg=="), &json!(bob.pubkey())));
        assert_eq!(get(text(&found["url"]), "").await?.body, b"sealed bytes");
        let readers = a.call(json!({"type": "file_readers", "fileId": id}), "file_readers_result").await?;
        let key_of = |member: &Arc<Member>| {
            readers["readers"].as_array()?.iter().find(|row| row["memberId"] == json!(member.id))?["hasKey"].as_bool()
        };
        assert_eq!((key_of(&alice), key_of(&bob), key_of(&cyd)), (Some(true), Some(true), None));
        let revoke = json!({"type": "revoke_file_access", "fileId": id, "peerPubkey": bob.pubkey()});
        a.call(revoke, "file_access_revoked").await?;
        b.find("the event", |frame| frame["type"] == "file_change" && frame["what"] == "revoked").await?;
        assert_eq!(b.refused(asked()).await?, "forbidden");
        assert_eq!(a.refused(grant(&"ab".repeat(32), json!({"sealedKey": "eA=="}))).await?, "unknown_target");
        Ok(())
    }
}
