//! The rest of a body that nobody reads. A server that answers and closes while the client still writes makes the
//! client's system throw the answer away; so before an error is answered, a bounded rest is read and dropped.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use http::header::EXPECT;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::limits::{DISCARD_BYTES_MAX, DISCARD_SECONDS_MAX};

/// A body that its handler may drop before its end. Clones share one body.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut Body) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}

/// What may be left of a request's body.
pub(super) struct Rest(Option<Shared>);

/// Keeps a hold on the body. Not on one that its client sends only when told to: there the answer comes first.
pub(super) fn watch(request: Request) -> (Request, Rest) {
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return (request, Rest(None));
    }
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    (Request::from_parts(parts, Body::new(shared.clone())), Rest(Some(shared)))
}

impl Rest {
    /// Reads and drops what is left, within a bounded size and time.
    pub(super) async fn discard(self) {
        let Some(mut body) = self.0 else { return };
        let read = async {
            let mut bytes = 0;
            while bytes <= DISCARD_BYTES_MAX {
                match body.frame().await {
                    Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) | None => return,
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(DISCARD_SECONDS_MAX), read).await.is_err() {
            tracing::debug!("the rest of a body did not come in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn endless() -> Body {
        Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 65_536]))))
    }

    #[tokio::test]
    async fn the_rest_is_read_within_bounds() {
        let (request, rest) = watch(Request::new(Body::from("hello")));
        drop(request);
        let shared = rest.0.clone().unwrap();
        rest.discard().await;
        assert!(shared.is_end_stream());
        let (request, rest) = watch(Request::new(endless()));
        drop(request);
        rest.discard().await;
    }

    #[tokio::test]
    async fn a_handler_still_reads_everything() {
        let (request, rest) = watch(Request::new(Body::from("hello")));
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "hello");
        rest.discard().await;
        let (_, none) = watch(Request::new(Body::empty()));
        assert!(none.0.is_none());
        let (_, none) =
            watch(Request::builder().header(EXPECT, "100-continue").body(Body::from("x")).unwrap());
        assert!(none.0.is_none());
    }
}
