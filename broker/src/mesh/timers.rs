//! When features of a mesh want to be woken.

use std::collections::{BTreeSet, HashMap};

/// The name of a timer: the feature, and the feature's own key.
type Name = (&'static str, String);

/// The timers of one mesh, on monotonic time.
#[derive(Debug, Default)]
pub struct Timers {
    by_time: BTreeSet<(i64, Name)>,
    by_name: HashMap<Name, i64>,
}

impl Timers {
    /// Sets a timer; it replaces an earlier one of the same feature and key.
    pub fn set(&mut self, feature: &'static str, key: String, mono_ms: i64) {
        let name = (feature, key);
        if let Some(before) = self.by_name.insert(name.clone(), mono_ms) {
            self.by_time.remove(&(before, name.clone()));
        }
        self.by_time.insert((mono_ms, name));
    }

    /// When the first one is due.
    pub fn next_mono_ms(&self) -> Option<i64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the first one that is due.
    pub fn due(&mut self, mono_ms: i64) -> Option<(&'static str, String)> {
        if self.next_mono_ms()? > mono_ms {
            return None;
        }
        let (_, name) = self.by_time.pop_first()?;
        self.by_name.remove(&name);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_time_for_the_same_key_replaces_the_earlier_one() {
        let mut timers = Timers::default();
        timers.set("state", "a".into(), 10);
        timers.set("state", "b".into(), 20);
        timers.set("clock", "a".into(), 15);
        timers.set("state", "a".into(), 30);
        assert_eq!(timers.next_mono_ms(), Some(15));
        assert_eq!(timers.due(14), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.due(30)).collect();
        assert_eq!(due, [("clock", "a".into()), ("state", "b".into()), ("state", "a".into())]);
        assert_eq!(timers.next_mono_ms(), None);
    }
}
