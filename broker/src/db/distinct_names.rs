//! One name for one living member of a mesh: what is taken, and what a newcomer is called instead.

use std::collections::HashSet;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::limits;
use claudemesh_protocol::name::folded;

use crate::refusal::Refusal;

/// The names of the living members of a mesh but one, folded. A macro, because it is part of a transaction on either backend.
macro_rules! names_of_others {
    ($conn:ident, $mesh:expr, $member:expr) => {{
        let names: Vec<String> = $crate::db::schema::members::table
            .filter($crate::db::schema::members::mesh_id.eq($mesh.as_str()))
            .filter($crate::db::schema::members::revoked_at_ms.is_null())
            .filter($crate::db::schema::members::id.ne($member.as_str()))
            .select($crate::db::schema::members::display_name)
            .load($conn)
            .await?;
        $crate::db::distinct_names::fold_all(&names)
    }};
}
pub(crate) use names_of_others;

/// Names in the form in which they are compared.
pub(crate) fn fold_all(names: &[String]) -> HashSet<String> {
    names.iter().map(|name| folded(name)).collect()
}

/// The name itself when it is free, else with the first number that makes it so: `Ann`, `Ann-2`, `Ann-3`. Joining never fails for
/// a name, because older clients have no second question.
pub(crate) fn distinct(name: &str, taken: &HashSet<String>) -> String {
    let numbered = |number: usize| {
        let suffix = format!("-{number}");
        let head: String = name.chars().take(limits::MAX_NAME_CHARS - suffix.len()).collect();
        head.trim_end().to_owned() + &suffix
    };
    if !taken.contains(&folded(name)) {
        return name.to_owned();
    }
    // Hundreds may have joined under one name: their numbers are read once instead of trying each.
    let head = folded(name) + "-";
    let used: HashSet<usize> =
        taken.iter().filter_map(|other| other.strip_prefix(&head)).filter_map(|number| number.parse().ok()).collect();
    let free = (2..).filter(|number| !used.contains(number)).map(numbered).find(|name| !taken.contains(&folded(name)));
    free.unwrap_or_else(|| name.to_owned())
}

/// `name_taken`
pub(crate) fn taken(name: &str) -> Refusal {
    Refusal::new(ErrorCode::NameTaken, format!("another member of this mesh is called `{name}`; choose another name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_gets_the_first_free_number() {
        let taken = fold_all(&["Ann".into(), "ANN-2".into(), "Zoë".into()]);
        assert_eq!(distinct("Bob", &taken), "Bob");
        assert_eq!(distinct("ann", &taken), "ann-3");
        assert_eq!(distinct("zoë", &taken), "zoë-2");
        let long = "x".repeat(limits::MAX_NAME_CHARS);
        let other = distinct(&long, &fold_all(std::slice::from_ref(&long)));
        assert_eq!((other.chars().count(), &other[other.len() - 2..]), (limits::MAX_NAME_CHARS, "-2"));
    }
}
