//! Bad input has a code and leaves nothing; bounds hold before the first byte.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use claudemesh_broker::config::LimitsMode;
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_testkit::broker::{Builder, Database};
use claudemesh_testkit::identity::merged;
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::{broker_suite, http, wait};
use serde_json::{Value, json};

use super::{PATIENCE, get, patch, share, start, stored, team, text, url_of};

broker_suite! {
    async fn bad_input_has_a_code_and_leaves_nothing(database: Database) -> Result<()> {
        let (broker, _mesh, alice, _) = team(database).await?;
        let mut a = broker.join(&alice).await?;
        let long = "x".repeat(256);
        for name in ["a/b", "..", "a\\b", "a\nb", "gpj.\u{202e}exe", " a", "", &long] {
            let frame = json!({"type": "start_upload", "client_upload_id": "u", "name": name, "size": 1});
            assert_eq!(a.refused(frame).await?, "invalid_name", "{name:?}");
        }
        let nul = json!({"type": "start_upload", "client_upload_id": "u", "name": "a\0b", "size": 1});
        assert_eq!(a.refused(nul).await?, "invalid_args", "no frame has this character");
        for (extra, code) in [
            (json!({"client_upload_id": ""}), "invalid_args"),
            (json!({"size": -1}), "invalid_args"),
            (json!({"size": "1"}), "invalid_args"),
            (json!({"size": (4_u64 << 30) + 1}), "limit"),
            (json!({"tags": [""]}), "invalid_args"),
            (json!({"tags": vec!["t"; 17]}), "invalid_args"),
            (json!({"ttl_s": 1}), "invalid_args"),
            (json!({"ttl_s": 60, "persistent": true}), "invalid_args"),
            (json!({"content_type": "text/plain\r\nx: y"}), "invalid_args"),
            (json!({"encryption": "Stream!"}), "invalid_args"),
            (json!({"sealed_meta": "eA=="}), "invalid_args"),
            (json!({"encryption": "stream", "sealed_meta": "not base64!"}), "invalid_args"),
            (json!({"encryption": "stream", "keys": [{"peerPubkey": "ab", "sealedKey": "eA=="}]}), "invalid_args"),
            (json!({"encryption": "stream", "keys": [{"peerPubkey": "ab".repeat(32), "sealedKey": "eA=="}]}), "unknown_target"),
            (json!({"targetSpec": "nobody"}), "unknown_target"),
            (json!({"targetSpec": "@"}), "invalid_args"),
            (json!({"targetSpec": "#topic"}), "invalid_args"),
            (json!({"targetSpec": vec!["*"; 65]}), "invalid_args"),
            (json!({"name": null}), "invalid_args"),
        ] {
            let frame = merged(json!({"type": "start_upload", "client_upload_id": "u", "name": "a", "size": 1}), extra);
            assert_eq!(a.refused(frame.clone()).await?, code, "{frame}");
        }
        for frame in [
            json!({"type": "get_file", "fileId": "nothing"}),
            json!({"type": "file_status", "fileId": "nothing"}),
            json!({"type": "upload_status", "fileId": "nothing"}),
            json!({"type": "delete_file", "fileId": "nothing"}),
            json!({"type": "file_readers", "fileId": "nothing"}),
            json!({"type": "finish_upload", "fileId": "nothing", "sha256": sha256_hex(b"")}),
        ] {
            assert_eq!(a.refused(frame.clone()).await?, "not_found", "{frame}");
        }
        for (frame, code) in [
            (json!({"type": "finish_upload", "fileId": "x", "sha256": "ab"}), "invalid_args"),
            (json!({"type": "list_files", "cursor": "x"}), "invalid_args"),
            (json!({"type": "list_files", "cursor": "1-' OR 1=1"}), "invalid_args"),
            (json!({"type": "list_files", "query": long}), "invalid_args"),
            (json!({"type": "grant_file_access", "fileId": "x", "peerPubkey": "alice"}), "invalid_args"),
        ] {
            assert_eq!(a.refused(frame.clone()).await?, code, "{frame}");
        }
        // Bytes: too many, in the wrong place, with another hash.
        let started = start(&mut a, "bytes", 10, json!({})).await?;
        let url = text(&started["url"]);
        let more = patch(url, 0, b"0123456789x").await?;
        assert_eq!(more.failure(), (413, "payload_too_large".into()));
        for given in [vec![], vec![("upload-offset", "-1")], vec![("upload-offset", "0"), ("upload-complete", "yes")]] {
            let reply = http::send("PATCH", url, &given, b"x").await?;
            assert_eq!(reply.failure(), (400, "invalid_args".into()), "{given:?}");
        }
        let at: usize = http::send("HEAD", url, &[], b"").await?.header("upload-offset").parse()?;
        let other = patch(url, at, &b"abcdefghij"[at..]).await?;
        assert_eq!(other.status, 200, "{other:?}");
        let wrong = json!({"type": "finish_upload", "fileId": started["fileId"], "sha256": sha256_hex(b"0123456789")});
        assert_eq!(a.refused(wrong.clone()).await?, "hash_mismatch");
        assert_eq!(a.refused(wrong).await?, "not_found", "it is gone");
        assert_eq!(stored(&broker), Vec::<PathBuf>::new());
        // Tickets are for one thing.
        let id = share(&mut a, "file", b"bytes", json!({})).await?;
        let good = url_of(&mut a, &id).await?;
        let other = start(&mut a, "other", 5, json!({})).await?;
        let upload = text(&other["url"]);
        let ticket = |url: &str| url.split("ticket=").nth(1).unwrap_or_default().to_owned();
        for bad in [
            good.replace(&ticket(&good), ""),
            good.replace(&ticket(&good), &ticket(upload)),
            good.replace(text(&id), text(&other["fileId"])),
            good.replace("&ticket=", "&tickets="),
            format!("{good}0"),
        ] {
            assert_eq!(get(&bad, "").await?.failure(), (401, "unauthorized".into()), "{bad}");
        }
        let swapped = upload.replace(&ticket(upload), &ticket(&good));
        assert_eq!(patch(&swapped, 0, b"x").await?.failure(), (401, "unauthorized".into()));
        for range in ["bytes=5-", "bytes=-0", "bytes=3-2", "bytes=0-1,3-4", "bytes=0-2,1-3", "bytes=--1", "lines=0-1"] {
            let reply = get(&good, range).await?;
            assert_eq!((reply.failure(), reply.header("content-range")), ((416, "invalid_range".into()), "bytes */5"), "{range}");
        }
        a.call(json!({"type": "cancel_upload", "fileId": other["fileId"]}), "upload_cancelled").await?;
        assert_eq!(patch(upload, 0, b"x").await?.failure(), (404, "not_found".into()));
        assert_eq!(stored(&broker).len(), 1);
        Ok(())
    }

    async fn quotas_are_asked_before_the_first_byte(database: Database) -> Result<()> {
        let limited = Builder::new(database).config(|config| {
            config.limits = LimitsMode::Default;
            for (name, value) in [
                ("files.per_member", 3), ("files.bytes_per_mesh", 150), ("files.bytes_per_member", 100), ("files.bytes_per_file", 60),
                ("files.uploads_per_member", 2), ("files.shares_per_minute", 9), ("files.transfers_per_member", 1),
            ] {
                config.limit.quotas = config.limit.quotas.clone().with(name, value);
            }
        });
        let broker = limited.start().await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut a, mut b) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let hit = async |peer: &mut TestPeer, name: &str, size: usize| -> Result<Value> {
            let frame = json!({"type": "start_upload", "client_upload_id": name, "name": name, "size": size});
            Ok(peer.ask(frame).await?["bound"].clone())
        };
        assert_eq!(hit(&mut a, "large", 61).await?, json!({"name": "files.bytes_per_file", "limit": 60, "used": 61}));
        share(&mut a, "first", &[7; 60], json!({})).await?;
        assert_eq!(hit(&mut a, "second", 41).await?, json!({"name": "files.bytes_per_member", "limit": 100, "used": 60}));
        let one = start(&mut a, "one", 20, json!({})).await?;
        let two = start(&mut a, "two", 20, json!({})).await?;
        assert_eq!(hit(&mut a, "three", 0).await?, json!({"name": "files.uploads_per_member", "limit": 2, "used": 2}));
        assert_eq!(hit(&mut b, "b", 51).await?, json!({"name": "files.bytes_per_mesh", "limit": 150, "used": 100}));
        // One transfer at a time. Whichever of the two comes first is let in, so it is tried until that is the one that stays.
        let announced = [("upload-offset", "0"), ("content-length", "20")];
        let slow = wait::until("a transfer too many", PATIENCE, async || {
            let slow = http::begin("PATCH", text(&one["url"]), &announced).await?;
            let reply = http::send("PATCH", text(&two["url"]), &[("upload-offset", "0")], b"x").await?;
            ensure!([200, 409, 429].contains(&reply.status), "{reply:?}");
            Ok((reply.failure() == (429, "limit".into())).then_some(slow))
        })
        .await?;
        drop(slow);
        for number in 0..9 {
            let answer = hit(&mut a, &format!("n{number}"), 1).await?;
            if answer["name"] == "files.shares_per_minute" {
                return Ok(());
            }
        }
        panic!("more shares in a minute than allowed");
    }
}
