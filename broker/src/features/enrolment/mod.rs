//! Enrolment: making meshes, inviting, joining. Over HTTP only (see `http::enrolment`); here are its rules and its store.

pub mod rules;
pub mod schema;
pub mod store;
