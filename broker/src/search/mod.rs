//! Search by words, for every feature that keeps texts: what a text is to it ([`text`]), what a query means ([`query`]), the
//! index in the database ([`index`]), and the order and the snippets of what was found ([`rank`]).
//!
//! The index says which texts fit and, of many, which may be the best; the order of what is shown is decided here, so both
//! databases answer alike. Knows no feature.

pub mod index;
pub mod query;
pub mod rank;
pub mod text;
