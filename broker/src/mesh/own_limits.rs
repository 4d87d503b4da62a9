//! Limits that a mesh sets itself: each at most what the operator allows.

use std::collections::BTreeMap;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::meshes::LimitSetting;

use super::dispatch::Features;
use crate::config::Limits;
use crate::refusal::Refusal;

/// A rate of messages: its name, what it bounds, and where it is among the operator's limits.
type MessageRate = (&'static str, &'static str, fn(&mut Limits) -> &mut u32);

/// Rates of messages that are fields of the operator's file. Everything else is a named quota.
const MESSAGE_RATES: [MessageRate; 3] = [
    ("messages.member_per_minute", "Messages a minute from one member.", |limits| &mut limits.member_per_minute),
    ("messages.pair_per_minute", "Messages a minute from one sender to one recipient.", |limits| {
        &mut limits.pair_per_minute
    }),
    ("messages.trace_budget", "Messages of one exchange between agents in ten minutes.", |limits| {
        &mut limits.trace_budget
    }),
];

/// The limits in force: the operator's with what the mesh has lowered. A value above the operator's changes nothing.
pub fn lowered(operator: &Limits, own: &BTreeMap<String, u64>) -> Limits {
    let mut limits = operator.clone();
    for (name, value) in own {
        match MESSAGE_RATES.iter().find(|(rate, ..)| rate == name) {
            Some((.., field)) => {
                let field = field(&mut limits);
                let value = u32::try_from(*value).unwrap_or(u32::MAX);
                // 0 is the operator's word for no limit.
                *field = if *field == 0 { value } else { value.min(*field) };
            }
            None => limits.quotas.lower(name, *value),
        }
    }
    limits
}

/// Every limit that a mesh can lower, in the order of their names.
pub fn list(operator: &Limits, own: &BTreeMap<String, u64>) -> Vec<LimitSetting> {
    let (mut highest, mut in_force) = (operator.clone(), lowered(operator, own));
    let rates = MESSAGE_RATES
        .iter()
        .map(|(name, doc, field)| (*name, *doc, u64::from(*field(&mut in_force)), u64::from(*field(&mut highest))));
    let rates: Vec<_> = rates.collect();
    let quotas = Features::quotas()
        .into_iter()
        .map(|quota| (quota.name, quota.doc, in_force.quotas.value(quota), operator.quotas.value(quota)));
    let mut all: Vec<LimitSetting> = rates
        .into_iter()
        .chain(quotas)
        .map(|(name, doc, value, operator)| LimitSetting {
            name: name.into(),
            doc: doc.into(),
            value,
            operator,
            own: own.get(name).copied(),
        })
        .collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// Refuses what is not a limit, and values that the operator does not allow.
///
/// # Errors
/// `invalid_args`, with what was expected.
pub fn check(operator: &Limits, changes: &BTreeMap<String, Option<u64>>) -> Result<(), Refusal> {
    let known = list(operator, &BTreeMap::new());
    for (name, value) in changes {
        let Some(limit) = known.iter().find(|limit| limit.name == *name) else {
            let names = known.iter().map(|limit| limit.name.as_str()).collect::<Vec<_>>().join(", ");
            let message = format!("`{name}` is not a limit; expected one of {names}");
            return Err(Refusal::new(ErrorCode::InvalidArgs, message));
        };
        let most = if limit.operator == 0 { u64::from(u32::MAX) } else { limit.operator };
        if value.is_some_and(|value| !(1..=most).contains(&value)) {
            let message = format!("`{name}`: expected 1 to {most}, which is what the operator allows");
            return Err(Refusal::new(ErrorCode::InvalidArgs, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(pair_per_minute: u32) -> Limits {
        let mut limits = Limits::default();
        limits.member_per_minute = 100;
        limits.pair_per_minute = pair_per_minute;
        limits
    }

    #[test]
    fn a_mesh_lowers_limits_and_never_raises_them() {
        let operator = operator(0);
        let own = |name: &str, value: u64| BTreeMap::from([(name.to_owned(), value)]);
        assert_eq!(lowered(&operator, &own("messages.member_per_minute", 7)).member_per_minute, 7);
        assert_eq!(lowered(&operator, &own("messages.member_per_minute", 700)).member_per_minute, 100);
        assert_eq!(lowered(&operator, &own("messages.pair_per_minute", 9)).pair_per_minute, 9, "there was none");
        let quota = Features::quotas()[0];
        let below = lowered(&operator, &own(quota.name, 1));
        assert_eq!((below.quotas.value(quota), operator.quotas.value(quota)), (1, quota.default));
        assert_eq!(lowered(&operator, &own(quota.name, u64::MAX)).quotas.value(quota), quota.default);
        // A limit of a later broker, which this one does not know.
        assert_eq!(lowered(&operator, &own("later.things", 1)).member_per_minute, 100);
        let listed = list(&operator, &own("messages.trace_budget", 5));
        let trace = listed.iter().find(|limit| limit.name == "messages.trace_budget").unwrap();
        assert_eq!((trace.value, trace.own), (5, Some(5)));
        assert_eq!(listed.len(), Features::quotas().len() + MESSAGE_RATES.len());
    }

    #[test]
    fn a_change_is_checked_before_it_is_stored() {
        let operator = operator(60);
        let change = |name: &str, value: Option<u64>| check(&operator, &BTreeMap::from([(name.to_owned(), value)]));
        assert!(change("messages.member_per_minute", Some(100)).is_ok());
        assert!(change("messages.member_per_minute", None).is_ok());
        for value in [0, 101] {
            let error = change("messages.member_per_minute", Some(value)).unwrap_err();
            assert!(error.message.contains("1 to 100"), "{}", error.message);
        }
        assert!(
            change("messages.member_per_minite", Some(1)).unwrap_err().message.contains("messages.member_per_minute")
        );
    }
}
