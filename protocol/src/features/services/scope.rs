//! [`Scope`]: who may see and call a service.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// Who may see and call a service, beside its deployer.
///
/// Shape: `"peer"`, `"mesh"`, `{"peers":["Ann"]}`, `{"group":"g"}`, `{"groups":["g","h"]}` or `{"role":"lead"}`. Each of them is
/// read as an object with a `type` as well, as in `{"type":"group","group":"g"}`, and written without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The deployer's member alone.
    #[default]
    Peer,
    /// Everyone in the mesh.
    Mesh,
    /// These members, by name or id.
    Peers(Vec<String>),
    /// Anyone in this group.
    Group(String),
    /// Anyone in one of these groups.
    Groups(Vec<String>),
    /// Anyone who has this role in some group.
    Role(String),
}

impl Scope {
    /// What it is called: `peer`, `mesh`, `peers`, `group`, `groups` or `role`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Mesh => "mesh",
            Self::Peers(_) => "peers",
            Self::Group(_) => "group",
            Self::Groups(_) => "groups",
            Self::Role(_) => "role",
        }
    }

    /// The names in it.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Peer | Self::Mesh => &[],
            Self::Peers(names) | Self::Groups(names) => names,
            Self::Group(name) | Self::Role(name) => std::slice::from_ref(name),
        }
    }

    /// As JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Peer | Self::Mesh => self.kind().into(),
            Self::Peers(names) => json!({"peers": names}),
            Self::Group(name) => json!({"group": name}),
            Self::Groups(names) => json!({"groups": names}),
            Self::Role(name) => json!({"role": name}),
        }
    }

    /// From JSON.
    ///
    /// # Errors
    /// What was expected.
    pub fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(word) => Self::read_word(word),
            Value::Object(fields) => Self::read_object(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => Err(EXPECTED.to_owned()),
        }
    }

    fn read_word(word: &str) -> Result<Self, String> {
        match word {
            "peer" => Ok(Self::Peer),
            "mesh" => Ok(Self::Mesh),
            _ => Err(EXPECTED.to_owned()),
        }
    }

    fn read_object(fields: &Map<String, Value>) -> Result<Self, String> {
        let kinds: Vec<&str> = fields.keys().map(String::as_str).filter(|key| *key != "type").collect();
        let word = match fields.get("type") {
            None => None,
            Some(Value::String(word)) => Some(word.as_str()),
            Some(_) => return Err(EXPECTED.to_owned()),
        };
        let kind = match (word, kinds.as_slice()) {
            (Some(word), []) => return Self::read_word(word),
            (None, [kind]) => *kind,
            (Some(word), [kind]) if word == *kind => *kind,
            _ => return Err(EXPECTED.to_owned()),
        };
        match (kind, &fields[kind]) {
            ("group", Value::String(name)) => Ok(Self::Group(name.clone())),
            ("role", Value::String(name)) => Ok(Self::Role(name.clone())),
            ("peers", Value::Array(names)) => texts(names).map(Self::Peers),
            ("groups", Value::Array(names)) => texts(names).map(Self::Groups),
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

const EXPECTED: &str =
    "expected \"peer\", \"mesh\", {\"peers\":[…]}, {\"group\":…}, {\"groups\":[…]} or {\"role\":…} as the scope";

fn texts(values: &[Value]) -> Result<Vec<String>, String> {
    values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(|| EXPECTED.to_owned())).collect()
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Scope {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::Schema::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_the_short_one_is_written() {
        for (long, short) in [
            (json!({"type": "peer"}), json!("peer")),
            (json!({"type": "mesh"}), json!("mesh")),
            (json!({"type": "peers", "peers": ["Ann", "Bob"]}), json!({"peers": ["Ann", "Bob"]})),
            (json!({"type": "group", "group": "g"}), json!({"group": "g"})),
            (json!({"type": "groups", "groups": ["g", "h"]}), json!({"groups": ["g", "h"]})),
            (json!({"type": "role", "role": "lead"}), json!({"role": "lead"})),
        ] {
            let scope = Scope::read(&long).unwrap();
            assert_eq!((&scope, scope.to_value()), (&Scope::read(&short).unwrap(), short));
        }
    }

    #[test]
    fn what_means_nothing_or_two_things_is_no_scope() {
        for wrong in [
            json!("everyone"),
            json!(null),
            json!(["g"]),
            json!({}),
            json!({"type": "group"}),
            json!({"type": "mesh", "group": "g"}),
            json!({"type": "role", "group": "g"}),
            json!({"group": "g", "role": "r"}),
            json!({"group": ["g"]}),
            json!({"groups": "g"}),
            json!({"peers": [1]}),
            json!({"type": 1, "group": "g"}),
        ] {
            assert!(Scope::read(&wrong).is_err(), "{wrong}");
        }
    }
}
