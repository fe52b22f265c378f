//! Manifests in a repository of which each process has a checkout of its own, as `serve --manifests DIR` does: that of a standby may be older.
//!
//! The source itself is the product's (`gitops::directory`), its history of digests in the store included. Leaves out: files; what the directory holds
//! is handed over as objects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::cli::serve::run as serve;
use embody::testing::gitops::Directory;
use embody::testing::model::Object;
use embody::testing::server::api::Backend;
use embody::testing::sim::centre::Centre;
use embody::testing::sim::checkers::Host;
use tokio::sync::watch;
use tokio::time::sleep;

/// How often a directory is read again without a hint (`limits::RESCAN`).
pub const RESCAN: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Repository {
    versions: Vec<Vec<Object>>,
    /// Which of them each process has.
    checkouts: BTreeMap<Host, usize>,
}

/// The repository, and what each process has of it.
#[derive(Clone)]
pub struct Checkouts {
    inner: Arc<Mutex<Repository>>,
    /// A checkout is another one: processes are told by their file systems.
    changed: Arc<watch::Sender<()>>,
    centre: Arc<Centre>,
}

impl Checkouts {
    pub fn new(centre: &Arc<Centre>) -> Checkouts {
        Checkouts { inner: Arc::default(), changed: Arc::new(watch::Sender::new(())), centre: Arc::clone(centre) }
    }

    /// One commit: these objects, and all others as they were. The first process has it at once. False: it would not be valid.
    pub fn commit(&self, changed: &[Object]) -> bool {
        let key = |object: &Object| (object.kind(), object.name().clone());
        let mut repository = self.inner.lock().unwrap();
        let mut all: BTreeMap<_, Object> = repository.versions.last().into_iter().flatten().map(|o| (key(o), o.clone())).collect();
        all.extend(changed.iter().map(|object| (key(object), object.clone())));
        let all: Vec<Object> = all.into_values().collect();
        if !serve::check()(&all, &[]).is_empty() {
            return false;
        }
        repository.versions.push(all);
        let newest = repository.versions.len() - 1;
        repository.checkouts.insert(0, newest);
        self.changed.send_replace(());
        self.centre.judge(|judge, _| judge.committed(changed));
        true
    }

    /// This process has what is newest.
    pub fn pull(&self, host: Host) {
        let mut repository = self.inner.lock().unwrap();
        let newest = repository.versions.len().saturating_sub(1);
        repository.checkouts.insert(host, newest);
        self.changed.send_replace(());
    }

    fn holds(&self, host: Host) -> Option<Vec<Object>> {
        let repository = self.inner.lock().unwrap();
        let version = repository.checkouts.get(&host).copied().unwrap_or(0);
        repository.versions.get(version).cloned()
    }

    /// Reads the checkout of this process now and then, and applies it while that one acts.
    pub async fn follow(&self, host: Host, backend: Arc<Backend>, acts: impl Fn() -> bool) -> std::convert::Infallible {
        let mut changed = self.changed.subscribe();
        let (mut source, mut before) = (Directory::new(format!("/checkout-{host}").into(), false, backend), String::new());
        loop {
            if let Some(objects) = self.holds(host) {
                let content = source.saw(objects, 1).await;
                if acts() {
                    let said = format!("the directory of controller {host}: {:?}", source.apply(content).await);
                    if said != before {
                        self.centre.note(&[], said.clone());
                    }
                    before = said;
                }
            }
            // What was begun to be written is waited for a moment.
            tokio::select! {
                biased;
                _ = changed.changed() => sleep(Duration::from_secs(1)).await,
                () = sleep(RESCAN) => {}
            }
        }
    }
}
