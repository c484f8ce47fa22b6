//! A line of a certain length between a client and a server: what goes through comes out later, and nothing else changes.
//!
//! Bytes wait in a queue until their time has come, so the line delays without narrowing: what is sent at once arrives
//! at once. A connection counts as open one round trip after the client asked for it, as TCP's handshake takes that
//! long. Deliberately absent: TCP's slow start, loss, and a limit of the throughput.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// The most that is read at once, in bytes.
const PIECE: usize = 64 * 1024;
/// So many pieces may be under way in one direction, 64 MiB: more than 40 ms of any network that is meant here.
const UNDER_WAY: usize = 1024;
/// The runtime's clock ticks in milliseconds and rounds up. Half a tick less makes it right on average.
const HALF_A_TICK: Duration = Duration::from_micros(500);

/// A line to one server. It is cut when this is dropped.
#[derive(Debug)]
pub struct Link {
    host: String,
    accepting: AbortHandle,
}

impl Link {
    /// Opens a line to `upstream` (`HOST:PORT`), on which each way takes half of `round_trip`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn open(upstream: &str, round_trip: Duration) -> anyhow::Result<Self> {
        let upstream: SocketAddr = upstream
            .parse()
            .with_context(|| format!("{upstream} is no address and port"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free loopback port")?;
        let host = listener.local_addr()?.to_string();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, upstream, round_trip));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            host,
            accepting: accepting.abort_handle(),
        })
    }

    /// Where its near end listens, as it stands in an image's name: `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, upstream: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let open = Instant::now() + round_trip;
    let server = TcpStream::connect(upstream).await?;
    // Else small messages would wait for each other's acknowledgements.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        delay(from_client, to_server, open, round_trip / 2),
        delay(from_server, to_client, open, round_trip / 2),
    );
    Ok(())
}

/// Carries one direction to its end. A side that breaks off ends it, as the end of the stream does.
async fn delay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, open: Instant, way: Duration) {
    let (queue, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            match from.read_buf(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let due = Instant::now().max(open) + way;
                    if queue.send((due, piece)).await.is_err() {
                        break;
                    }
                }
            }
        }
        // The end takes as long as everything else: it must not overtake.
        let _ = queue.send((Instant::now().max(open) + way, Vec::new())).await;
    };
    let write = async move {
        while let Some((due, piece)) = arriving.recv().await {
            tokio::time::sleep_until(due.checked_sub(HALF_A_TICK).unwrap_or(due)).await;
            if piece.is_empty() {
                let _ = to.shutdown().await;
                break;
            }
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}
