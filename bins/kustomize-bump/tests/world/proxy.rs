//! A server in front of git's, which cuts pushes off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// When a push is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never sees it.
    Before,
    /// The server acts on it, and its answer is lost.
    After,
}

/// Decides by the number of a push, counted from zero.
type Decide = dyn Fn(usize) -> Option<Cut> + Send + Sync;

/// A server in front of another one that cuts off the pushes that it is told to. Gives its address.
pub(crate) async fn proxy(
    upstream: String,
    decide: impl Fn(usize) -> Option<Cut> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (pushes, decide): (Arc<AtomicUsize>, Arc<Decide>) = (Arc::default(), Arc::new(decide));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&upstream).await.unwrap();
            tokio::spawn(pass(client, server, Arc::clone(&pushes), Arc::clone(&decide)));
        }
    });
    address.to_string()
}

async fn pass(mut client: TcpStream, mut server: TcpStream, pushes: Arc<AtomicUsize>, decide: Arc<Decide>) {
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    let mut lose_the_answer = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(1..) = read else { return };
                let bytes = &from_client[..read.unwrap()];
                let is_push = String::from_utf8_lossy(bytes).contains("git-receive-pack HTTP/1.1\r\n")
                    && bytes.starts_with(b"POST ");
                if is_push {
                    match decide(pushes.fetch_add(1, Ordering::SeqCst)) {
                        Some(Cut::Before) => return,
                        Some(Cut::After) => lose_the_answer = true,
                        None => {}
                    }
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(1..) = read else { return };
                if lose_the_answer || client.write_all(&from_server[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
        }
    }
}
