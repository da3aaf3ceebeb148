//! One connection to the broker.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio_util::sync::CancellationToken;

use super::error::on_connect;
use crate::bus::BusError;
use crate::limits::{CONNECT_SECONDS_MAX, DISCONNECT_SECONDS_MAX};

/// A connection that is open, or was.
pub(super) struct Link {
    connection: Connection,
    socket: Socket,
    /// Cancelled when the connection is of no use any more; then everything made from it is dropped.
    broken: CancellationToken,
}

/// The connection's socket, kept to be able to end it: lapin waits for the broker's answer to its goodbye, and a
/// broker that hangs never gives it.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<std::net::TcpStream>>>);

impl Socket {
    fn keep(&self, stream: &impl AsFd) -> std::io::Result<()> {
        let copy = stream.as_fd().try_clone_to_owned()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy.into());
        Ok(())
    }

    fn end(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
            && let Err(error) = stream.shutdown(Shutdown::Both)
        {
            // Ended already, most likely by the other side.
            tracing::trace!(%error, "the broker's socket was closed before");
        }
    }
}

/// Ends the socket of an attempt that is given up.
struct Attempt(Socket, bool);

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.1 {
            self.0.end();
        }
    }
}

impl Link {
    /// Connects, within a bounded time.
    pub(super) async fn open(
        uri: AMQPUri,
        name: &str,
        tls: &OwnedTLSConfig,
        broken: CancellationToken,
    ) -> Result<Self, BusError> {
        let late = |_| BusError::Down(format!("no answer within {CONNECT_SECONDS_MAX} s"));
        let mut attempt = Attempt(Socket::default(), false);
        let connect = Self::connect(uri, name, tls.clone(), attempt.0.clone());
        let connected = tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS_MAX), connect).await;
        let connection = connected.map_err(late)?.map_err(|e| on_connect(&e))?;
        attempt.1 = true;
        Ok(Self { connection, socket: attempt.0.clone(), broken })
    }

    async fn connect(
        uri: AMQPUri,
        name: &str,
        tls: OwnedTLSConfig,
        socket: Socket,
    ) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime()?;
        Connection::connector(
            uri,
            runtime,
            async move |uri, runtime| {
                let host = uri.authority.host;
                let addresses = runtime.to_socket_addrs((host.clone(), uri.authority.port));
                // Without delay for small frames; the runtime sees to that.
                let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    socket.keep(plain.get_ref())?;
                }
                Ok(match uri.scheme {
                    AMQPScheme::AMQP => stream,
                    AMQPScheme::AMQPS => stream.into_tls(&host, tls.as_ref()).await?,
                })
            },
            properties,
        )
        .await
    }

    pub(super) async fn open_channel(&self) -> Result<Channel, BusError> {
        self.connection.create_channel().await.map_err(|e| self.fault(&e))
    }

    /// Whether the broker takes no publishes from this connection.
    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Looks whether the connection still stands, and ends it for everybody when it doesn't.
    pub(super) fn check(&self) -> bool {
        let stands = self.connection.status().connected();
        if !stands {
            self.broken.cancel();
        }
        stands
    }

    /// What an error that concerns no queue means.
    pub(super) fn fault(&self, error: &lapin::Error) -> BusError {
        self.check();
        BusError::Down(error.to_string())
    }

    /// Gives the connection up, for example because a confirm never came.
    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }

    pub(super) fn broken(&self) -> &CancellationToken {
        &self.broken
    }

    /// Says goodbye, for a bounded time.
    pub(super) async fn close(&self) {
        let goodbye = self.connection.close(200, "OK".into());
        match tokio::time::timeout(Duration::from_secs(DISCONNECT_SECONDS_MAX), goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::trace!(%error, "the connection was closed before"),
            Err(_) => tracing::debug!("the broker did not answer the goodbye"),
        }
        // A consumer that is still in somebody's hands would keep it open.
        self.socket.end();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.end();
    }
}
