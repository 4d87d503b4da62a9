//! What a mesh that keeps a lot costs in the broker's memory.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::asking::fill;
use super::bench::{Options, Stage, hello};
use super::report::{Report, number};
use super::{claims, recall};
use crate::wire::{Socket, is};

/// More than an empty mesh, in MiB.
const MOST: f64 = 64.0;

fn set_state(number: usize) -> String {
    let value = json!({"text": recall::text(number)});
    json!({"type": "set_state", "key": format!("bench/{number}"), "value": value, "confirm": true}).to_string()
}

/// The frame that stores the thing of this number.
type Frame = fn(usize) -> String;

/// Fills a mesh with keys, memories or tasks, and compares the broker's memory with that of an empty mesh: right after, and when it
/// was started again.
pub(super) async fn kept(options: &Options, report: &mut Report) -> Result<()> {
    let kinds: [(&str, &str, Frame); 3] = [
        ("state keys", "/stateCount", set_state),
        ("memories", "/memoryCount", recall::remember),
        ("tasks", "/tasks/open", claims::create),
    ];
    let count = options.kept.next_multiple_of(4);
    for (what, counted, make) in kinds {
        let mut stage = Stage::new(options)?;
        look(&stage, "empty").await?;
        let empty = stage.broker.rss()?;
        fill(&stage, &what.replace(' ', "-"), count, make).await.context(what)?;
        let more =
            |stage: &Stage| -> Result<f64> { Ok(stage.broker.rss()?.saturating_sub(empty) as f64 / 1_048_576.0) };
        let what = format!("a mesh with {} {what}", number(f64::from(count)));
        report.at_most(format!("{what}: broker memory more than empty"), more(&stage)?, MOST, "MiB");
        stage.broker.terminate()?;
        stage.broker.restart()?;
        let info = look(&stage, "full").await?;
        ensure!(info.pointer(counted) == Some(&json!(count)), "{what}: {info}");
        report.at_most(format!("{what}: the same when it was started again"), more(&stage)?, MOST, "MiB");
    }
    Ok(())
}

/// Connects, so that the mesh is in memory, and looks at the whole of it.
pub(super) async fn look(stage: &Stage, name: &str) -> Result<Value> {
    let mut socket = Socket::connect(stage.broker.address).await?;
    socket.hello(&hello(&stage.sessions(name, 1)?[0]).context("a hello")?).await?;
    let info = socket.call(br#"{"type":"mesh_info"}"#, |text| is(text, "mesh_info_result")).await?;
    socket.leave().await?;
    Ok(serde_json::from_slice(&info)?)
}
