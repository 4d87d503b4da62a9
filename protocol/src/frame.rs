//! What every frame has in common, and how frames are read and written.
//!
//! A frame is one JSON object in one WebSocket message: `{"type":"set_state","_reqId":"7",…}`. The wire is flat; the Rust
//! side is two-level. [`Head`] is read first (borrowed, the rest of the object is skipped), then the feature that owns
//! the tag reads the whole text once more into its own struct. That is faster than buffering the object and it lets
//! an error answer carry the request's ids even when the body is wrong.

use std::borrow::Cow;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The parts of a client frame that dispatch and correlation need.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// `type`, the tag.
    pub tag: Option<Cow<'a, str>>,
    /// `_reqId`: echoed in the answer.
    pub req_id: Option<Cow<'a, str>>,
    /// `id`: correlates `send` with `ack`.
    pub id: Option<Cow<'a, str>>,
    /// `confirm:true`: a request that has no answer of its own is answered with `done`.
    pub confirm: bool,
}

impl<'a> Head<'a> {
    /// Reads the head of a frame. Ids of another type than string are treated as absent.
    ///
    /// # Errors
    /// The text is not one JSON object.
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl<'de> Deserialize<'de> for Head<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadVisitor;

        impl<'de> Visitor<'de> for HeadVisitor {
            type Value = Head<'de>;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    let slot = match key.0.as_ref() {
                        "type" => &mut head.tag,
                        "_reqId" => &mut head.req_id,
                        "id" => &mut head.id,
                        "confirm" => {
                            head.confirm = map.next_value::<&RawValue>()?.get() == "true";
                            continue;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *slot = map.next_value::<MaybeText<'de>>()?.0;
                }
                Ok(head)
            }
        }

        deserializer.deserialize_map(HeadVisitor)
    }
}

/// A string that borrows when it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// A string, or anything else read as `None`.
struct MaybeText<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for MaybeText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;

        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = MaybeText<'de>;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("any value")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }
        }

        deserializer.deserialize_any(AnyVisitor)
    }
}

#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    #[serde(rename = "type")]
    tag: &'a str,
    #[serde(flatten)]
    body: &'a T,
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    req_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    confirm: bool,
}

/// Writes one flat frame: `type` first, then the body's fields, then `_reqId`.
pub fn write<T: Serialize>(tag: &str, body: &T, req_id: Option<&str>) -> String {
    write_about(128, tag, body, req_id)
}

/// As [`write`], when it is known that the frame has about so many bytes: spares growing and copying.
pub fn write_about<T: Serialize>(bytes: usize, tag: &str, body: &T, req_id: Option<&str>) -> String {
    write_frame(bytes, &Envelope { tag, body, req_id, confirm: false })
}

/// As [`write`], with `confirm:true`.
pub fn write_confirmed<T: Serialize>(tag: &str, body: &T, req_id: &str) -> String {
    write_frame(128, &Envelope { tag, body, req_id: Some(req_id), confirm: true })
}

#[expect(clippy::expect_used, reason = "no value of a wire type fails")]
fn write_frame<T: Serialize>(bytes: usize, envelope: &Envelope<'_, T>) -> String {
    let mut frame = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut frame, envelope).expect("wire types serialise: string keys, no failing impl");
    String::from_utf8(frame).expect("JSON is UTF-8")
}

/// Declares one feature's enum of messages with its tag table, reader and writer.
///
/// `wire_enum! { /// doc pub enum Request { SetStatus = "set_status", } }` makes a variant per struct of the same name.
#[macro_export]
macro_rules! wire_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($variant:ident = $tag:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "messages are moved once, from the reader to the handler")]
        pub enum $name {
            $(#[doc = concat!("`", $tag, "`")] $variant($variant),)*
        }

        impl $name {
            /// The tags this enum owns.
            pub const TAGS: &'static [&'static str] = &[$($tag,)*];

            /// `type` of this message.
            pub fn tag(&self) -> &'static str {
                match *self { $(Self::$variant(_) => $tag,)* }
            }

            /// Reads the whole frame if the tag is ours; `None` when it belongs to another feature.
            #[allow(unused_variables, reason = "an enum without variants reads and writes nothing")]
            pub fn read(tag: &str, text: &str) -> Option<Result<Self, serde_json::Error>> {
                match tag {
                    $($tag => Some(serde_json::from_str(text).map(Self::$variant)),)*
                    _ => None,
                }
            }

            /// Writes the frame.
            #[allow(unused_variables, reason = "an enum without variants reads and writes nothing")]
            pub fn write(&self, req_id: Option<&str>) -> String {
                match *self { $(Self::$variant(ref body) => $crate::frame::write($tag, body, req_id),)* }
            }

            /// Writes the frame with `confirm:true`.
            #[allow(unused_variables, reason = "an enum without variants reads and writes nothing")]
            pub fn write_confirmed(&self, req_id: &str) -> String {
                match *self { $(Self::$variant(ref body) => $crate::frame::write_confirmed($tag, body, req_id),)* }
            }
        }

        $(impl From<$variant> for $name {
            fn from(body: $variant) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_read_beside_any_body() {
        let head = Head::read(r#"{"a":{"type":"x"},"type":"send","id":"m\n1","_reqId":7,"b":[1,2]}"#).unwrap();
        assert_eq!(head.tag.as_deref(), Some("send"));
        assert_eq!(head.id.as_deref(), Some("m\n1"));
        assert_eq!(head.req_id, None);
    }

    #[test]
    fn only_true_asks_for_a_confirmation() {
        let confirm =
            |value: &str| Head::read(&format!(r#"{{"confirm":{value},"type":"set_state"}}"#)).unwrap().confirm;
        assert!(confirm("true"));
        for value in ["false", "null", "1", "\"true\"", "[true]", r#"{"a":true}"#] {
            assert!(!confirm(value), "{value}");
        }
    }

    #[test]
    fn head_refuses_what_is_not_an_object() {
        for text in ["", "[]", "\"type\"", "1", "null", "{", r#"{"type":"a"} x"#] {
            assert!(Head::read(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn head_never_panics(text in ".{0,200}") {
            let _ = Head::read(&text);
        }
    }
}
