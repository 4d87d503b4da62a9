//! Who asks over HTTP: a live member of the mesh that the path names. Who a route lets in stands in its row.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;

use super::AppState;
use super::auth::Signed;
use super::routes::{Needs, Route};
use crate::audit::By;
use crate::db::members::{self, Member};
use crate::db::meshes::{self, MeshRecord};
use crate::db::rights::{self, Rights};
use crate::features::Features;
use crate::mesh::principal::Principal;
use crate::refusal::Refusal;

/// Routes that an archived mesh still answers: what it is, and what its owner can do about it.
const ALSO_ARCHIVED: [(&str, &str); 3] =
    [("GET", "/mesh/{id}"), ("DELETE", "/mesh/{id}"), ("POST", "/mesh/{id}/restore")];

/// A signer that the route lets in. The holder of the mesh's owner key acts as the owner's member, whatever member it is
/// beside that.
pub struct Caller {
    /// The mesh, which is not archived but for [`ALSO_ARCHIVED`].
    pub mesh: MeshRecord,
    /// The member.
    pub member: Member,
    rights: Rights,
    signed: Signed,
}

impl Caller {
    async fn of(state: &AppState, mesh: MeshRecord, signed: Signed, needs: Needs) -> Result<Self, Refusal> {
        let storage = state.storage(&mesh.id);
        let member = if mesh.owner_pubkey == signed.key {
            let owner = members::owner(&storage).await?;
            owner.ok_or_else(|| Refusal::fault(ErrorCode::Internal, "the mesh has no owner among its members"))?
        } else {
            members::by_key(&storage, &signed.key).await?.ok_or(ErrorCode::Unauthorized)?
        };
        if member.revoked_at_ms.is_some() {
            let banned = member.banned_at_ms().is_some();
            return Err(if banned { ErrorCode::Revoked } else { ErrorCode::MemberRemoved }.into());
        }
        let caller = Self { rights: rights::load(&storage).await?, mesh, member, signed };
        if let Needs::Capability(needed) = needs {
            caller.require(needed)?;
        }
        state.auth.accept(&caller.signed)?;
        Ok(caller)
    }

    /// A signer whose mesh is not named by the path, for routes that are `open`.
    ///
    /// # Errors
    /// Those of a route that needs this.
    pub async fn signed(state: &AppState, mesh: &MeshId, signed: Signed, needs: Capability) -> Result<Self, Refusal> {
        Self::of(state, live(state, mesh).await?, signed, Needs::Capability(needs)).await
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// As [`super::auth::Body::json`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        self.signed.json()
    }

    /// The key that signed: the member's, or the mesh's owner key.
    pub fn key(&self) -> &PublicKey {
        &self.signed.key
    }

    /// For the audit log.
    pub fn by(&self, at_ms: i64) -> By {
        By::member(&self.member.id, at_ms)
    }

    /// For requests to the mesh.
    pub fn principal(&self) -> Principal {
        Principal::Member(self.member.id.clone())
    }

    /// Refuses a caller without a capability.
    ///
    /// # Errors
    /// `forbidden`, as over a socket.
    pub fn require(&self, needed: Capability) -> Result<(), Refusal> {
        if self.rights.allows(&self.member.id, self.member.role, needed) { Ok(()) } else { Err(Refusal::lacks(needed)) }
    }

    /// Refuses a caller without a capability for what belongs to others.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require_own(&self, owner: &MemberId, needed: Capability) -> Result<(), Refusal> {
        if self.member.id == *owner { Ok(()) } else { self.require(needed) }
    }
}

/// A mesh, archived or not.
///
/// # Errors
/// `mesh_not_found`, `mesh_deleted`.
async fn kept(state: &AppState, id: &MeshId) -> Result<MeshRecord, Refusal> {
    let mesh = meshes::load(&state.db, id).await?.ok_or(ErrorCode::MeshNotFound)?;
    if mesh.deleted_at_ms.is_some() {
        return Err(ErrorCode::MeshDeleted.into());
    }
    Ok(mesh)
}

/// A live mesh.
///
/// # Errors
/// `mesh_not_found`, `mesh_deleted`, `mesh_archived`.
pub async fn live(state: &AppState, id: &MeshId) -> Result<MeshRecord, Refusal> {
    let mesh = kept(state, id).await?;
    if mesh.archived_at_ms.is_some() {
        return Err(ErrorCode::MeshArchived.into());
    }
    Ok(mesh)
}

/// The mesh of a path. Someone who is no member learns nothing of a slug, not even whether there is such a mesh.
async fn named(state: &AppState, request: &HttpRequest, row: &Route) -> Result<MeshRecord, Refusal> {
    if let Some(slug) = request.match_info().get("slug") {
        let mesh = meshes::by_slug(&state.db, slug).await?.filter(|mesh| mesh.archived_at_ms.is_none());
        return Ok(mesh.ok_or(ErrorCode::Unauthorized)?);
    }
    let id = MeshId::from(request.match_info().get("id").unwrap_or_default());
    if ALSO_ARCHIVED.contains(&(row.method, row.path)) { kept(state, &id).await } else { live(state, &id).await }
}

impl FromRequest for Caller {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, signed) = (request.clone(), Signed::from_request(request, payload));
        Box::pin(async move {
            let signed = signed.await?;
            let (pattern, method) = (request.match_pattern().unwrap_or_default(), request.method().as_str());
            let row = Features::routes().into_iter().find(|row| row.path == pattern && row.method == method);
            let (Some(row), Some(state)) = (row, request.app_data::<web::Data<AppState>>()) else {
                return Err(Refusal::fault(ErrorCode::Internal, "the route has no row or no state"));
            };
            let mesh = named(state, &request, row).await?;
            Self::of(state, mesh, signed, row.needs).await
        })
    }
}
