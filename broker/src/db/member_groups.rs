//! `member_groups`: members that are in a group themselves, for good and while they are away. Sessions keep theirs in `sessions`.

use std::collections::HashMap;

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::id::MemberId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::member_groups;
use crate::audit::{Audit, By};
use crate::db::{DbError, MeshDb};
use crate::journal::MeshStore;
use crate::{tx_write, with_conn};

/// The groups of each member that is in any, by their names.
pub type MemberGroups = HashMap<MemberId, Vec<Group>>;

/// What is stored of one mesh.
///
/// # Errors
/// Storage fails.
pub async fn load(db: &MeshDb) -> Result<MemberGroups, DbError> {
    let rows: Vec<(String, String, Option<String>)> = with_conn!(db.db(), |conn| member_groups::table
        .filter(member_groups::mesh_id.eq(db.mesh().as_str()))
        .order((member_groups::member_id, member_groups::name))
        .select((member_groups::member_id, member_groups::name, member_groups::role))
        .load(conn)
        .await?);
    let mut groups = MemberGroups::new();
    for (member, name, role) in rows {
        groups.entry(member.into()).or_default().push(Group { name, role });
    }
    Ok(groups)
}

/// Puts a member into a group, or changes as what it is there.
///
/// # Errors
/// Storage fails.
pub async fn put(store: &MeshStore, member: &MemberId, group: &Group, by: &By) -> Result<(), DbError> {
    let (member, group, by) = (member.clone(), group.clone(), by.clone());
    Ok(tx_write!(store, (member, group, by), |conn, mesh| {
        diesel::insert_into(member_groups::table)
            .values((
                member_groups::mesh_id.eq(mesh.as_str()),
                member_groups::member_id.eq(member.as_str()),
                member_groups::name.eq(&group.name),
                member_groups::role.eq(group.role.as_deref()),
                member_groups::joined_at_ms.eq(by.at_ms),
            ))
            .on_conflict((member_groups::mesh_id, member_groups::member_id, member_groups::name))
            .do_update()
            .set(member_groups::role.eq(group.role.as_deref()))
            .execute(conn)
            .await?;
        let payload = json!({"member": member, "group": group.name, "as": group.role});
        Ok(((), by.entry("group_joined", payload)))
    })?)
}

/// Takes a member out of a group; `false` when it was not in it.
///
/// # Errors
/// Storage fails.
pub async fn remove(store: &MeshStore, member: &MemberId, name: &str, by: &By) -> Result<bool, DbError> {
    let (member, name, by) = (member.clone(), name.to_owned(), by.clone());
    Ok(tx_write!(store, (member, name, by), |conn, mesh| {
        let row = member_groups::table.find((mesh.as_str(), member.as_str(), name.as_str()));
        let removed = diesel::delete(row).execute(conn).await? == 1;
        let payload = json!({"member": member, "group": name});
        Ok((removed, Audit::when(removed, || by.entry("group_left", payload))))
    })?)
}
