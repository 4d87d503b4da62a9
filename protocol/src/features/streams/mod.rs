//! Streams: logs of JSON entries that are kept, numbered from 0, and pushed to who subscribes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::Nothing;
use crate::id::StreamId;

pub mod limits;

/// A place in a stream: `"now"`, `"start"`, an offset, or `{"time": <Unix ms>}` (the first entry published at that time or later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `now`, `start`, an offset, or {\"time\": <Unix ms>}")]
pub enum Position {
    /// `now` or `start`
    Word(Edge),
    /// The entry with this offset.
    Offset(u64),
    /// A time.
    Time {
        /// Unix milliseconds.
        time: i64,
    },
}

/// One of the ends of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// Behind the newest entry.
    Now,
    /// The oldest entry that is kept.
    Start,
}

impl Position {
    /// Behind the newest entry.
    pub const NOW: Self = Self::Word(Edge::Now);
    /// The oldest entry that is kept.
    pub const START: Self = Self::Word(Edge::Start);
}

/// `create_stream`: a stream that exists stays as it is.
///
/// Errors: `invalid_name`, `limit` with `bound`, `rate_limited`, `forbidden`, `invalid_args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateStream {
    /// At most [`limits::MAX_NAME_CHARS`]; no control characters.
    pub name: String,
    /// Keep at most this many entries; the broker's bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_entries: Option<u64>,
    /// Keep at most this many bytes of data; the broker's bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_bytes: Option<u64>,
    /// Keep entries this long, in seconds; 7 days when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_s: Option<u64>,
}

/// `delete_stream`: the stream, its entries and the positions of its consumers. Errors: `not_found`, `forbidden`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteStream {
    /// Name of the stream.
    pub stream: String,
}

/// `subscribe`: entries are pushed as `stream_data` until `unsubscribe` or the end of the connection. The stream need not exist.
///
/// With `from` or `consumer` each `stream_data` carries its offset, and own entries are pushed as well. Errors: `invalid_args`,
/// `limit` with `bound`, `forbidden`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Name of the stream.
    pub stream: String,
    /// Where to begin. A consumer that has a position goes on there instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// Name under which the broker keeps how far this member has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// With `consumer`: its position moves with `ack_stream` only. Otherwise it moves with what is pushed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ack: bool,
}

/// `unsubscribe`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// Name of the stream.
    pub stream: String,
}

/// `publish`: appends one entry. A stream that does not exist is made.
///
/// Errors: `limit` with `bound`, `rate_limited`, `busy`, `forbidden`, `invalid_name`, `invalid_args`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Publish {
    /// Name of the stream.
    pub stream: String,
    /// At most [`limits::MAX_DATA_BYTES`] as compact JSON; `null` is data.
    pub data: Value,
}

/// `ack_stream`: everything up to this entry is done. A position never moves back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AckStream {
    /// Name of the stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// Offset of the last entry that is done.
    pub offset: u64,
}

/// `read_stream`: a page without a subscription. Errors: `not_found`, `forbidden`, `invalid_args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadStream {
    /// Name of the stream.
    pub stream: String,
    /// Where to begin; the oldest entry when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// 1 to [`limits::MAX_PAGE`]; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `list_streams`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListStreams {}

/// `stream_created`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamCreated {
    /// Its id.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// It did not exist before.
    #[serde(default)]
    pub created: bool,
}

/// `subscribed`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// As asked.
    pub stream: String,
    /// With `from` or `consumer`: offset of the first entry that will be pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Confirms `publish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Offset of the entry.
    pub offset: u64,
}

/// A row of `stream_list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StreamEntry {
    /// Its id.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// Name of the session that made it.
    pub created_by: String,
    /// ISO time.
    pub created_at: String,
    /// Connections that subscribe to it.
    pub subscriber_count: u32,
    /// Entries that are kept.
    #[serde(default)]
    pub entries: u64,
    /// Bytes of their data.
    #[serde(default)]
    pub bytes: u64,
    /// Offset of the oldest entry that is kept; `next` when there is none.
    #[serde(default)]
    pub first: u64,
    /// Offset of the next entry to be published.
    #[serde(default)]
    pub next: u64,
    /// Entries that are kept at most.
    #[serde(default)]
    pub keep_entries: u64,
    /// Bytes that are kept at most.
    #[serde(default)]
    pub keep_bytes: u64,
    /// Seconds that entries are kept.
    #[serde(default)]
    pub keep_s: u64,
}

/// `stream_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamList {
    /// By name.
    pub streams: Vec<StreamEntry>,
}

/// An entry of `stream_page`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PageEntry {
    /// Its place; the next entry has the next number.
    pub offset: u64,
    /// What was published.
    pub data: Value,
    /// Name of the session that published it.
    pub published_by: String,
    /// ISO time.
    pub at: String,
}

/// Entries that are gone: from and to the offset of the first and the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// The first one.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

/// `stream_page`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamPage {
    /// As asked.
    pub stream: String,
    /// By offset, without holes.
    pub entries: Vec<PageEntry>,
    /// Ask with this as `from` for what follows.
    pub next: u64,
    /// Offset of the next entry to be published: with `next` equal to it there is nothing more now.
    pub end: u64,
    /// Entries that were asked for and are not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// `stream_data`: an entry, in the order of the offsets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamData {
    /// The stream.
    pub stream: String,
    /// What was published.
    pub data: Value,
    /// Name of the session that published it.
    pub published_by: String,
    /// Its place; only for subscriptions with `from` or `consumer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// `stream_gap`: entries that this subscriber was too slow for, and that are not kept any more. What follows is pushed next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamGap {
    /// The stream.
    pub stream: String,
    /// Offset of the first one.
    pub from: u64,
    /// Offset of the last one.
    pub to: u64,
}

/// `stream_deleted`: a stream that this connection subscribed to was deleted, and the subscription with it. Not sent to clients
/// that say nothing of themselves in their hello.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamDeleted {
    /// The stream.
    pub stream: String,
}

crate::done_body!(Published);

crate::wire_feature! {
    requests {
        /// Makes a stream and says how much of it is kept.
        CreateStream = "create_stream" => answers StreamCreated, needs CanWriteState, repeatable;
        /// Deletes a stream with all that it holds.
        DeleteStream = "delete_stream" => silent Nothing, needs CanWriteState, once;
        /// Pushes the entries of a stream to this connection from now on, or from an earlier place.
        Subscribe = "subscribe" => answers Subscribed, needs CanReadShared, repeatable;
        /// Ends the subscription of this connection.
        Unsubscribe = "unsubscribe" => silent Nothing, needs nothing, repeatable;
        /// Appends an entry to a stream.
        Publish = "publish" => silent Published, needs CanWriteState, once;
        /// Moves the stored position of a consumer.
        AckStream = "ack_stream" => silent Nothing, needs CanReadShared, repeatable;
        /// Entries of a stream, a page at a time.
        ReadStream = "read_stream" => answers StreamPage, needs CanReadShared, repeatable;
        /// All streams.
        ListStreams = "list_streams" => answers StreamList, needs CanReadShared, repeatable;
    }
    answers {
        StreamCreated = "stream_created",
        Subscribed = "subscribed",
        StreamPage = "stream_page",
        StreamList = "stream_list",
    }
    events {
        StreamData = "stream_data",
        StreamGap = "stream_gap",
        StreamDeleted = "stream_deleted",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_has_four_forms() {
        let read = |value| serde_json::from_value::<Position>(value);
        for (text, place) in [
            (json!("now"), Position::NOW),
            (json!("start"), Position::START),
            (json!(41), Position::Offset(41)),
            (json!({"time": -1}), Position::Time { time: -1 }),
        ] {
            assert_eq!(read(text.clone()).unwrap(), place);
            assert_eq!(serde_json::to_value(place).unwrap(), text);
        }
        for bad in [json!("end"), json!(-1), json!(1.5), json!({}), json!(null)] {
            let error = read(bad.clone()).unwrap_err().to_string();
            assert!(error.contains("expected `now`, `start`"), "{bad}: {error}");
        }
    }
}
