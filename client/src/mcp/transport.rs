//! The thin filter in front of the SDK's transport: answers `server/discover` before anything else looks at it.
//!
//! Hosts that probe for a newer revision ask `server/discover` first and fall back to `initialize` at once when the method is
//! not there. The SDK would judge the probe by its metadata and answer another error.

use std::borrow::Cow;

use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorCode, ErrorData, ServerJsonRpcMessage};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio_util::sync::CancellationToken;

/// A transport whose client cannot discover.
pub struct NoDiscovery<T> {
    inner: T,
    ended: CancellationToken,
}

impl<T> NoDiscovery<T> {
    /// Wraps a transport; `ended` is cancelled when the input ends. The SDK would wait for calls that are under way, and a
    /// call may wait for a peer.
    pub fn new(inner: T, ended: CancellationToken) -> Self {
        Self { inner, ended }
    }
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for NoDiscovery<T> {
    type Error = T::Error;

    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let Some(message) = self.inner.receive().await else {
                self.ended.cancel();
                return None;
            };
            match message {
                ClientJsonRpcMessage::Request(request)
                    if matches!(request.request, ClientRequest::DiscoverRequest(_)) =>
                {
                    let error = ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "server/discover", None);
                    // A client that cannot be answered is gone; the next read says so.
                    let _ = self.inner.send(ServerJsonRpcMessage::error(error, Some(request.id))).await;
                }
                message => return Some(message),
            }
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.inner.close()
    }
}
