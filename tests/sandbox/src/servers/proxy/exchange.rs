//! Carries requests and answers over one connection, up to the point where something goes wrong.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::rule::{Canned, Fault, Point, Way};
use super::wire::{Body, Head, Length};
use super::{Arrived, Shared};

/// How long an orderly end waits for what the other side still sends.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often dripping bytes fall.
const DRIPS_PER_SECOND: usize = 20;
/// How often a held client is looked after.
const LOOK: Duration = Duration::from_millis(20);

/// One side of a connection through the proxy.
struct Side {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

struct Connection {
    client: Side,
    server: Option<Side>,
    shared: Arc<Shared>,
}

/// Serves a client until one side has enough. An error is an end like any other: it shows on the other side.
pub(super) async fn serve(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut connection = Connection {
        client: Side::new(client)?,
        server: None,
        shared,
    };
    while let Some(head) = Head::read(&mut connection.client.from).await? {
        let arrived = connection.shared.arrive(&head);
        let kept = connection.exchange(&head, &arrived).await;
        if kept.is_err() {
            connection.shared.record(&arrived, |exchange| {
                exchange.held = false;
                exchange.broken = true;
            });
        }
        if !kept? {
            break;
        }
    }
    Ok(())
}

impl Side {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (from, to) = stream.into_split();
        Ok(Self {
            from: BufReader::new(from),
            to,
        })
    }
}

impl Connection {
    /// Carries one request and its answer. Gives back whether the connection can carry another.
    async fn exchange(&mut self, head: &Head, arrived: &Arrived) -> io::Result<bool> {
        let fault = arrived.fault.as_ref();
        match fault {
            Some(Fault::Answer(canned)) => return self.answer(head, arrived, canned).await,
            Some(Fault::Redirect(host)) => {
                let location = format!("http://{host}{}", arrived.uri);
                let canned = Canned::status(307).with("location", &location);
                return self.answer(head, arrived, &canned).await;
            }
            _ => {}
        }
        self.reach(Point::Arrival, arrived).await?;
        // A server that has had enough of a request may answer before its end.
        let sent = self.send(head, arrived).await;
        if let Err(error) = &sent
            && error.kind() == io::ErrorKind::ConnectionAborted
        {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let kept = self.receive(arrived).await?;
        Ok(kept && sent.is_ok() && !head.closes())
    }

    async fn send(&mut self, head: &Head, arrived: &Arrived) -> io::Result<()> {
        let server = match self.server.take() {
            Some(server) => server,
            None => Side::new(TcpStream::connect(self.shared.upstream).await?)?,
        };
        let server = self.server.insert(server);
        server.to.write_all(&head.bytes).await?;
        let point = match arrived.fault {
            Some(Fault::Break(Point::Sending(bytes), _) | Fault::Hold(Point::Sending(bytes))) => Some(bytes),
            _ => None,
        };
        let mut passed = 0;
        if point == Some(0) {
            self.reach(Point::Sending(0), arrived).await?;
        }
        let mut body = Body::new(head.request_length());
        loop {
            let limit = match point {
                Some(point) if passed < point => point - passed,
                _ => u64::MAX,
            };
            // When the client breaks off, no answer is worth waiting for.
            let piece = body.next(&mut self.client.from, limit).await;
            let Some(piece) = piece.map_err(|_| io::ErrorKind::ConnectionAborted)? else {
                return Ok(());
            };
            let Some(server) = &mut self.server else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            server.to.write_all(&piece.bytes).await?;
            if !piece.is_content {
                continue;
            }
            passed += piece.bytes.len() as u64;
            self.shared.record(arrived, |exchange| exchange.sent = passed);
            if point == Some(passed) {
                self.reach(Point::Sending(passed), arrived).await?;
            }
        }
    }

    /// Gives back whether another exchange can follow.
    async fn receive(&mut self, arrived: &Arrived) -> io::Result<bool> {
        let head = loop {
            let Some(server) = &mut self.server else {
                return Ok(false);
            };
            let Some(head) = Head::read(&mut server.from).await? else {
                return Ok(false);
            };
            if !head.word(1).starts_with('1') {
                break head;
            }
            self.client.to.write_all(&head.bytes).await?;
        };
        self.reach(Point::Answered, arrived).await?;
        let length = head.answer_length(&arrived.method);
        let shown = self.altered(&head, length, arrived);
        let status = head.word(1).parse().ok();
        self.client.to.write_all(&shown.bytes).await?;
        self.shared.record(arrived, |exchange| exchange.status = status);
        self.receive_body(arrived, length).await?;
        let lied = matches!(arrived.fault, Some(Fault::Length(_)));
        if head.closes() || length == Length::UntilClose {
            self.server = None;
        }
        // A client that was told of more bytes must learn that none come.
        Ok(!lied && length != Length::UntilClose && !head.closes())
    }

    async fn receive_body(&mut self, arrived: &Arrived, length: Length) -> io::Result<()> {
        let point = match arrived.fault {
            Some(Fault::Break(Point::Receiving(bytes), _) | Fault::Hold(Point::Receiving(bytes))) => {
                Some(bytes)
            }
            _ => None,
        };
        let drip = match arrived.fault {
            Some(Fault::Drip(rate)) => Some((rate / DRIPS_PER_SECOND).max(1) as u64),
            _ => None,
        };
        let mut passed = 0;
        if point == Some(0) {
            self.reach(Point::Receiving(0), arrived).await?;
        }
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let mut body = Body::new(length);
        loop {
            let limit = match point {
                Some(point) if passed < point => point - passed,
                _ => drip.unwrap_or(u64::MAX),
            };
            let Some(mut piece) = body.next(&mut server.from, limit).await? else {
                break;
            };
            if piece.is_content && arrived.fault == Some(Fault::WrongBytes) {
                piece.bytes.iter_mut().for_each(|byte| *byte ^= 1);
            }
            self.client.to.write_all(&piece.bytes).await?;
            if !piece.is_content {
                continue;
            }
            passed += piece.bytes.len() as u64;
            self.shared.record(arrived, |exchange| exchange.received = passed);
            if point == Some(passed) {
                self.reach(Point::Receiving(passed), arrived).await?;
            }
            if drip.is_some() {
                tokio::time::sleep(Duration::from_secs(1) / DRIPS_PER_SECOND as u32).await;
            }
        }
        self.server = Some(server);
        Ok(())
    }

    /// Does what is to happen at this point: nothing, wait, or break, which is an error.
    async fn reach(&mut self, point: Point, arrived: &Arrived) -> io::Result<()> {
        match arrived.fault {
            Some(Fault::Hold(at)) if at == point => self.hold(arrived).await,
            Some(Fault::Break(at, way)) if at == point => {
                // Before it shows: whoever sees it may look at once.
                self.shared.record(arrived, |exchange| exchange.broken = true);
                match way {
                    Way::Reset => {
                        self.client.to.as_ref().set_zero_linger()?;
                        if let Some(server) = &self.server {
                            server.to.as_ref().set_zero_linger()?;
                        }
                    }
                    Way::Close => {
                        self.server = None;
                        self.client.to.shutdown().await?;
                        // Closing with something unread would be a reset.
                        let mut nowhere = tokio::io::sink();
                        let rest = tokio::io::copy(&mut self.client.from, &mut nowhere);
                        let _ = tokio::time::timeout(FAREWELL, rest).await;
                    }
                }
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => Ok(()),
        }
    }

    /// Waits until the client is gone, which is an error, or the proxy lets go.
    async fn hold(&mut self, arrived: &Arrived) -> io::Result<()> {
        let mut released = self.shared.released.subscribe();
        self.shared.record(arrived, |exchange| exchange.held = true);
        let socket = self.client.from.get_ref();
        let gone = async {
            loop {
                match socket.ready(Interest::READABLE).await {
                    Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK).await,
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = gone => Err(io::ErrorKind::ConnectionAborted.into()),
            _ = released.changed() => {
                self.shared.record(arrived, |exchange| exchange.held = false);
                Ok(())
            }
        }
    }

    async fn answer(&mut self, head: &Head, arrived: &Arrived, canned: &Canned) -> io::Result<bool> {
        let mut body = Body::new(head.request_length());
        while body.next(&mut self.client.from, u64::MAX).await?.is_some() {}
        let mut text = format!("HTTP/1.1 {} As Told\r\n", canned.status);
        for (name, value) in &canned.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n", canned.body.len()));
        if arrived.method != "HEAD" {
            text.push_str(&canned.body);
        }
        self.shared
            .record(arrived, |exchange| exchange.status = Some(canned.status));
        self.client.to.write_all(text.as_bytes()).await?;
        Ok(!head.closes())
    }

    /// The answer's head as the client gets it.
    fn altered(&self, head: &Head, length: Length, arrived: &Arrived) -> Head {
        match (&arrived.fault, length) {
            (Some(Fault::Length(more)), Length::Known(bytes)) => {
                head.replacing("content-length", &bytes.saturating_add_signed(*more).to_string())
            }
            (Some(Fault::Location(host)), _) => match head.header("location") {
                Some(location) => {
                    let path = match location.split_once("://") {
                        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
                        None => location.as_str(),
                    };
                    head.replacing("location", &format!("http://{host}{path}"))
                }
                None => head.clone(),
            },
            _ => head.clone(),
        }
    }
}
