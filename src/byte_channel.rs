//! A channel that is bounded by the bytes that wait in it: a reader that does not read costs so much, however large the things are.
//!
//! Leaves out: what becomes of a writer that waits (the caller's). Invariant: what waits weighs at most what the channel was made for, and one
//! thing more that alone weighs more than that. Shown by its own tests, `tests/store.rs` and `tests/api.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;

/// A thing weighs at least this, in bytes: so much is spent on each beside its content.
const LEAST: usize = 512;

/// The reader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

#[derive(Debug)]
pub struct Sender<T> {
    to: mpsc::UnboundedSender<(T, u32)>,
    free: Arc<Semaphore>,
    most: u32,
    weigh: fn(&T) -> usize,
}

#[derive(Debug)]
pub struct Receiver<T> {
    from: mpsc::UnboundedReceiver<(T, u32)>,
    free: Arc<Semaphore>,
}

/// For things that weigh `most` bytes together.
pub fn channel<T>(most: usize, weigh: fn(&T) -> usize) -> (Sender<T>, Receiver<T>) {
    let (to, from) = mpsc::unbounded_channel();
    let free = Arc::new(Semaphore::new(most));
    let sender = Sender { to, free: Arc::clone(&free), most: u32::try_from(most).unwrap_or(u32::MAX), weigh };
    (sender, Receiver { from, free })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { to: self.to.clone(), free: Arc::clone(&self.free), most: self.most, weigh: self.weigh }
    }
}

impl<T> Sender<T> {
    /// Waits until there is room.
    pub async fn send(&self, thing: T) -> Result<(), Gone> {
        let weight = u32::try_from((self.weigh)(&thing).max(LEAST)).unwrap_or(u32::MAX).min(self.most);
        self.free.acquire_many(weight).await.map_err(|_| Gone)?.forget();
        self.to.send((thing, weight)).map_err(|_| Gone)
    }

    /// Does not wait: for the word that the channel ends.
    pub fn send_last(&self, thing: T) {
        // A reader that is gone needs no last word.
        let _gone = self.to.send((thing, 0));
    }

    pub async fn closed(&self) {
        self.to.closed().await;
    }
}

impl<T> Receiver<T> {
    pub async fn recv(&mut self) -> Option<T> {
        let (thing, weight) = self.from.recv().await?;
        self.free.add_permits(weight as usize);
        Some(thing)
    }

    /// What is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        let (thing, weight) = self.from.try_recv().ok()?;
        self.free.add_permits(weight as usize);
        Some(thing)
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let next = std::task::ready!(self.from.poll_recv(cx));
        Poll::Ready(next.map(|(thing, weight)| {
            self.free.add_permits(weight as usize);
            thing
        }))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Whoever waits for room need not wait any longer.
        self.free.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    async fn has_room(to: &Sender<Vec<u8>>, bytes: usize) -> bool {
        timeout(Duration::from_secs(5), to.send(vec![0; bytes])).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_in_bytes() {
        let (to, mut from) = channel(10_000, Vec::len);
        assert!(has_room(&to, 6_000).await && has_room(&to, 3_000).await);
        assert!(!has_room(&to, 2_000).await);
        from.recv().await.unwrap();
        assert!(has_room(&to, 2_000).await);
        to.send_last(Vec::new());
        assert_eq!([from.recv().await, from.recv().await, from.recv().await].map(|v| v.unwrap().len()), [3_000, 2_000, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn small_things_count_too_and_one_that_is_too_large_goes_alone() {
        let (to, mut from) = channel(4 * LEAST, Vec::len);
        for _ in 0..4 {
            assert!(has_room(&to, 1).await);
        }
        assert!(!has_room(&to, 1).await);
        while timeout(Duration::from_secs(1), from.recv()).await.is_ok() {}
        assert!(has_room(&to, 1 << 20).await && !has_room(&to, 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_waits_hears_that_the_reader_is_gone() {
        let (to, from) = channel(1_000, Vec::len);
        to.send(vec![0; 1_000]).await.unwrap();
        let waiting = tokio::spawn(async move { to.send(vec![0; 1_000]).await });
        tokio::task::yield_now().await;
        drop(from);
        assert_eq!(waiting.await.unwrap(), Err(Gone));
    }
}
