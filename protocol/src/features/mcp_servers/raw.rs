//! [`Raw`]: JSON that is passed on as it was written.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The text of any JSON value. It is neither read nor written anew on its way, so no number, order of fields or unknown field changes.
#[derive(Clone)]
pub struct Raw(Box<RawValue>);

impl Raw {
    /// Takes a text over.
    ///
    /// # Errors
    /// It is not one JSON value.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// The text of a value.
    pub fn of(value: &Value) -> Self {
        // The text of a value is JSON.
        Self(RawValue::from_string(value.to_string()).unwrap_or_default())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Its value.
    pub fn value(&self) -> Value {
        // It was checked when it was taken over; only a number out of any range has no value.
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.get().trim_start().starts_with('{')
    }
}

/// Two texts that mean the same.
impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str() || self.value() == other.value()
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments and results are nothing for a log.
        write!(out, "Raw({} bytes)", self.as_str().len())
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        // A frame is one line. JSON has line ends between its parts only, where they mean nothing.
        if !raw.get().contains(['\n', '\r']) {
            return Ok(Self(raw));
        }
        let text: String = raw.get().chars().filter(|symbol| !matches!(symbol, '\n' | '\r')).collect();
        RawValue::from_string(text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Raw {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Raw".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::Schema::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_passed_on_as_it_was_written() {
        for text in [r#"{"b":1.10,"a":[1e400,18446744073709551616,"é"],"b":2}"#, "1.0", "\"x\"", "[ ]"] {
            let raw: Raw = serde_json::from_str(text).unwrap();
            assert_eq!((raw.as_str(), serde_json::to_string(&raw).unwrap().as_str()), (text, text));
        }
        assert!(!format!("{:?}", Raw::of(&Value::from("secret"))).contains("secret"));
    }

    #[test]
    fn line_ends_between_the_parts_are_left_out() {
        let raw: Raw = serde_json::from_str("{\n  \"a\": \"x\\ny\"\r\n}").unwrap();
        assert_eq!(raw.as_str(), r#"{  "a": "x\ny"}"#);
        assert_eq!(raw, Raw::parse(r#"{"a":"x\ny"}"#.into()).unwrap());
        assert!(raw.is_object() && !Raw::of(&Value::Null).is_object());
    }
}
