//! The hasher of maps that every frame looks into.
//!
//! Keyed at random in each process, like the standard library's: keys of peers and idempotency keys are chosen by others.

use std::collections::{HashMap, HashSet};

/// A map with a fast hasher.
pub type FastMap<K, V> = HashMap<K, V, foldhash::quality::RandomState>;

/// A set with a fast hasher.
pub type FastSet<T> = HashSet<T, foldhash::quality::RandomState>;
