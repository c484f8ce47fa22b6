//! Serves a stand-in's router on a free loopback port, for as long as the stand-in lives.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A listening HTTP server. Dropping it closes the port and every connection without a request in flight.
pub(crate) struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// Binds a free port, asks `router` for the routes (they may need the address, which is why it is a function) and
    /// serves them from a task of the current runtime.
    pub(crate) async fn start(router: impl FnOnce(SocketAddr) -> axum::Router) -> anyhow::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free loopback port")?;
        let address = listener.local_addr().context("the bound port has no address")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router(address)).with_graceful_shutdown(async {
            // The sender is never used: its end is the signal.
            let _ = stopped.await;
        });
        tokio::spawn(serving.into_future());
        Ok(Server { address, _stop: stop })
    }

    /// `http://127.0.0.1:PORT`, without a final slash.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
