//! What is too much is refused with a code and a time to wait.

use std::time::Duration;

use anyhow::Result;
use claudemesh_broker::config::LimitsMode;
use claudemesh_protocol::limits;
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

broker_suite! {
    async fn a_pair_is_limited_and_free_again_after_the_wait(database: Database) -> Result<()> {
        let limited = |config: &mut claudemesh_broker::config::Config| {
            config.limits = LimitsMode::Default;
            config.limit.pair_per_minute = 5;
        };
        let broker = Builder::new(database).config(limited).start().await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        for number in 0..5 {
            assert_eq!(sender.say(&receiver.pubkey(), &number.to_string(), json!({})).await?["queued"], true);
        }
        let ack = sender.say(&receiver.pubkey(), "too much", json!({})).await?;
        assert_eq!(ack["queued"], false, "{ack}");
        assert_eq!(ack["code"], "pair_limit", "{ack}");
        let wait = ack["retry_after_ms"].as_u64().unwrap_or_default();
        assert!((1..=60_000).contains(&wait), "{ack}");
        // Refused for one of two recipients, it costs nothing with the other.
        let carol = mesh.member("carol")?.pubkey();
        for _ in 0..5 {
            let both = json!({"targetSpec": [carol, receiver.pubkey()]});
            assert_eq!(sender.say(&carol, "too much for one", both).await?["code"], "pair_limit");
        }
        for number in 0..5 {
            assert_eq!(sender.say(&carol, &number.to_string(), json!({})).await?["queued"], true);
        }
        broker.advance(Duration::from_millis(wait));
        assert_eq!(sender.say(&receiver.pubkey(), "again", json!({})).await?["queued"], true);
        for _ in 0..6 {
            receiver.message().await?;
        }
        assert_eq!(receiver.waiting_messages().await?.len(), 0);
        Ok(())
    }

    async fn the_sessions_of_a_member_share_its_rate_and_others_have_their_own(database: Database) -> Result<()> {
        let limited = |config: &mut claudemesh_broker::config::Config| {
            config.limits = LimitsMode::Default;
            config.limit.member_per_minute = 4;
        };
        let broker = Builder::new(database).config(limited).start().await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let (mut one, mut two) = (broker.join(&alice).await?, broker.connect(&alice.session("two")).await?);
        let mut other = broker.join(&mesh.member("bob")?).await?;
        for _ in 0..2 {
            assert_eq!(one.say("*", "from one", json!({})).await?["queued"], true);
            assert_eq!(two.say("*", "from the other", json!({})).await?["queued"], true);
        }
        for session in [&mut one, &mut two] {
            let ack = session.say("*", "too much", json!({})).await?;
            assert_eq!((&ack["queued"], &ack["code"]), (&json!(false), &json!("rate_limited")), "{ack}");
            assert!((1..=60_000).contains(&ack["retry_after_ms"].as_u64().unwrap_or_default()), "{ack}");
        }
        assert_eq!(other.say("*", "not mine", json!({})).await?["queued"], true);
        broker.advance(Duration::from_secs(15));
        assert_eq!(two.say("*", "again", json!({})).await?["queued"], true);
        Ok(())
    }

    async fn a_loop_of_agents_runs_out_of_its_trace_budget(database: Database) -> Result<()> {
        let limited = |config: &mut claudemesh_broker::config::Config| {
            config.limits = LimitsMode::Default;
            config.limit.trace_budget = 4;
        };
        let broker = Builder::new(database).config(limited).start().await?;
        let mesh = broker.mesh("team")?;
        let (mut one, mut two) = (broker.join(&mesh.member("alice")?).await?, broker.join(&mesh.member("bob")?).await?);
        let mut hops = 0;
        let refused = loop {
            let (from, to) = if hops % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
            let ack = from.say(&to.pubkey(), "your turn", json!({"trace": {"id": "t", "hop": hops}})).await?;
            if ack["queued"] == false {
                break ack;
            }
            to.message().await?;
            hops += 1;
            assert!(hops < 20, "the exchange never ends");
        };
        assert_eq!(refused["code"], "trace_budget", "{refused}");
        assert_eq!(hops, 4);
        // Another exchange is not touched.
        let ack = one.say(&two.pubkey(), "something else", json!({"trace": {"id": "u", "hop": 0}})).await?;
        assert_eq!(ack["queued"], true, "{ack}");
        Ok(())
    }

    async fn a_body_over_the_limit_is_refused_with_its_code(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut sender = broker.join(&mesh.member("alice")?).await?;
        let mut receiver = broker.join(&mesh.member("bob")?).await?;
        let ack = sender.say("*", "", json!({"ciphertext": "A".repeat(1_450_000)})).await?;
        assert_eq!(ack["queued"], false, "{}", ack["error"]);
        assert_eq!(ack["code"], "payload_too_large");
        let fits = sender.say("*", "", json!({"ciphertext": "A".repeat(1_000_000)})).await?;
        assert_eq!(fits["queued"], true, "{fits}");
        assert_eq!(receiver.message().await?["ciphertext"].as_str().map(str::len), Some(1_000_000));
        sender.settle().await
    }

    async fn a_frame_that_announces_too_much_ends_the_socket_before_it_comes(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        for announced in [limits::MAX_HELLO_BYTES as u64 + 1, limits::MAX_FRAME_BYTES as u64 + 1, u64::MAX >> 1] {
            let mut socket = TcpStream::connect(broker.address()).await?;
            let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
            socket.write_all(upgrade.as_bytes()).await?;
            // One frame that is answered, and the header of one of which nothing ever comes.
            let mut bytes = vec![0x81, 0x82, 0, 0, 0, 0, b'{', b'}', 0x82, 0xff];
            bytes.extend(announced.to_be_bytes());
            bytes.extend([0; 4]);
            socket.write_all(&bytes).await?;
            let mut answer = Vec::new();
            tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await??;
            let text = String::from_utf8_lossy(&answer);
            assert!(text.contains("no_hello"), "{text}");
            let close = [&[0x88, 17], 1009_u16.to_be_bytes().as_slice(), b"frame too large"].concat();
            assert!(answer.ends_with(&close), "{text}");
        }
        Ok(())
    }

    async fn capacity_is_given_back_by_every_way_out(database: Database) -> Result<()> {
        let small = |config: &mut claudemesh_broker::config::Config| {
            config.connections.max_per_mesh = 3;
            config.connections.lease_seconds = 1;
        };
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let member = mesh.member("alice")?;
        let session = member.session("same");
        let mut admin = broker.connect(&mesh.creator.session("owner")).await?;
        for round in 0..12 {
            // Replaced, closed and kicked in turn; none of them may use up the mesh.
            let first = broker.connect(&session).await?;
            let mut second = broker.connect(&session).await?;
            match round % 3 {
                0 => drop(first),
                1 => second.close().await?,
                _ => {
                    admin.call(json!({"type": "kick", "target": session.pubkey()}), "kick_ack").await?;
                    second.closed().await?;
                }
            }
            admin.settle().await?;
        }
        let full = [broker.connect(&member.session("a")).await, broker.connect(&member.session("b")).await];
        assert!(full.iter().any(Result::is_ok), "{:?}", full.iter().filter_map(|one| one.as_ref().err()).next());
        Ok(())
    }

    async fn one_member_does_not_take_the_last_places(database: Database) -> Result<()> {
        let small = |config: &mut claudemesh_broker::config::Config| config.connections.max_per_mesh = 20;
        let broker = Builder::new(database).config(small).start().await?;
        let mesh = broker.mesh("team")?;
        let eve = mesh.member("eve")?;
        let mut taken = Vec::new();
        let refused = loop {
            match broker.connect(&eve.session(&format!("s{}", taken.len()))).await {
                Ok(peer) => taken.push(peer),
                Err(refused) => break refused.to_string(),
            }
            assert!(taken.len() < 20, "no place is left for others");
        };
        assert!(taken.len() == 18 && refused.contains("capacity"), "{} {refused}", taken.len());
        let mut owner = broker.connect(&mesh.creator.session("owner")).await?;
        owner.call(json!({"type": "ban", "target": eve.pubkey()}), "ban_ack").await?;
        taken[0].closed().await?;
        broker.connect(&mesh.member("bob")?.session("later")).await?;
        Ok(())
    }
}
