//! A TCP proxy that breaks connections on command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does to connections, old and new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Forwards.
    Pass,
    /// Resets every connection, also new ones, at once.
    Refuse,
    /// Keeps connections open and forwards nothing in either direction until the fault ends; then all of it arrives.
    Stall,
    /// Swallows what the server says, as if its packets got lost on the way back.
    SwallowReplies,
    /// Closes the server's side and leaves the client in the belief that it is connected.
    HalfOpen,
}

/// A proxy in front of one server on a port of its own; stops when dropped.
#[derive(Debug)]
pub struct ChaosProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    /// Counted up to cut what is open now.
    cuts: watch::Sender<u64>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

/// What each connection's task knows.
#[derive(Clone)]
struct Orders {
    fault: watch::Receiver<Fault>,
    cuts: watch::Receiver<u64>,
}

impl ChaosProxy {
    /// Listens on 127.0.0.1 and forwards to `target` (`host:port`).
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(target: impl Into<String>) -> Self {
        let target = target.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let (fault, cuts) = (watch::Sender::new(Fault::Pass), watch::Sender::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let orders = Orders { fault: fault.subscribe(), cuts: cuts.subscribe() };
        let accepting = tokio::spawn(accept(listener, target, orders, open.clone()));
        Self { address, fault, cuts, open, accepting }
    }

    /// Stands in front of the server of a URL (`amqp://user@host:port/…`); gives the proxy and the URL through it.
    ///
    /// # Panics
    /// When the URL has no port.
    pub async fn in_front_of(url: &str) -> (Self, String) {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, server) = authority.rsplit_once('@').map_or(("", authority), |(u, s)| (u, s));
        assert!(server.contains(':'), "{url} names no port");
        let proxy = Self::start(server).await;
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let url = format!("{scheme}://{user}{}/{path}", proxy.address);
        (proxy, url)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens to connections from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Resets the connections that are open now; new ones are treated as the fault says.
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    /// How many connections are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, target: String, orders: Orders, open: Arc<AtomicUsize>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, most likely; the next connection may fare better.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // What was cut before this connection is not its business.
        let mut orders = orders.clone();
        orders.cuts.mark_unchanged();
        let (target, open) = (target.clone(), open.clone());
        tokio::spawn(async move {
            open.fetch_add(1, Ordering::SeqCst);
            serve(client, &target, orders).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(client: TcpStream, target: &str, mut orders: Orders) {
    // Dropping a socket without lingering resets it, so the other side learns of it at once.
    let abrupt = |socket: &TcpStream| socket.set_zero_linger().is_ok() && socket.set_nodelay(true).is_ok();
    if *orders.fault.borrow_and_update() == Fault::Refuse || !abrupt(&client) {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    if !abrupt(&server) {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut up = tokio::spawn(forward(from_client, to_server, orders.fault.clone(), Fault::Stall));
    let mut down = tokio::spawn(forward(from_server, to_client, orders.fault.clone(), Fault::SwallowReplies));
    let refused = async { orders.fault.wait_for(|f| *f == Fault::Refuse).await.map(drop) };
    tokio::select! {
        _ = &mut up => {}
        _ = &mut down => {}
        _ = orders.cuts.changed() => {}
        _ = refused => {}
    }
    up.abort();
    down.abort();
}

/// Forwards one direction. `swallow` is the fault under which this direction loses what it reads.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    swallow: Fault,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(_) = fault.wait_for(|f| *f != Fault::Stall).await else { return };
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = fault.changed() => {
                if *fault.borrow() == Fault::HalfOpen {
                    return half_open(from, to, fault, swallow).await;
                }
                continue;
            }
        };
        let Ok(length @ 1..) = read else { return };
        let Ok(now) = fault.wait_for(|f| *f != Fault::Stall).await.map(|f| *f) else { return };
        if now == Fault::SwallowReplies && swallow == Fault::SwallowReplies {
            continue;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// The server's side is closed while the client's stays open, mute, until the fault ends.
async fn half_open(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    direction: Fault,
) {
    // Towards the server only the writing half is ours to close; its reading half goes with the other direction.
    let _client_side: (Option<OwnedReadHalf>, Option<OwnedWriteHalf>) =
        if direction == Fault::SwallowReplies { (None, Some(to)) } else { (Some(from), None) };
    if fault.wait_for(|f| *f != Fault::HalfOpen).await.is_err() {
        // The proxy is gone, and the connection with it.
    }
}
