//! Small registries on loopback, and what each of them does to an upload.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::body::Body as Sent;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;

use super::*;
use crate::cli::Progress;
use crate::deadline::Deadline;
use crate::oci::copy::{ImageReference, Source, Traffic};
use crate::oci::{Credentials, Digest, Registries, RegistrySettings};

/// What a registry does to the first upload.
#[derive(Clone, Copy, Default, PartialEq)]
enum Habit {
    #[default]
    Takes,
    Refuses,
    /// After some bytes.
    Breaks,
    /// The same, and knows how many they were.
    BreaksAndKeeps,
    Stalls,
}

/// A registry as far as a blob needs it.
#[derive(Default)]
struct Registry {
    habit: Mutex<Habit>,
    blob: Mutex<Option<Bytes>>,
    reads: Mutex<usize>,
    /// What came of an upload that broke off.
    kept: Mutex<Vec<u8>>,
    sent_on: Mutex<usize>,
    /// Other bytes are given out so many times.
    lies: Mutex<usize>,
    stalled: Notify,
}

async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match parts.method {
        Method::POST => {
            let location = [("location", format!("{}1", parts.uri.path()))];
            (StatusCode::ACCEPTED, location).into_response()
        }
        Method::PUT => {
            let habit = std::mem::take(&mut *registry.habit.lock().unwrap());
            match habit {
                Habit::Refuses => return StatusCode::FORBIDDEN.into_response(),
                Habit::Takes => {}
                _ => {
                    let mut pieces = body.into_data_stream();
                    // Enough for a mark.
                    while let Some(Ok(piece)) = pieces.next().await {
                        let mut kept = registry.kept.lock().unwrap();
                        kept.extend_from_slice(&piece);
                        if habit != Habit::BreaksAndKeeps || kept.len() > 2 * 1024 * 1024 {
                            break;
                        }
                    }
                    if habit != Habit::BreaksAndKeeps {
                        registry.kept.lock().unwrap().clear();
                    }
                    if habit == Habit::Stalls {
                        registry.stalled.notify_one();
                        std::future::pending::<()>().await;
                    }
                    return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                }
            }
            let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
                return StatusCode::BAD_REQUEST.into_response();
            };
            let kept = std::mem::take(&mut *registry.kept.lock().unwrap());
            *registry.blob.lock().unwrap() = Some([kept, bytes.into()].concat().into());
            StatusCode::CREATED.into_response()
        }
        Method::PATCH => {
            *registry.sent_on.lock().unwrap() += 1;
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            registry.kept.lock().unwrap().extend_from_slice(&bytes);
            StatusCode::ACCEPTED.into_response()
        }
        Method::GET if !registry.kept.lock().unwrap().is_empty() => {
            let range = format!("0-{}", registry.kept.lock().unwrap().len() - 1);
            (StatusCode::NO_CONTENT, [("range", range)]).into_response()
        }
        Method::GET if !parts.uri.path().contains("/uploads/") => {
            *registry.reads.lock().unwrap() += 1;
            let blob = registry.blob.lock().unwrap().clone().unwrap();
            let mut lies = registry.lies.lock().unwrap();
            if *lies > 0 {
                *lies -= 1;
                return vec![b'?'; blob.len()].into_response();
            }
            // In pieces, as a network would.
            let pieces: Vec<Bytes> = blob
                .chunks(64 * 1024)
                .map(|piece| blob.slice_ref(piece))
                .collect();
            Sent::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>))).into_response()
        }
        Method::DELETE => StatusCode::NO_CONTENT.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn serve() -> (String, Arc<Registry>) {
    let registry: Arc<Registry> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let app = axum::Router::new().fallback(answer).with_state(registry.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (host, registry)
}

struct World {
    from: Arc<Registry>,
    to: Vec<Arc<Registry>>,
    source: Source,
    targets: Vec<crate::oci::Repository>,
    blob: Descriptor,
    content: Vec<u8>,
}

impl World {
    async fn of(size: usize, habits: &[Habit]) -> Self {
        let deadline = Deadline::after(Duration::from_secs(100_000));
        let registries =
            Registries::new(RegistrySettings::default(), Credentials::default(), deadline).unwrap();
        let content: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let blob = Descriptor {
            media_type: "layer".to_owned(),
            digest: Digest::of(&content),
            size: size as u64,
        };
        let (host, from) = serve().await;
        *from.blob.lock().unwrap() = Some(content.clone().into());
        let reference: ImageReference = format!("{host}/app:1").parse().unwrap();
        let source = Source::open(&reference, &registries).await.unwrap();
        let (mut to, mut targets) = (Vec::new(), Vec::new());
        for habit in habits {
            let (host, registry) = serve().await;
            *registry.habit.lock().unwrap() = *habit;
            let reference = format!("{host}/app").parse().unwrap();
            targets.push(registries.repository(&reference).await.unwrap());
            to.push(registry);
        }
        World {
            from,
            to,
            source,
            targets,
            blob,
            content,
        }
    }

    async fn bring(&self) -> Vec<Result<Moved>> {
        let traffic = Traffic::new(4);
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::bytes("test", 0));
        let mover = |target| Mover {
            source: &self.source,
            target,
            mount_from: None,
            mounts_refused: AtomicBool::new(false),
            traffic: &traffic,
            stop: &stop,
            progress: &progress,
        };
        let movers: Vec<Mover<'_>> = self.targets.iter().map(mover).collect();
        Mover::bring_to_all(&movers, &self.blob).await
    }

    fn reads(&self) -> usize {
        *self.from.reads.lock().unwrap()
    }

    #[track_caller]
    fn assert_arrived(&self, target: usize) {
        let held = self.to[target].blob.lock().unwrap();
        assert!(held.as_deref() == Some(&self.content[..]), "target {target}");
    }
}

#[tokio::test]
async fn several_targets_cost_one_reading() {
    for size in [1, 100_000, 3 * 1024 * 1024] {
        let world = World::of(size, &[Habit::Takes; 3]).await;
        for (target, outcome) in world.bring().await.into_iter().enumerate() {
            assert_eq!(outcome.unwrap(), Moved::Copied);
            world.assert_arrived(target);
        }
        assert_eq!(world.reads(), 1);
    }
}

#[tokio::test]
async fn one_that_refuses_or_breaks_does_not_stop_the_others() {
    let habits = [Habit::Takes, Habit::Refuses, Habit::Breaks, Habit::Takes];
    let world = World::of(3 * 1024 * 1024, &habits).await;
    let outcomes = world.bring().await;
    for target in [0, 2, 3] {
        assert_eq!(*outcomes[target].as_ref().unwrap(), Moved::Copied);
        world.assert_arrived(target);
    }
    assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), Kind::Denied);
    assert_eq!(world.reads(), 2);
}

#[tokio::test]
async fn one_that_breaks_and_knows_where_it_was_goes_on_there() {
    let habits = [Habit::Takes, Habit::BreaksAndKeeps];
    let world = World::of(8 * 1024 * 1024, &habits).await;
    for (target, outcome) in world.bring().await.into_iter().enumerate() {
        assert_eq!(outcome.unwrap(), Moved::Copied);
        world.assert_arrived(target);
        assert_eq!(*world.to[target].sent_on.lock().unwrap(), target);
    }
}

/// Lets minutes pass until it is noticed that the last target stalls.
async fn wait_for_stall(world: &World) {
    world.to[world.to.len() - 1].stalled.notified().await;
    while world.reads() < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn one_that_stalls_is_left_behind_and_served_alone() {
    for habits in [&[Habit::Takes, Habit::Stalls][..], &[Habit::Stalls]] {
        let world = World::of(8 * 1024 * 1024, habits).await;
        let outcomes = tokio::select! {
            outcomes = world.bring() => outcomes,
            () = wait_for_stall(&world) => Vec::new(),
        };
        for (target, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.unwrap(), Moved::Copied);
            world.assert_arrived(target);
        }
        assert!(world.reads() >= 2);
    }
}

#[tokio::test]
async fn the_slowest_sets_the_pace_and_little_is_kept_for_it() {
    let pieces = 100;
    let content = vec![7; pieces];
    let blob = Descriptor {
        media_type: "layer".to_owned(),
        digest: Digest::of(&content),
        size: pieces as u64,
    };
    let read = Arc::new(Mutex::new(0));
    let count = read.clone();
    let open: super::super::reading::Open = Arc::new(move |_| {
        let count = count.clone();
        let stream = stream::iter(0..pieces).map(move |_| {
            *count.lock().unwrap() += 1;
            Ok(Bytes::from_static(&[7]))
        });
        Box::pin(async move { Ok(Box::pin(stream) as crate::oci::BlobStream) })
    });
    let record = Record::new(Arc::new(Progress::bytes("test", 0)), Arc::default());
    let stop = CancellationToken::new();
    let reading = Reading::open(open, &blob, 0, &record, &stop).await.unwrap();
    let (quick, mut from_quick) = mpsc::channel::<Piece>(DEPTH);
    let (slow, mut from_slow) = mpsc::channel::<Piece>(DEPTH);
    let gone = CancellationToken::new();
    let listeners = vec![(quick, CancellationToken::new()), (slow, gone.clone())];
    let drained = async {
        let mut taken = 0;
        while let Some(piece) = from_quick.recv().await {
            piece.unwrap();
            taken += 1;
            // The slow one took nothing so far.
            if taken == DEPTH + 1 {
                assert!(*read.lock().unwrap() <= DEPTH + 1);
                from_slow.recv().await.unwrap().unwrap();
            }
            if taken == DEPTH + 2 {
                assert!(*read.lock().unwrap() <= DEPTH + 2);
                gone.cancel();
            }
        }
        taken
    };
    let (distributed, taken) = join(distribute(reading, listeners), drained).await;
    assert!(distributed.is_ok());
    assert_eq!(taken, pieces);
}

#[tokio::test]
async fn wrong_bytes_reach_nobody_and_right_ones_everybody() {
    let world = World::of(100_000, &[Habit::Takes, Habit::Takes]).await;
    *world.from.lies.lock().unwrap() = 1;
    for (target, outcome) in world.bring().await.into_iter().enumerate() {
        assert_eq!(outcome.unwrap(), Moved::Copied);
        world.assert_arrived(target);
    }
    *world.from.lies.lock().unwrap() = usize::MAX;
    for registry in &world.to {
        *registry.blob.lock().unwrap() = None;
    }
    for (target, outcome) in world.bring().await.into_iter().enumerate() {
        assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable);
        assert!(world.to[target].blob.lock().unwrap().is_none());
    }
}

#[tokio::test]
async fn the_same_repository_twice_gets_it_once() {
    let mut world = World::of(100_000, &[Habit::Takes]).await;
    world.targets.push(world.targets[0].clone());
    let outcomes: Vec<Moved> = world.bring().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Moved::Copied, Moved::Skipped]);
    assert_eq!(world.reads(), 1);
}

#[tokio::test]
async fn an_upload_begins_when_bytes_of_the_one_before_were_asked_for_or_it_is_over() {
    let record = || Record::new(Arc::new(Progress::bytes("test", 0)), Arc::default());
    let [first, second, third] = <[Turn; 3]>::try_from(Turn::line(3)).ok().unwrap();
    let came = |turn: &Turn| turn.comes().now_or_never().is_some();
    assert!(came(&first) && !came(&second) && !came(&third));
    let (_sender, receiver) = mpsc::channel::<Piece>(DEPTH);
    let mut body = Box::pin(pieces(receiver, record(), first.begun.clone()));
    assert!(!came(&second));
    // There is none yet.
    assert!(body.next().now_or_never().is_none());
    assert!(came(&second) && !came(&third));
    drop(second.begun.drop_guard());
    assert!(came(&third));
}
