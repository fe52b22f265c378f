//! Processes that stand still and go on, as by SIGSTOP or under a hypervisor that pauses them: time goes on, their code does not.
//!
//! What runs a controller is wrapped by `hold`, and whatever it waits for (a device, the store, a boot answer) ends with `awake`. Leaves out:
//! who freezes whom, and when (`tests/simulate.rs`).

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::checkers::Host;

/// Those that are frozen, and who waits for them.
#[derive(Default)]
pub struct Freezer(Mutex<BTreeMap<Host, Vec<Waker>>>);

impl Freezer {
    fn frozen(&self) -> MutexGuard<'_, BTreeMap<Host, Vec<Waker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn freeze(&self, host: Host) {
        self.frozen().entry(host).or_default();
    }

    pub fn thaw(&self, host: Host) {
        let waiting = self.frozen().remove(&host).unwrap_or_default();
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_running(&self, host: Host) -> bool {
        !self.frozen().contains_key(&host)
    }

    fn is_awake(&self, host: Host, context: &Context<'_>) -> bool {
        match self.frozen().get_mut(&host) {
            Some(waiting) => {
                waiting.push(context.waker().clone());
                false
            }
            None => true,
        }
    }

    /// Until it is not frozen.
    pub async fn awake(&self, host: Host) {
        poll_fn(|context| if self.is_awake(host, context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// A part of a process.
    pub fn hold<F: Future + Send>(self: &Arc<Self>, host: Host, part: F) -> Held<F> {
        Held { freezer: Arc::clone(self), host, part: Box::pin(part) }
    }
}

/// It does nothing while its process is frozen.
pub struct Held<F> {
    freezer: Arc<Freezer>,
    host: Host,
    part: Pin<Box<F>>,
}

impl<F: Future> Future for Held<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !self.freezer.is_awake(self.host, context) {
            return Poll::Pending;
        }
        self.part.as_mut().poll(context)
    }
}
