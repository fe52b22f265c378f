//! The turns that keep one typo from locking every BMC of a site: who may show unproven credentials to a device.
//!
//! A driver asks for its turn once the device has answered (IPMI: the Open Session Response; SNMPv3: the discovery), so that a silent device
//! holds nothing. Leaves out: where the credentials come from (`control::secrets`), and storing where they worked. Invariant: credentials
//! that two devices have refused are not shown to a third one where they never worked. Shown by the tests below.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Fault;
use crate::model::op::Device;

/// Devices that may try unproven credentials side by side; with each device where they worked, one more.
const CANARIES: usize = 2;
/// A turn that is held longer no longer keeps others from theirs: the device has answered, and then fell silent.
const TURN_FOR: Duration = Duration::from_secs(5);

/// All devices that use one Secret in one version.
#[derive(Default)]
pub struct Turns {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default)]
struct Known {
    worked: BTreeSet<Device>,
    /// Those of them that nobody was told of.
    news: BTreeSet<Device>,
    refused: BTreeSet<Device>,
    /// Where they were not tried, because others had refused them.
    kept_from: BTreeSet<Device>,
    /// Who has a turn, and since when.
    trying: BTreeMap<Device, Instant>,
    /// Who waits for one, by ticket.
    queue: VecDeque<u64>,
    tickets: u64,
}

/// What ends it that a device is not asked any more.
pub(crate) fn until(device: &Device) -> String {
    let (kind, name) = match device {
        Device::Bmc(name) => ("server", name),
        Device::Switch(name) => ("switch", name),
    };
    format!("they are not tried here before the Secret changes or `embody retry {kind} {name}`")
}

enum Verdict {
    Pass,
    Turn,
    /// Until something changes, or until then.
    Wait(Option<Instant>),
    Refuse(String),
}

impl Known {
    fn judge(&self, device: &Device, ticket: u64) -> Verdict {
        if self.worked.contains(device) {
            return Verdict::Pass;
        }
        if self.refused.len() >= CANARIES {
            let refused: Vec<String> = self.refused.iter().map(Device::to_string).collect();
            return Verdict::Refuse(format!("they were refused by {}", refused.join(" and ")));
        }
        let now = Instant::now();
        let held = self.trying.values().filter(|since| now < **since + TURN_FOR);
        if self.queue.front() == Some(&ticket) && held.clone().count() + self.refused.len() < CANARIES + self.worked.len() {
            return Verdict::Turn;
        }
        Verdict::Wait(held.min().map(|since| *since + TURN_FOR))
    }
}

/// Held while unproven credentials are tried. Dropped without a word, it says nothing of them.
pub struct Turn {
    turns: Arc<Turns>,
    device: Device,
}

impl Turn {
    /// The device took the credentials.
    pub fn worked(self) {
        self.turns.worked(&self.device);
    }

    /// The device refused the credentials.
    pub fn refused(self) {
        self.turns.refused(&self.device);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.known().trying.remove(&self.device);
        self.turns.changed.notify_waiters();
    }
}

/// A place in the queue, given back when the wait is over or given up.
struct Place<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.known().queue.retain(|t| *t != self.ticket);
        self.turns.changed.notify_waiters();
    }
}

impl Turns {
    /// `worked`: the devices where this version of this Secret has worked before.
    pub fn with_proven(worked: BTreeSet<Device>) -> Turns {
        Turns { known: Mutex::new(Known { worked, ..Known::default() }), changed: Notify::new() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the credentials may be shown to this device; at once where they worked before.
    pub async fn pass(self: &Arc<Self>, device: &Device) -> Result<Turn, Fault> {
        let turn = || Turn { turns: Arc::clone(self), device: device.clone() };
        let ticket = {
            let mut known = self.known();
            known.tickets += 1;
            let ticket = known.tickets;
            known.queue.push_back(ticket);
            ticket
        };
        let _place = Place { turns: self, ticket };
        loop {
            // Before the look: what changes after it is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let wait = {
                let mut known = self.known();
                match known.judge(device, ticket) {
                    Verdict::Pass => return Ok(turn()),
                    Verdict::Turn => {
                        known.trying.insert(device.clone(), Instant::now());
                        return Ok(turn());
                    }
                    Verdict::Refuse(why) => {
                        known.kept_from.insert(device.clone());
                        return Err(Fault::Denied { device: device.to_string(), why });
                    }
                    Verdict::Wait(until) => until,
                }
            };
            let over = async {
                match wait {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = over => {}
            }
        }
    }

    pub fn worked(&self, device: &Device) {
        let mut known = self.known();
        known.refused.remove(device);
        known.kept_from.remove(device);
        if known.worked.insert(device.clone()) {
            known.news.insert(device.clone());
        }
        drop(known);
        self.changed.notify_waiters();
    }

    /// A device that they were kept from has not refused them.
    pub fn refused(&self, device: &Device) {
        let mut known = self.known();
        known.worked.remove(device);
        known.news.remove(device);
        if !known.kept_from.contains(device) {
            known.refused.insert(device.clone());
        }
        drop(known);
        self.changed.notify_waiters();
    }

    /// Whether they worked here and nobody was told yet: true once.
    pub fn newly_proved(&self, device: &Device) -> bool {
        self.known().news.remove(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bmc(n: usize) -> Device {
        Device::Bmc(format!("n{n}").parse().unwrap())
    }

    async fn waits(turns: &Arc<Turns>, device: &Device) -> bool {
        tokio::time::timeout(Duration::from_millis(10), turns.pass(device)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn two_try_side_by_side_and_their_refusals_keep_all_others_away() {
        let turns = Arc::new(Turns::default());
        let (one, two) = (turns.pass(&bmc(1)).await.ok().unwrap(), turns.pass(&bmc(2)).await.ok().unwrap());
        assert!(waits(&turns, &bmc(3)).await);
        one.refused();
        assert!(waits(&turns, &bmc(3)).await, "one refusal and one that tries: a third may not");
        two.refused();
        for n in 3..40 {
            assert!(matches!(turns.pass(&bmc(n)).await, Err(Fault::Denied { why, .. }) if why.contains("bmc/n1 and bmc/n2")));
            // As a worker says it of every refusal.
            turns.refused(&bmc(n));
        }
        turns.worked(&bmc(1));
        assert!(!waits(&turns, &bmc(50)).await, "those that were kept away have refused nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn where_it_worked_before_nobody_waits_and_each_success_widens_the_way() {
        let turns = Arc::new(Turns::with_proven([bmc(7)].into()));
        let held: Vec<Turn> = [turns.pass(&bmc(1)).await, turns.pass(&bmc(2)).await, turns.pass(&bmc(3)).await]
            .into_iter()
            .map(|t| t.ok().unwrap())
            .collect();
        assert!(waits(&turns, &bmc(4)).await, "two, and one for the one where it worked");
        assert!(!waits(&turns, &bmc(7)).await);
        assert!(!turns.newly_proved(&bmc(7)), "that was known");
        held.into_iter().for_each(Turn::worked);
        assert!(turns.newly_proved(&bmc(1)) && !turns.newly_proved(&bmc(1)), "told once");
        let many: Vec<Turn> = {
            let mut all = Vec::new();
            for n in 10..16 {
                all.push(turns.pass(&bmc(n)).await.ok().unwrap());
            }
            all
        };
        assert!(waits(&turns, &bmc(16)).await, "{}", many.len());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_falls_silent_in_its_turn_holds_others_for_five_seconds_at_most() {
        let turns = Arc::new(Turns::default());
        let held = (turns.pass(&bmc(1)).await, turns.pass(&bmc(2)).await);
        let began = Instant::now();
        let third = turns.pass(&bmc(3)).await;
        assert_eq!((third.is_ok(), began.elapsed()), (true, TURN_FOR));
        drop(held);
        let began = Instant::now();
        assert!(turns.pass(&bmc(4)).await.is_ok());
        assert_eq!(began.elapsed(), Duration::ZERO, "dropped, a turn is free at once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_is_next_and_who_gives_up_holds_nobody() {
        let turns = Arc::new(Turns::default());
        let (one, _two) = (turns.pass(&bmc(1)).await.ok().unwrap(), turns.pass(&bmc(2)).await.ok().unwrap());
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (3..6)
            .map(|n| {
                let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
                tokio::spawn(async move {
                    let turn = turns.pass(&bmc(n)).await;
                    order.lock().unwrap().push(n);
                    drop(turn);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        waiting[0].abort();
        tokio::task::yield_now().await;
        drop(one);
        for task in waiting.into_iter().skip(1) {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [4, 5]);
    }
}
