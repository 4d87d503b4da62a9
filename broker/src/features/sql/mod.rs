//! SQL: the relational database of a mesh, apart from every other mesh and from the broker's own tables.
//!
//! With SQLite it is a file of its own, behind an authorizer; with PostgreSQL a schema and a role of its own. Statements run outside
//! the mesh, on threads or connections of their own, and end after a time.

mod check;
mod database;
pub mod limits;
mod page;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stop;
#[cfg(test)]
mod tests;
#[cfg(feature = "sqlite")]
mod threads;

use std::collections::HashMap;

use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::sql::limits::USUAL_PAGE;
use claudemesh_protocol::features::sql::{
    MeshCancel, MeshCancelled, MeshExecute, MeshQuery, MeshQueryResult, MeshSchema, MeshSchemaResult, Request,
    Statement,
};
use claudemesh_protocol::id::MemberId;

use self::database::{Database, Recorder};
use self::stop::{Reason, Stop};
use crate::blobs::{BlobError, Blobs};
use crate::db::{Db, DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::PeerHandle;
use crate::quota::{Quota, Quotas};
use crate::refusal::Refusal;

/// Names of tables in the overview of a mesh.
const MAX_NAMES: usize = 500;

/// The feature.
pub struct Sql;

/// What a mesh in memory knows of its database.
#[derive(Default)]
pub struct SqlMemory {
    /// Opened with the first request.
    database: Option<Database>,
    /// Requests that run or wait.
    running: HashMap<u64, Running>,
    next: u64,
}

/// A request that runs or waits.
struct Running {
    of: MemberId,
    at: PeerHandle,
    key: Option<String>,
    reads: bool,
    stop: Stop,
}

/// Which rows of an answer are wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Rows to leave out, those of the pages before.
    skip: u64,
    /// Rows of the page.
    limit: usize,
}

/// What a list of statements did.
#[derive(Debug, Default)]
struct Done {
    /// Rows of the last one.
    page: page::Page,
    /// Rows that each changed.
    counts: Vec<u64>,
    /// Whether one of them changes something, tables included.
    changes: bool,
}

impl Feature for Sql {
    const NAME: &'static str = "sql";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = SqlMemory;

    fn handle(memory: &mut SqlMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::MeshQuery(request) => Self::answer::<MeshQuery>(query(memory, cx, request)),
            Request::MeshExecute(request) => Self::answer::<MeshExecute>(execute(memory, cx, request)),
            Request::MeshSchema(request) => Self::answer::<MeshSchema>(schema(memory, cx, request)),
            Request::MeshCancel(request) => Self::answer::<MeshCancel>(cancel(memory, cx, &request)),
        }
    }

    fn on_event(memory: &mut SqlMemory, _: &mut MeshContext<'_>, event: &MeshEvent) {
        if let MeshEvent::Detached { peer } | MeshEvent::Ended { peer, .. } = event {
            // No one reads the rows any more. A change goes on: older clients send it and leave.
            for running in memory.running.values().filter(|running| running.at == *peer && running.reads) {
                running.stop.end(Reason::Caller);
            }
        }
    }

    fn is_settled(memory: &SqlMemory, _: &MeshContext<'_>) -> bool {
        memory.running.is_empty()
    }

    async fn describe_stored(
        storage: &MeshDb,
        _: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        // The overview of everything else is worth more than its failure.
        match Database::of(storage).overview(quotas).await {
            Ok((tables, bytes)) => {
                info.limits.push(quotas.bound(&limits::BYTES_PER_MESH, bytes));
                info.limits.push(quotas.bound(&limits::TABLES_PER_MESH, tables.len() as u64));
                info.tables = tables.into_iter().take(MAX_NAMES).collect();
            }
            Err(refusal) => refusal.log(Some(storage.mesh()), "mesh_info"),
        }
        Ok(())
    }

    async fn sweep(db: &Db, _: &Blobs) -> Result<usize, BlobError> {
        Ok(database::sweep(db).await?)
    }
}

impl SqlMemory {
    /// The database, and a switch for a new request; the number is for [`SqlMemory::ended`].
    fn begin(
        &mut self,
        cx: &mut MeshContext<'_>,
        key: Option<String>,
        reads: bool,
    ) -> Result<(Database, Stop, u64), Refusal> {
        check::cancel_key(key.as_deref())?;
        let (of, at) = (cx.member()?.id.clone(), cx.asker()?.handle);
        cx.count_write(&limits::REQUESTS_PER_MINUTE, Some(&of))?;
        let database = self.database.get_or_insert_with(|| Database::of(&cx.storage())).clone();
        let stop = Stop::default();
        self.next += 1;
        self.running.insert(self.next, Running { of, at, key, reads, stop: stop.clone() });
        Ok((database, stop, self.next))
    }

    fn ended(&mut self, number: u64) {
        self.running.remove(&number);
    }
}

fn query(
    memory: &mut SqlMemory,
    cx: &mut MeshContext<'_>,
    request: MeshQuery,
) -> Result<Outcome<MeshQueryResult>, Refusal> {
    let asked = Statement { sql: request.sql, params: request.params };
    check::statement(&asked)?;
    let limit = check::limit(request.limit)?;
    let cursor = request.cursor.as_deref().map(check::cursor).transpose()?;
    let (database, stop, number) = memory.begin(cx, request.cancel_key, true)?;
    let quotas = cx.limits().quotas.clone();
    let wanted = Wanted { skip: cursor.map_or(0, |(skip, _)| skip), limit };
    let slow = async move {
        // Before the rows are read: what is written meanwhile shows in the next page.
        let version = database.version();
        let page = stop.clone().within(&quotas, database.query(asked, wanted, stop, quotas.clone())).await?;
        let told = page.rows.len() as u64;
        let next = page.more.then(|| check::cursor_of(wanted.skip + told, version));
        Ok::<_, Refusal>(MeshQueryResult {
            row_count: told,
            columns: page.columns,
            types: page.types,
            rows: page.rows,
            next,
            changed: cursor.is_some_and(|(_, before)| before != version),
            counts: vec![],
        })
    };
    Ok(Sql::work_or_failure(cx.own_lane::<Sql>(), slow, move |memory, _, done: Result<_, Refusal>| {
        memory.ended(number);
        done.map(Outcome::Answer)
    }))
}

fn execute(
    memory: &mut SqlMemory,
    cx: &mut MeshContext<'_>,
    request: MeshExecute,
) -> Result<Outcome<MeshQueryResult>, Refusal> {
    let several = !request.statements.is_empty();
    let key = request.cancel_key.clone();
    let list = check::statements(request)?;
    let (database, stop, number) = memory.begin(cx, key, false)?;
    let quotas = cx.limits().quotas.clone();
    let recorder = Recorder::new(cx.storage(), &cx.member()?.id, cx.now_ms(), &list);
    let wanted = Wanted { skip: 0, limit: USUAL_PAGE as usize };
    let slow = async move {
        let run = database.execute(list, wanted, stop.clone(), quotas.clone(), recorder);
        let done = stop.within(&quotas, run).await?;
        Ok::<_, Refusal>(MeshQueryResult {
            row_count: done.counts.iter().sum(),
            columns: done.page.columns,
            types: done.page.types,
            rows: done.page.rows,
            next: done.page.more.then(|| "more".to_owned()),
            changed: false,
            counts: if several { done.counts } else { vec![] },
        })
    };
    Ok(Sql::work_or_failure(cx.own_lane::<Sql>(), slow, move |memory, _, done: Result<_, Refusal>| {
        memory.ended(number);
        done.map(Outcome::Answer)
    }))
}

fn schema(
    memory: &mut SqlMemory,
    cx: &mut MeshContext<'_>,
    request: MeshSchema,
) -> Result<Outcome<MeshSchemaResult>, Refusal> {
    let (database, stop, number) = memory.begin(cx, None, true)?;
    let quotas = cx.limits().quotas.clone();
    let slow = async move {
        let after = request.cursor.unwrap_or_default();
        let read = database.schema(after, stop.clone(), quotas.clone());
        let (tables, more) = stop.within(&quotas, read).await?;
        let next = tables.last().filter(|_| more).map(|last| last.name.clone());
        Ok::<_, Refusal>(MeshSchemaResult { tables, dialect: database.dialect().into(), next })
    };
    Ok(Sql::work_or_failure(cx.own_lane::<Sql>(), slow, move |memory, _, done: Result<_, Refusal>| {
        memory.ended(number);
        done.map(Outcome::Answer)
    }))
}

fn cancel(
    memory: &mut SqlMemory,
    cx: &mut MeshContext<'_>,
    request: &MeshCancel,
) -> Result<Outcome<MeshCancelled>, Refusal> {
    let (of, at) = (&cx.member()?.id, cx.asker()?.handle);
    let meant =
        |running: &&Running| running.of == *of && running.at == at && running.key.as_ref() == Some(&request.cancel_key);
    // All of them: names are the caller's own affair.
    let ended = memory.running.values().filter(meant).filter(|running| running.stop.end(Reason::Caller)).count();
    Ok(Outcome::Answer(MeshCancelled { cancelled: ended > 0 }))
}
