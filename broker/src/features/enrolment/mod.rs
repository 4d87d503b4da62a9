//! Enrolment: making meshes, inviting, joining. Over HTTP only.

pub mod http;
mod pages;
pub mod rules;
pub mod schema;
pub mod store;
