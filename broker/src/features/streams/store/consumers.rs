//! How far the members have come.

use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::limits::CONSUMERS;
use super::super::schema::{stream_consumers, streams};
use super::{Refused, Stream};
use crate::audit::Audit;
use crate::db::DbError;
use crate::journal::{MeshStore, WriteError};
use crate::quota::Quotas;
use crate::tx_write;

/// How far a member has come in a stream.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = stream_consumers)]
pub struct Consumer {
    /// Mesh.
    pub mesh_id: String,
    /// Stream.
    pub stream_id: String,
    /// Member.
    pub member_id: String,
    /// Name that the member gave it.
    pub name: String,
    /// Offset of the entry that is next.
    pub next_offset: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// Where a consumer goes on; a new one begins at `start`. `None`: no such stream.
///
/// # Errors
/// [`Refused`], or storage fails.
pub async fn open_consumer(
    store: &MeshStore,
    stream: String,
    member: MemberId,
    name: String,
    start: i64,
    now_ms: i64,
    quotas: Quotas,
) -> Result<i64, WriteError<Refused>> {
    tx_write!(store, (stream, member, name, start, now_ms, quotas), |conn, mesh| {
        let known = streams::table.find((mesh.as_str(), stream)).select(Stream::as_select());
        let known: Option<Stream> = known.first(conn).await.optional()?;
        let stream = known.ok_or(WriteError::Refused(Refused::Missing))?;
        let found: Option<i64> = stream_consumers::table
            .find((mesh.as_str(), &stream.id, member.as_str(), name))
            .select(stream_consumers::next_offset)
            .first(conn)
            .await
            .optional()?;
        if let Some(next) = found {
            return Ok((next, Audit::Unaudited("nothing was changed")));
        }
        let own: i64 = stream_consumers::table
            .filter(stream_consumers::mesh_id.eq(mesh.as_str()))
            .filter(stream_consumers::stream_id.eq(&stream.id))
            .filter(stream_consumers::member_id.eq(member.as_str()))
            .count()
            .get_result(conn)
            .await?;
        quotas.growth(&CONSUMERS, own, own + 1).map_err(|bound| WriteError::Refused(Refused::Limit(bound)))?;
        let consumer = Consumer {
            mesh_id: mesh.to_string(),
            stream_id: stream.id.clone(),
            member_id: member.to_string(),
            name: name.clone(),
            next_offset: (*start).clamp(0, stream.next_offset),
            updated_at_ms: *now_ms,
        };
        diesel::insert_into(stream_consumers::table).values(&consumer).execute(conn).await?;
        Ok((consumer.next_offset, Audit::Unaudited("where someone reads is no one else's")))
    })
}

/// Moves consumers on; none goes back, and none that does not exist is made. Answers how many were moved.
///
/// # Errors
/// Storage fails.
pub async fn move_consumers(store: &MeshStore, moved: Vec<Consumer>) -> Result<usize, DbError> {
    let rows = 1 + moved.len() / 8;
    let done = tx_write!(store, rows: rows, (moved), |conn, mesh| {
        let mut count = 0;
        for one in moved {
            let key = (mesh.as_str(), &one.stream_id, &one.member_id, &one.name);
            count += diesel::update(
                stream_consumers::table.find(key).filter(stream_consumers::next_offset.lt(one.next_offset)),
            )
            .set((
                stream_consumers::next_offset.eq(one.next_offset),
                stream_consumers::updated_at_ms.eq(one.updated_at_ms),
            ))
            .execute(conn)
            .await?;
        }
        Ok((count, Audit::Unaudited("where someone reads is no one else's")))
    });
    Ok(done?)
}
