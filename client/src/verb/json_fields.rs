//! The fields of the objects that a verb prints, read from the types themselves, so that the check of `--json=FIELDS` and the
//! output cannot disagree.

use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// The fields of a struct in the order in which they are printed, those too that are left out when there is no value. Of a
/// struct with flattened parts ask for each part.
pub fn of<T: Deserialize<'static>>() -> Vec<&'static str> {
    let mut names = None;
    // A derived `Deserialize` says which fields it looks for before it gets anything.
    let _ = T::deserialize(Names(&mut names));
    debug_assert!(names.is_some(), "{} is no plain struct", std::any::type_name::<T>());
    names.unwrap_or_default().to_vec()
}

/// The fields of an object that is made of several structs, each once.
pub fn joined<const N: usize>(parts: [Vec<&'static str>; N]) -> Vec<&'static str> {
    let mut all = Vec::new();
    for name in parts.into_iter().flatten() {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

struct Names<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("only names are wanted"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = Some(fields);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        message_id: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
        #[serde(rename = "round_trip_ms")]
        round_trip: &'static str,
    }

    #[test]
    fn names_are_those_of_the_printed_object() {
        assert_eq!(of::<Row>(), ["messageId", "topic", "round_trip_ms"]);
        assert_eq!(joined([vec!["topic", "ok"], of::<Row>()]), ["topic", "ok", "messageId", "round_trip_ms"]);
        let row = Row { message_id: 1, topic: Some("t".into()), round_trip: "" };
        let printed = serde_json::to_value(row).unwrap();
        assert_eq!(printed.as_object().unwrap().keys().collect::<Vec<_>>(), of::<Row>());
    }
}
