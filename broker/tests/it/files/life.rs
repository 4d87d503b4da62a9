//! Files end by themselves, and what does not fit together is put in order.

use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_testkit::broker::{Builder, Database};
use claudemesh_testkit::{broker_suite, wait};
use serde_json::json;

use super::{PATIENCE, get, names, objects, patch, share, start, stored, team, text, url_of};

broker_suite! {
    async fn files_end_by_themselves_also_while_their_mesh_sleeps(database: Database) -> Result<()> {
        let quick = Builder::new(database).config(|config| config.connections.idle_mesh_seconds = 1);
        let broker = quick.start().await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut a, mut b) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let soon = share(&mut a, "soon", b"1", json!({"ttl_s": 60, "targetSpec": "bob"})).await?;
        share(&mut a, "day", b"2", json!({})).await?;
        share(&mut a, "kept", b"3", json!({"persistent": true})).await?;
        let half = start(&mut a, "half", 2, json!({})).await?;
        patch(text(&half["url"]), 0, b"x").await?;
        let url = url_of(&mut b, &soon).await?;
        broker.pass(Duration::from_secs(61), &mut b).await?;
        let gone = b.find("the event", |frame| frame["type"] == "file_change" && frame["what"] == "deleted").await?;
        assert_eq!((&gone["fileId"], &gone["by"]), (&soon, &json!("")));
        assert_eq!(get(&url, "").await?.failure(), (404, "not_found".into()));
        assert_eq!(stored(&broker).len(), 3);
        a.close().await?;
        b.close().await?;
        let mut hours = 0;
        wait::until("the bytes to go", PATIENCE, async || {
            // The mesh falls asleep in between; what is due wakes it.
            hours += 1;
            broker.advance(Duration::from_secs(3_600));
            Ok((stored(&broker).len() == 1).then_some(()))
        })
        .await?;
        assert!(hours >= 23, "not before a day: {hours}");
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        let page = owner.call(json!({"type": "audit_export", "after": 0}), "audit_page").await?;
        let ended = page["entries"].as_array().context("entries")?.iter().filter(|entry| entry["eventType"] == "file_deleted").count();
        assert_eq!(ended, 2, "an upload that no one saw has no entry");
        Ok(())
    }

    async fn what_does_not_fit_together_is_swept(database: Database) -> Result<()> {
        let (mut broker, mesh, alice, _) = team(database).await?;
        let mut a = broker.join(&alice).await?;
        let (good, bad) = (share(&mut a, "good", b"1", json!({})).await?, share(&mut a, "bad", b"2", json!({})).await?);
        let folder = broker.data_dir().join("files").join(mesh.id.as_str());
        a.close().await?;
        broker.stop();
        // Bytes without a row, of a mesh that is there and of one that is not; half an object; a row without bytes.
        std::fs::write(folder.join(text(&good)).join("left-over"), b"x")?;
        std::fs::create_dir_all(folder.with_file_name("nomesh").join("file"))?;
        std::fs::write(folder.with_file_name("nomesh").join("file/0"), b"x")?;
        std::fs::write(folder.join(text(&good)).join("half#1"), b"x")?;
        let lost = objects(&folder.join(text(&bad)));
        std::fs::remove_file(&lost[0])?;
        broker.restart().await?;
        wait::until("the store to be swept", PATIENCE, async || Ok((stored(&broker).len() == 1).then_some(()))).await?;
        let mut a = broker.join(&alice).await?;
        assert_eq!(get(&url_of(&mut a, &good).await?, "").await?.body, b"1");
        wait::until("the file without bytes to go", PATIENCE, async || {
            broker.advance(Duration::from_secs(6));
            Ok((names(&mut a, json!({})).await? == ["good"]).then_some(()))
        })
        .await?;
        assert_eq!(a.refused(json!({"type": "get_file", "fileId": bad})).await?, "not_found");
        // The bytes of a deleted mesh go with it.
        a.close().await?;
        let path = format!("/mesh/{}", mesh.id);
        let deleted = claudemesh_testkit::enrol::request("DELETE", &broker.base(), &path, b"", Some(&mesh.owner), &[])?;
        assert_eq!(deleted.status, 200, "{deleted:?}");
        wait::until("the bytes of the mesh to go", PATIENCE, async || Ok(stored(&broker).is_empty().then_some(()))).await?;
        Ok(())
    }
}
