//! How far each start has come, stage by stage, and how long a stage usually takes there: in memory alone, for people.
//!
//! Leaves out: what a start proves (the body's record). Invariant: bounded by the servers of manifests; nothing of it is stored, and nothing is
//! decided by it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::operator::{StageRow, StartRow};
use crate::limits;
use crate::model::{Mac, Name};
use crate::telemetry::timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Power-on was sent.
    On,
    /// The first DHCP packet of its firmware.
    Dhcp,
    /// The loader was fetched.
    Loader,
    Script,
    Kernel,
    Initrd,
    /// What is in the initrd says that it runs.
    InitrdRuns,
    /// It was told who it is.
    Identity,
    Root,
    Hello,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::On => "power on",
            Stage::Dhcp => "DHCP",
            Stage::Loader => "loader",
            Stage::Script => "script",
            Stage::Kernel => "kernel",
            Stage::Initrd => "initrd",
            Stage::InitrdRuns => "initrd runs",
            Stage::Identity => "identity",
            Stage::Root => "root",
            Stage::Hello => "hello",
        }
    }
}

/// One stage of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub stage: Stage,
    pub at: Instant,
    pub what: String,
}

#[derive(Debug, Clone, Default)]
struct Timeline {
    seen: Vec<Seen>,
    /// What went wrong since the last script.
    failed: Option<(Instant, String)>,
    /// How long each stage took after the one before it, in earlier starts.
    usual: BTreeMap<Stage, VecDeque<Duration>>,
    /// What events told of it, by their reasons: when last.
    notes: BTreeMap<&'static str, Instant>,
}

/// A machine that no manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    pub mac: Mac,
    pub uuid: Option<String>,
    pub arch: Option<u16>,
    pub network: String,
    pub relay: Option<String>,
    /// RFC 3339.
    pub at: String,
    pub what: String,
}

#[derive(Debug, Default)]
pub struct Timelines {
    by: Mutex<BTreeMap<Name, Timeline>>,
    strangers: Mutex<VecDeque<Stranger>>,
}

impl Timelines {
    fn by(&self) -> MutexGuard<'_, BTreeMap<Name, Timeline>> {
        self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stage was seen; one that is seen again, as by a machine that asks once more, begins a start anew where it is an early one. Whether it is past
    /// what had failed.
    pub fn saw(&self, server: &Name, stage: Stage, what: &str, at: Instant) -> bool {
        let mut by = self.by();
        let line = by.entry(server.clone()).or_default();
        let past = stage >= Stage::Initrd && line.failed.take().is_some();
        let last = line.seen.last().map(|last| (last.stage, last.what == what, last.at));
        // The same once more, as of several questions or of an answer that was lost: the first one is when it came so far.
        let is_retry = match last {
            Some((Stage::Script, _, before)) => stage == Stage::Script && at.saturating_duration_since(before) < limits::SCRIPT_ASKED_AGAIN,
            Some((last, same, _)) => stage == last && same && stage != Stage::On,
            None => false,
        };
        if is_retry {
            return past;
        }
        if last.is_some_and(|(last, ..)| stage == Stage::On || (stage <= last && last >= Stage::Script)) {
            line.begin_anew();
        }
        if let Some(before) = line.seen.last() {
            let took = at.saturating_duration_since(before.at);
            // A machine that waited for something to boot took no time over it.
            if stage != Stage::Script || took < limits::SCRIPT_ASKED_AGAIN {
                let usual = line.usual.entry(stage).or_default();
                if usual.len() == limits::STARTS_REMEMBERED {
                    usual.pop_front();
                }
                usual.push_back(took);
            }
        }
        line.seen.push(Seen { stage, at, what: what.to_owned() });
        past
    }

    pub fn failed(&self, server: &Name, what: &str, at: Instant) {
        self.by().entry(server.clone()).or_default().failed = Some((at, what.to_owned()));
    }

    /// Whether something of it failed within so long.
    pub fn failed_lately(&self, server: &Name, within: Duration, now: Instant) -> bool {
        let failed = self.by().get(server).and_then(|line| line.failed.as_ref().map(|(at, _)| *at));
        failed.is_some_and(|at| now.saturating_duration_since(at) < within)
    }

    pub fn forget(&self, server: &Name) {
        self.by().remove(server);
    }

    /// Whether something is worth an event: whoever reaches the port can have it said as often as they like.
    pub fn is_news(&self, server: &Name, reason: &'static str, every: Duration, at: Instant) -> bool {
        let mut by = self.by();
        let notes = &mut by.entry(server.clone()).or_default().notes;
        let is_news = notes.get(reason).is_none_or(|told| at.saturating_duration_since(*told) >= every);
        if is_news {
            notes.insert(reason, at);
        }
        is_news
    }

    /// Since when nothing was seen of a start that has begun, and after which stage.
    pub fn last(&self, server: &Name) -> Option<Seen> {
        self.by().get(server)?.seen.last().cloned()
    }

    /// `power on, DHCP +2.1s (usually 3.0s), script +0.1s (persona p); the last one 12s ago`.
    pub fn told(&self, server: &Name, now: Instant) -> Option<String> {
        let start = self.starts(Some(server), now).pop()?;
        let stage = |stage: &StageRow| {
            let took = stage.took.as_ref().map(|took| format!(" +{took}")).unwrap_or_default();
            let usually = stage.usually.as_ref().map(|usually| format!("usually {usually}"));
            let about: Vec<String> = Some(stage.what.clone()).filter(|what| !what.is_empty()).into_iter().chain(usually).collect();
            let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
            format!("{}{took}{about}", stage.stage)
        };
        let stages: Vec<String> = start.stages.iter().map(stage).collect();
        let ago = start.stages.last().map(|last| format!("; the last one {} ago", last.ago)).unwrap_or_default();
        let failed = start.failed.map(|failed| format!("; {failed}")).unwrap_or_default();
        Some(format!("{}{ago}{failed}", stages.join(", ")))
    }

    /// The last starts, as rows; of all servers, or of one.
    pub fn starts(&self, server: Option<&Name>, now: Instant) -> Vec<StartRow> {
        let by = self.by();
        let is_asked = |name: &Name| server.is_none_or(|server| server == name);
        by.iter().filter(|(name, line)| is_asked(name) && !line.seen.is_empty()).map(|(name, line)| line.row(name, now)).collect()
    }

    // ---- machines that no manifest names -----------------------------------------------------------------------------------

    pub fn met(&self, stranger: Stranger) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.retain(|known| (known.mac, &known.network) != (stranger.mac, &stranger.network));
        if strangers.len() == limits::STRANGERS {
            strangers.pop_front();
        }
        strangers.push_back(stranger);
    }

    pub fn strangers(&self) -> Vec<Stranger> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Timeline {
    fn begin_anew(&mut self) {
        self.seen.clear();
        self.failed = None;
    }

    fn row(&self, server: &Name, now: Instant) -> StartRow {
        let mut stages = Vec::with_capacity(self.seen.len());
        let mut before: Option<Instant> = None;
        for seen in &self.seen {
            stages.push(StageRow {
                stage: seen.stage.as_str().to_owned(),
                what: seen.what.clone(),
                took: before.map(|before| short(seen.at.saturating_duration_since(before))),
                usually: before.and_then(|_| self.usually(seen.stage)).map(short),
                ago: short(now.saturating_duration_since(seen.at)),
            });
            before = Some(seen.at);
        }
        let ago = |at: &Instant| short(now.saturating_duration_since(*at));
        let failed = self.failed.as_ref().map(|(at, what)| format!("{what}, {} ago", ago(at)));
        StartRow { server: server.clone(), stages, failed: failed.or_else(|| self.ends_at_its_loader(now)) }
    }

    /// A UEFI loader was fetched, and nothing came after it.
    fn ends_at_its_loader(&self, now: Instant) -> Option<String> {
        let last = self.seen.last().filter(|last| last.stage == Stage::Loader && last.what.contains(".efi"))?;
        let silent = now.saturating_duration_since(last.at) > limits::LOADER_RUNS_WITHIN;
        silent.then(|| "nothing followed its loader: with Secure Boot on, its firmware refuses a loader that is not signed".to_owned())
    }

    /// The median of earlier starts.
    fn usually(&self, stage: Stage) -> Option<Duration> {
        let mut of: Vec<Duration> = self.usual.get(&stage)?.iter().copied().collect();
        // The last one is the one that is told.
        of.pop();
        of.sort_unstable();
        of.get(of.len() / 2).copied()
    }
}

impl Stranger {
    pub fn now(mac: Mac, network: &str, what: String) -> Stranger {
        Stranger { mac, uuid: None, arch: None, network: network.to_owned(), relay: None, at: timestamp(), what }
    }
}

/// `0.4s`, `12s`, `3m`.
fn short(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < 120.0 => format!("{s:.0}s"),
        s => format!("{:.0}m", s / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_that_nothing_follows_is_told_with_what_may_refuse_it() {
        for (loader, refused) in [("snponly.efi by HTTP", true), ("undionly.kpxe by TFTP", false)] {
            let (lines, server, at) = (Timelines::default(), "s".parse().unwrap(), Instant::now());
            lines.saw(&server, Stage::Dhcp, "", at);
            lines.saw(&server, Stage::Loader, loader, at + Duration::from_secs(1));
            let told = |after| lines.told(&server, at + Duration::from_secs(after)).unwrap();
            assert!(!told(50).contains("Secure Boot"), "{}", told(50));
            assert_eq!(told(90).contains("Secure Boot"), refused, "{}", told(90));
            lines.saw(&server, Stage::Script, "", at + Duration::from_secs(95));
            assert!(!told(300).contains("Secure Boot"), "{}", told(300));
        }
    }
}
