//! Samples of every message of streams.

use serde_json::{Value, json};

use super::{
    AckStream, CreateStream, DeleteStream, Gap, ListStreams, PageEntry, Position, Publish, ReadStream, Request,
    Response, StreamCreated, StreamData, StreamDeleted, StreamEntry, StreamGap, StreamList, StreamPage, Subscribe,
    Subscribed, Unsubscribe,
};
use crate::testing::AT;

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[("publish/null", "/data")];

const ID: &str = "St4uWv2xYz0AbCdEfGhIjKlMnOpQrS13";

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let stream = || "builds".to_owned();
    let create =
        CreateStream { name: stream(), keep_entries: Some(500), keep_bytes: Some(65_536), keep_s: Some(86_400) };
    let from = |from| Subscribe { stream: stream(), from: Some(from), ..Subscribe::default() };
    let consumer = Subscribe { consumer: Some("ci".into()), ack: true, ..from(Position::Offset(41)) };
    vec![
        ("", CreateStream { name: stream(), ..CreateStream::default() }.into()),
        ("full", create.into()),
        ("", DeleteStream { stream: stream() }.into()),
        ("", Subscribe { stream: stream(), ..Subscribe::default() }.into()),
        ("now", from(Position::NOW).into()),
        ("start", from(Position::START).into()),
        ("time", from(Position::Time { time: 1_775_641_983_000 }).into()),
        ("full", consumer.into()),
        ("", Unsubscribe { stream: stream() }.into()),
        ("", Publish { stream: stream(), data: json!({"status": "green"}) }.into()),
        ("null", Publish { stream: stream(), data: Value::Null }.into()),
        ("", AckStream { stream: stream(), consumer: "ci".into(), offset: 41 }.into()),
        ("", ReadStream { stream: stream(), ..ReadStream::default() }.into()),
        ("full", ReadStream { stream: stream(), from: Some(Position::Offset(41)), limit: Some(10) }.into()),
        ("", ListStreams {}.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let stream = || "builds".to_owned();
    let row = StreamEntry {
        id: ID.into(),
        name: stream(),
        created_by: "Alice".into(),
        created_at: AT.into(),
        subscriber_count: 2,
        entries: 3,
        bytes: 60,
        first: 41,
        next: 44,
        keep_entries: 10_000,
        keep_bytes: 16_777_216,
        keep_s: 604_800,
    };
    let entry = PageEntry { offset: 41, data: json!({"status": "green"}), published_by: "Alice".into(), at: AT.into() };
    let page = StreamPage { stream: stream(), entries: vec![entry], next: 42, end: 44, gap: None };
    let data =
        StreamData { stream: stream(), data: json!({"status": "green"}), published_by: "Alice".into(), offset: None };
    vec![
        ("", StreamCreated { id: ID.into(), name: stream(), created: true }.into()),
        ("", Subscribed { stream: stream(), next: None }.into()),
        ("full", Subscribed { stream: stream(), next: Some(41) }.into()),
        ("", page.clone().into()),
        ("full", StreamPage { gap: Some(Gap { from: 7, to: 40 }), ..page }.into()),
        ("", StreamList { streams: vec![row] }.into()),
        ("", data.clone().into()),
        ("full", StreamData { offset: Some(41), ..data }.into()),
        ("", StreamGap { stream: stream(), from: 7, to: 40 }.into()),
        ("", StreamDeleted { stream: stream() }.into()),
    ]
}
