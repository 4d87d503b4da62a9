//! The asking end, without an async runtime: hooks run inside the user's turn and must cost next to nothing.

use std::io::{self, BufRead, BufReader, Write};
use std::time::Duration;

use super::protocol::{MAX_LINE_BYTES, Reply, Request};
use super::registry::Record;

/// A line to the server of a session.
pub struct Line {
    #[cfg(unix)]
    stream: BufReader<std::os::unix::net::UnixStream>,
}

impl Line {
    /// Connects. A server that is there answers at once; the patience is for each later reply.
    ///
    /// # Errors
    /// What the system says; `Unsupported` where there are no Unix sockets.
    pub fn open(server: &Record, patience: Option<Duration>) -> io::Result<Self> {
        #[cfg(unix)]
        {
            let stream = std::os::unix::net::UnixStream::connect(&server.socket)?;
            stream.set_read_timeout(patience)?;
            stream.set_write_timeout(Some(patience.unwrap_or(Duration::from_secs(5))))?;
            Ok(Self { stream: BufReader::new(stream) })
        }
        #[cfg(not(unix))]
        {
            let _ = (server, patience);
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// A second handle on the same line, for a reply from another thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone(&self) -> io::Result<Self> {
        #[cfg(unix)]
        return Ok(Self { stream: BufReader::new(self.stream.get_ref().try_clone()?) });
        #[cfg(not(unix))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    /// Changes the patience for later replies; `None` waits for ever.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        #[cfg(unix)]
        return self.stream.get_ref().set_read_timeout(patience);
        #[cfg(not(unix))]
        {
            let _ = patience;
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Says something.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
        line.push(b'\n');
        #[cfg(unix)]
        return self.stream.get_mut().write_all(&line);
        #[cfg(not(unix))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    /// The next reply.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server is gone, `WouldBlock` or `TimedOut` after the patience, `InvalidData` for nonsense.
    pub fn receive(&mut self) -> io::Result<Reply> {
        #[cfg(unix)]
        {
            let mut line = Vec::new();
            let limit = MAX_LINE_BYTES as u64 + 1;
            io::Read::take(&mut self.stream, limit).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        #[cfg(not(unix))]
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Asks and hears.
    ///
    /// # Errors
    /// As [`Line::receive`].
    pub fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        self.send(request)?;
        self.receive()
    }
}
