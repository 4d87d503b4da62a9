//! One signed HTTP request to a broker, and its answer as a value or as an error with a hint.

use std::time::Duration;

use claudemesh_protocol::crypto::http as signed_http;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::error::HttpError;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CliError, ExitCode};
use crate::http;

/// Longest exchange with a broker.
const LIMIT: Duration = Duration::from_secs(15);

/// A request to a broker's HTTP routes.
pub(crate) struct Call<'a> {
    /// `http(s)://host:port`, no slash at the end.
    pub(crate) base: &'a str,
    /// From the slash on.
    pub(crate) path: &'a str,
    /// Signs the request.
    pub(crate) key: Option<&'a SecretKey>,
    /// The operator's token.
    pub(crate) bearer: Option<&'a str>,
}

impl Call<'_> {
    pub(crate) fn get<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        let mut request = self.agent()?.get(self.url());
        for (name, value) in self.headers("GET", b"") {
            request = request.header(name, value);
        }
        self.read(request.call())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, body: &impl Serialize) -> Result<T, CliError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CliError::internal(format!("The request cannot be written: {error}.")))?;
        let mut request = self.agent()?.post(self.url()).header("content-type", "application/json");
        for (name, value) in self.headers("POST", &body) {
            request = request.header(name, value);
        }
        self.read(request.send(&body[..]))
    }

    pub(crate) fn patch<T: DeserializeOwned>(&self, body: &impl Serialize) -> Result<T, CliError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CliError::internal(format!("The request cannot be written: {error}.")))?;
        let mut request = self.agent()?.patch(self.url()).header("content-type", "application/json");
        for (name, value) in self.headers("PATCH", &body) {
            request = request.header(name, value);
        }
        self.read(request.send(&body[..]))
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        let mut request = self.agent()?.delete(self.url());
        for (name, value) in self.headers("DELETE", b"") {
            request = request.header(name, value);
        }
        self.read(request.call())
    }

    fn agent(&self) -> Result<ureq::Agent, CliError> {
        http::agent(self.base, LIMIT).map_err(|error| {
            CliError::network(format!("The broker at {} cannot be reached: {error}.", self.base))
                .hint("Correct the variable, or name the broker's host in NO_PROXY.")
        })
    }

    fn url(&self) -> String {
        format!("{}{}", self.base, self.path)
    }

    fn headers(&self, method: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if let Some(key) = self.key {
            headers.extend(signed_http::headers(key, method, self.path, body, crate::clock::now_ms()));
        }
        if let Some(token) = self.bearer {
            headers.push(("authorization", format!("Bearer {token}")));
        }
        headers
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, CliError> {
        let mut answer = answer.map_err(|error| {
            let way = crate::proxy::words(self.base);
            CliError::network(format!("The broker at {} cannot be reached{way}: {error}.", self.base))
                .hint("Check the address and that the broker runs.")
        })?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(4 << 20).read_to_vec();
        let body =
            body.map_err(|error| CliError::network(format!("The answer of {} broke off: {error}.", self.base)))?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|error| {
                let message = format!("{} does not answer like a claudemesh broker: {error}.", self.base);
                CliError::new(ExitCode::Network, "unexpected_answer", message)
            });
        }
        Err(self.refusal(status, &body))
    }

    fn refusal(&self, status: u16, body: &[u8]) -> CliError {
        let Ok(error) = serde_json::from_slice::<HttpError>(body) else {
            let message = format!("{} answered HTTP {status} to {}.", self.base, self.path);
            return CliError::new(ExitCode::Network, "unexpected_answer", message)
                .hint("Is it a claudemesh broker, and is the address right?");
        };
        let code = ErrorCode::parse(&error.error);
        let message = error.message.or_else(|| code.map(|code| code.doc().to_owned()));
        let message = message.unwrap_or_else(|| format!("The broker answered {}", error.error));
        let mut frame = ErrorFrame::new(code.unwrap_or(ErrorCode::Invalid), message);
        frame.code = error.error;
        frame.retry_after_ms = error.retry_after_ms;
        let cli = CliError::from(frame);
        match code {
            Some(ErrorCode::AlreadyExists) => cli.hint("Choose another short name."),
            _ => cli,
        }
    }
}
