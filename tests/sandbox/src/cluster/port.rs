//! Ports for servers that have to be told theirs.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::TcpSocket;

/// A free loopback port that is kept free for one server.
///
/// The socket is bound and never listens: the kernel gives its port to nobody who asks for any, and lets a server have it
/// that asks for this one and, as Go's do, allows addresses to be reused (`SO_REUSEADDR`, socket(7)).
pub(super) struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    pub(super) fn reserve() -> Result<Self> {
        let socket = TcpSocket::new_v4().context("making a socket")?;
        socket.set_reuseaddr(true)?;
        socket
            .bind((Ipv4Addr::LOCALHOST, 0).into())
            .context("no free loopback port")?;
        Ok(Self {
            address: socket.local_addr()?,
            _held: socket,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn number(&self) -> String {
        self.address.port().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn whoever_asks_for_the_port_gets_it_and_whoever_asks_for_any_does_not() {
        let port = Port::reserve().unwrap();
        // The standard library allows addresses to be reused, as Go does.
        let others: Vec<TcpListener> = (0..50)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        assert!(
            others
                .iter()
                .all(|other| other.local_addr().unwrap() != port.address())
        );
        let server = TcpListener::bind(port.address()).unwrap();
        assert_eq!(server.local_addr().unwrap(), port.address());
    }
}
