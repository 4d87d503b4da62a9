//! A websocket client that costs little: the load generator shares two cores with the broker it measures.
//!
//! Frames are built and read in place; the masking key is zero, which the protocol allows and which saves a pass over
//! every byte on this side (the server unmasks as always). Not for use against anything but our own servers.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The phase that ends [`Socket::drive`].
pub const END: u32 = u32::MAX;

/// Bytes that wait to be written, whole frames.
#[derive(Default)]
pub struct Out {
    bytes: BytesMut,
}

impl Out {
    /// Appends one text frame made of the parts.
    pub fn text(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        self.bytes.extend_from_slice(&[0x81]);
        match length {
            0..=125 => self.bytes.extend_from_slice(&[0x80 | length as u8]),
            126..=65_535 => {
                self.bytes.extend_from_slice(&[0x80 | 126]);
                self.bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                self.bytes.extend_from_slice(&[0x80 | 127]);
                self.bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(&[0; 4]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn close(&mut self) {
        self.bytes.extend_from_slice(&[0x88, 0x80, 0, 0, 0, 0]);
    }

    fn pong(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(&[0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
        self.bytes.extend_from_slice(payload);
    }
}

/// What a connection does with what arrives.
pub trait Peer {
    /// One text frame arrived. Answers go to `out`.
    fn frame(&mut self, text: &[u8], out: &mut Out);

    /// The connection's timer fired (see [`Socket::drive`]).
    fn tick(&mut self, _out: &mut Out) {}

    /// It wants no more frames for now; the rest stays for the next reader.
    fn full(&self) -> bool {
        false
    }

    /// The run entered this phase (see [`Socket::drive`]).
    fn phase(&mut self, _phase: u32, _out: &mut Out) {}
}

/// One connection.
pub struct Socket {
    stream: TcpStream,
    input: BytesMut,
    /// What waits to be written.
    pub out: Out,
}

impl Socket {
    /// Connects and upgrades to a websocket at `/ws`.
    ///
    /// # Errors
    /// No connection, or the server does not switch protocols.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut input = BytesMut::with_capacity(1024);
        let end = loop {
            if stream.read_buf(&mut input).await? == 0 {
                bail!("the server closed the connection during the upgrade");
            }
            if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !input.starts_with(b"HTTP/1.1 101") {
            bail!("no upgrade: {}", String::from_utf8_lossy(&input[..end.min(200)]));
        }
        input.advance(end);
        Ok(Self { stream, input, out: Out::default() })
    }

    /// Sends one frame and waits until the next one for which `wanted` is true; others are dropped.
    ///
    /// # Errors
    /// The connection closed.
    pub async fn call(&mut self, text: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        struct Waiting<F>(F, Option<Vec<u8>>);
        impl<F: Fn(&[u8]) -> bool> Peer for Waiting<F> {
            fn frame(&mut self, text: &[u8], _: &mut Out) {
                if self.1.is_none() && (self.0)(text) {
                    self.1 = Some(text.to_owned());
                }
            }

            fn full(&self) -> bool {
                self.1.is_some()
            }
        }
        self.out.text(&[text]);
        let mut waiting = Waiting(wanted, None);
        loop {
            self.flush()?;
            self.frames(&mut waiting)?;
            if let Some(found) = waiting.1 {
                return Ok(found);
            }
            self.turn(&mut waiting).await?;
        }
    }

    /// Says hello, waits for `hello_ack` and answers it.
    ///
    /// # Errors
    /// The connection closed or the broker refused.
    pub async fn hello(&mut self, hello: &str) -> Result<Vec<u8>> {
        let answer = self.call(hello.as_bytes(), |text| is(text, "hello_ack") || is(text, "error")).await?;
        if !is(&answer, "hello_ack") {
            bail!("the broker refused the hello: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// Serves the connection until the run's phase is [`END`]; tells the peer of every phase and of its timer.
    ///
    /// # Errors
    /// The connection closed or broke a rule of the protocol.
    pub async fn drive<P: Peer>(
        &mut self,
        peer: &mut P,
        mut timer: Option<tokio::time::Interval>,
        mut phases: watch::Receiver<u32>,
    ) -> Result<()> {
        self.frames(peer)?;
        loop {
            self.flush()?;
            tokio::select! {
                biased;
                changed = phases.changed() => {
                    let phase = *phases.borrow_and_update();
                    if changed.is_err() || phase == END {
                        return Ok(());
                    }
                    peer.phase(phase, &mut self.out);
                }
                _ = async { match &mut timer { Some(timer) => timer.tick().await, None => std::future::pending().await } } =>
                    peer.tick(&mut self.out),
                result = self.stream.ready(self.interest()) => {
                    if result?.is_readable() {
                        self.read(peer)?;
                    }
                }
            }
        }
    }

    /// Sends what waits and the close frame in one piece, and reads until the broker closes, too.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn leave(mut self) -> Result<()> {
        self.out.close();
        self.stream.write_all(&self.out.bytes).await?;
        while self.stream.read_buf(&mut self.input).await? > 0 {}
        Ok(())
    }

    async fn turn<P: Peer>(&mut self, peer: &mut P) -> Result<()> {
        if self.stream.ready(self.interest()).await?.is_readable() {
            self.read(peer)?;
        }
        Ok(())
    }

    fn interest(&self) -> tokio::io::Interest {
        if self.out.is_empty() {
            tokio::io::Interest::READABLE
        } else {
            tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE
        }
    }

    /// Writes as much as the kernel takes.
    fn flush(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out.bytes) {
                Ok(written) => self.out.bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read<P: Peer>(&mut self, peer: &mut P) -> Result<()> {
        self.input.reserve(16 * 1024);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => bail!("the connection closed"),
            Ok(_) => self.frames(peer)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if self.input.is_empty() {
            // Ten thousand idle connections should not keep ten thousand buffers.
            self.input = BytesMut::new();
        }
        Ok(())
    }

    fn frames<P: Peer>(&mut self, peer: &mut P) -> Result<()> {
        while let Some((opcode, start, length)) = header(&self.input) {
            if self.input.len() < start + length || peer.full() {
                break;
            }
            let payload = &self.input[start..start + length];
            match opcode {
                0x81 => peer.frame(payload, &mut self.out),
                0x89 => self.out.pong(payload),
                0x8a => {}
                0x88 => {
                    let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
                    bail!("closed by the broker: {code} {}", String::from_utf8_lossy(payload.get(2..).unwrap_or(b"")));
                }
                other => bail!("unexpected websocket opcode {other:#x}"),
            }
            self.input.advance(start + length);
        }
        Ok(())
    }
}

/// Opcode byte, offset and length of the payload, once the header is complete.
fn header(input: &[u8]) -> Option<(u8, usize, usize)> {
    let (opcode, length) = (*input.first()?, *input.get(1)? & 0x7f);
    match length {
        126 => Some((opcode, 4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)))),
        127 => Some((opcode, 10, usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?)),
        short => Some((opcode, 2, usize::from(short))),
    }
}

/// Whether the frame has this `type`. The broker writes `type` first.
pub fn is(text: &[u8], kind: &str) -> bool {
    text.strip_prefix(b"{\"type\":\"")
        .and_then(|rest| rest.strip_prefix(kind.as_bytes()))
        .is_some_and(|rest| rest.first() == Some(&b'"'))
}

/// The raw text of a string field, without unescaping: for ids and base64.
pub fn field<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut from = 0;
    loop {
        let quote = from + memchr::memmem::find(&text[from..], key.as_bytes())?;
        let after = quote + key.len();
        if quote > 0 && text[quote - 1] == b'"' && text[after..].starts_with(b"\":\"") {
            let value = &text[after + 3..];
            return Some(&value[..memchr::memchr(b'"', value)?]);
        }
        from = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_place() {
        let text = br#"{"type":"push","messageId":"m1","meshId":"x","ciphertext":"abc"}"#;
        assert!(is(text, "push"));
        assert!(!is(text, "pus"));
        assert_eq!(field(text, "messageId"), Some(&b"m1"[..]));
        assert_eq!(field(text, "ciphertext"), Some(&b"abc"[..]));
        assert_eq!(field(text, "absent"), None);
    }

    #[test]
    fn headers_of_all_lengths_are_read() {
        assert_eq!(header(&[0x81, 5]), Some((0x81, 2, 5)));
        assert_eq!(header(&[0x81, 126, 1, 0]), Some((0x81, 4, 256)));
        assert_eq!(header(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]), Some((0x81, 10, 65_536)));
        assert_eq!(header(&[0x81, 126, 1]), None);
    }
}
