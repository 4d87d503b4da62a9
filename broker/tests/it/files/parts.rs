//! Uploads in parts that break off and go on, downloads with ranges.

use std::path::PathBuf;

use anyhow::{Context, Result};
use claudemesh_protocol::crypto::http::sha256_hex;
use claudemesh_testkit::broker::Database;
use claudemesh_testkit::{broker_suite, http, wait};
use serde_json::{Value, json};

use super::{PATIENCE, content, finish, get, names, patch, share, start, stored, team, text, url_of};

broker_suite! {
    async fn a_file_goes_up_in_parts_and_comes_down_in_ranges(database: Database) -> Result<()> {
        let (mut broker, _mesh, alice, bob) = team(database).await?;
        let (mut a, mut b) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let bytes = content(9 << 20);
        let extra = json!({"tags": ["plan"], "content_type": "text/plain", "targetSpec": ["bob", "@docs"], "ttl_s": 3_600});
        let started = start(&mut a, "über plan.txt", bytes.len(), extra.clone()).await?;
        let (id, url) = (&started["fileId"], text(&started["url"]));
        assert!(url.starts_with(&format!("{}/upload/{}?mesh={}&ticket=", broker.base(), text(id), alice.mesh)), "{url}");
        assert_eq!((&started["offset"], &started["size"], &started["finished"]), (&json!(0), &json!(9 << 20), &Value::Null));
        let reply = patch(url, 0, &bytes[..5 << 20]).await?;
        assert_eq!((reply.status, reply.header("upload-offset")), (200, "5242880"));
        assert_eq!(reply.json(), json!({"ok": true, "offset": 5 << 20, "complete": false}));
        assert_eq!(names(&mut a, json!({})).await?, Vec::<String>::new(), "half a file is no file");
        let half = json!({"type": "finish_upload", "fileId": id, "sha256": sha256_hex(&bytes)});
        assert_eq!(a.refused(half).await?, "upload_incomplete");
        assert_eq!(a.refused(json!({"type": "get_file", "fileId": id})).await?, "not_found");
        let again = start(&mut a, "über plan.txt", bytes.len(), extra).await?;
        assert_eq!((&again["fileId"], &again["offset"]), (id, &json!(5 << 20)), "the same upload");
        broker.restart().await?;
        let (mut a, mut b2) = (broker.join(&alice).await?, broker.join(&bob).await?);
        assert_eq!(b.refused(json!({"type": "list_files"})).await.ok(), None, "the old socket is gone");
        // Tickets do not outlive the broker.
        let old = url.replace(&url[..url.find("/upload").context("a path")?], &broker.base());
        assert_eq!(patch(&old, 5 << 20, b"x").await?.failure(), (401, "unauthorized".into()));
        let status = a.call(json!({"type": "upload_status", "fileId": id}), "upload_started").await?;
        assert_eq!(status["offset"], 5 << 20);
        let url = text(&status["url"]);
        let head = http::send("HEAD", url, &[], b"").await?;
        let told = (head.status, head.header("upload-offset"), head.header("upload-length"), head.header("upload-complete"));
        assert_eq!(told, (200, "5242880", "9437184", "?0"));
        let reply = patch(url, 5 << 20, &bytes[5 << 20..]).await?;
        let whole = json!({"ok": true, "offset": 9 << 20, "complete": true, "sha256": sha256_hex(&bytes)});
        assert_eq!((reply.status, reply.json()), (200, whole), "counted again from the store, because the broker was stopped");
        let file = finish(&mut a, id, &bytes).await?;
        assert_eq!((&file["name"], &file["size"], &file["tags"]), (&json!("über plan.txt"), &json!(9 << 20), &json!(["plan"])));
        assert_eq!((&file["uploadedBy"], &file["encrypted"], &file["persistent"]), (&json!(alice.id), &json!(false), &json!(false)));
        assert_eq!(finish(&mut a, id, &bytes).await?, file, "a retry");
        let told = b2.find("the event", |frame| frame["type"] == "file_change").await?;
        assert_eq!((&told["what"], &told["fileId"], &told["by"]), (&json!("shared"), id, &json!("alice")));
        assert_eq!(told["file"]["name"], "über plan.txt");
        a.settle().await?;
        assert_eq!(a.kept_of("file_change").len(), 0, "who shares it knows");
        assert_eq!(patch(url, 9 << 20, b"x").await?.failure(), (404, "not_found".into()), "a file is not changed");
        let url = url_of(&mut b2, id).await?;
        let reply = get(&url, "").await?;
        assert!(reply.status == 200 && reply.body == bytes, "{}", reply.status);
        assert_eq!((reply.header("content-type"), reply.header("accept-ranges")), ("text/plain", "bytes"));
        let etag = format!("\"{}\"", sha256_hex(&bytes));
        assert_eq!((reply.header("etag"), reply.header("cache-control")), (etag.as_str(), "private, max-age=60"));
        assert_eq!(reply.header("content-disposition"), "attachment; filename=\"_ber plan.txt\"; filename*=UTF-8''%C3%BCber%20plan%2Etxt");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        for (range, from, to) in [("bytes=0-0", 0, 1), ("bytes=4194300-8388620", 4_194_300, 8_388_621), ("bytes=-9", (9 << 20) - 9, 9 << 20)] {
            let reply = get(&url, range).await?;
            assert!(reply.status == 206 && reply.body == bytes[from..to], "{range}: {}", reply.status);
            assert_eq!(reply.header("content-range"), format!("bytes {from}-{}/{}", to - 1, 9 << 20));
        }
        let whole = http::send("GET", &url, &[("range", "bytes=0-0"), ("if-range", "\"other\"")], b"").await?;
        assert_eq!((whole.status, whole.body.len()), (200, 9 << 20));
        let log = a.call(json!({"type": "file_status", "fileId": id}), "file_status_result").await?;
        assert_eq!((&log["accesses"][0]["peerName"], &log["accesses"][0]["memberId"]), (&json!("bob"), &json!(bob.id)));
        let info = a.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        let limits = info["limits"].as_array().context("limits")?;
        assert_eq!(info["fileCount"], 1);
        assert!(limits.iter().any(|bound| bound["name"] == "files.bytes_per_member" && bound["used"] == 9 << 20), "{info}");
        assert_eq!(stored(&broker).len(), 5, "5 MiB and 4 MiB, in parts of 2 MiB");
        a.call(json!({"type": "delete_file", "fileId": id, "confirm": true}), "done").await?;
        assert_eq!(stored(&broker), Vec::<PathBuf>::new(), "deleted means gone");
        let gone = b2.find("the event", |frame| frame["type"] == "file_change" && frame["what"] == "deleted").await?;
        assert_eq!(&gone["fileId"], id);
        assert_eq!(get(&url, "").await?.failure(), (404, "not_found".into()));
        assert_eq!(b2.refused(json!({"type": "get_file", "fileId": id})).await?, "not_found");
        Ok(())
    }

    async fn an_upload_that_breaks_off_goes_on_where_it_was(database: Database) -> Result<()> {
        let (broker, _mesh, alice, _) = team(database).await?;
        let mut a = broker.join(&alice).await?;
        let bytes = content(6 << 20);
        let started = start(&mut a, "log", bytes.len(), json!({})).await?;
        let (id, url) = (&started["fileId"], text(&started["url"]));
        let length = bytes.len().to_string();
        let announced = [("upload-offset", "0"), ("content-length", length.as_str())];
        // A connection that does not end by itself: the next one takes over, and what came is kept. When the look comes first, there is
        // nothing to take over yet.
        let (first, mut at) = wait::until("a transfer to be taken over", PATIENCE, async || {
            let mut first = http::begin("PATCH", url, &announced).await?;
            first.write(&bytes[..3_000_001]).await?;
            let at: usize = http::send("HEAD", url, &[], b"").await?.header("upload-offset").parse()?;
            Ok((at > 0).then_some((first, at)))
        })
        .await?;
        assert!(at <= 3_000_001, "{at}");
        // The answer may be lost when the broker closes with bytes unread.
        if let Ok(reply) = first.reply().await {
            assert_eq!(reply.status, 409, "{reply:?}");
        }
        for size in [1_000_000, 70_000, 7] {
            let rest = (bytes.len() - at).to_string();
            let mut part = http::begin("PATCH", url, &[("upload-offset", &at.to_string()), ("content-length", &rest)]).await?;
            part.write(&bytes[at..at + size]).await?;
            drop(part);
            // All of it was on its way when the connection ended.
            wait::until("what came to be stored", PATIENCE, async || {
                let status = a.call(json!({"type": "upload_status", "fileId": id}), "upload_started").await?;
                Ok((status["offset"] == at + size).then_some(()))
            })
            .await?;
            at += size;
        }
        assert_eq!(patch(url, at + 1, b"x").await?.failure(), (409, "offset_mismatch".into()));
        let refused = patch(url, 0, b"x").await?;
        assert_eq!((refused.status, refused.header("upload-offset")), (409, at.to_string().as_str()));
        let chunked = [("upload-offset", at.to_string()), ("transfer-encoding", "chunked".to_owned())];
        let chunked: Vec<(&str, &str)> = chunked.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut last = http::begin("PATCH", url, &chunked).await?;
        for piece in bytes[at..].chunks(100_000) {
            last.write(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            last.write(piece).await?;
            last.write(b"\r\n").await?;
        }
        last.write(b"0\r\n\r\n").await?;
        let reply = last.reply().await?;
        assert_eq!((reply.status, &reply.json()["sha256"]), (200, &json!(sha256_hex(&bytes))));
        finish(&mut a, id, &bytes).await?;
        let url = url_of(&mut a, id).await?;
        assert!(get(&url, "").await?.body == bytes);
        // So does a reader.
        let mut broken = http::begin("GET", &url, &[]).await?;
        let got = broken.head().await?.body.len();
        drop(broken);
        let rest = get(&url, &format!("bytes={got}-")).await?;
        assert!(rest.body == bytes[got..]);
        Ok(())
    }

    async fn the_end_that_is_not_known_before_is_told_with_the_last_part(database: Database) -> Result<()> {
        let (broker, _mesh, alice, _) = team(database).await?;
        let mut a = broker.join(&alice).await?;
        let started = start(&mut a, "pipe", 1_000, json!({"at_most": true})).await?;
        let url = text(&started["url"]);
        assert_eq!(patch(url, 0, b"hello ").await?.json()["complete"], false);
        let last = http::send("PATCH", url, &[("upload-offset", "6"), ("upload-complete", "?1")], b"world").await?;
        assert_eq!(last.json(), json!({"ok": true, "offset": 11, "complete": true, "sha256": sha256_hex(b"hello world")}));
        let file = finish(&mut a, &started["fileId"], b"hello world").await?;
        assert_eq!(file["size"], 11);
        let info = a.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        let used = info["limits"].as_array().context("limits")?.iter().find(|bound| bound["name"] == "files.bytes_per_mesh");
        assert_eq!(used.context("the bound")?["used"], 11, "what was reserved for more is free again");
        let exact = start(&mut a, "exact", 20, json!({})).await?;
        let early = http::send("PATCH", text(&exact["url"]), &[("upload-offset", "0"), ("upload-complete", "?1")], b"short").await?;
        assert_eq!((early.failure(), early.header("upload-offset")), ((409, "upload_incomplete".into()), "5"));
        let nothing = share(&mut a, "empty", b"", json!({})).await?;
        assert_eq!(get(&url_of(&mut a, &nothing).await?, "").await?.body, b"");
        Ok(())
    }
}
