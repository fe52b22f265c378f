//! The processes that run a controller: each as `cli::serve::run` puts it together, over one store, for one lease.
//!
//! What a process has on its disk (the mark of its records) outlives its death.

use std::sync::Arc;

use embody::testing::cli::serve::run as serve;
use embody::testing::clock::Clock;
use embody::testing::control::booting::Shared;
use embody::testing::control::controller::{Controller, Message, Parts, Remembered};
use embody::testing::control::status_writer::Site as Conditions;
use embody::testing::drivers::Devices;
use embody::testing::limits;
use embody::testing::server::api::Backend;
use embody::testing::sim::centre::{Answers, Centre, VirtualDevices};
use embody::testing::sim::checkers::Host as Number;
use embody::testing::sim::network::{WiredDevices, Wires};
use embody::testing::sim::trial_store::TrialStore;
use embody::testing::store::{Lease, LeaseEnd, Records, Store};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::checkouts::Checkouts;
use crate::images::Keeper;
use crate::reckless::RecklessDevices;

/// Who holds the lease, and until when.
type Holding = Option<(Number, Arc<LeaseEnd>, Shared)>;

/// What the others of a data centre are told about the controller that acts.
#[derive(Clone)]
pub struct Acting {
    to_controller: Arc<watch::Sender<Option<mpsc::Sender<Message>>>>,
    holds: Arc<watch::Sender<Holding>>,
}

impl Acting {
    pub fn new() -> Acting {
        Acting { to_controller: Arc::new(watch::channel(None).0), holds: Arc::new(watch::channel(None).0) }
    }

    pub fn controller(&self) -> watch::Receiver<Option<mpsc::Sender<Message>>> {
        self.to_controller.subscribe()
    }

    pub fn answers(&self) -> Answers {
        Answers { controller: self.to_controller.subscribe(), holds: self.holds.subscribe() }
    }

    fn begins(&self, host: Number, lease: &Arc<dyn Lease>, messages: mpsc::Sender<Message>, boot: Shared) {
        self.to_controller.send_replace(Some(messages));
        self.holds.send_replace(Some((host, lease.until(), boot)));
    }

    /// Another one may have begun meanwhile.
    fn ends(&self, host: Number) {
        if self.holds.borrow().as_ref().is_some_and(|(holder, ..)| *holder == host) {
            self.holds.send_replace(None);
            self.to_controller.send_replace(None);
        }
    }
}

/// How processes reach their devices.
#[derive(Clone)]
pub struct Reach {
    /// By the real drivers; without, by virtual ones.
    pub wires: Option<Arc<Wires>>,
    pub reckless: bool,
}

pub struct Host {
    pub number: Number,
    pub store: Arc<TrialStore>,
    reach: Reach,
    /// Those of the process that runs.
    wired: Option<Arc<WiredDevices>>,
    records: Arc<Records>,
    centre: Arc<Centre>,
    acting: Acting,
    process: Option<JoinHandle<()>>,
    /// Where it has a directory of manifests.
    pub source: Option<(Checkouts, Arc<Backend>)>,
    pub back_at: Option<Instant>,
    pub keeper: Keeper,
}

impl Host {
    pub fn new(number: Number, centre: &Arc<Centre>, store: Arc<TrialStore>, acting: &Acting, reach: Reach) -> Host {
        let records = Arc::new(Records::in_memory(store.clone()));
        let (centre, acting) = (Arc::clone(centre), acting.clone());
        Host {
            number,
            store,
            reach,
            wired: None,
            records,
            centre,
            acting,
            process: None,
            source: None,
            back_at: None,
            keeper: Keeper::default(),
        }
    }

    fn devices(&mut self) -> Arc<dyn Devices> {
        self.wired = self.reach.wires.as_ref().map(|wires| Arc::new(wires.devices(self.number)));
        let devices: Arc<dyn Devices> = match &self.wired {
            Some(wired) => wired.clone(),
            None => Arc::new(VirtualDevices { centre: Arc::clone(&self.centre), host: self.number }),
        };
        match self.reach.reckless {
            true => Arc::new(RecklessDevices(devices)),
            false => devices,
        }
    }

    pub fn start(&mut self) {
        self.back_at = None;
        if self.process.is_some() {
            return;
        }
        self.centre.note(&[], format!("controller {} starts", self.number));
        let process = Process {
            host: self.number,
            centre: Arc::clone(&self.centre),
            store: self.store.clone(),
            records: Arc::clone(&self.records),
            devices: self.devices(),
            acting: self.acting.clone(),
            keeper: self.keeper.clone(),
        };
        let (host, source, holds) = (self.number, self.source.clone(), self.acting.holds.subscribe());
        let lives = async move {
            let Some((checkouts, backend)) = source else { return process.act().await };
            let acts = || holds.borrow().as_ref().is_some_and(|(holder, ..)| *holder == host);
            tokio::select! {
                biased;
                () = process.act() => {}
                never = checkouts.follow(host, backend, acts) => match never {},
            }
        };
        self.process = Some(tokio::spawn(self.centre.freezer.hold(self.number, lives)));
    }

    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            self.centre.note(&[], format!("controller {} is dead", self.number));
            if let Some(wired) = &self.wired {
                wired.die();
            }
            process.abort();
            let _ = process.await;
            self.centre.freezer.thaw(self.number);
            self.acting.ends(self.number);
        }
    }
}

struct Process {
    host: Number,
    centre: Arc<Centre>,
    store: Arc<dyn Store>,
    records: Arc<Records>,
    devices: Arc<dyn Devices>,
    acting: Acting,
    keeper: Keeper,
}

impl Process {
    /// Acts while it holds the lease; waits for it while it does not.
    async fn act(self) {
        let mut remembered = Remembered::default();
        loop {
            let name = format!("host-{}", self.host);
            let lease = tokio::select! {
                biased;
                lease = self.store.acquire(serve::LEASE, &name, limits::LEASE_TTL) => lease,
                never = self.stand_by() => match never {},
            };
            let Ok(lease) = lease else {
                sleep(limits::RETRY_FIRST).await;
                continue;
            };
            let lease: Arc<dyn Lease> = Arc::from(lease);
            self.think(&lease, &mut remembered).await;
            lease.release().await;
            remembered.may_be_old();
        }
    }

    async fn stand_by(&self) -> std::convert::Infallible {
        loop {
            sleep(limits::STANDBY_LOOKS).await;
            let _ = self.records.follow().await;
        }
    }

    /// A controller, and another one whenever the watch of the store ends, until the lease is lost.
    async fn think(&self, lease: &Arc<dyn Lease>, remembered: &mut Remembered) {
        let mut ends = false;
        while !ends {
            let (reports, inbound) = mpsc::channel(limits::REPORTS);
            let (messages, inbox) = mpsc::channel(limits::REPORTS);
            let boot = Shared::default();
            let parts = Parts {
                store: Arc::clone(&self.store),
                records: Arc::clone(&self.records),
                devices: Arc::clone(&self.devices),
                lease: Arc::clone(lease),
                clock: Clock::start(),
                reports,
                site: Conditions::default(),
                remembered: remembered.clone(),
                boot: boot.clone(),
            };
            self.centre.judge(|judge, now| judge.began(self.host, now));
            let watched = match Controller::load(parts).await {
                Ok((controller, revision)) => self.store.watch("", revision).await.map(|watch| (controller, watch)),
                Err(error) => Err(error),
            };
            let Ok((mut controller, watch)) = watched else {
                sleep(limits::RETRY_FIRST).await;
                ends = lease.remaining().is_zero();
                continue;
            };
            let (images, to_controller) = (boot.clone(), messages.clone());
            self.acting.begins(self.host, lease, messages, boot);
            tokio::select! {
                biased;
                () = lease.lost() => {
                    self.centre.note(&[], format!("controller {} has lost its lease", self.host));
                    ends = true;
                }
                () = controller.run(inbox, inbound, watch) => {}
                never = self.keeper.keep(images, to_controller) => match never {},
            }
            self.acting.ends(self.host);
            *remembered = controller.close().await;
        }
    }
}
