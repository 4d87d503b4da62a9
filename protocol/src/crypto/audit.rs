//! The audit log's hash chain: what is hashed of an entry, and JSON in one fixed form.
//!
//! `hash = SHA-256(prev_hash|mesh|event|actor|payload|time)` in lower-case hex. The first entry follows `genesis`; an absent actor is
//! `null`; the time is ISO-8601 UTC with milliseconds; the payload is canonical JSON, see [`canonical_json`].

use std::fmt::Write;

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

use crate::time::iso;

/// What the first entry of a chain follows.
pub const GENESIS: &str = "genesis";

/// The hashed fields of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Row id of the mesh.
    pub mesh: &'a str,
    /// `member_banned`, …
    pub event: &'a str,
    /// Member id.
    pub actor: Option<&'a str>,
    /// Canonical JSON.
    pub payload: &'a str,
    /// Unix milliseconds.
    pub at_ms: i64,
}

impl Entry<'_> {
    /// The hash of this entry behind the one with `prev_hash`, 64 lower-case hex digits.
    pub fn hash(&self, prev_hash: &str) -> String {
        let mut hash = Sha256::new();
        let (actor, time) = (self.actor.unwrap_or("null"), iso(self.at_ms));
        for (place, part) in [prev_hash, self.mesh, self.event, actor, self.payload, &time].into_iter().enumerate() {
            if place > 0 {
                hash.update(b"|");
            }
            hash.update(part.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

/// JSON without white space, with the keys of every object in order of their UTF-16 units and numbers as JavaScript prints
/// them: the form of RFC 8785, so that a chain is verified with any language's JSON library.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            out.push('{');
            for (place, (key, value)) in fields.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    // The same escapes as JavaScript's: the short ones, `\u00xx` in lower case for other control characters.
    out.push_str(&Value::from(text).to_string());
}

/// Up to this an `f64` holds every whole number.
const EXACT: u64 = 1 << 53;

fn write_number(number: &Number, out: &mut String) {
    let exact = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs)).is_some_and(|size| size <= EXACT);
    if exact {
        out.push_str(&number.to_string());
    } else {
        write_float(number.as_f64().unwrap_or(0.0), out);
    }
}

/// ECMAScript's `Number::toString`: the shortest digits that read back as the same number, plain between 1e-6 and 1e21.
fn write_float(number: f64, out: &mut String) {
    if number == 0.0 {
        out.push('0');
        return;
    }
    if number < 0.0 {
        out.push('-');
    }
    // The shortest digits that read back, of two equally near ones the even one, as ECMAScript asks for; `{:e}` takes the larger.
    let shortest = Value::from(number.abs()).to_string();
    let (plain, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    // Where the decimal point stands, counted from the first digit that is not 0.
    let leading = i32::try_from(all.len() - digits.len()).unwrap_or(0);
    let point = i32::try_from(whole.len()).unwrap_or(0) - leading + exponent.parse::<i32>().unwrap_or(0);
    let digits = digits.trim_end_matches('0');
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    if (count..=21).contains(&point) {
        out.push_str(digits);
        out.push_str(&zeros(point - count));
    } else if (1..=21).contains(&point) {
        let (whole, rest) = digits.split_at(usize::try_from(point).unwrap_or(0));
        out.push_str(whole);
        out.push('.');
        out.push_str(rest);
    } else if (-5..=0).contains(&point) {
        out.push_str("0.");
        out.push_str(&zeros(-point));
        out.push_str(digits);
    } else {
        let (first, rest) = digits.split_at(1);
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        // Writing to a text cannot fail.
        let _ = write!(out, "e{:+}", point - 1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_has_one_form() {
        let one: Value = serde_json::from_str(r#"{ "b": [1, {"z":null,"a":true}], "a": "x" }"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"a":"x","b":[1.0,{"a":true,"z":null}]}"#).unwrap();
        assert_eq!(canonical_json(&one), r#"{"a":"x","b":[1,{"a":true,"z":null}]}"#);
        assert_eq!(canonical_json(&one), canonical_json(&other));
        assert_eq!(canonical_json(&json!({})), "{}");
    }

    /// The examples of RFC 8785, sections 3.2.2 and 3.2.3.
    #[test]
    fn the_form_is_that_of_rfc_8785() {
        let numbers = json!([333_333_333.333_333_3, 1e30, 4.50, 2e-3, 0.000_000_000_000_000_000_000_000_001]);
        let string: Value = serde_json::from_str(r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#).unwrap();
        let value = json!({"numbers": numbers, "string": string, "literals": [null, true, false]});
        let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
            \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(canonical_json(&value), expected);
        let keys = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        assert_eq!(canonical_json(&keys), "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}");
    }

    /// From appendix B of RFC 8785, and the edges of the plain form.
    #[test]
    fn numbers_are_printed_as_javascript_does() {
        let cases: [(f64, &str); 18] = [
            (0.0, "0"),
            (-0.0, "0"),
            (f64::from_bits(1), "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (295_147_905_179_352_830_000.0, "295147905179352830000"),
            (9.999_999_999_999_997e22, "9.999999999999997e+22"),
            (1e23, "1e+23"),
            (999_999_999_999_999_700_000.0, "999999999999999700000"),
            (1e21, "1e+21"),
            (9.999_999_999_999_997e-7, "9.999999999999997e-7"),
            (0.000_001, "0.000001"),
            (333_333_333.333_333_3, "333333333.3333333"),
            (-0.000_003_333_333_333_333_333_3, "-0.0000033333333333333333"),
            (1_424_953_923_781_206.2, "1424953923781206.2"),
            (4.5, "4.5"),
            (-1.5e300, "-1.5e+300"),
            (100.0, "100"),
        ];
        for (number, expected) in cases {
            assert_eq!(canonical_json(&json!(number)), expected);
        }
        assert_eq!(canonical_json(&json!(u64::MAX)), "18446744073709552000");
        assert_eq!(canonical_json(&json!(i64::MIN)), "-9223372036854776000");
        assert_eq!(canonical_json(&json!(-42)), "-42");
    }

    /// Made with `sha256sum`, not with this code.
    #[test]
    fn the_hash_is_over_the_fields_in_order() {
        let payload = canonical_json(&json!({"target": "bob", "reason": "spam"}));
        let entry = Entry {
            mesh: "m1",
            event: "member_banned",
            actor: Some("ada"),
            payload: &payload,
            at_ms: 1_700_000_000_000,
        };
        let first = entry.hash(GENESIS);
        assert_eq!(first, "0ea381e714ca252b72d94a663306a0a91021dc40debbddf3da07ac1c38837b61");
        let second = Entry { actor: None, event: "member_unbanned", ..entry };
        assert_eq!(second.hash(&first), "1668d5b4fef5abd2e35773184d8c001ed36d26fcf4552fce19944f8c91b07aab");
    }
}
