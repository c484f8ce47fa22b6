//! An engine whose credentials have leases: OpenBao's own for RabbitMQ, beside a RabbitMQ that agrees to everything.
//!
//! Leases, their renewal and their end are the real server's. The engine names users as RabbitMQ would have them, so on
//! the way to the tool, and there alone, user name and password are replaced by a key as Scaleway makes them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::World;

pub(crate) const LEASED_ACCESS_KEY: &str = "SCWLEASED00000000001";
/// What `--dynamic` is given.
pub(crate) const CREDS: &str = "scaleway/creds/deploy";

pub(crate) struct Engine {
    /// What `VAULT_ADDR` is to be.
    pub(crate) address: String,
    /// What must show up nowhere but in the command's environment: no other engine on this machine gives the same.
    pub(crate) secret_key: String,
    /// What the engine has asked of its RabbitMQ, as `METHOD PATH`.
    asked: Arc<Mutex<Vec<String>>>,
    servers: [AbortHandle; 2],
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.servers.iter().for_each(AbortHandle::abort);
    }
}

impl Engine {
    /// Mounts it, with leases of so many seconds and at most so many, and lets the policy `ci` read from it.
    pub(crate) async fn mount(world: &World, seconds: u64, at_most: u64) -> Engine {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let rabbit = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rabbit_url = format!("http://{}", rabbit.local_addr().unwrap());
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay_address = relay.local_addr().unwrap();
        let address = format!("http://{relay_address}");
        let secret_key = unique_secret_key(relay_address.port());
        let noted = asked.clone();
        let agreeing = serve(rabbit, move |request| {
            noted.lock().unwrap().push(request.line());
            async { "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned() }
        });
        let upstream = world.server.address().trim_start_matches("http://").to_owned();
        let leased = secret_key.clone();
        let relaying = serve(relay, move |request| {
            relay_to(upstream.clone(), leased.clone(), request)
        });
        let engine = Engine {
            address,
            secret_key,
            asked,
            servers: [agreeing, relaying],
        };
        let server = &world.server;
        let write = async |path: &str, body: Value| server.write(path, &body).await.unwrap();
        write("sys/mounts/scaleway", json!({"type": "rabbitmq"})).await;
        let connection = json!({
            "connection_uri": rabbit_url, "username": "admin", "password": "admin", "verify_connection": false,
        });
        write("scaleway/config/connection", connection).await;
        write(
            "scaleway/config/lease",
            json!({"ttl": seconds, "max_ttl": at_most}),
        )
        .await;
        let vhosts = r#"{"/":{"configure":".*","write":".*","read":".*"}}"#;
        write("scaleway/roles/deploy", json!({"vhosts": vhosts})).await;
        engine.allow(world, "").await;
        engine
    }

    /// Lets the policy `ci` read from the engine, and what `more` says.
    pub(crate) async fn allow(&self, world: &World, more: &str) {
        let policy = format!(r#"path "scaleway/creds/*" {{ capabilities = ["read"] }} {more}"#);
        world.server.write_policy("ci", &policy).await.unwrap();
    }

    /// How many users it has made, and removed again.
    pub(crate) fn users(&self) -> (usize, usize) {
        let asked = self.asked.lock().unwrap();
        let count = |start: &str| asked.iter().filter(|line| line.starts_with(start)).count();
        (count("PUT /api/users/"), count("DELETE /api/users/"))
    }
}

/// A secret key that only whoever holds this port has: tests that run beside each other look for theirs in all processes.
pub(crate) fn unique_secret_key(port: u16) -> String {
    format!("0badcafe-0000-4000-8000-{:08x}{port:04x}", std::process::id())
}

struct Request {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn line(&self) -> String {
        let mut words = self.head[0].split(' ');
        format!("{} {}", words.next().unwrap(), words.next().unwrap())
    }
}

/// Answers one request a connection.
fn serve<F, A>(listener: TcpListener, answer: F) -> AbortHandle
where
    F: Fn(Request) -> A + Clone + Send + 'static,
    A: Future<Output = String> + Send + 'static,
{
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let Some(request) = read_request(&mut stream).await else {
                    return;
                };
                let answered = answer(request).await;
                let _ = stream.get_mut().write_all(answered.as_bytes()).await;
                let _ = stream.get_mut().shutdown().await;
            });
        }
    });
    serving.abort_handle()
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let length = head
        .iter()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(str::to_owned)
        })
        .map_or(0, |length| length.trim().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { head, body })
}

async fn relay_to(upstream: String, secret_key: String, request: Request) -> String {
    let mut server = TcpStream::connect(&upstream).await.unwrap();
    let makes_credentials = request.head[0].starts_with("GET /v1/scaleway/creds/");
    let mut head: Vec<String> = request
        .head
        .into_iter()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    head.push("Connection: close".to_owned());
    let head = format!("{}\r\n\r\n", head.join("\r\n"));
    server.write_all(head.as_bytes()).await.unwrap();
    server.write_all(&request.body).await.unwrap();
    let mut answer = String::new();
    server.read_to_string(&mut answer).await.unwrap();
    if !makes_credentials || !answer.starts_with("HTTP/1.1 200 ") {
        return answer;
    }
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut document: Value = serde_json::from_str(body).unwrap();
    document["data"] = json!({
        "access_key": LEASED_ACCESS_KEY, "secret_key": secret_key, "region": "fr-par",
    });
    let body = document.to_string();
    format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl World {
    /// The leases of the engine that are alive.
    pub(crate) async fn leases(&self) -> Vec<String> {
        match self
            .server
            .read(&format!("sys/leases/lookup/{CREDS}?list=true"))
            .await
        {
            Ok(list) => list["data"]["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key.as_str().unwrap().to_owned())
                .collect(),
            // The server has no other word for an empty list.
            Err(error) if error.to_string().contains("404") => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// What the server knows of the only lease that is alive.
    pub(crate) async fn lease(&self) -> Value {
        let leases = self.leases().await;
        assert_eq!(leases.len(), 1, "{leases:?}");
        let body = json!({"lease_id": format!("{CREDS}/{}", leases[0])});
        self.server.write("sys/leases/lookup", &body).await.unwrap()["data"].clone()
    }
}
