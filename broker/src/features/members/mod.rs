//! Members: their profiles, what they may edit themselves, and their grants. Over HTTP only; their rows are the mesh's
//! (`db::members`).

pub mod http;
