//! What a source of desired state waits for a person to approve: shown here, said here, and taken by the source itself.
//!
//! Invariant: an approval is of one digest, over all that would be written and deleted; it is taken once. Shown by `tests/rack/process.rs`.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;

/// What would be applied and deleted, and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Pending {
    pub digest: String,
    /// `Binding/web-1 configured`, `Network/lab deleted`.
    pub writes: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Source {
    inner: Mutex<Inner>,
    said: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    pending: Option<Pending>,
    approved: Option<String>,
}

impl Source {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn pending(&self) -> Option<Pending> {
        self.with(|inner| inner.pending.clone())
    }

    pub(crate) fn waits_for(&self, pending: Option<Pending>) {
        self.with(|inner| inner.pending = pending);
    }

    /// A person approves what has this digest. False when something else waits now, or nothing.
    pub(super) fn approve(&self, digest: &str) -> bool {
        let is = self.with(|inner| {
            let is = inner.pending.as_ref().is_some_and(|pending| pending.digest == digest);
            inner.approved = is.then(|| digest.to_owned());
            is
        });
        self.said.notify_one();
        is
    }

    /// Whether exactly this was approved; the word is used up.
    pub(crate) fn takes_approval(&self, digest: &str) -> bool {
        self.with(|inner| inner.approved.take().is_some_and(|approved| approved == digest))
    }

    /// Until a person has said something.
    pub(crate) async fn said(&self) {
        self.said.notified().await;
    }
}
