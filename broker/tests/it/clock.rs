//! The simulated clock over real sockets: everyone hears the same ticks, none twice, also over a restart.

use std::time::Duration;

use anyhow::{Context, Result};
use claudemesh_broker::config::{Config, LimitsMode};
use claudemesh_testkit::broker::{Builder, Database, TestBroker};
use claudemesh_testkit::broker_suite;
use claudemesh_testkit::peer::TestPeer;
use serde_json::{Value, json};

async fn clock(peer: &mut TestPeer, frame: Value) -> Result<Value> {
    peer.call(frame, "clock_status").await
}

fn set(speed: f64) -> Value {
    json!({"type": "set_clock", "speed": speed, "sim_time": "2030-01-01T09:00:00Z"})
}

async fn tick(peer: &mut TestPeer) -> Result<(u64, String)> {
    let data = peer.event("tick").await?;
    let time = data["simTime"].as_str().context("simTime")?.to_owned();
    Ok((data["tick"].as_u64().context("tick")?, time))
}

broker_suite! {
    async fn everyone_hears_each_tick_and_a_restart_tells_none_twice(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let (alice, bob) = (mesh.member("alice")?, mesh.member("bob")?);
        let (mut ann, mut ben) = (broker.join(&alice).await?, broker.join(&bob).await?);
        let none = clock(&mut ann, json!({"type": "get_clock"})).await?;
        assert_eq!((&none["speed"], &none["paused"], &none["tick"]), (&json!(0), &json!(true), &json!(0)));
        assert_eq!(none["simTime"], none["startedAt"]);
        let begun = clock(&mut ann, set(10.0)).await?;
        assert_eq!((&begun["speed"], &begun["paused"], &begun["tick"]), (&json!(10), &json!(false), &json!(0)));
        assert_eq!(begun["simTime"], "2030-01-01T09:00:00.000Z");
        broker.advance(Duration::from_secs(6));
        for peer in [&mut ann, &mut ben] {
            assert_eq!(tick(peer).await?, (1, "2030-01-01T09:01:00.000Z".into()));
        }
        // Two and a half periods are gone when the broker is back, one of them in its absence.
        broker.advance(Duration::from_secs(6));
        assert_eq!(tick(&mut ann).await?.0, 2);
        broker.stop();
        broker.advance(Duration::from_secs(9));
        broker.restart().await?;
        let mut ann = broker.join(&alice).await?;
        assert_eq!(tick(&mut ann).await?, (3, "2030-01-01T09:03:00.000Z".into()));
        broker.advance(Duration::from_secs(2));
        assert_eq!(clock(&mut ann, json!({"type": "get_clock"})).await?["tick"], 3, "not yet");
        broker.advance(Duration::from_secs(1));
        assert_eq!(tick(&mut ann).await?.0, 4);
        let info = ann.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        assert_eq!((&info["clock"]["tick"], &info["clock"]["speed"]), (&json!(4), &json!(10)));
        Ok(())
    }

    async fn it_pauses_resumes_changes_its_speed_and_stops(database: Database) -> Result<()> {
        let broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        for kind in ["pause_clock", "resume_clock", "stop_clock"] {
            assert_eq!(peer.refused(json!({"type": kind})).await?, "no_clock");
        }
        assert_eq!(peer.refused(json!({"type": "set_clock", "speed": 1, "sim_time": "noon"})).await?, "invalid_args");
        clock(&mut peer, set(1.0)).await?;
        broker.advance(Duration::from_secs(45));
        assert_eq!(clock(&mut peer, json!({"type": "pause_clock"})).await?["paused"], true);
        broker.pass(Duration::from_secs(300), &mut peer).await?;
        assert_eq!(clock(&mut peer, json!({"type": "set_clock", "speed": 2.5})).await?["paused"], true, "it stays paused");
        assert_eq!(clock(&mut peer, json!({"type": "resume_clock"})).await?["tick"], 0);
        broker.advance(Duration::from_secs(6));
        assert_eq!(tick(&mut peer).await?.0, 1, "15 simulated seconds were left");
        let gone = clock(&mut peer, json!({"type": "stop_clock"})).await?;
        assert_eq!((&gone["speed"], &gone["tick"]), (&json!(0), &json!(0)));
        broker.pass(Duration::from_secs(120), &mut peer).await?;
        clock(&mut peer, set(1.0)).await?;
        broker.advance(Duration::from_secs(60));
        assert_eq!(tick(&mut peer).await?.0, 1, "a new clock counts from the beginning");
        let audit = peer.call(json!({"type": "audit_query", "eventType": "clock_set"}), "audit_result").await?;
        assert_eq!(audit["total"], 3);
        Ok(())
    }

    async fn it_stands_still_while_nobody_is_there(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let mut peer = broker.join(&alice).await?;
        clock(&mut peer, set(1.0)).await?;
        peer.close().await?;
        mesh.settle()?;
        // The lease ends after 90 seconds, and the clock with it.
        let mut elsewhere = broker.join(&broker.mesh("other")?.member("bob")?).await?;
        broker.pass(Duration::from_secs(92), &mut elsewhere).await?;
        broker.pass(Duration::from_secs(600), &mut elsewhere).await?;
        let mut peer = broker.join(&alice).await?;
        // The first answer comes behind what the empty mesh had to write, which the return follows.
        clock(&mut peer, json!({"type": "get_clock"})).await?;
        let back = clock(&mut peer, json!({"type": "get_clock"})).await?;
        assert_eq!((&back["tick"], &back["paused"]), (&json!(1), &json!(false)), "{back}");
        broker.advance(Duration::from_secs(30));
        let mut next = tick(&mut peer).await?;
        // The tick at which it goes on may be told as well.
        if next.0 == 1 {
            next = tick(&mut peer).await?;
        }
        assert_eq!(next, (2, "2030-01-01T09:02:00.000Z".into()), "half a minute had passed of it");
        // After a long absence of the broker, too.
        broker.stop();
        broker.advance(Duration::from_secs(3_600));
        broker.restart().await?;
        let mut peer = broker.join(&alice).await?;
        // The first answer comes behind what the empty mesh had to write, which the return follows.
        clock(&mut peer, json!({"type": "get_clock"})).await?;
        let back = clock(&mut peer, json!({"type": "get_clock"})).await?;
        assert_eq!((&back["tick"], &back["paused"]), (&json!(2), &json!(false)), "{back}");
        Ok(())
    }

    async fn a_pause_by_hand_outlives_the_empty_mesh(database: Database) -> Result<()> {
        let mut broker = TestBroker::start(database).await?;
        let mesh = broker.mesh("team")?;
        let alice = mesh.member("alice")?;
        let mut peer = broker.join(&alice).await?;
        clock(&mut peer, set(1.0)).await?;
        clock(&mut peer, json!({"type": "pause_clock"})).await?;
        broker.stop();
        broker.advance(Duration::from_secs(3_600));
        broker.restart().await?;
        let mut peer = broker.join(&alice).await?;
        peer.settle().await?;
        let found = clock(&mut peer, json!({"type": "get_clock"})).await?;
        assert_eq!((&found["paused"], &found["tick"], &found["autoPaused"]), (&json!(true), &json!(0), &Value::Null));
        Ok(())
    }

    async fn changes_are_bounded_and_need_the_capability(database: Database) -> Result<()> {
        let few = |config: &mut Config| {
            config.limits = LimitsMode::Default;
            config.limit.quotas = std::mem::take(&mut config.limit.quotas).with("clock.changes_per_minute", 2);
        };
        let broker = Builder::new(database).config(few).start().await?;
        let mesh = broker.mesh("team")?;
        let mut peer = broker.join(&mesh.member("alice")?).await?;
        for _ in 0..2 {
            clock(&mut peer, set(1.0)).await?;
        }
        assert_eq!(peer.refused(set(1.0)).await?, "rate_limited");
        Ok(())
    }
}
