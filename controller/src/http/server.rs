//! The listeners.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::middleware;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use signet_common::tls::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Layer as _, Service, ServiceExt as _};

use super::{edge, router};
use crate::app::App;
use crate::limits::{ACCEPT_PAUSE_MILLISECONDS, CONNECTIONS_MAX, DRAIN_SECONDS_MAX, HEADER_SECONDS_MAX};
use crate::tls::Certificate;

/// How long a client may take to ask, from the connection or its last answer on.
const HEADER_TIME_MAX: Duration = Duration::from_secs(HEADER_SECONDS_MAX);
/// How long nothing is taken after a connection could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(ACCEPT_PAUSE_MILLISECONDS);

/// Bound sockets; nothing is answered yet.
pub struct Listeners {
    sockets: Vec<TcpListener>,
    /// What they show; without it they speak plain HTTP.
    certificate: Option<Arc<Certificate>>,
}

impl Listeners {
    /// Binds every address, for HTTPS when there is a certificate.
    ///
    /// # Errors
    /// When one is taken or not allowed, or the certificate can't be used.
    pub async fn bind(addresses: &[SocketAddr], tls: Option<&Identity>) -> anyhow::Result<Self> {
        let certificate = tls.cloned().map(Certificate::load).transpose().context("SIGNET_TLS_CERT")?;
        let mut sockets = Vec::new();
        for address in addresses {
            sockets.push(
                TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?,
            );
        }
        Ok(Self { sockets, certificate: certificate.map(Arc::new) })
    }

    /// The addresses in use, with the ports that the system chose.
    ///
    /// # Errors
    /// When the system doesn't say.
    pub fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(|listener| Ok(listener.local_addr()?)).collect()
    }

    /// Answers requests until the app stops; then takes no new ones, and waits a bounded time for those under way.
    ///
    /// # Errors
    /// When a listener's task fails.
    pub async fn serve(self, app: App) -> anyhow::Result<()> {
        let stop = app.stop.clone();
        let service = middleware::from_fn_with_state(app.clone(), edge::edge).layer(router(app));
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        let mut listeners = JoinSet::new();
        if let Some(certificate) = &self.certificate {
            listeners.spawn(certificate.clone().follow(stop.clone()));
        }
        for listener in self.sockets {
            listeners.spawn(accept(
                listener,
                self.certificate.clone(),
                service.clone(),
                room.clone(),
                connections.clone(),
                stop.clone(),
            ));
        }
        while let Some(ended) = listeners.join_next().await {
            ended.context("a listener panicked")?;
        }
        connections.close();
        let drain = Duration::from_secs(DRAIN_SECONDS_MAX);
        if tokio::time::timeout(drain, connections.wait()).await.is_err() {
            tracing::warn!("stopped with requests under way");
        }
        Ok(())
    }
}

/// Takes connections while there is room for them; who comes then waits in the system's own queue.
async fn accept<S>(
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    service: S,
    room: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let next = async || {
        let place = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        listener.accept().await.map(|accepted| (accepted, place))
    };
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => return,
            taken = next() => taken,
        };
        match taken {
            Ok(((stream, peer), place)) => {
                let (certificate, service, stop) = (certificate.clone(), service.clone(), stop.clone());
                connections.spawn(async move {
                    // Answers are small and awaited: never hold them back to fill a packet.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    match certificate {
                        None => answer(stream, peer, service, stop, HEADER_TIME_MAX).await,
                        Some(certificate) => {
                            if let Some(stream) = certificate.accept(stream, peer).await {
                                answer(stream, peer, service, stop, HEADER_TIME_MAX).await;
                            }
                        }
                    }
                    drop(place);
                });
            }
            // Most likely no file descriptor is left: without a pause this would be a busy loop.
            Err(error) => {
                tracing::warn!(%error, "a connection was not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection, one after the other.
async fn answer<I, S>(stream: I, peer: SocketAddr, service: S, stop: CancellationToken, header: Duration)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        service.clone().oneshot(request.map(Body::new))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// Serves one connection of a client that says this, and gives what it hears until the end.
    async fn heard(says: &[u8], header: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let router = axum::Router::new().fallback(async || "hello");
        let served = tokio::spawn(answer(stream, peer, router, CancellationToken::new(), header));
        client.write_all(says).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(Duration::from_secs(10), client.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        served.await.unwrap();
        text
    }

    #[tokio::test]
    async fn who_never_ends_a_header_is_hung_up_on() {
        let soon = Duration::from_millis(50);
        for unfinished in ["", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: "] {
            assert!(!heard(unfinished.as_bytes(), soon).await.contains("hello"));
        }
        let whole = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(heard(whole.as_bytes(), soon).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn no_more_connections_than_there_is_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        let router = axum::Router::new().fallback(async || "hello");
        let room = Arc::new(Semaphore::new(1));
        let accepting = tokio::spawn(accept(listener, None, router, room, connections.clone(), stop.clone()));
        let ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(ask).await.unwrap();
        let mut byte = [0];
        first.read_exact(&mut byte).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(ask).await.unwrap();
        assert_eq!(connections.len(), 1, "the second one waits");
        drop(first);
        second.read_exact(&mut byte).await.unwrap();
        stop.cancel();
        accepting.await.unwrap();
    }
}
