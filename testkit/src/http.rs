//! A small HTTP client for what tests do and ordinary clients hide: requests that break off, that are slow, and answers that are
//! read piece by piece.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header, the empty text when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Status and `error` of a failure.
    pub fn failure(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// A request under way. Dropping it breaks it off.
pub struct Exchange {
    stream: TcpStream,
    head: bool,
}

/// Sends the head of a request to `http://host:port/path`.
///
/// # Errors
/// The server cannot be reached.
pub async fn begin(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Exchange> {
    let rest = url.strip_prefix("http://").context("expected an http:// URL")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).await.with_context(|| format!("connecting to {host}"))?;
    let mut text = format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await?;
    Ok(Exchange { stream, head: method == "HEAD" })
}

/// A whole request with its answer.
///
/// # Errors
/// The server cannot be reached, or its answer cannot be read.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply> {
    let length = body.len().to_string();
    let mut all = headers.to_vec();
    if !body.is_empty() || method == "PATCH" || method == "POST" {
        all.push(("content-length", &length));
    }
    let mut exchange = begin(method, url, &all).await?;
    exchange.write(body).await.ok();
    exchange.reply().await
}

impl Exchange {
    /// Sends a piece of the body.
    ///
    /// # Errors
    /// The server has closed the connection.
    pub async fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.stream.write_all(piece).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads the head of the answer, and what came with it of the body.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn head(&mut self) -> Result<Reply> {
        let mut text = Vec::new();
        let end = loop {
            if let Some(end) = text.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            let mut piece = [0; 4_096];
            let count = self.stream.read(&mut piece).await?;
            ensure!(count > 0, "the connection ended in the head of the answer");
            text.extend_from_slice(&piece[..count]);
        };
        let body = text.split_off(end + 4);
        let text = String::from_utf8(text)?;
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_lowercase(), value.trim().to_owned()))
        };
        Ok(Reply { status: status.parse()?, headers: lines.filter_map(header).collect(), body })
    }

    /// Reads a piece of the body; nothing at its end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn piece(&mut self) -> Result<Vec<u8>> {
        let mut piece = vec![0; 65_536];
        let count = self.stream.read(&mut piece).await?;
        piece.truncate(count);
        Ok(piece)
    }

    /// The whole answer.
    ///
    /// # Errors
    /// It is shorter than it says, or it cannot be read.
    pub async fn reply(mut self) -> Result<Reply> {
        let mut reply = self.head().await?;
        if self.head {
            return Ok(reply);
        }
        loop {
            let piece = self.piece().await?;
            if piece.is_empty() {
                break;
            }
            reply.body.extend_from_slice(&piece);
        }
        if let Some(length) = reply.headers.get("content-length") {
            let length: usize = length.parse()?;
            ensure!(reply.body.len() == length, "{} bytes of {length} came", reply.body.len());
        } else if reply.header("transfer-encoding") == "chunked" {
            reply.body = unchunked(&reply.body)?;
        }
        Ok(reply)
    }
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") else { bail!("a chunk without its size") };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        rest = rest.get(end + 2..).context("a chunk")?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).context("a whole chunk")?);
        rest = rest.get(size + 2..).context("the end of a chunk")?;
    }
}
