//! What headers of requests about files say. Pure.

use std::ops::Range;

use actix_web::http::header::{HeaderMap, RANGE};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::files::{FileKey, SECRETBOX, StartUpload};
use claudemesh_protocol::target::TargetField;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::check;
use super::receiving::Announced;
use crate::refusal::Refusal;

/// What stands as it is in the plain form of a file name in `Content-Disposition`.
const QUOTED: &AsciiSet = &CONTROLS.add(b'"').add(b'\\').add(b'%');

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What the headers of a part say.
pub(super) fn announced(headers: &HeaderMap) -> Result<Announced, Refusal> {
    let offset = header(headers, "upload-offset").and_then(|text| text.trim().parse().ok());
    let offset = offset.ok_or_else(|| check::invalid("`Upload-Offset`: expected a number of bytes"))?;
    let complete = match header(headers, "upload-complete") {
        None | Some("?0") => false,
        Some("?1") => true,
        Some(_) => return Err(check::invalid("`Upload-Complete`: expected `?0` or `?1`")),
    };
    Ok(Announced { offset, complete })
}

/// A header that has JSON.
fn json<T: DeserializeOwned + Default>(headers: &HeaderMap, name: &str) -> Result<T, Refusal> {
    match header(headers, name).filter(|text| !text.trim().is_empty()) {
        Some(text) => serde_json::from_str(text).map_err(|error| check::invalid(format!("`{name}`: {error}"))),
        None => Ok(T::default()),
    }
}

/// The targets of `X-Target-Spec`: one, or a JSON array.
fn targets(headers: &HeaderMap) -> Result<Option<TargetField>, Refusal> {
    match header(headers, "x-target-spec").map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) if text.starts_with('[') => Ok(Some(TargetField::Many(json(headers, "x-target-spec")?))),
        Some(text) => Ok(Some(TargetField::One(decoded(text)))),
        None => Ok(None),
    }
}

/// A text of a header, in which other characters than ASCII are percent-encoded.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Into::into)
}

/// What the headers of the existing system ask for.
pub(super) fn asked(headers: &HeaderMap, size: u64) -> Result<StartUpload, Refusal> {
    let encrypted = header(headers, "x-encrypted") == Some("true");
    let persistent = header(headers, "x-persistent") != Some("false");
    let seconds = header(headers, "x-expires-in").map(|text| text.trim().parse());
    let ttl_s = seconds.transpose().map_err(|_| check::invalid("`X-Expires-In`: expected a number of seconds"))?;
    let keys: Vec<FileKey> = if encrypted { json(headers, "x-file-keys")? } else { vec![] };
    let owned = |name: &str| header(headers, name).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(StartUpload {
        client_upload_id: uuid::Uuid::new_v4().to_string(),
        name: owned("x-file-name").map(|name| decoded(&name)),
        size,
        tags: json(headers, "x-tags")?,
        target_spec: targets(headers)?,
        persistent,
        ttl_s,
        content_type: owned("content-type"),
        encryption: encrypted.then(|| owned("x-content-format").unwrap_or_else(|| SECRETBOX.into())),
        sealed_meta: owned("x-sealed-meta"),
        keys,
        ..StartUpload::default()
    })
}

/// Bytes of a body whose length has to be known before.
pub(super) fn length(headers: &HeaderMap) -> Result<u64, Refusal> {
    match header(headers, "content-length").and_then(|text| text.parse().ok()) {
        Some(0) => Err(check::invalid("empty body")),
        Some(size) => Ok(size),
        None => Err(check::invalid("`Content-Length`: expected the number of bytes of the body")),
    }
}

/// The bytes that a request asks for; `None`: all of them.
///
/// # Errors
/// `invalid_range`.
pub(super) fn range(headers: &HeaderMap, size: u64, etag: &str) -> Result<Option<Range<u64>>, Refusal> {
    let Some(text) = headers.get(RANGE) else { return Ok(None) };
    // Part of another file would be worse than all of this one.
    if header(headers, "if-range").is_some_and(|wanted| wanted != etag) {
        return Ok(None);
    }
    let malformed =
        || Refusal::new(ErrorCode::InvalidRange, "expected one range: `bytes=A-B`, `bytes=A-` or `bytes=-N`");
    let outside = || Refusal::new(ErrorCode::InvalidRange, format!("the file has {size} bytes"));
    let text = text.to_str().map_err(|_| malformed())?;
    let (first, last) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(malformed)?;
    // `parse` takes a sign, which a range has not.
    let digits = |text: &str| -> Result<u64, Refusal> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        text.parse().map_err(|_| outside())
    };
    let range = match (first, last) {
        ("", last) => {
            let count = digits(last)?;
            if count == 0 {
                return Err(outside());
            }
            size.saturating_sub(count)..size
        }
        (first, "") => digits(first)?..size,
        (first, last) => {
            let (first, last) = (digits(first)?, digits(last)?);
            if last < first {
                return Err(malformed());
            }
            first..size.min(last.saturating_add(1))
        }
    };
    if range.is_empty() { Err(outside()) } else { Ok(Some(range)) }
}

/// `attachment` with a file name, for clients that know only ASCII and for those that know more.
pub(super) fn disposition(name: &str) -> String {
    let plain: String = name.chars().map(|symbol| if symbol.is_ascii() { symbol } else { '_' }).collect();
    let plain = utf8_percent_encode(&plain, QUOTED);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn one_range_is_read_and_everything_else_refused() {
        let asked = |text: &str| range(&headers(&[("range", text)]), 100, "\"e\"");
        assert_eq!(asked("bytes=0-0"), Ok(Some(0..1)));
        assert_eq!(asked("bytes=10-"), Ok(Some(10..100)));
        assert_eq!(asked("bytes=90-1000"), Ok(Some(90..100)));
        assert_eq!(asked("bytes=-10"), Ok(Some(90..100)));
        assert_eq!(asked("bytes=-1000"), Ok(Some(0..100)));
        for bad in [
            "bytes=5-4",
            "bytes=100-",
            "bytes=-0",
            "bytes=--5",
            "bytes=+1-2",
            "bytes=0-1,2-3",
            "bytes=0-1,0-1",
            "bytes=",
            "bytes=-",
            "lines=1-2",
            "bytes=a-b",
            "bytes= 1-2",
            "bytes=99999999999999999999999-",
        ] {
            assert_eq!(asked(bad).unwrap_err().code, ErrorCode::InvalidRange, "{bad}");
        }
        assert_eq!(range(&headers(&[]), 100, "\"e\""), Ok(None));
        let with = |etag: &str| range(&headers(&[("range", "bytes=0-0"), ("if-range", etag)]), 100, "\"e\"");
        assert_eq!((with("\"e\""), with("\"f\"")), (Ok(Some(0..1)), Ok(None)));
        assert!(range(&headers(&[("range", "bytes=0-")]), 0, "\"e\"").is_err(), "an empty file has no range");
    }

    #[test]
    fn names_in_headers_cannot_leave_their_quotes() {
        assert_eq!(disposition("a.txt"), "attachment; filename=\"a.txt\"; filename*=UTF-8''a%2Etxt");
        let odd = disposition("a\"; filename=\"b\\ü%.txt");
        assert_eq!(
            odd,
            "attachment; filename=\"a%22; filename=%22b%5C_%25.txt\"; \
             filename*=UTF-8''a%22%3B%20filename%3D%22b%5C%C3%BC%25%2Etxt"
        );
        assert!(HeaderValue::from_str(&disposition("\u{1f98a} x")).is_ok());
    }

    #[test]
    fn headers_of_a_part_say_where_it_belongs() {
        let of = |pairs: &[(&'static str, &str)]| announced(&headers(pairs));
        assert_eq!(of(&[("upload-offset", "7")]), Ok(Announced { offset: 7, complete: false }));
        let last = Announced { offset: 0, complete: true };
        assert_eq!(of(&[("upload-offset", "0"), ("upload-complete", "?1")]), Ok(last));
        for bad in [
            vec![],
            vec![("upload-offset", "-1")],
            vec![("upload-offset", "x")],
            vec![("upload-offset", "0"), ("upload-complete", "1")],
        ] {
            assert_eq!(of(&bad).unwrap_err().code, ErrorCode::InvalidArgs, "{bad:?}");
        }
    }

    #[test]
    fn headers_of_the_existing_system_are_read() {
        let keys = r#"[{"peerPubkey":"ab","sealedKey":"c2VhbA=="}]"#;
        let start = asked(
            &headers(&[
                ("x-file-name", "%C3%BCber.txt"),
                ("x-tags", r#"["t"]"#),
                ("x-persistent", "false"),
                ("x-target-spec", ""),
                ("x-encrypted", "true"),
                ("x-file-keys", keys),
                ("x-owner-pubkey", "cd"),
                ("content-type", "text/plain"),
            ]),
            5,
        )
        .unwrap();
        assert_eq!((start.name.as_deref(), start.size, start.persistent), (Some("über.txt"), 5, false));
        assert_eq!((start.encryption.as_deref(), start.keys.len(), start.target_spec), (Some(SECRETBOX), 1, None));
        let plain =
            asked(&headers(&[("x-file-name", "a"), ("x-file-keys", keys), ("x-target-spec", "Bob")]), 5).unwrap();
        assert_eq!((plain.persistent, plain.encryption, plain.keys.len()), (true, None, 0));
        assert_eq!(plain.target_spec, Some("Bob".into()));
        let many = asked(&headers(&[("x-file-name", "a"), ("x-target-spec", r#"["Bob","@qa"]"#)]), 5).unwrap();
        assert_eq!(many.target_spec.unwrap().parts().len(), 2);
        assert_eq!(asked(&headers(&[("x-tags", "t")]), 5).unwrap_err().code, ErrorCode::InvalidArgs);
        for bad in ["0", "x", ""] {
            assert_eq!(length(&headers(&[("content-length", bad)])).unwrap_err().code, ErrorCode::InvalidArgs);
        }
    }
}
