//! One request to etcd: its time limit, and what its failure means for what was asked.
//!
//! Leaves out: what is asked. Invariant: a failure is `NotSent` or `Refused` only where nothing can have been written; every other one is
//! `Ambiguous`. Tests: `tests/store.rs` (etcd killed, stopped, and absent).

use std::{future::Future, time::Duration};

use etcd_client::Error;
use tokio::time::{Instant, sleep, timeout};

use crate::store::StoreError;

/// One request. A put that a follower has handed to a dead leader hangs for as long as this (etcd 3.4, measured: with 5 s the writes of a
/// three-member cluster stood still for 5.0 s).
pub(super) const REQUEST: Duration = Duration::from_millis(2_500);
/// After this no request is tried again: a single member that was killed and started again answers after about 2 s (measured).
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(super) enum Failure {
    /// It never left this machine, or etcd said that it did not begin.
    NotSent(Cause),
    /// etcd said no. Trying again does not help.
    Refused { code: i32, cause: Error },
    /// No answer: it may have been carried out.
    Ambiguous(Cause),
}

// gRPC status codes (google/rpc/code.proto).
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
pub(super) const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;

impl Failure {
    fn of(error: Error) -> Failure {
        match error {
            Error::GRpcStatus(ref status) => {
                let code = status.code() as i32;
                let refused = [
                    INVALID_ARGUMENT,
                    NOT_FOUND,
                    PERMISSION_DENIED,
                    RESOURCE_EXHAUSTED,
                    FAILED_PRECONDITION,
                    OUT_OF_RANGE,
                    UNIMPLEMENTED,
                    UNAUTHENTICATED,
                ];
                // etcd's own words (etcdserver/api/v3rpc/rpctypes/error.go): said before anything is proposed.
                let not_begun = ["etcdserver: no leader", "etcdserver: too many requests", "etcdserver: server stopped"];
                if not_begun.iter().any(|words| status.message().contains(words)) || is_connect(status) {
                    Failure::NotSent(Box::new(error))
                } else if refused.contains(&code) {
                    Failure::Refused { code, cause: error }
                } else {
                    Failure::Ambiguous(Box::new(error))
                }
            }
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::EndpointError(_) | Error::EndpointsNotManaged => {
                Failure::Refused { code: INVALID_ARGUMENT, cause: error }
            }
            // Keep-alive of a lease that is over ("lease not found"); it cannot come from another call.
            Error::LeaseKeepAliveError(_) => Failure::Refused { code: NOT_FOUND, cause: error },
            other => Failure::Ambiguous(Box::new(other)),
        }
    }

    /// For calls that change nothing, or where it does not matter: the cause alone.
    pub(super) fn cause(self) -> Cause {
        match self {
            Failure::NotSent(cause) | Failure::Ambiguous(cause) => cause,
            Failure::Refused { cause, .. } => Box::new(cause),
        }
    }

    pub(super) fn says(&self, words: &str) -> bool {
        match self {
            Failure::NotSent(cause) | Failure::Ambiguous(cause) => cause.to_string().contains(words),
            Failure::Refused { cause, .. } => cause.to_string().contains(words),
        }
    }
}

/// Whether the connection itself was not made, as tonic and hyper tell it.
fn is_connect(status: &(impl std::error::Error + ?Sized)) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if ["tcp connect error", "client error (Connect)", "dns error"].iter().any(|words| text.contains(words)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// One attempt.
pub(super) async fn once<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match timeout(REQUEST, call).await {
        Ok(answer) => answer.map_err(Failure::of),
        Err(late) => Err(Failure::Ambiguous(Box::new(late))),
    }
}

/// Attempts for as long as the patience lasts; only for what may be done twice.
pub(super) async fn again<T, F: Future<Output = Result<T, Error>>>(mut call: impl FnMut() -> F) -> Result<T, Failure> {
    let mut pace = Pace::new();
    loop {
        match once(call()).await {
            Err(Failure::NotSent(_) | Failure::Ambiguous(_)) if pace.next().await => {}
            done => return done,
        }
    }
}

/// The pauses between attempts, with jitter, so that controllers do not come back in step.
pub(super) struct Pace {
    until: Instant,
    pause_ms: u64,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { until: Instant::now() + PATIENCE, pause_ms: 50 }
    }

    /// Waits; nothing more is to be tried once this is false.
    pub(super) async fn next(&mut self) -> bool {
        let pause = Duration::from_millis(rand::random_range(self.pause_ms / 2..=self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(800);
        if Instant::now() + pause >= self.until {
            return false;
        }
        sleep(pause).await;
        true
    }
}

/// What a failure means where nothing was written, or nothing was to be.
pub(super) fn nothing_written(place: &str, failure: Failure) -> StoreError {
    match failure {
        Failure::Refused { code, cause } => {
            let why = match code {
                RESOURCE_EXHAUSTED => "it has no space left (its quota is used up, or the request is too large)",
                PERMISSION_DENIED | UNAUTHENTICATED => "it refuses this user",
                INVALID_ARGUMENT => "it does not accept the request or the login",
                _ => "it refuses the request",
            };
            StoreError::Unusable { place: place.to_owned(), why: why.to_owned(), source: Some(Box::new(cause)) }
        }
        Failure::NotSent(source) | Failure::Ambiguous(source) => StoreError::Unreachable { place: place.to_owned(), source },
    }
}
