//! The proxy changes nothing unless it is told to, and breaks what it is told to break; a link delays and does no more.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::net::TcpListener;
use towpath_sandbox::servers::{Canned, Fault, Link, Point, Proxy, Rule, Way, http_client};

const LENGTH: usize = 1000;

/// Gives back bodies, whole or in chunks, and a thousand bytes to who sends none. Counts what arrives whole.
struct Server {
    host: String,
    arrived: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let arrived = Arc::new(AtomicUsize::new(0));
        let app = axum::Router::new().fallback(answer).with_state(arrived.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Server { host, arrived }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }
}

async fn answer(State(arrived): State<Arc<AtomicUsize>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let Ok(body) = to_bytes(request.into_body(), usize::MAX).await else {
        return "broken".into_response();
    };
    arrived.fetch_add(1, Ordering::SeqCst);
    let body = if body.is_empty() {
        vec![b'a'; LENGTH].into()
    } else {
        body
    };
    match path.as_str() {
        "/chunked" => {
            let pieces: Vec<_> = body.chunks(300).map(<[u8]>::to_vec).collect();
            Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>))).into_response()
        }
        "/created" => ([("location", "/uploads/1?state=x")], body).into_response(),
        _ => body.into_response(),
    }
}

#[tokio::test]
async fn without_rules_nothing_changes() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server.host).await.unwrap();
    let client = http_client().unwrap();
    let url = |path: &str| format!("http://{}{path}", proxy.host());
    for path in ["/known", "/chunked"] {
        let got = client.get(url(path)).send().await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), vec![b'a'; LENGTH]);
        let sent: Vec<u8> = (0..200_000).map(|n| (n % 251) as u8).collect();
        let known = client.put(url(path)).body(sent.clone());
        assert_eq!(known.send().await.unwrap().bytes().await.unwrap(), sent);
        let pieces = sent.chunks(7777).map(<[u8]>::to_vec).map(Ok::<_, std::io::Error>);
        let pieces = reqwest::Body::wrap_stream(stream::iter(pieces.collect::<Vec<_>>()));
        let chunked = client.put(url(path)).body(pieces);
        assert_eq!(chunked.send().await.unwrap().bytes().await.unwrap(), sent);
    }
    let head = client.head(url("/known")).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "1000");
    let seen = proxy.exchanges();
    assert_eq!(seen.len(), 7);
    assert_eq!(
        (seen[4].method.as_str(), seen[4].uri.as_str(), seen[4].status),
        ("PUT", "/chunked", Some(200))
    );
    assert_eq!(
        (seen[4].sent, seen[4].received, seen[4].faulty),
        (200_000, 200_000, false)
    );
    assert_eq!(proxy.answered("PUT", "/known", 200), 2);
}

#[tokio::test]
async fn an_answer_breaks_comes_short_wrong_or_not_from_the_server() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server.host).await.unwrap();
    let url = format!("http://{}/known", proxy.host());
    let reset = Fault::Break(Point::Receiving(500), Way::Reset);
    let close = Fault::Break(Point::Receiving(500), Way::Close);
    for fault in [reset, close, Fault::Length(5)] {
        proxy.clear();
        proxy.add(Rule::on("GET", "/known", fault.clone()).times(1));
        let client = http_client().unwrap();
        let got = client.get(&url).send().await.unwrap();
        assert_eq!(got.status(), 200);
        got.bytes().await.expect_err("a body that breaks off");
        let expected = if fault == Fault::Length(5) { 1000 } else { 500 };
        assert_eq!(proxy.exchanges()[0].received, expected, "{fault:?}");
        let again = client.get(&url).send().await.unwrap();
        assert_eq!(again.bytes().await.unwrap(), vec![b'a'; LENGTH]);
    }
    for (fault, expected) in [
        (Fault::Length(-5), vec![b'a'; LENGTH - 5]),
        (Fault::WrongBytes, vec![b'a' ^ 1; LENGTH]),
        (Fault::Drip(20_000), vec![b'a'; LENGTH]),
    ] {
        proxy.clear();
        proxy.add(Rule::on("GET", "/known", fault));
        let got = http_client().unwrap().get(&url).send().await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), expected);
    }
    for way in [Way::Reset, Way::Close] {
        proxy.clear();
        proxy.add(Rule::on("GET", "/known", Fault::Break(Point::Answered, way)));
        let error = http_client().unwrap().get(&url).send().await.unwrap_err();
        assert!(!error.is_connect(), "{error:?}");
    }

    let before = server.arrived();
    proxy.clear();
    let busy = Canned::error(429, "TOOMANYREQUESTS").with("retry-after", "7");
    proxy.add(Rule::on("PUT", "/known", Fault::Answer(busy)).times(1));
    proxy.add(Rule::on("GET", "/known", Fault::Redirect(server.host.clone())));
    let client = http_client().unwrap();
    let refused = client.put(&url).body(vec![b'b'; 100_000]).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "7");
    assert!(refused.text().await.unwrap().contains("TOOMANYREQUESTS"));
    let sent_on = client.get(&url).send().await.unwrap();
    assert_eq!(
        sent_on.headers()["location"],
        format!("http://{}/known", server.host)
    );
    assert_eq!(server.arrived(), before, "neither reached the server");
    proxy.add(Rule::on(
        "GET",
        "/created",
        Fault::Location("elsewhere:1".to_owned()),
    ));
    let created = format!("http://{}/created", proxy.host());
    let created = client.get(created).send().await.unwrap();
    assert_eq!(
        created.headers()["location"],
        "http://elsewhere:1/uploads/1?state=x"
    );
}

#[tokio::test]
async fn a_request_breaks_on_its_way_and_the_server_never_has_it() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server.host).await.unwrap();
    for point in [Point::Arrival, Point::Sending(0), Point::Sending(60_000)] {
        for way in [Way::Reset, Way::Close] {
            proxy.clear();
            proxy.add(Rule::on("PUT", "/known", Fault::Break(point, way)).times(1));
            let client = http_client().unwrap();
            let put = client.put(format!("http://{}/known", proxy.host()));
            let broken = put.body(vec![b'b'; 100_000]).send().await;
            broken.expect_err("a request that breaks off");
            let passed = if let Point::Sending(bytes) = point {
                bytes
            } else {
                0
            };
            assert_eq!(proxy.exchanges()[0].sent, passed, "{point:?} {way:?}");
        }
    }
    assert_eq!(server.arrived(), 0);
}

#[tokio::test]
async fn what_is_held_goes_on_when_it_is_let_go_and_ends_with_its_client() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server.host).await.unwrap();
    let put = || {
        let client = http_client().unwrap();
        let request = client.put(format!("http://{}/known", proxy.host()));
        tokio::spawn(request.body(vec![b'b'; 100_000]).send())
    };
    for (point, arrives) in [
        (Point::Arrival, 0),
        (Point::Sending(60_000), 0),
        (Point::Answered, 1),
    ] {
        for goes_on in [true, false] {
            proxy.clear();
            let before = server.arrived();
            proxy.add(Rule::on("PUT", "/known", Fault::Hold(point)));
            let held = put();
            proxy
                .until(|seen| seen.iter().any(|seen| seen.held))
                .await
                .unwrap();
            assert_eq!(server.arrived() - before, arrives, "{point:?}");
            if goes_on {
                proxy.clear();
                assert_eq!(held.await.unwrap().unwrap().status(), 200);
                assert_eq!(server.arrived() - before, 1);
            } else {
                held.abort();
                assert!(held.await.unwrap_err().is_cancelled());
                proxy
                    .until(|seen| seen.iter().any(|seen| seen.broken))
                    .await
                    .unwrap();
                assert_eq!(server.arrived() - before, arrives, "{point:?}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_run_out() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server.host).await.unwrap();
    proxy.ask_for_tokens(2);
    let client = http_client().unwrap();
    let url = format!("http://{}/known", proxy.host());
    let refused = client.get(&url).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let realm = challenge.split('"').nth(1).unwrap();
    assert_eq!(
        challenge,
        format!("Bearer realm=\"http://{}/token\",service=\"proxy\"", proxy.host())
    );
    let token: serde_json::Value = client.get(realm).send().await.unwrap().json().await.unwrap();
    let token = token["token"].as_str().unwrap();
    for expected in [200, 200, 401] {
        let got = client.get(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(got.status(), expected);
    }
    assert_eq!(server.arrived(), 2);
}

/// Lower bounds only: a busy machine makes everything longer, and nothing shorter.
#[tokio::test]
async fn a_link_takes_its_time_and_carries_much_at_once() {
    const ROUND_TRIP: Duration = Duration::from_millis(100);
    let server = Server::start().await;
    let link = Link::open(&server.host, ROUND_TRIP).await.unwrap();
    let client = http_client().unwrap();
    let url = format!("http://{}/known", link.host());
    let start = Instant::now();
    let small = client.get(&url).send().await.unwrap();
    assert_eq!(small.bytes().await.unwrap(), vec![b'a'; LENGTH]);
    let slack = Duration::from_millis(2);
    assert!(
        start.elapsed() + slack >= ROUND_TRIP * 2,
        "one to open the connection, one to ask"
    );
    let start = Instant::now();
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let echoed = client.put(&url).body(large.clone()).send().await.unwrap();
    assert!(echoed.bytes().await.unwrap() == large);
    assert!(start.elapsed() + slack >= ROUND_TRIP);
}
