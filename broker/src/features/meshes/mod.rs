//! A mesh as a whole: its name, its settings, its end. Over HTTP only: its owner need not be connected.

pub mod http;
