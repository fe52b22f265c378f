//! Connections to a listener: how many at a time, how long each may take, and who goes when there are more.
//!
//! Leaves out: what is answered (`boot`, `api`). Invariant: whoever connects, however often and however slowly, takes a bounded part of the
//! process's files and none of anybody's turn: where all seats are taken, the one that has asked nothing for the longest time goes, and
//! then one of whoever has the most. Shown by `tests/crowds.rs`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{Extensions, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::limits;

/// What one who finds no seat is told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 10\r\nconnection: close\r\ncontent-length: 21\r\n\r\ntoo many connections\n";

pub(crate) struct Bounds {
    /// Seats.
    pub connections: usize,
    /// Whether a connection may ask more than once.
    pub keep_alive: bool,
    /// How long one connection may last, whatever it does. Nothing: as long as its requests.
    pub lifetime: Option<Duration>,
    /// The head of one request, in bytes.
    pub head: usize,
}

impl Bounds {
    /// Few machines boot at the same time, and each asks once for a small script.
    pub(crate) fn of_boot() -> Bounds {
        let connections = seats(limits::BOOT_CONNECTIONS, 4);
        Bounds { connections, keep_alive: false, lifetime: Some(limits::BOOT_CONNECTION_FOR), head: limits::BOOT_HEAD_BYTES }
    }

    /// A question and its answer.
    pub(crate) fn of_exchange() -> Bounds {
        Bounds { lifetime: Some(limits::EXCHANGE_FOR), ..Bounds::of_boot() }
    }

    /// Watches last.
    pub(crate) fn of_api() -> Bounds {
        Bounds { connections: seats(limits::API_CONNECTIONS, 8), keep_alive: true, lifetime: None, head: limits::API_HEAD_BYTES }
    }
}

/// So many, and at most this part of the files that this process may have open: devices and the store need the rest.
fn seats(most: usize, part: u64) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    most.min(usize::try_from(files / part).unwrap_or(most)).max(1)
}

/// Lets this process open as many files as it may: the usual soft limit, 1024, is for programs that use select(2).
pub fn raise_files() {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum }) {
        Ok(()) => tracing::debug!(from = before.current, to = before.maximum, "the limit of open files is raised"),
        Err(error) => tracing::debug!(limit = before.current, error = %error, "the limit of open files stays as it is"),
    }
}

/// Where connections come in.
pub(crate) trait Door: Send + Sync {
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Connection>>;

    /// Who is at the other end, where that tells one guest from another.
    fn from(connection: &Self::Connection) -> Option<IpAddr>;

    /// Says that there is no seat, as far as that goes without waiting.
    fn turn_away(connection: Self::Connection);
}

impl Door for TcpListener {
    type Connection = TcpStream;

    fn next(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        self.poll_accept(cx).map_ok(|(stream, _)| stream)
    }

    fn from(connection: &TcpStream) -> Option<IpAddr> {
        connection.peer_addr().ok().map(|address| address.ip().to_canonical())
    }

    fn turn_away(connection: TcpStream) {
        let _unread = connection.try_write(FULL);
    }
}

impl Door for UnixListener {
    type Connection = UnixStream;

    fn next(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.poll_accept(cx).map_ok(|(stream, _)| stream)
    }

    fn from(_: &UnixStream) -> Option<IpAddr> {
        None
    }

    fn turn_away(connection: UnixStream) {
        let _unread = connection.try_write(FULL);
    }
}

// ---- seats -----------------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// By order of arrival.
    by: BTreeMap<u64, Arc<Guest>>,
}

#[derive(Default)]
struct Guest {
    from: Option<IpAddr>,
    has_asked: AtomicBool,
    leave: Notify,
}

/// Given back when it is dropped.
struct Seat {
    seats: Arc<Seats>,
    number: u64,
    guest: Arc<Guest>,
}

impl Taken {
    /// The one that has asked nothing for the longest time leaves; where all have asked, the longest one of whoever has the most seats, if those
    /// are more than a machine needs.
    fn free_one(&mut self) -> bool {
        let idle = self.by.iter().find(|(_, guest)| !guest.has_asked.load(Ordering::Relaxed)).map(|(number, _)| *number);
        let Some(number) = idle.or_else(|| self.of_the_greediest()) else { return false };
        if let Some(guest) = self.by.remove(&number) {
            guest.leave.notify_one();
        }
        true
    }
}

impl Taken {
    fn of_the_greediest(&self) -> Option<u64> {
        let mut seats: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, from) in self.by.iter().filter_map(|(number, guest)| Some((*number, guest.from?))) {
            seats.entry(from).or_insert((0, number)).0 += 1;
        }
        let (count, first) = seats.into_values().max()?;
        (count > limits::SEATS_OF_ONE).then_some(first)
    }
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, most: usize, from: Option<IpAddr>) -> Option<Seat> {
        let mut taken = self.taken();
        if taken.by.len() >= most && !taken.free_one() {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        let guest = Arc::new(Guest { from, ..Guest::default() });
        taken.by.insert(number, Arc::clone(&guest));
        Some(Seat { seats: Arc::clone(self), number, guest })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().by.remove(&self.number);
    }
}

// ---- serving ---------------------------------------------------------------------------------------------------------------

/// Answers until it is told to stop; then requests that run are finished. `about`: what the requests of a connection carry besides.
pub(crate) async fn serve<D: Door>(
    door: D,
    bounds: Bounds,
    router: Router,
    about: impl Fn(&D::Connection) -> Extensions,
    mut stop: watch::Receiver<bool>,
) {
    let seats = Arc::new(Seats::default());
    let bounds = Arc::new(bounds);
    let mut guests = JoinSet::new();
    let mut pause = limits::ACCEPT_AGAIN_FIRST;
    loop {
        let next = tokio::select! {
            biased;
            // A sender that is gone has stopped as well.
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = guests.join_next() => continue,
            next = poll_fn(|cx| door.next(cx)) => next,
        };
        match next {
            Ok(connection) => {
                pause = limits::ACCEPT_AGAIN_FIRST;
                match seats.take(bounds.connections, D::from(&connection)) {
                    Some(seat) => {
                        let about = about(&connection);
                        guests.spawn(answer(connection, seat, Arc::clone(&bounds), router.clone(), about, stop.clone()));
                    }
                    None => D::turn_away(connection),
                }
            }
            // accept(2): the other end is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of files or of memory, as a rule: who asks nothing goes first.
                tracing::warn!(error = %error, "a connection could not be accepted");
                seats.taken().free_one();
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => break,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(limits::ACCEPT_AGAIN_MAX),
                }
            }
        }
    }
    drop(door);
    while guests.join_next().await.is_some() {}
}

async fn answer<C>(connection: C, seat: Seat, bounds: Arc<Bounds>, router: Router, about: Extensions, mut stop: watch::Receiver<bool>)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guest = Arc::clone(&seat.guest);
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        seat.guest.has_asked.store(true, Ordering::Relaxed);
        request.extensions_mut().extend(about.clone());
        routes.call(request)
    });
    let mut http = http1::Builder::new();
    // Also between two requests of one connection: hyper's clock begins when it waits for a head.
    http.timer(TokioTimer::new()).header_read_timeout(limits::HEAD_WITHIN).max_buf_size(bounds.head).keep_alive(bounds.keep_alive);
    let mut served = pin!(http.serve_connection(TokioIo::new(connection), service));
    let over = async {
        match bounds.lifetime {
            Some(lifetime) => tokio::time::sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        // A connection that breaks concerns nobody else.
        _ = served.as_mut() => return,
        () = guest.leave.notified() => return,
        () = over => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    if !guest.has_asked.load(Ordering::Relaxed) {
        return;
    }
    served.as_mut().graceful_shutdown();
    let _broken = served.await;
}
