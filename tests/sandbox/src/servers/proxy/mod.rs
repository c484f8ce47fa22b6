//! A proxy between a client and a real server that breaks exchanges in the ways that networks and servers do.
//!
//! It speaks HTTP/1.1 as it is on the wire and leaves what passes as it is, the `Host` header too, so that a server names
//! the proxy where it names itself. [`Rule`]s say what goes wrong; each exchange is recorded. It can ask for tokens as
//! well (the distribution project's "Token Authentication Specification"), which it lets run out.

mod exchange;
mod rule;
mod tokens;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

pub use rule::{Canned, Fault, Point, Rule, Way};

use tokens::Tokens;
use wire::Head;

/// What is waited for is done by a program on this machine within moments; a busy machine gets time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy. It ends, with every connection through it, when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

/// A request that reached the proxy, and what became of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The method, such as `GET`.
    pub method: String,
    /// The path with its query, as the client wrote it.
    pub uri: String,
    /// Whether it carried an `Authorization`.
    pub authorized: bool,
    /// The status that went to the client; none as long as nothing did.
    pub status: Option<u16>,
    /// Whether a fault met it.
    pub faulty: bool,
    /// Whether it is held, see [`Fault::Hold`].
    pub held: bool,
    /// Whether the connection broke, as a fault or the client would have it.
    pub broken: bool,
    /// How many bytes of its body went to the server.
    pub sent: u64,
    /// How many bytes of the answer's body went to the client.
    pub received: u64,
}

#[derive(Debug)]
struct Shared {
    host: String,
    upstream: SocketAddr,
    state: Mutex<State>,
    /// Told of every change of the state.
    changed: watch::Sender<()>,
    /// Counts how often holds were let go.
    released: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    tokens: Option<Tokens>,
    exchanges: Vec<Exchange>,
}

impl Proxy {
    /// Starts a proxy before the server at `upstream` (`HOST:PORT`). Without rules it changes nothing.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(upstream: &str) -> anyhow::Result<Self> {
        let upstream = upstream
            .parse()
            .with_context(|| format!("{upstream} is no address and port"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free loopback port")?;
        let shared = Arc::new(Shared {
            host: listener.local_addr()?.to_string(),
            upstream,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            released: watch::Sender::new(0),
        });
        let serving = shared.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(exchange::serve(client, serving.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            shared,
            accepting: accepting.abort_handle(),
        })
    }

    /// Where it listens, as it stands in an image's name: `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// Adds a rule. The first rule that has a fault for a request decides.
    pub fn add(&self, rule: Rule) {
        self.shared.state().rules.push(rule);
    }

    /// Forgets the rules and what was recorded, asks for no tokens any more, and lets go of what is held.
    pub fn clear(&self) {
        *self.shared.state() = State::default();
        self.shared.released.send_modify(|times| *times += 1);
    }

    /// Asks for tokens from now on. Whoever wants one gets it; each is good for so many requests.
    pub fn ask_for_tokens(&self, uses: u32) {
        self.shared.state().tokens = Some(Tokens::good_for(uses));
    }

    /// The requests so far, in the order of their arrival.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.state().exchanges.clone()
    }

    /// How many requests with this method and this part of a path or query were answered with this status.
    #[must_use]
    pub fn answered(&self, method: &str, part: &str, status: u16) -> usize {
        let state = self.shared.state();
        let is_meant = |exchange: &&Exchange| exchange.is(method, part) && exchange.status == Some(status);
        state.exchanges.iter().filter(is_meant).count()
    }

    /// Waits until the requests so far are as wanted.
    ///
    /// # Errors
    /// When they are not within a minute; with what there was instead.
    pub async fn until(&self, wanted: impl Fn(&[Exchange]) -> bool) -> anyhow::Result<()> {
        let mut changes = self.shared.changed.subscribe();
        let waiting = async {
            while !wanted(&self.shared.state().exchanges) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            bail!(
                "what was waited for did not happen within {} s: {:#?}",
                PATIENCE.as_secs(),
                self.exchanges()
            );
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Exchange {
    /// Whether it has this method, and this part in its path or query.
    #[must_use]
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.uri.contains(part)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request and finds its fault.
    fn arrive(&self, head: &Head) -> Arrived {
        let (method, uri) = (head.word(0), head.word(1));
        let authorization = head.header("authorization");
        let mut state = self.state();
        let refused = state
            .tokens
            .as_mut()
            .and_then(|tokens| tokens.answer(&self.host, &uri, authorization.as_deref()));
        let fault = match refused {
            Some(answer) => Some(Fault::Answer(answer)),
            None => state.rules.iter_mut().find_map(|rule| rule.meet(&method, &uri)),
        };
        state.exchanges.push(Exchange {
            method: method.clone(),
            uri: uri.clone(),
            authorized: authorization.is_some(),
            status: None,
            faulty: fault.is_some(),
            held: false,
            broken: false,
            sent: 0,
            received: 0,
        });
        let place = state.exchanges.len() - 1;
        drop(state);
        self.changed.send_replace(());
        Arrived {
            method,
            uri,
            fault,
            place,
        }
    }

    /// Adds to what is recorded of a request, unless that was forgotten meanwhile.
    fn record(&self, arrived: &Arrived, change: impl FnOnce(&mut Exchange)) {
        let mut state = self.state();
        if let Some(exchange) = state.exchanges.get_mut(arrived.place)
            && exchange.is(&arrived.method, &arrived.uri)
        {
            change(exchange);
        }
        drop(state);
        self.changed.send_replace(());
    }
}

/// A request that has arrived.
struct Arrived {
    method: String,
    uri: String,
    fault: Option<Fault>,
    /// Its place among the exchanges.
    place: usize,
}
