//! Connections that are opened before they are needed.
//!
//! A client opens a connection when a request finds all others busy, and the request waits a round trip for it (with
//! TLS two or three). Where it is known that many requests come at once, as when every layer of an image is asked for,
//! the connections for them are opened while the answer before is still on its way. HTTP/2 needs one connection only,
//! so this is for servers that were seen to speak HTTP/1.1.
//!
//! How: a layer around the connector hands out connections that lie ready. They are put there by a second client, whose
//! requests are never sent: each is dropped as soon as it has made the connector begin, which goes on by itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::Url;

/// A connection that was not used for so long may be closed by its server at any moment, and is thrown away.
const FRESH: Duration = Duration::from_secs(5);
/// More than anybody needs at once.
const MOST: usize = 32;

/// Connections that lie ready, by where they lead.
type Ready<C> = Arc<Mutex<BTreeMap<String, Vec<(Instant, C)>>>>;

/// Hands out connections that lie ready, or lays them there.
pub(super) struct Ahead<C> {
    ready: Ready<C>,
    lays: bool,
}

impl<C> Ahead<C> {
    /// One that hands out, and one that lays ready what that hands out.
    pub(super) fn pair() -> (Self, Self) {
        let ready: Ready<C> = Arc::default();
        let lays = |lays| Ahead {
            ready: ready.clone(),
            lays,
        };
        (lays(false), lays(true))
    }
}

impl<C> Clone for Ahead<C> {
    fn clone(&self) -> Self {
        Ahead {
            ready: self.ready.clone(),
            lays: self.lays,
        }
    }
}

impl<S, C> Layer<S> for Ahead<C> {
    type Service = Connecting<S, C>;

    fn layer(&self, inner: S) -> Connecting<S, C> {
        Connecting {
            inner,
            ahead: self.clone(),
        }
    }
}

/// A connector with connections that lie ready.
pub(super) struct Connecting<S, C> {
    inner: S,
    ahead: Ahead<C>,
}

impl<S: Clone, C> Clone for Connecting<S, C> {
    fn clone(&self) -> Self {
        Connecting {
            inner: self.inner.clone(),
            ahead: self.ahead.clone(),
        }
    }
}

impl<S, C, Where> Service<Where> for Connecting<S, C>
where
    S: Service<Where, Response = C>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    C: Send + 'static,
    Where: Debug,
{
    type Response = C;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<C, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, to: Where) -> Self::Future {
        // Scheme and authority; the type says nothing else of where it leads.
        let place = format!("{to:?}");
        if !self.ahead.lays {
            return match take(&self.ahead.ready, &place) {
                Some(connection) => Box::pin(std::future::ready(Ok(connection))),
                None => Box::pin(self.inner.call(to)),
            };
        }
        let connecting = self.inner.call(to);
        let ready = self.ahead.ready.clone();
        tokio::spawn(async move {
            if let Ok(connection) = connecting.await {
                let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
                ready.entry(place).or_default().push((Instant::now(), connection));
            }
        });
        // Whoever asked for it is about to be dropped.
        Box::pin(std::future::pending())
    }
}

fn take<C>(ready: &Ready<C>, place: &str) -> Option<C> {
    let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
    let here = ready.get_mut(place)?;
    here.retain(|(since, _)| since.elapsed() < FRESH);
    here.pop().map(|(_, connection)| connection)
}

/// The client that lays connections ready, made when it is first needed.
pub(super) struct Opener {
    make: Box<dyn Fn() -> Option<reqwest::Client> + Send + Sync>,
    client: OnceLock<Option<reqwest::Client>>,
}

impl Opener {
    pub(super) fn new(make: impl Fn() -> Option<reqwest::Client> + Send + Sync + 'static) -> Self {
        Opener {
            make: Box::new(make),
            client: OnceLock::new(),
        }
    }

    /// Begins to open connections to a URL's host.
    pub(super) fn open(&self, url: &Url, count: usize) {
        let Some(client) = self.client.get_or_init(|| (self.make)()) else {
            return;
        };
        for _ in 0..count.min(MOST) {
            // One look is enough for the connector to be called; nothing is sent without a connection.
            let _ = client.get(url.clone()).send().now_or_never();
        }
    }
}

impl Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts what is opened.
    #[derive(Clone, Default)]
    struct Door(Arc<AtomicUsize>);

    impl Service<&'static str> for Door {
        type Response = usize;
        type Error = Infallible;
        type Future = std::future::Ready<Result<usize, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: &'static str) -> Self::Future {
            std::future::ready(Ok(self.0.fetch_add(1, Ordering::Relaxed)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_ready_is_handed_out_once_while_it_is_fresh_and_for_its_own_place() {
        let door = Door::default();
        let (hands, lays) = Ahead::pair();
        let (mut hands, mut lays) = (hands.layer(door.clone()), lays.layer(door.clone()));
        for _ in 0..3 {
            assert!(lays.call("here").now_or_never().is_none());
        }
        tokio::task::yield_now().await;
        assert_eq!(door.0.load(Ordering::Relaxed), 3);
        assert_eq!(
            hands.call("there").await.unwrap(),
            3,
            "opened, as nothing lies ready there"
        );
        assert!(hands.call("here").await.unwrap() < 3);
        assert!(hands.call("here").await.unwrap() < 3);
        tokio::time::advance(FRESH).await;
        assert_eq!(hands.call("here").await.unwrap(), 4, "the third has gone stale");
    }
}
