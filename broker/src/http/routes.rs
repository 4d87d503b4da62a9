//! The table of routes: each feature declares its own in `features/<feature>/http.rs` with [`crate::routes!`].

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::api_keys::KeyCapability;

/// Who a route lets in. [`super::caller::Caller`] checks it before the handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Anyone: the handler proves its caller in another way, or tells nothing.
    Open,
    /// A live member, or the owner's key. What it concerns is the caller's own, or everyone's.
    Membership,
    /// A member with this capability.
    Capability(Capability),
    /// A member; for what belongs to others it must have this capability.
    OfOthers(Capability),
    /// An API key with this capability.
    Key(KeyCapability),
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: &'static str,
    /// The pattern, for example `/mesh/{id}/archive`.
    pub path: &'static str,
    /// Who it lets in.
    pub needs: Needs,
}

/// Declares the routes of a feature: `ROUTES`, the table, and `configure`, which registers them.
///
/// ```text
/// routes! {
///     post "/mesh/{id}/archive" => archive_mesh, needs CanDeleteMesh;
///     get "/mesh/{id}/members" => list, members;
///     patch "/mesh/{id}/member/{member}" => patch, others CanManageMembers;
///     post "/join" => join, open;
///     get "/api/v1/topics" => topics, key Read;
/// }
/// ```
///
/// Every kind but `open` wants a handler that takes a [`Caller`](crate::http::caller::Caller), or for `key` an
/// [`ApiCaller`](crate::http::api::ApiCaller).
#[macro_export]
macro_rules! routes {
    ($($method:ident $path:literal => $handler:path, $kind:ident $($capability:ident)?;)*) => {
        /// The routes of this feature.
        pub const ROUTES: &[$crate::http::routes::Route] = &[$($crate::http::routes::Route {
            method: $crate::routes!(@method $method),
            path: $path,
            needs: $crate::routes!(@needs $kind $($capability)?),
        },)*];

        /// Registers them.
        pub fn configure(config: &mut actix_web::web::ServiceConfig) {
            config$(.route($path, actix_web::web::$method().to($handler)))*;
        }
    };
    (@method head) => { "HEAD" };
    (@method get) => { "GET" };
    (@method post) => { "POST" };
    (@method put) => { "PUT" };
    (@method patch) => { "PATCH" };
    (@method delete) => { "DELETE" };
    (@needs open) => { $crate::http::routes::Needs::Open };
    (@needs members) => { $crate::http::routes::Needs::Membership };
    (@needs needs $capability:ident) => {
        $crate::http::routes::Needs::Capability(claudemesh_protocol::capability::Capability::$capability)
    };
    (@needs key $capability:ident) => {
        $crate::http::routes::Needs::Key(claudemesh_protocol::features::api_keys::KeyCapability::$capability)
    };
    (@needs others $capability:ident) => {
        $crate::http::routes::Needs::OfOthers(claudemesh_protocol::capability::Capability::$capability)
    };
}
