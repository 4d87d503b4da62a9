//! How a membership ends without a ban, and how a mesh gets another owner.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::{MemberId, PublicKey};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::members::{Member, Role};
use super::schema::{capabilities, member_groups, members, meshes};
use crate::audit::{Audit, By};
use crate::db::DbError;
use crate::journal::{MeshStore, WriteError};
use crate::refusal::Refusal;
use crate::tx_write;

/// Ends the membership of a live member; `false` when there is none, or it is the owner's. Its groups and what it was allowed end
/// with it, and its key may join again.
///
/// # Errors
/// Storage fails.
pub async fn remove(store: &MeshStore, member: &MemberId, by: &By) -> Result<bool, DbError> {
    let (member, by) = (member.clone(), by.clone());
    Ok(tx_write!(store, (member, by), |conn, mesh| {
        let row = members::table
            .find(member.as_str())
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::revoked_at_ms.is_null())
            .filter(members::role.ne(Role::Owner.as_str()));
        let change = (members::revoked_at_ms.eq(by.at_ms), members::removed_at_ms.eq(by.at_ms));
        let changed = diesel::update(row).set(change).execute(conn).await? == 1;
        if changed {
            let groups = member_groups::table
                .filter(member_groups::mesh_id.eq(mesh.as_str()))
                .filter(member_groups::member_id.eq(member.as_str()));
            diesel::delete(groups).execute(conn).await?;
            let rights = capabilities::table
                .filter(capabilities::mesh_id.eq(mesh.as_str()))
                .filter(capabilities::member_id.eq(member.as_str()));
            diesel::delete(rights).execute(conn).await?;
        }
        let event = if by.member.as_ref() == Some(member) { "member_left" } else { "member_removed" };
        Ok((changed, Audit::when(changed, || by.entry(event, json!({"member": member})))))
    })?)
}

/// A mesh that has another owner now.
#[derive(Clone, Debug, PartialEq)]
pub struct Transferred {
    /// The new owner, as stored.
    pub owner: Member,
    /// Members that were `owner` and are admins now.
    pub former: Vec<MemberId>,
}

/// Makes a live member the owner: its key owns the mesh, and the former owner becomes an admin. Invites that the former key signed
/// let no one in any more. `by` must be the owner when this is written.
///
/// # Errors
/// `forbidden` when `by` is not the owner any more, `not_found` when the mesh has no such live member, `invalid` when it is the owner.
pub async fn transfer(store: &MeshStore, to: &MemberId, by: &By) -> Result<Transferred, Refusal> {
    let (to, by) = (to.clone(), by.clone());
    let done: Result<Transferred, WriteError<Refusal>> = tx_write!(store, (to, by), |conn, mesh| {
        let live = members::table
            .filter(members::mesh_id.eq(mesh.as_str()))
            .filter(members::revoked_at_ms.is_null())
            .select(Member::as_select());
        let owners: Vec<Member> = live.filter(members::role.eq(Role::Owner.as_str())).load(conn).await?;
        if !owners.iter().any(|owner| by.member.as_ref() == Some(&owner.id)) {
            let refusal = Refusal::new(ErrorCode::Forbidden, "only the owner makes another member the owner");
            return Err(WriteError::Refused(refusal));
        }
        let found = live.filter(members::id.eq(to.as_str())).first(conn).await.optional()?;
        let Some(found) = found else {
            return Err(WriteError::Refused(Refusal::new(ErrorCode::NotFound, "no such member in this mesh")));
        };
        if found.role == Role::Owner {
            return Err(WriteError::Refused(Refusal::new(ErrorCode::Invalid, "that member is the owner")));
        }
        let key: PublicKey = found.pubkey;
        let former =
            members::table.filter(members::mesh_id.eq(mesh.as_str())).filter(members::role.eq(Role::Owner.as_str()));
        diesel::update(former).set(members::role.eq(Role::Admin.as_str())).execute(conn).await?;
        let row = members::table.find(to.as_str()).filter(members::mesh_id.eq(mesh.as_str()));
        diesel::update(row).set(members::role.eq(Role::Owner.as_str())).execute(conn).await?;
        diesel::update(meshes::table.find(mesh.as_str()))
            .set(meshes::owner_pubkey.eq(key.to_hex()))
            .execute(conn)
            .await?;
        let former: Vec<MemberId> = owners.into_iter().map(|owner| owner.id).collect();
        let payload = json!({"to": to, "former": former});
        let owner = Member { role: Role::Owner, ..found };
        Ok((Transferred { owner, former }, by.entry("mesh_transferred", payload)))
    });
    Ok(done?)
}
