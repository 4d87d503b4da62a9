//! Enrolment and members over HTTP; see `http`.

pub mod schema;
pub mod store;
