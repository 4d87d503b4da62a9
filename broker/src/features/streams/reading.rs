//! `read_stream`, and how places are found.

use claudemesh_protocol::features::streams::{Edge, Gap, PageEntry, Position, ReadStream, StreamPage, limits as wire};
use claudemesh_protocol::time::iso;

use super::store::{self, Entry};
use super::{Refused, Streams, check_name, number};
use crate::db::{DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::refusal::Refusal;

/// Entries of a page when no one says how many.
const USUAL_PAGE: u32 = 100;

/// The place that a position names. `None`: there is no such stream.
pub(super) async fn place(storage: &MeshDb, name: &str, from: Position) -> Result<Option<i64>, DbError> {
    let edge = match from {
        Position::Time { time } => return store::place_at(storage, name, time).await,
        Position::Offset(offset) => return Ok(Some(i64::try_from(offset).unwrap_or(i64::MAX))),
        Position::Word(edge) => edge,
    };
    let stream = store::page(storage, name, i64::MAX, 1).await?.map(|page| page.stream);
    Ok(stream.map(|stream| match edge {
        Edge::Start => stream.first_offset,
        Edge::Now => stream.next_offset,
    }))
}

pub(super) fn read(cx: &mut MeshContext<'_>, request: ReadStream) -> Result<Outcome<StreamPage>, Refusal> {
    check_name(&request.stream).map_err(|_| Refused::Missing)?;
    let limit = request.limit.unwrap_or(USUAL_PAGE).clamp(1, wire::MAX_PAGE);
    let (storage, name, from) = (cx.storage(), request.stream, request.from.unwrap_or(Position::START));
    let slow = async move {
        let place = place(&storage, &name, from).await?.ok_or(Refused::Missing)?;
        let page = store::page(&storage, &name, place, limit).await?.ok_or(Refused::Missing)?;
        // Only who names an offset has seen what was before it.
        let named = matches!(from, Position::Offset(_)).then_some(place);
        Ok::<_, Refusal>((name, named, place, page))
    };
    Ok(Streams::work_in(cx.own_lane::<Streams>(), slow, |_, _, (stream, named, place, page)| {
        let end = page.stream.next_offset;
        let first = page.entries.first().map_or(end, |entry| entry.place);
        let gap = named.filter(|place| *place < first).map(|place| Gap { from: number(place), to: number(first - 1) });
        let next = page.entries.last().map_or_else(|| place.min(end).max(first.min(end)), |last| last.place + 1);
        let entries = page.entries.iter().map(page_entry).collect::<Result<_, Refusal>>()?;
        Ok(Outcome::Answer(StreamPage { stream, entries, next: number(next), end: number(end), gap }))
    }))
}

fn page_entry(entry: &Entry) -> Result<PageEntry, Refusal> {
    Ok(PageEntry {
        offset: number(entry.place),
        data: json_of(entry)?,
        published_by: entry.published_by_name.clone(),
        at: iso(entry.published_at_ms),
    })
}

/// The stored data.
pub(super) fn json_of(entry: &Entry) -> Result<serde_json::Value, DbError> {
    serde_json::from_str(&entry.data).map_err(|_| DbError::corrupt("stream_entries.data"))
}
