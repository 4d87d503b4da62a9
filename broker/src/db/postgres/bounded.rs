//! A stream from a server that ends when one message of it is too large. The driver would take it into memory as a whole, and what
//! members ask for decides how large it is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// Bytes of one message of the server, which is one row at most: some times what an answer to a member holds.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Type and length.
const HEAD_BYTES: usize = 5;

/// Where the stream is within a message.
#[derive(Default)]
struct Place {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that were read.
    known: usize,
    /// Bytes of the body that follow.
    left: usize,
}

impl Place {
    /// Goes on over bytes that were read; `false` when a message is too large.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.left > 0 {
                let some = self.left.min(bytes.len());
                self.left -= some;
                bytes = &bytes[some..];
                continue;
            }
            self.head[self.known] = bytes[0];
            self.known += 1;
            bytes = &bytes[1..];
            if self.known == HEAD_BYTES {
                let [_, length @ ..] = self.head;
                // The length counts itself.
                self.left = (u32::from_be_bytes(length) as usize).saturating_sub(length.len());
                self.known = 0;
                if self.left > MAX_MESSAGE_BYTES {
                    return false;
                }
            }
        }
        true
    }
}

/// The stream.
pub(crate) struct Bounded<S> {
    inner: S,
    place: Place,
    too_large: Arc<AtomicBool>,
}

impl<S> Bounded<S> {
    /// Bounds a stream of the server's messages.
    pub(super) fn new(inner: S, too_large: &Arc<AtomicBool>) -> Self {
        Self { inner, place: Place::default(), too_large: Arc::clone(too_large) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if !self.place.take(&buf.filled()[before..]) {
            self.too_large.store(true, Ordering::Release);
            return Poll::Ready(Err(io::Error::other("a message of the server is too large")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Bounded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

/// TLS whose inside is bounded.
#[derive(Clone)]
pub(super) struct BoundedTls<T> {
    pub(super) tls: T,
    pub(super) too_large: Arc<AtomicBool>,
}

impl<S, T: MakeTlsConnect<S>> MakeTlsConnect<S> for BoundedTls<T>
where
    T::TlsConnect: TlsConnect<S>,
    <T::TlsConnect as TlsConnect<S>>::Future: Send + 'static,
{
    type Stream = Bounded<T::Stream>;
    type TlsConnect = BoundedTls<T::TlsConnect>;
    type Error = T::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, T::Error> {
        Ok(BoundedTls { tls: self.tls.make_tls_connect(domain)?, too_large: Arc::clone(&self.too_large) })
    }
}

impl<S, T: TlsConnect<S>> TlsConnect<S> for BoundedTls<T>
where
    T::Future: Send + 'static,
{
    type Stream = Bounded<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.tls.connect(stream);
        Box::pin(async move { Ok(Bounded::new(connecting.await?, &self.too_large)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32, body: usize) -> Vec<u8> {
        [&[b'D'][..], &length.to_be_bytes(), &vec![0; body]].concat()
    }

    #[test]
    fn a_message_is_measured_by_its_head_however_it_is_cut() {
        let stream = [message(4, 0), message(104, 100), message(4, 0), message(9, 5)].concat();
        for cut in 1..stream.len() {
            let mut place = Place::default();
            assert!(stream.chunks(cut).all(|bytes| place.take(bytes)), "{cut}");
            assert_eq!((place.known, place.left), (0, 0), "{cut}");
        }
        let most = u32::try_from(MAX_MESSAGE_BYTES).unwrap() + 4;
        assert!(Place::default().take(&message(most, 0)));
        assert!(!Place::default().take(&[message(4, 0), message(most + 1, 0)].concat()));
    }
}
