//! The listeners.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::Request;
use axum::serve::ListenerExt as _;
use axum::{ServiceExt, middleware};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::Layer as _;

use super::{edge, router};
use crate::app::App;
use crate::limits::DRAIN_SECONDS_MAX;

/// Bound sockets; nothing is answered yet.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Binds every address.
    ///
    /// # Errors
    /// When one is taken or not allowed.
    pub async fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for address in addresses {
            all.push(
                TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?,
            );
        }
        Ok(Self(all))
    }

    /// The addresses in use, with the ports that the system chose.
    ///
    /// # Errors
    /// When the system doesn't say.
    pub fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        self.0.iter().map(|listener| Ok(listener.local_addr()?)).collect()
    }

    /// Answers requests until the app stops; then takes no new ones, and waits a bounded time for those under way.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn serve(self, app: App) -> anyhow::Result<()> {
        let stop = app.stop.clone();
        let service = middleware::from_fn_with_state(app.clone(), edge::edge).layer(router(app));
        let mut servers = JoinSet::new();
        for listener in self.0 {
            // Answers are small and awaited: never hold them back to fill a packet.
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
            });
            let service = service.clone();
            let make = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
            let stop = stop.clone();
            servers.spawn(async move {
                axum::serve(listener, make).with_graceful_shutdown(stop.cancelled_owned()).await
            });
        }
        let drained = async {
            while let Some(ended) = servers.join_next().await {
                ended.context("a listener panicked")?.context("a listener failed")?;
            }
            anyhow::Ok(())
        };
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(DRAIN_SECONDS_MAX)).await;
        };
        tokio::select! {
            ended = drained => ended,
            () = too_late => {
                tracing::warn!("stopped with requests under way");
                Ok(())
            }
        }
    }
}
