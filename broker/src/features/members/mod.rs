//! Enrolment and members over HTTP; see `http`.

pub mod store;
