//! Quotas: named bounds of what a mesh and its members may keep and write. A feature declares its own as constants and lists them
//! in [`Feature::QUOTAS`](crate::mesh::dispatch::Feature::QUOTAS); the operator changes them by name in `[limit.quotas]`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use claudemesh_protocol::error::{Bound, ErrorCode};
use claudemesh_protocol::id::MemberId;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;
use crate::session::bucket::Bucket;

/// What a rate is counted over.
const MINUTE_MS: i64 = 60_000;
/// Rates that are counted at once in a mesh; beyond it those that say nothing are forgotten, and then the next one waits.
const MAX_COUNTED: usize = 10_000;

/// One bound.
#[derive(Debug)]
pub struct Quota {
    /// Name: the feature, a dot, what is bounded. Stable, because operators write it down.
    pub name: &'static str,
    /// Its value unless the operator sets another.
    pub default: u64,
    /// The largest value that an operator can set.
    pub most: u64,
    /// One sentence for people.
    pub doc: &'static str,
}

impl Quota {
    /// A bound that an operator can raise as far as they like.
    pub const fn new(name: &'static str, default: u64, doc: &'static str) -> Self {
        Self { name, default, most: u64::MAX, doc }
    }

    /// The same with a largest value: something else bounds it, for example the size of a frame.
    #[must_use]
    pub const fn at_most(self, most: u64) -> Self {
        Self { most, ..self }
    }
}

/// What the operator set, by name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Setting>", into = "BTreeMap<String, u64>")]
pub struct Quotas {
    set: Arc<BTreeMap<String, u64>>,
    /// Whether what is counted by the minute is bounded.
    rates: bool,
}

/// In the operator's file: `"state.keys_per_mesh" = 5`, or as TOML reads `state.keys_per_mesh = 5`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number")]
enum Setting {
    Value(u64),
    OfFeature(BTreeMap<String, u64>),
}

impl Default for Quotas {
    fn default() -> Self {
        Self { set: Arc::default(), rates: true }
    }
}

impl From<BTreeMap<String, Setting>> for Quotas {
    fn from(settings: BTreeMap<String, Setting>) -> Self {
        let flat = settings.into_iter().flat_map(|(name, setting)| match setting {
            Setting::Value(value) => vec![(name, value)],
            Setting::OfFeature(values) => {
                values.into_iter().map(|(bound, value)| (format!("{name}.{bound}"), value)).collect()
            }
        });
        Self { set: Arc::new(flat.collect()), rates: true }
    }
}

impl From<Quotas> for BTreeMap<String, u64> {
    fn from(quotas: Quotas) -> Self {
        Arc::unwrap_or_clone(quotas.set)
    }
}

impl Quotas {
    /// The same without the rates: what is kept stays bounded.
    #[must_use]
    pub fn without_rates(self) -> Self {
        Self { rates: false, ..self }
    }

    /// The same with another value for one bound.
    #[must_use]
    pub fn with(mut self, name: &str, value: u64) -> Self {
        Arc::make_mut(&mut self.set).insert(name.into(), value);
        self
    }

    /// The value of a bound.
    pub fn value(&self, quota: &Quota) -> u64 {
        self.set.get(quota.name).copied().unwrap_or(quota.default)
    }

    /// The value of a rate; no bound when rates are off.
    pub fn rate(&self, quota: &Quota) -> u64 {
        if self.rates { self.value(quota) } else { u64::MAX }
    }

    /// Lowers a bound by its name; a higher value changes nothing, and neither does a name that no feature has.
    pub fn lower(&mut self, name: &str, value: u64) {
        if let Some(quota) = crate::features::Features::quotas().into_iter().find(|quota| quota.name == name) {
            let value = value.min(self.value(quota));
            Arc::make_mut(&mut self.set).insert(name.to_owned(), value);
        }
    }

    /// A bound with what is used of it.
    pub fn bound(&self, quota: &Quota, used: u64) -> Bound {
        Bound { name: quota.name.into(), limit: self.value(quota), used }
    }

    /// Refuses what would use more than there is.
    ///
    /// # Errors
    /// `limit`, with the bound.
    pub fn within(&self, quota: &Quota, used: u64, more: u64) -> Result<(), Refusal> {
        let bound = self.bound(quota, used);
        if used.saturating_add(more) <= bound.limit { Ok(()) } else { Err(bound.into()) }
    }

    /// The bound that a change from `used` to `wanted` goes over, for use inside a transaction. What is over already, because
    /// the operator lowered the bound, may shrink.
    ///
    /// # Errors
    /// The bound. It converts to a [`Refusal`].
    pub fn growth(&self, quota: &Quota, used: i64, wanted: i64) -> Result<(), Bound> {
        let (used, wanted) = (used.max(0).unsigned_abs(), wanted.max(0).unsigned_abs());
        let bound = self.bound(quota, used);
        if wanted <= bound.limit || wanted <= used { Ok(()) } else { Err(bound) }
    }

    /// Refuses one thing that is too large by itself.
    ///
    /// # Errors
    /// `limit`, with the bound; `used` is the size.
    pub fn fits(&self, quota: &Quota, size: usize) -> Result<(), Refusal> {
        let bound = self.bound(quota, size as u64);
        if bound.used <= bound.limit {
            return Ok(());
        }
        let message = format!("`{}` is {}, and this has {size}", bound.name, bound.limit);
        Err(Refusal { message, ..bound.into() })
    }

    /// What is wrong with what the operator set.
    ///
    /// # Errors
    /// A sentence part.
    pub fn check(&self, known: &[&Quota]) -> Result<(), String> {
        for (name, value) in &*self.set {
            let Some(quota) = known.iter().find(|quota| quota.name == name) else {
                let names = known.iter().map(|quota| quota.name).collect::<Vec<_>>().join(", ");
                return Err(format!("`{name}` is no quota; expected one of {names}"));
            };
            if *value == 0 {
                return Err(format!("`{name}`: expected at least 1"));
            }
            if *value > quota.most {
                return Err(format!("`{name}`: expected at most {}", quota.most));
            }
        }
        Ok(())
    }
}

impl From<Bound> for Refusal {
    fn from(bound: Bound) -> Self {
        let message = format!("`{}` is {}, and {} are used", bound.name, bound.limit, bound.used);
        Self { bound: Some(Box::new(bound)), ..Self::new(ErrorCode::Limit, message) }
    }
}

/// Writes of one mesh in the last minute, per quota and member.
#[derive(Debug, Default)]
pub struct Rates(HashMap<(&'static str, Option<MemberId>), (u32, Bucket)>);

impl Rates {
    /// Counts one write against `quota` a minute, of one member or of the whole mesh (`None`).
    ///
    /// # Errors
    /// `rate_limited`, with the bound and the time to wait.
    pub fn count(
        &mut self,
        quotas: &Quotas,
        quota: &'static Quota,
        member: Option<&MemberId>,
        mono_ms: i64,
    ) -> Result<(), Refusal> {
        if !quotas.rates {
            return Ok(());
        }
        let rate = u32::try_from(quotas.value(quota)).unwrap_or(u32::MAX);
        let key = (quota.name, member.cloned());
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(&key) {
            // One that would be full by now says no more than a new one.
            self.0.retain(|_, (rate, bucket)| !bucket.is_full(*rate, MINUTE_MS, mono_ms));
            if self.0.len() >= MAX_COUNTED {
                return Err(ErrorCode::Busy.into());
            }
        }
        let (_, bucket) = self.0.entry(key).or_insert_with(|| (rate, Bucket::full(rate, mono_ms)));
        bucket.take(rate, MINUTE_MS, rate, mono_ms).map_err(|wait| Refusal {
            bound: Some(Box::new(quotas.bound(quota, u64::from(rate)))),
            ..Refusal::limited(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static KEPT: Quota = Quota::new("shelf.books", 3, "Books.").at_most(9);
    static RATE: Quota = Quota::new("shelf.writes_per_minute", 2, "Writes.");

    fn set(text: &str) -> Quotas {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_bound_is_told_with_its_name_value_and_use() {
        let quotas = Quotas::default();
        assert_eq!(quotas.within(&KEPT, 2, 1), Ok(()));
        let refusal = quotas.within(&KEPT, 3, 1).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Limit);
        assert_eq!(refusal.bound.as_deref(), Some(&Bound { name: "shelf.books".into(), limit: 3, used: 3 }));
        assert!(quotas.within(&KEPT, u64::MAX, 1).is_err());
        let larger = set(r#""shelf.books" = 5"#);
        assert_eq!(larger.within(&KEPT, 4, 1), Ok(()));
        assert_eq!(larger.check(&[&KEPT]), Ok(()));
        assert!(set(r#""shelf.boks" = 5"#).check(&[&KEPT]).unwrap_err().contains("`shelf.boks` is no quota"));
        assert!(set(r#""shelf.books" = 0"#).check(&[&KEPT]).is_err());
        assert!(set("shelf.books = 10").check(&[&KEPT]).unwrap_err().ends_with("at most 9"));
        assert_eq!(set("shelf.books = 5"), larger, "as TOML reads a name with a dot");
        let wrong = toml::from_str::<Quotas>("shelf.books = \"five\"").unwrap_err().to_string();
        assert!(wrong.contains("expected a whole number"), "{wrong}");
    }

    #[test]
    fn what_is_over_a_lowered_bound_may_shrink() {
        let quotas = Quotas::default();
        assert_eq!((quotas.growth(&KEPT, 2, 3), quotas.growth(&KEPT, 9, 8)), (Ok(()), Ok(())));
        assert_eq!(quotas.growth(&KEPT, 3, 4), Err(Bound { name: "shelf.books".into(), limit: 3, used: 3 }));
        assert!(quotas.growth(&KEPT, 8, 9).is_err());
    }

    #[test]
    fn one_thing_is_measured_by_itself() {
        let refusal = Quotas::default().fits(&KEPT, 4).unwrap_err();
        assert_eq!(refusal.message, "`shelf.books` is 3, and this has 4");
        assert_eq!(refusal.bound.as_deref(), Some(&Bound { name: "shelf.books".into(), limit: 3, used: 4 }));
        assert_eq!(Quotas::default().fits(&KEPT, 3), Ok(()));
    }

    #[test]
    fn rates_are_counted_by_member_and_come_back() {
        let (quotas, mut rates) = (Quotas::default(), Rates::default());
        let (ada, bob): (MemberId, MemberId) = ("ada".into(), "bob".into());
        for _ in 0..2 {
            rates.count(&quotas, &RATE, Some(&ada), 0).unwrap();
        }
        let refusal = rates.count(&quotas, &RATE, Some(&ada), 0).unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after_ms.is_some()), (ErrorCode::RateLimited, true));
        assert_eq!(refusal.bound.unwrap().name, RATE.name);
        rates.count(&quotas, &RATE, Some(&bob), 0).unwrap();
        rates.count(&quotas, &RATE, None, 0).unwrap();
        rates.count(&quotas, &RATE, Some(&ada), 30_001).unwrap();
        let off = quotas.without_rates();
        for _ in 0..9 {
            rates.count(&off, &RATE, Some(&ada), 30_001).unwrap();
        }
    }

    #[test]
    fn what_is_counted_is_bounded_and_forgotten_when_it_says_nothing() {
        let (quotas, mut rates) = (Quotas::default(), Rates::default());
        let count = |rates: &mut Rates, number: usize, at| {
            rates.count(&quotas, &RATE, Some(&MemberId::from(format!("m{number}"))), at)
        };
        for number in 0..MAX_COUNTED {
            count(&mut rates, number, 0).unwrap();
        }
        assert_eq!(count(&mut rates, MAX_COUNTED, 0).unwrap_err().code, ErrorCode::Busy);
        count(&mut rates, MAX_COUNTED, 60_000).unwrap();
        assert_eq!(rates.0.len(), 1);
    }
}
