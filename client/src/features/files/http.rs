//! The bytes of files over HTTP: PATCH up, GET down, by URLs that the broker gives for one file each (`docs/files.md`).

use std::io::{self, Read};
use std::time::Duration;

use claudemesh_protocol::error::{ErrorCode, HttpError};
use ureq::SendBody;
use ureq::http::{Response, StatusCode, header};

use crate::config::broker_http;
use crate::connection::Identity;

/// No byte for so long means that the connection is gone.
const STALL: Duration = Duration::from_secs(60);
/// The broker answers when the last part is on stable storage.
const ANSWER: Duration = Duration::from_secs(90);
const CONNECT: Duration = Duration::from_secs(15);
/// Longest answer with words.
const MAX_WORDS_BYTES: u64 = 64 << 10;

/// Why a transfer broke off.
#[derive(Debug)]
pub(super) enum Broken {
    /// The way to the broker; another try may go through.
    Network(String),
    /// The ticket of the URL is over, or the upload goes on at another place: ask for the state, then go on.
    Stale,
    /// The broker refuses, with a stable code.
    Refused {
        /// The code.
        code: String,
        /// For people.
        message: String,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
    /// Of this machine.
    Local(io::Error),
}

/// What the broker has after a PATCH.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Stored {
    /// Bytes on stable storage.
    pub(super) offset: u64,
    /// All are there.
    #[serde(default)]
    pub(super) complete: bool,
}

/// The broker's HTTP side, as this client reaches it.
pub(super) struct Http {
    base: String,
    agent: ureq::Agent,
}

impl Http {
    /// Of the broker of a connection. Of a mesh of this machine: of the process that serves it now.
    ///
    /// # Errors
    /// A sentence part about a proxy that cannot be used.
    pub(super) fn of(identity: &Identity) -> Result<Self, String> {
        let holder = identity.local.as_ref().and_then(|store| store.holder());
        let url = holder.map_or_else(|| identity.broker_url.clone(), |holder| holder.url);
        Self::at(broker_http(&url))
    }

    fn at(base: String) -> Result<Self, String> {
        Ok(Self { agent: crate::http::transfer_agent(&base, CONNECT, ANSWER, STALL)?, base })
    }

    /// The address of a file. The broker may be known to itself by another name, so path and query are put behind our own.
    fn url(&self, given: &str) -> Result<String, Broken> {
        let rest = given.split_once("://").map_or(given, |(_, rest)| rest);
        let path = rest.find('/').map(|at| &rest[at..]).filter(|path| !path.chars().any(char::is_control));
        // An address with a path of its own may be in front of the broker's, and part of what it gives.
        let authority = self.base.split_once("://").map_or(0, |(scheme, _)| scheme.len() + 3);
        let own_path = self.base[authority..].find('/').map_or("", |at| &self.base[authority + at..]);
        let behind = |path: &str| path.strip_prefix(own_path).filter(|rest| rest.starts_with('/')).map(str::to_owned);
        path.map(|path| format!("{}{}", self.base, behind(path).unwrap_or_else(|| path.to_owned()))).ok_or_else(|| {
            Broken::Refused {
                code: "unexpected_answer".into(),
                message: "the broker gave no usable address for the file".into(),
                retryable: false,
            }
        })
    }

    /// Sends `length` bytes of `body` to their place in an upload; `None`: as many as there are.
    ///
    /// # Errors
    /// [`Broken`]
    pub(super) fn patch(
        &self,
        url: &str,
        offset: u64,
        length: Option<u64>,
        is_last: bool,
        body: &mut dyn Read,
    ) -> Result<Stored, Broken> {
        let mut request = self
            .agent
            .patch(self.url(url)?)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header("upload-offset", offset);
        if is_last {
            request = request.header("upload-complete", "?1");
        }
        if let Some(length) = length {
            request = request.header(header::CONTENT_LENGTH, length);
        }
        let mut answer = request.send(SendBody::from_reader(body)).map_err(broken)?;
        match answer.status() {
            StatusCode::OK => {
                let text = words(&mut answer)?;
                serde_json::from_slice(&text)
                    .map_err(|error| Broken::Network(format!("an answer that is not understood: {error}")))
            }
            _ => Err(refusal(&mut answer)),
        }
    }

    /// Opens a file for reading from `from` on. Answers its bytes and where they begin.
    ///
    /// # Errors
    /// [`Broken`]
    pub(super) fn get(&self, url: &str, presigned: bool, from: u64) -> Result<(u64, impl Read + use<>), Broken> {
        let (agent, url) = match presigned {
            // The operator's store, not the broker.
            true => (Self::at(url.to_owned()).map_err(Broken::Network)?.agent, url.to_owned()),
            false => (self.agent.clone(), self.url(url)?),
        };
        let mut request = agent.get(url);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let mut answer = request.call().map_err(broken)?;
        let begins_at = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => range_start(&answer).filter(|at| *at == from).ok_or_else(|| {
                Broken::Network("the broker answered with another part of the file than was asked for".into())
            })?,
            _ => return Err(refusal(&mut answer)),
        };
        Ok((begins_at, answer.into_body().into_reader()))
    }
}

fn range_start(answer: &Response<ureq::Body>) -> Option<u64> {
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn words(answer: &mut Response<ureq::Body>) -> Result<Vec<u8>, Broken> {
    answer.body_mut().with_config().limit(MAX_WORDS_BYTES).read_to_vec().map_err(broken)
}

fn refusal(answer: &mut Response<ureq::Body>) -> Broken {
    let status = answer.status();
    let body = words(answer).unwrap_or_default();
    let error = serde_json::from_slice::<HttpError>(&body).ok();
    let code = error.as_ref().and_then(|error| ErrorCode::parse(&error.error));
    use ErrorCode::{Conflict, OffsetMismatch, Unauthorized, UploadIncomplete};
    match (code, status) {
        // Another place, another ticket, or a former connection of ours that had not ended yet.
        (Some(OffsetMismatch | Unauthorized | UploadIncomplete | Conflict), _) => Broken::Stale,
        (None, _) if status.is_server_error() => Broken::Network(format!("HTTP {status}")),
        (known, _) => Broken::Refused {
            code: error.as_ref().map_or_else(|| format!("http_{}", status.as_u16()), |error| error.error.clone()),
            message: error
                .and_then(|error| error.message)
                .or_else(|| known.map(|code| code.doc().to_owned()))
                .unwrap_or_else(|| format!("the broker answered HTTP {status}")),
            retryable: known.is_some_and(ErrorCode::retryable)
                || known == Some(ErrorCode::Limit) && status == StatusCode::TOO_MANY_REQUESTS,
        },
    }
}

/// An error of the transport.
fn broken(error: ureq::Error) -> Broken {
    match error {
        // What the file said that is being sent; see `Failing`.
        ureq::Error::Io(error) if error.get_ref().is_some_and(|cause| cause.is::<OfSource>()) => Broken::Local(error),
        other => Broken::Network(other.to_string()),
    }
}

/// An error of the file that is sent, to be told from one of the connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct OfSource(pub io::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_to_the_address_that_this_client_knows() {
        let http = Http::at("http://127.0.0.1:7900".into()).unwrap();
        let url = |given: &str| http.url(given).ok();
        let own = Some("http://127.0.0.1:7900/upload/x?mesh=m&ticket=t".to_owned());
        assert_eq!(url("http://mesh.example.org/upload/x?mesh=m&ticket=t"), own);
        assert_eq!(url("https://mesh.example.org:444/upload/x?mesh=m&ticket=t"), own);
        assert_eq!(url("/upload/x?mesh=m&ticket=t"), own);
        assert_eq!((url("http://mesh.example.org"), url("http://a/b\r\nc")), (None, None));
        let http = Http::at("https://h/mesh".into()).unwrap();
        for given in ["https://h/mesh/upload/x", "http://inside:1/upload/x"] {
            assert_eq!(http.url(given).ok(), Some("https://h/mesh/upload/x".into()), "{given}");
        }
    }
}
