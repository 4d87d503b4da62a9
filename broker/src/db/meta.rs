//! `broker_meta`: single values of the broker itself (its id, the operator token's hash).
//!
//! Columns: `key` (primary), `value`, both text.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::broker_meta::dsl as meta;
use super::{Db, DbError};
use crate::{with_conn, with_tx};

/// One value.
///
/// # Errors
/// Storage fails.
pub async fn get(db: &Db, key: &str) -> Result<Option<String>, DbError> {
    Ok(with_conn!(db, |conn| meta::broker_meta.find(key).select(meta::value).first::<String>(conn).await.optional()?))
}

/// Sets one value, whether it exists or not.
///
/// # Errors
/// Storage fails.
pub async fn set(db: &Db, key: &str, value: &str) -> Result<(), DbError> {
    with_tx!(db, |conn| diesel::insert_into(meta::broker_meta)
        .values((meta::key.eq(key), meta::value.eq(value)))
        .on_conflict(meta::key)
        .do_update()
        .set(meta::value.eq(value))
        .execute(conn)
        .await?);
    Ok(())
}

/// Sets a value unless there is one, and returns the one that holds now: several processes agree on the first.
///
/// # Errors
/// Storage fails.
pub async fn get_or_set(db: &Db, key: &str, value: &str) -> Result<String, DbError> {
    Ok(with_tx!(db, |conn| {
        diesel::insert_into(meta::broker_meta)
            .values((meta::key.eq(key), meta::value.eq(value)))
            .on_conflict_do_nothing()
            .execute(conn)
            .await?;
        meta::broker_meta.find(key).select(meta::value).first::<String>(conn).await?
    }))
}
