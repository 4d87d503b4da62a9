//! Who sends an HTTP request: signed headers, the operator token, and how often an address may try.
//!
//! A signature is checked over the raw body before anything reads it, and remembered once its signer turned out to be
//! allowed: only requests that can change something can fill the memory of seen signatures.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use claudemesh_protocol::crypto::http as signed_http;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::limits;
use claudemesh_protocol::time::skew_words;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use rand::RngCore;
use serde::de::DeserializeOwned;

use super::AppState;
use crate::db::{Db, DbError, meta};
use crate::refusal::Refusal;
use crate::session::bucket::Bucket;

/// Signatures remembered at once.
const MAX_SEEN: usize = 8_192;
/// Of them by one key: a script may make hundreds of invites, but one that floods is not to keep out all others.
const MAX_SEEN_PER_KEY: u32 = 2_048;
/// A signature is remembered this long: its timestamp is refused from both ends of this window on.
const SEEN_MS: i64 = 2 * limits::MAX_CLOCK_SKEW_MS;
/// A body must arrive within this time.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Addresses whose attempts are counted at once.
const MAX_ADDRESSES: usize = 16_384;
/// `broker_meta` key of the operator token's SHA-256.
const OPERATOR_TOKEN: &str = "operator_token_sha256";

/// A request body, read whole within [`limits::MAX_HTTP_BODY_BYTES`].
pub struct Body(Bytes);

impl Body {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// `bad_json` when it is no JSON, `invalid_args` naming the field that does not fit.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.0).map_err(|error| {
            let code = if error.is_data() { ErrorCode::InvalidArgs } else { ErrorCode::BadJson };
            Refusal::new(code, error.to_string())
        })
    }
}

impl FromRequest for Body {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Result<Self, Refusal>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move { read_body(payload).await.map(Self) })
    }
}

async fn read_body(mut payload: Payload) -> Result<Bytes, Refusal> {
    let whole = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Refusal::new(ErrorCode::BadJson, "the body broke off"))?;
            if body.len() + chunk.len() > limits::MAX_HTTP_BODY_BYTES {
                let message = format!("expected a body of at most {} bytes", limits::MAX_HTTP_BODY_BYTES);
                return Err(Refusal::new(ErrorCode::PayloadTooLarge, message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    actix_web::rt::time::timeout(BODY_DEADLINE, whole).await.unwrap_or_else(|_| Err(ErrorCode::Timeout.into()))
}

/// A request whose signature verifies. That its signer may do this is still to be checked, and so is
/// [`AuthState::accept`].
pub struct Signed {
    /// Who signed.
    pub key: PublicKey,
    body: Body,
    signature: [u8; 64],
    now_ms: i64,
}

impl Signed {
    /// The body as JSON.
    ///
    /// # Errors
    /// As [`Body::json`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        self.body.json()
    }
}

/// Key, time and signature of a request.
fn signature_headers(request: &HttpRequest) -> Result<[&str; 3], Refusal> {
    let headers = [signed_http::KEY_HEADER, signed_http::TIMESTAMP_HEADER, signed_http::SIGNATURE_HEADER]
        .map(|name| request.headers().get(name).and_then(|value| value.to_str().ok()));
    if let [Some(key), Some(timestamp), Some(signature)] = headers {
        return Ok([key, timestamp, signature]);
    }
    let message = "expected the headers X-Claudemesh-Key, X-Claudemesh-Timestamp and X-Claudemesh-Signature";
    Err(Refusal::new(ErrorCode::Unauthorized, message))
}

impl Signed {
    /// Checks a request whose body is read elsewhere, by the digest that stands in its place.
    ///
    /// # Errors
    /// As of a request with a body.
    pub fn over_digest(state: &AppState, request: &HttpRequest, digest: &str) -> Result<Self, Refusal> {
        Self::checked(state, request, digest, Body(Bytes::new()))
    }

    fn checked(state: &AppState, request: &HttpRequest, digest: &str, body: Body) -> Result<Self, Refusal> {
        let [key, timestamp, signature] = signature_headers(request)?;
        let path = request.uri().path_and_query().map_or(request.path(), |path| path.as_str());
        let now_ms = state.clock.now_ms();
        let method = request.method().as_str();
        let signer = signed_http::verify_over(key, timestamp, signature, method, path, digest, now_ms);
        let signer = signer.map_err(|code| match (code, timestamp.parse()) {
            (ErrorCode::TimestampSkew, Ok(theirs_ms)) => Refusal::new(code, skew_words(theirs_ms, now_ms)),
            _ => code.into(),
        })?;
        let mut raw = [0; 64];
        hex::decode_to_slice(signature, &mut raw).map_err(|_| ErrorCode::Malformed)?;
        Ok(Self { key: signer, body, signature: raw, now_ms })
    }
}

impl FromRequest for Signed {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let state = request
                .app_data::<web::Data<AppState>>()
                .ok_or_else(|| Refusal::new(ErrorCode::Internal, "the route has no state"))?;
            // Before the body is read: who sends no signature does not get to upload.
            signature_headers(&request)?;
            let body = read_body(payload).await?;
            Self::checked(state, &request, &signed_http::sha256_hex(&body), Body(body))
        })
    }
}

/// What the HTTP side remembers between requests. One per broker, shared by its workers.
#[derive(Default)]
pub struct AuthState {
    seen: Mutex<Seen>,
    attempts: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Default)]
struct Seen {
    signatures: HashSet<[u8; 64]>,
    order: VecDeque<(i64, [u8; 64], PublicKey)>,
    by_key: HashMap<PublicKey, u32>,
}

impl Seen {
    fn insert(&mut self, signature: [u8; 64], key: PublicKey, now_ms: i64) -> Result<(), ErrorCode> {
        while self.order.front().is_some_and(|(at, ..)| *at + SEEN_MS < now_ms)
            && let Some((_, oldest, signer)) = self.order.pop_front()
        {
            self.signatures.remove(&oldest);
            if let Some(count) = self.by_key.get_mut(&signer) {
                *count -= 1;
                if *count == 0 {
                    self.by_key.remove(&signer);
                }
            }
        }
        if self.signatures.contains(&signature) {
            return Err(ErrorCode::Replayed);
        }
        if self.by_key.get(&key).is_some_and(|count| *count >= MAX_SEEN_PER_KEY) {
            return Err(ErrorCode::RateLimited);
        }
        if self.order.len() >= MAX_SEEN {
            // Forgetting one early would let it be replayed.
            return Err(ErrorCode::Busy);
        }
        self.signatures.insert(signature);
        self.order.push_back((now_ms, signature, key));
        *self.by_key.entry(key).or_default() += 1;
        Ok(())
    }
}

impl AuthState {
    /// Accepts the request of an allowed signer, once.
    ///
    /// # Errors
    /// `replayed`; `rate_limited` when too many of this signer are remembered, `busy` when too many are at all.
    pub fn accept(&self, request: &Signed) -> Result<(), Refusal> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.insert(request.signature, request.key, request.now_ms) {
            // The oldest may take as long as that to be forgotten; usually the flood is over before.
            Err(ErrorCode::RateLimited) => Err(Refusal::limited(1_000)),
            done => done.map_err(Refusal::from),
        }
    }

    /// Counts one enrolment request of an address against `rate` a minute (0: no limit).
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn count_attempt(&self, address: IpAddr, rate: u32, mono_ms: i64) -> Result<(), Refusal> {
        const MINUTE_MS: i64 = 60_000;
        let mut buckets = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| !bucket.is_full(rate, MINUTE_MS, mono_ms));
            if buckets.len() >= MAX_ADDRESSES {
                return Err(ErrorCode::Busy.into());
            }
        }
        let bucket = buckets.entry(address).or_insert_with(|| Bucket::full(rate, mono_ms));
        bucket.take(rate, MINUTE_MS, rate, mono_ms).map_err(Refusal::limited)
    }
}

/// The address a request comes from. A proxy on this machine is believed about its client; an IPv6 host counts as its
/// /64, which one person usually has whole.
pub fn client_address(request: &HttpRequest) -> IpAddr {
    #[cfg(unix)]
    let here = request.conn_data::<crate::unix_socket::OverUnixSocket>().map(|_| IpAddr::V6(Ipv6Addr::LOCALHOST));
    #[cfg(not(unix))]
    let here = None;
    let peer = request.peer_addr().map(|peer| peer.ip()).or(here).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let forwarded = request.headers().get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let address = forwarded
        .filter(|_| peer.is_loopback())
        .and_then(|list| list.rsplit(',').next()?.trim().parse().ok())
        .unwrap_or(peer);
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        other => other,
    }
}

/// Makes a new operator token, which replaces the one before. Only its hash is stored.
///
/// # Errors
/// Storage fails.
pub async fn rotate_operator_token(db: &Db) -> Result<String, DbError> {
    let (token, hash) = random_token();
    meta::set(db, OPERATOR_TOKEN, &hash).await?;
    Ok(token)
}

/// Makes the operator token unless there is one; `None` when there is.
///
/// # Errors
/// Storage fails.
pub async fn first_operator_token(db: &Db) -> Result<Option<String>, DbError> {
    let (token, hash) = random_token();
    let stored = meta::get_or_set(db, OPERATOR_TOKEN, &hash).await?;
    Ok((stored == hash).then_some(token))
}

fn random_token() -> (String, String) {
    let mut secret = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut secret);
    let token = hex::encode(secret);
    let hash = signed_http::sha256_hex(token.as_bytes());
    (token, hash)
}

/// Requires the operator token in `Authorization: Bearer`.
///
/// # Errors
/// `unauthorized`, or storage.
pub async fn require_operator(db: &Db, request: &HttpRequest) -> Result<(), Refusal> {
    let stored = meta::get(db, OPERATOR_TOKEN).await?;
    let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let fits = match (stored, given) {
        (Some(stored), Some(given)) => {
            let given = signed_http::sha256_hex(given.as_bytes());
            subtle::ConstantTimeEq::ct_eq(stored.as_bytes(), given.as_bytes()).into()
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let message =
        "expected the operator token in `Authorization: Bearer`; `claudemesh-broker operator-token` makes one";
    Err(Refusal::new(ErrorCode::Unauthorized, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PublicKey::from_bytes(bytes)
    }

    fn signature(number: usize) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    #[test]
    fn a_signature_passes_once_and_is_forgotten_only_when_it_is_too_old_to_pass() {
        let mut seen = Seen::default();
        assert_eq!(seen.insert([1; 64], key(1), 0), Ok(()));
        assert_eq!(seen.insert([1; 64], key(1), 0), Err(ErrorCode::Replayed));
        assert_eq!(seen.insert([1; 64], key(1), SEEN_MS), Err(ErrorCode::Replayed));
        assert_eq!(seen.insert([2; 64], key(1), SEEN_MS + 1), Ok(()));
        assert_eq!((seen.order.len(), seen.by_key.len()), (1, 1));
    }

    #[test]
    fn a_full_memory_refuses_rather_than_forgets() {
        let mut seen = Seen::default();
        for number in 0..MAX_SEEN {
            assert_eq!(seen.insert(signature(number), key(number), 0), Ok(()));
        }
        assert_eq!(seen.insert([9; 64], key(MAX_SEEN), 1), Err(ErrorCode::Busy));
        assert_eq!(seen.insert([9; 64], key(MAX_SEEN), SEEN_MS + 1), Ok(()));
    }

    #[test]
    fn one_signer_does_not_fill_the_memory_of_all() {
        let mut seen = Seen::default();
        let passed = (0..MAX_SEEN).filter(|number| seen.insert(signature(*number), key(1), 0).is_ok()).count();
        assert_eq!(passed, MAX_SEEN_PER_KEY as usize);
        assert_eq!(seen.insert([8; 64], key(1), 1), Err(ErrorCode::RateLimited));
        assert_eq!(seen.insert([8; 64], key(2), 1), Ok(()));
        assert_eq!(seen.insert([9; 64], key(1), SEEN_MS + 1), Ok(()));
    }

    #[test]
    fn attempts_are_counted_per_address() {
        let auth = AuthState::default();
        let (one, two) = (IpAddr::from([1, 1, 1, 1]), IpAddr::from([2, 2, 2, 2]));
        for _ in 0..3 {
            auth.count_attempt(one, 3, 0).unwrap();
        }
        assert_eq!(auth.count_attempt(one, 3, 0).unwrap_err().code, ErrorCode::RateLimited);
        auth.count_attempt(two, 3, 0).unwrap();
        auth.count_attempt(one, 3, 20_001).unwrap();
        auth.count_attempt(one, 0, 0).unwrap();
    }

    #[test]
    fn only_a_local_proxy_is_believed_about_its_client() {
        let from = |peer: &str, forwarded: &str| {
            let request = actix_web::test::TestRequest::default()
                .peer_addr(peer.parse().unwrap())
                .insert_header(("x-forwarded-for", forwarded));
            client_address(&request.to_http_request()).to_string()
        };
        assert_eq!(from("203.0.113.9:1", "198.51.100.1"), "203.0.113.9");
        assert_eq!(from("127.0.0.1:1", "10.0.0.1, 198.51.100.1"), "198.51.100.1");
        assert_eq!(from("127.0.0.1:1", "nonsense"), "127.0.0.1");
        assert_eq!(from("[2001:db8::1:2:3:4]:1", ""), "2001:db8::");
    }
}
