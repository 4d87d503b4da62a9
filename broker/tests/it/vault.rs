//! The vault over real sockets: a member's own entries, what others get of them, what is refused, bounds, and that no plain value is
//! anywhere in the broker.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_protocol::features::vault::{EntryType, SealState, VaultSecret, VaultSet, sealing};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::enrol::OwnedMesh;
use claudemesh_testkit::identity::{Member, merged};
use claudemesh_testkit::peer::TestPeer;
use claudemesh_testkit::process::BrokerProcess;
use serde_json::{Value, json};

/// The entry as this member's client seals and signs it.
fn sealed(member: &Arc<Member>, key: &str, value: &[u8]) -> Result<VaultSet> {
    let sealed = sealing::seal(value, &member.key.public(), &mut rand::thread_rng())?;
    let set = VaultSet {
        key: key.into(),
        ciphertext: sealed.ciphertext,
        nonce: sealed.nonce,
        sealed_key: sealed.sealed_key,
        ..VaultSet::default()
    };
    Ok(set.signed(&member.mesh, &member.key, 7))
}

fn frame(set: &VaultSet) -> Result<Value> {
    Ok(merged(json!({"type": "vault_set"}), serde_json::to_value(set)?))
}

async fn put(peer: &mut TestPeer, member: &Arc<Member>, key: &str, value: &[u8]) -> Result<()> {
    let ack = peer.call(frame(&sealed(member, key, value)?)?, "vault_ack").await?;
    ensure!((&ack["key"], &ack["action"]) == (&json!(key), &json!("stored")), "{ack}");
    Ok(())
}

async fn get(peer: &mut TestPeer, keys: &[&str]) -> Result<Vec<VaultSecret>> {
    let found = peer.call(json!({"type": "vault_get", "keys": keys}), "vault_get_result").await?;
    Ok(serde_json::from_value(found["entries"].clone())?)
}

async fn listed(peer: &mut TestPeer, more: Value) -> Result<Vec<Value>> {
    let list = peer.call(merged(json!({"type": "vault_list"}), more), "vault_list_result").await?;
    list["entries"].as_array().cloned().context("entries")
}

async fn delete(peer: &mut TestPeer, key: &str, more: Value) -> Result<Value> {
    peer.ask(merged(json!({"type": "vault_delete", "key": key}), more)).await
}

broker_suite! {
    async fn a_member_gets_its_own_values_back_also_after_a_restart_and_others_get_nothing(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut ann = broker.join(&alice).await?;
        put(&mut ann, &alice, "TOKEN", b"first").await?;
        put(&mut ann, &alice, "TOKEN", b"second").await?;
        let file = VaultSet {
            entry_type: EntryType::File,
            mount_path: Some("/etc/key.pem".into()),
            description: Some("for deploys".into()),
            signature: None,
            signed_at_ms: None,
            ..sealed(&alice, "tls.key", b"-----BEGIN")?
        };
        ann.call(frame(&file.signed(&alice.mesh, &alice.key, 9))?, "vault_ack").await?;
        for restarted in [false, true] {
            if restarted {
                broker.restart().await?;
            }
            // Another session of the member, and other members: one of them in charge.
            let mut own = broker.connect(&alice.session("other")).await?;
            let found = get(&mut own, &["tls.key", "TOKEN", "nope"]).await?;
            let opened: Vec<_> = found
                .iter()
                .map(|entry| Ok((entry.key.as_str(), sealing::open(entry, &alice.key)?.to_vec(), entry.state(&alice.mesh, &alice.key.public()))))
                .collect::<Result<_>>()?;
            let verified = SealState::Verified;
            assert_eq!(opened, [("TOKEN", b"second".to_vec(), verified), ("tls.key", b"-----BEGIN".to_vec(), verified)]);
            assert_eq!((found[1].entry_type, found[1].mount_path.as_deref()), (EntryType::File, Some("/etc/key.pem")));
            let rows = listed(&mut own, json!({})).await?;
            assert_eq!((&rows[0]["key"], &rows[1]["description"], rows.len()), (&json!("TOKEN"), &json!("for deploys"), 2));
            assert!(rows.iter().all(|row| row.get("ciphertext").is_none() && row.get("by").is_none()), "{rows:?}");
            for other in [&bob, &mesh.creator] {
                let mut peer = broker.connect(&other.session("o")).await?;
                assert_eq!(get(&mut peer, &["TOKEN"]).await?, []);
                assert_eq!(listed(&mut peer, json!({})).await?, Vec::<Value>::new());
                peer.close().await?;
            }
            own.close().await?;
        }
        let mut own = broker.connect(&alice.session("last")).await?;
        let info = own.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        assert_eq!(info["vaultCount"], 2, "{info}");
        assert_eq!(delete(&mut own, "TOKEN", json!({})).await?["action"], "deleted");
        assert_eq!(delete(&mut own, "TOKEN", json!({})).await?["action"], "not_found");
        assert_eq!(get(&mut own, &["TOKEN"]).await?, []);
        Ok(())
    }

    async fn who_manages_the_vault_sees_names_and_deletes_and_reads_no_value(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        put(&mut ann, &alice, "TOKEN", b"of alice").await?;
        put(&mut ben, &bob, "TOKEN", b"of bob").await?;
        assert_eq!(ben.refused(json!({"type": "vault_list", "everyone": true})).await?, "forbidden");
        let of_alice = json!({"member_id": alice.id});
        assert_eq!(delete(&mut ben, "TOKEN", of_alice.clone()).await?["code"], "forbidden");
        let mut rows = listed(&mut owner, json!({"everyone": true})).await?;
        rows.sort_by_key(|row| row["by"].to_string());
        let seen: Vec<_> = rows.iter().map(|row| (row["by"].as_str(), row["key"].as_str(), row["member_id"].as_str())).collect();
        let of = |member: &Arc<Member>| Some(member.id.to_string());
        assert_eq!(seen, [(Some("alice"), Some("TOKEN"), of(&alice).as_deref()), (Some("bob"), Some("TOKEN"), of(&bob).as_deref())]);
        assert!(rows.iter().all(|row| row.get("ciphertext").is_none()), "{rows:?}");
        let (mut pages, mut cursor) = (0, Value::Null);
        loop {
            let page = json!({"type": "vault_list", "everyone": true, "limit": 1, "cursor": cursor});
            let page = owner.call(page, "vault_list_result").await?;
            pages += page["entries"].as_array().map_or(0, Vec::len);
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(pages, 2);
        assert_eq!(get(&mut owner, &["TOKEN"]).await?, [], "names are all that there is for it");
        assert_eq!(delete(&mut owner, "TOKEN", of_alice).await?["action"], "deleted");
        assert_eq!((get(&mut ann, &["TOKEN"]).await?.len(), get(&mut ben, &["TOKEN"]).await?.len()), (0, 1));
        // The same key in another mesh of the same broker is another entry.
        let other = broker.mesh("other")?;
        let elsewhere = other.member("bob")?;
        let mut there = broker.join(&elsewhere).await?;
        assert_eq!(get(&mut there, &["TOKEN"]).await?, []);
        Ok(())
    }

    async fn what_is_not_sealed_or_not_signed_by_its_member_is_refused_and_nothing_is_stored(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let mut ann = broker.join(&alice).await?;
        let fine = frame(&sealed(&alice, "TOKEN", b"value")?)?;
        let plain = json!({"signature": null, "signed_at_ms": null});
        for (change, code) in [
            (json!({"key": ""}), "invalid_name"),
            (json!({"key": "x".repeat(129)}), "invalid_name"),
            (json!({"key": "a b"}), "invalid_name"),
            (json!({"key": "../x/"}), "invalid_name"),
            (json!({"key": "ключ"}), "invalid_name"),
            (json!({"key": null}), "invalid_args"),
            (json!({"key": 5}), "invalid_args"),
            (json!({"entry_type": "secret"}), "invalid_args"),
            (json!({"mount_path": "/a/../b"}), "invalid_args"),
            (json!({"mount_path": "..\\b"}), "invalid_args"),
            (json!({"mount_path": ""}), "invalid_args"),
            (json!({"mount_path": "/a\n"}), "invalid_args"),
            (json!({"mount_path": "x".repeat(513)}), "invalid_args"),
            (json!({"description": "x".repeat(501)}), "invalid_args"),
            (json!({"description": "a\u{0}"}), "invalid_args"),
            // As clients of before sent it: the plain value in base64.
            (json!({"ciphertext": "c2VjcmV0", "nonce": "bm9uY2U=", "sealed_key": "c2VhbA=="}), "not_encrypted"),
            (json!({"ciphertext": "not base64!"}), "not_encrypted"),
            (json!({"nonce": "AAAA"}), "not_encrypted"),
            (json!({"sealed_key": "AAAA"}), "not_encrypted"),
            (json!({"ciphertext": "A".repeat(200_000)}), "payload_too_large"),
            (json!({"ciphertext": "A".repeat(80_000)}), "limit"),
            (json!({"key": "OTHER"}), "bad_signature"),
            (json!({"entry_type": "file"}), "bad_signature"),
            (json!({"mount_path": "/etc/x"}), "bad_signature"),
            (json!({"signed_at_ms": 8}), "bad_signature"),
            (json!({"signature": "zz"}), "invalid_args"),
            (json!({"signature": null}), "invalid_args"),
            (json!({"signed_at_ms": null}), "invalid_args"),
        ] {
            assert_eq!(ann.refused(merged(fine.clone(), change.clone())).await?, code, "{change}");
        }
        assert_eq!(ann.refused(frame(&sealed(&bob, "TOKEN", b"x")?)?).await?, "bad_signature", "of another member");
        let many: Vec<String> = (0..101).map(|number| format!("K{number}")).collect();
        assert_eq!(ann.refused(json!({"type": "vault_get", "keys": many})).await?, "invalid_args");
        assert_eq!(ann.refused(json!({"type": "vault_list", "cursor": "x"})).await?, "invalid_args");
        assert_eq!(listed(&mut ann, json!({})).await?, Vec::<Value>::new(), "nothing was stored");
        // A client of before seals and does not sign.
        ann.call(merged(fine, plain), "vault_ack").await?;
        let found = get(&mut ann, &["TOKEN", "no such key", ""]).await?;
        assert_eq!(found[0].state(&alice.mesh, &alice.key.public()), SealState::Unsigned);
        assert_eq!(delete(&mut ann, "no such key", json!({})).await?["action"], "not_found");
        Ok(())
    }

    async fn bounds_and_rates_hold(database: Database) -> Result<()> {
        let small = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            let quotas = std::mem::take(&mut config.limit.quotas);
            let quotas = quotas.with("vault.per_member", 2).with("vault.bytes_per_value", 64);
            config.limit.quotas = quotas.with("vault.writes_per_minute", 6);
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let large = ann.ask(frame(&sealed(&alice, "A", &[7; 65])?)?).await?;
        assert_eq!((&large["code"], &large["bound"]["name"]), (&json!("limit"), &json!("vault.bytes_per_value")), "{large}");
        put(&mut ann, &alice, "A", &[7; 64]).await?;
        put(&mut ann, &alice, "B", b"b").await?;
        let third = ann.ask(frame(&sealed(&alice, "C", b"c")?)?).await?;
        assert_eq!((&third["code"], &third["bound"]["name"]), (&json!("limit"), &json!("vault.per_member")), "{third}");
        assert_eq!((&third["bound"]["limit"], &third["bound"]["used"]), (&json!(2), &json!(2)));
        put(&mut ann, &alice, "A", b"smaller").await?;
        put(&mut ben, &bob, "A", b"of bob").await?;
        delete(&mut ann, "B", json!({})).await?;
        put(&mut ann, &alice, "C", b"c").await?;
        let seventh = ann.ask(frame(&sealed(&alice, "C", b"d")?)?).await?;
        assert_eq!(seventh["code"], "rate_limited", "{seventh}");
        assert!(seventh["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{seventh}");
        Ok(())
    }
}

/// Whether bytes are in a file below a folder.
fn in_files(folder: &Path, wanted: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            in_files(&path, wanted)?
        } else {
            memchr::memmem::find(&std::fs::read(&path)?, wanted).is_some()
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether bytes are in the memory of a process.
fn in_memory(pid: u32, wanted: &[u8]) -> Result<bool> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')).context("a range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        // Some of it cannot be read, such as what the kernel shares with everyone.
        if memory.seek(SeekFrom::Start(from)).is_ok()
            && memory.read_exact(&mut bytes).is_ok()
            && memchr::memmem::find(&bytes, wanted).is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The value is a canary: it is looked for in the files, the log at its loudest and the memory of a broker that stores, lists, gives back,
/// replaces and deletes it. What lies beside it is found in each of them, so the search works.
#[tokio::test]
async fn no_plain_value_is_in_the_files_the_log_or_the_memory_of_the_broker() -> Result<()> {
    const CANARY: &[u8] = b"canary-7f3a9c51-plain-value";
    let data = tempfile::tempdir()?;
    let binary = Path::new(env!("CARGO_BIN_EXE_claudemesh-broker"));
    let broker = BrokerProcess::start(binary, data.path(), &["--log", "trace"])?;
    let mesh = OwnedMesh::create(&broker.base(), "team")?;
    let alice = mesh.member("alice")?;
    let mut ann = TestPeer::session(&broker.url(), &alice.session("a")).await?;
    put(&mut ann, &alice, "CANARY_NAME", CANARY).await?;
    put(&mut ann, &alice, "CANARY_NAME", CANARY).await?;
    let state = json!({"type": "set_state", "key": "k", "value": "control-in-plain-words", "confirm": true});
    ann.call(state, "done").await?;
    let found = get(&mut ann, &["CANARY_NAME"]).await?;
    assert_eq!(&*sealing::open(&found[0], &alice.key)?, CANARY, "it is there, for who has the key");
    assert_eq!(listed(&mut ann, json!({})).await?.len(), 1);
    for (wanted, there) in [(&b"CANARY_NAME"[..], true), (b"control-in-plain-words", true), (CANARY, false)] {
        let words = String::from_utf8_lossy(wanted).into_owned();
        assert_eq!(in_files(data.path(), wanted)?, there, "files: {words}");
        assert_eq!(in_memory(broker.pid(), wanted)?, there, "memory: {words}");
    }
    // Neither is it there in the form in which a client of before would have sent it.
    use base64::Engine;
    let coded = base64::engine::general_purpose::STANDARD.encode(CANARY);
    assert!(!in_files(data.path(), coded.as_bytes())? && !in_memory(broker.pid(), coded.as_bytes())?);
    let log = std::fs::read_to_string(data.path().join("broker.log"))?;
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is at its loudest");
    assert!(
        !log.contains(&found[0].ciphertext) && !log.contains(&found[0].sealed_key),
        "nor what is sealed, in the log"
    );
    assert_eq!(delete(&mut ann, "CANARY_NAME", json!({})).await?["action"], "deleted");
    Ok(())
}
