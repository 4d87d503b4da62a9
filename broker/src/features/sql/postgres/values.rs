//! Values between JSON and PostgreSQL: parameters as text, which the server reads as whatever it expects; columns in the binary form
//! that the driver asks for.

use std::error::Error;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type};

use crate::features::sql::page::{as_bytes, bytes, real, whole};

type Trouble = Box<dyn Error + Sync + Send>;

/// Days between 1970 and 2000, where PostgreSQL's calendar begins.
const EPOCH_DAYS: i64 = 10_957;
const DAY_US: i64 = 86_400_000_000;

/// A parameter.
#[derive(Debug)]
pub(super) struct Param<'a>(pub &'a Value);

impl ToSql for Param<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Trouble> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::String(text) => out.extend_from_slice(text.as_bytes()),
            other => match as_bytes(other) {
                Some(bytes) => out.extend_from_slice(format!("\\x{}", hex::encode(bytes)).as_bytes()),
                None => out.extend_from_slice(other.to_string().as_bytes()),
            },
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Trouble> {
        self.to_sql(of, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }
}

/// The value of a column.
pub(super) struct Told(pub Value);

impl<'a> FromSql<'a> for Told {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Trouble> {
        read(of, raw).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Trouble> {
        Ok(Self(Value::Null))
    }

    fn accepts(of: &Type) -> bool {
        is_known(of)
    }
}

/// Whether values of a type can be told. Others are cast to text by the caller.
pub(super) fn is_known(of: &Type) -> bool {
    match of.kind() {
        Kind::Array(inner) | Kind::Domain(inner) => is_known(inner),
        Kind::Enum(_) => true,
        Kind::Pseudo => *of == Type::VOID,
        _ => [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::OID,
            Type::XID,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::NUMERIC,
            Type::TEXT,
            Type::VARCHAR,
            Type::BPCHAR,
            Type::NAME,
            Type::UNKNOWN,
            Type::CHAR,
            Type::XML,
            Type::BYTEA,
            Type::JSON,
            Type::JSONB,
            Type::UUID,
            Type::DATE,
            Type::TIME,
            Type::TIMESTAMP,
            Type::TIMESTAMPTZ,
            Type::INTERVAL,
        ]
        .contains(of),
    }
}

fn read(of: &Type, raw: &[u8]) -> Result<Value, Trouble> {
    match of.kind() {
        Kind::Array(inner) => return array(inner, raw),
        Kind::Domain(inner) => return read(inner, raw),
        Kind::Enum(_) => return text(raw),
        _ => {}
    }
    Ok(match *of {
        Type::BOOL => json!(number::<1>(raw)? != [0]),
        Type::INT2 => json!(i16::from_be_bytes(number(raw)?)),
        Type::INT4 => json!(i32::from_be_bytes(number(raw)?)),
        Type::OID | Type::XID => json!(u32::from_be_bytes(number(raw)?)),
        Type::INT8 => whole(i64::from_be_bytes(number(raw)?)),
        Type::FLOAT4 => float4(f32::from_be_bytes(number(raw)?)),
        Type::FLOAT8 => real(f64::from_be_bytes(number(raw)?)),
        Type::NUMERIC => json!(numeric(raw)?),
        Type::BYTEA => bytes(raw),
        Type::CHAR => json!(char::from(number::<1>(raw)?[0]).to_string()),
        Type::VOID => Value::Null,
        // A number in it that JSON's readers would round stays as it is written.
        Type::JSON => serde_json::from_slice(raw)?,
        Type::JSONB => serde_json::from_slice(raw.get(1..).ok_or("jsonb is empty")?)?,
        Type::UUID => json!(uuid::Uuid::from_slice(raw)?.to_string()),
        Type::DATE => json!(date(i64::from(i32::from_be_bytes(number(raw)?)))),
        Type::TIME => json!(time(i64::from_be_bytes(number(raw)?))),
        Type::TIMESTAMP => json!(timestamp(i64::from_be_bytes(number(raw)?), "")),
        Type::TIMESTAMPTZ => json!(timestamp(i64::from_be_bytes(number(raw)?), "+00")),
        Type::INTERVAL => json!(interval(raw)?),
        _ => text(raw)?,
    })
}

fn text(raw: &[u8]) -> Result<Value, Trouble> {
    Ok(json!(std::str::from_utf8(raw)?))
}

fn number<const N: usize>(raw: &[u8]) -> Result<[u8; N], Trouble> {
    raw.try_into().map_err(|_| "a value has another length than its type".into())
}

/// As short as it can be written: 0.1 and not what an `f64` makes of it.
fn float4(number: f32) -> Value {
    number.to_string().parse().map_or_else(|_| real(f64::from(number)), real)
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Trouble> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a value is shorter than it says")?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16, Trouble> {
        Ok(i16::from_be_bytes(number(self.take(2)?)?))
    }

    fn i32(&mut self) -> Result<i32, Trouble> {
        Ok(i32::from_be_bytes(number(self.take(4)?)?))
    }
}

/// Dimensions, a flag, the type, then for each dimension its length and first index, then the values.
fn array(inner: &Type, raw: &[u8]) -> Result<Value, Trouble> {
    let mut reader = Reader(raw);
    let (dimensions, _flag, _type) = (reader.i32()?, reader.i32()?, reader.i32()?);
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        lengths.push(usize::try_from(reader.i32()?)?);
        reader.i32()?;
    }
    if lengths.is_empty() {
        return Ok(json!([]));
    }
    nested(inner, &lengths, &mut reader)
}

fn nested(inner: &Type, lengths: &[usize], reader: &mut Reader<'_>) -> Result<Value, Trouble> {
    let Some((length, deeper)) = lengths.split_first() else {
        return match reader.i32()? {
            -1 => Ok(Value::Null),
            length => read(inner, reader.take(usize::try_from(length)?)?),
        };
    };
    (0..*length).map(|_| nested(inner, deeper, reader)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// Digits of four decimal places each, as `ndigits weight sign dscale`.
fn numeric(raw: &[u8]) -> Result<String, Trouble> {
    let mut reader = Reader(raw);
    let (count, weight, sign, scale) = (reader.i16()?, reader.i16()?, reader.i16()?, reader.i16()?);
    match sign as u16 {
        0xC000 => return Ok("NaN".into()),
        0xD000 => return Ok("Infinity".into()),
        0xF000 => return Ok("-Infinity".into()),
        _ => {}
    }
    let digits = (0..count).map(|_| reader.i16()).collect::<Result<Vec<_>, _>>()?;
    let digit = |place: i32| usize::try_from(place).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let mut text = String::new();
    let weight = i32::from(weight);
    for place in 0..=weight.max(0) {
        // Places before the first digit are zero.
        let digit = if weight < 0 { 0 } else { digit(place) };
        text += &if text.is_empty() { digit.to_string() } else { format!("{digit:04}") };
    }
    let mut fraction = String::new();
    let mut place = weight + 1;
    if weight < -1 {
        // Zeros between the point and the first digit.
        fraction = "0".repeat((usize::try_from(-weight - 1)?) * 4);
        place = 0;
    }
    let scale = usize::try_from(scale)?;
    while fraction.len() < scale {
        fraction += &format!("{:04}", digit(place));
        place += 1;
    }
    fraction.truncate(scale);
    let minus = if sign as u16 == 0x4000 { "-" } else { "" };
    Ok(if fraction.is_empty() { format!("{minus}{text}") } else { format!("{minus}{text}.{fraction}") })
}

/// Days since 2000 as the server writes them.
fn date(days: i64) -> String {
    match i32::try_from(days) {
        Ok(i32::MAX) => return "infinity".into(),
        Ok(i32::MIN) => return "-infinity".into(),
        _ => {}
    }
    let (year, month, day) = civil(days + EPOCH_DAYS);
    if year > 0 { format!("{year:04}-{month:02}-{day:02}") } else { format!("{:04}-{month:02}-{day:02} BC", 1 - year) }
}

/// Year, month and day of days since 1970: the proleptic Gregorian calendar, whose eras of 400 years all have the same length.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that a leap day is their last.
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn time(us: i64) -> String {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}").trim_end_matches('0').to_owned() }
}

fn timestamp(us: i64, zone: &str) -> String {
    match us {
        i64::MAX => return "infinity".into(),
        i64::MIN => return "-infinity".into(),
        _ => {}
    }
    let date = date(us.div_euclid(DAY_US));
    let (date, era) = date.strip_suffix(" BC").map_or((date.as_str(), ""), |date| (date, " BC"));
    format!("{date} {}{zone}{era}", time(us.rem_euclid(DAY_US)))
}

fn interval(raw: &[u8]) -> Result<String, Trouble> {
    let us = i64::from_be_bytes(number(raw.get(..8).ok_or("an interval is too short")?)?);
    let mut reader = Reader(&raw[8..]);
    let (days, months) = (reader.i32()?, reader.i32()?);
    let mut parts = Vec::new();
    for (count, one) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            parts.push(format!("{count} {one}{}", if count == 1 { "" } else { "s" }));
        }
    }
    if us != 0 || parts.is_empty() {
        parts.push(format!("{}{}", if us < 0 { "-" } else { "" }, time(us.abs())));
    }
    Ok(parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_that_of_the_server() {
        for (days, told) in [
            (0, "2000-01-01"),
            (59, "2000-02-29"),
            (-1, "1999-12-31"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
        ] {
            assert_eq!(date(days), told);
        }
        assert_eq!(timestamp(-1, ""), "1999-12-31 23:59:59.999999");
        assert_eq!(timestamp(1_500_000, "+00"), "2000-01-01 00:00:01.5+00");
    }

    #[test]
    fn a_value_that_is_cut_is_an_error_and_no_panic() {
        for of in [Type::INT4, Type::NUMERIC, Type::INT4_ARRAY, Type::INTERVAL, Type::JSONB, Type::UUID, Type::BOOL] {
            for length in [1, 3, 5, 7, 11] {
                let _ = read(&of, &vec![0xFF; length]);
            }
            assert!(read(&of, &[]).is_err(), "{of}");
        }
    }
}
