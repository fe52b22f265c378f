//! A site of one server and one switch in virtual time, with the whole controller, for tests that watch one thing.
//!
//! Leaves out: faults, and more than one of anything (`tests/simulate.rs`).
#![allow(dead_code, reason = "each test program uses its part")]

pub mod doubtful;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use doubtful::Doubtful;
use embody::testing::boot::answer::Ask;
use embody::testing::boot::view::Machine;
use embody::testing::byte_channel;
use embody::testing::cli::serve::run as serve;
use embody::testing::clock::Clock;
use embody::testing::control::actions::Operators;
use embody::testing::control::booting::{Answer, Shared};
use embody::testing::control::controller::{Controller, Message, Parts, Remembered};
use embody::testing::control::images::Here;
use embody::testing::control::operator::{Control, Forecast, Refusal};
use embody::testing::control::worker::Report;
use embody::testing::limits;
use embody::testing::model::fact::Power;
use embody::testing::model::{Kind as ObjectKind, Mac, Name, Object};
use embody::testing::server::api::objects::Preconditions;
use embody::testing::server::api::{Backend, DryRun, apply};
use embody::testing::sim::bmc::BmcConfig;
use embody::testing::sim::centre::{Answers, Centre, VirtualDevices};
use embody::testing::sim::line::Line;
use embody::testing::sim::switch::{Kind, SimSwitch};
use embody::testing::store::{Change, Changes, EmbeddedStore, Lease, Records, Store, StoreError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub struct Small {
    pub centre: Arc<Centre>,
    pub store: Arc<EmbeddedStore>,
    /// The same, as the controller has it.
    pub doubtful: Arc<Doubtful>,
    pub words: Arc<Operators>,
    pub backend: Backend,
    records: Arc<Records>,
    lease: Arc<dyn Lease>,
    pub boot: Shared,
    pub to_controller: Arc<watch::Sender<Option<mpsc::Sender<Message>>>>,
    controller: Option<JoinHandle<()>>,
}

fn of(kind: &str, name: &str, spec: Value) -> Object {
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })).unwrap()
}

fn secret(name: &str, data: Value) -> Object {
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Secret", "metadata": { "name": name }, "stringData": data }))
        .unwrap()
}

fn switch_spec(address: &str) -> Value {
    json!({
        "address": address, "snmp": { "version": "v2c", "insecure": true, "secretRef": { "name": "snmp" } },
        "manage": { "ports": ["port1-8"] },
    })
}

pub fn switch(more: &Value) -> Object {
    let mut spec = switch_spec("192.0.2.1");
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    of("Switch", "tor-1", spec)
}

pub fn network(name: &str, vlan: u16) -> Object {
    of("Network", name, json!({ "vlan": vlan }))
}

pub fn binding(mode: &str) -> Object {
    of("Binding", "b", json!({ "persona": "p", "target": { "server": "s" }, "correct": mode }))
}

impl Small {
    /// Server s, off, on port1 of switch tor-1, to run persona p in the network web (VLAN 120).
    pub async fn start(kind: Kind, more_of_switch: Value, mode: &str) -> Small {
        let centre = Arc::new(Centre::new(false));
        let store = EmbeddedStore::in_memory().unwrap();
        let lease: Arc<dyn Lease> = Arc::from(store.acquire(serve::LEASE, "test", limits::LEASE_TTL).await.unwrap());
        let (to_controller, controller) = watch::channel(None);
        let mut sim = SimSwitch::new(kind, "tor-1", 16);
        [110, 120, 130].into_iter().for_each(|id: i64| sim.add_vlan(id.try_into().unwrap()));
        sim.save();
        centre.add_switch(&name("tor-1"), sim, Line::new(1));
        let config = BmcConfig { power: Power::Off, ..BmcConfig::default() };
        centre.add_machine(&name("s"), "02:00:00:00:00:01".parse().unwrap(), config, Duration::from_secs(5), Line::new(2));
        let boot = Shared::default();
        let holds = watch::channel(Some((0, lease.until(), boot.clone()))).1;
        tokio::spawn(Arc::clone(&centre).live(name("s"), Answers { controller: controller.clone(), holds }));
        let people: Arc<dyn Store> = store.clone();
        let doubtful = Doubtful::new(store.clone());
        let records = Arc::new(Records::in_memory(doubtful.clone()));
        let words = Arc::new(Operators { controller, store: Arc::clone(&people), lease: serve::LEASE });
        let backend = Backend::new(people, words.clone(), serve::check(), Default::default());
        let mut small = Small {
            centre,
            store,
            doubtful,
            words,
            backend,
            records,
            lease,
            boot,
            to_controller: Arc::new(to_controller),
            controller: None,
        };
        let nic = json!({ "name": "nic1", "mac": "02:00:00:00:00:01", "switch": "tor-1", "port": "port1", "boot": true });
        let root = json!({ "nfs": { "server": "10.0.20.5", "path": "/p", "mode": "overlay" } });
        small
            .apply(vec![
                secret("bmc", json!({ "username": "admin", "password": "admin" })),
                secret("snmp", json!({ "community": "private" })),
                network("web", 120),
                network("db", 130),
                switch(&more_of_switch),
                of("Server", "s", json!({ "bmc": { "address": "192.0.2.9", "secretRef": { "name": "bmc" } }, "nics": [nic] })),
                of(
                    "Persona",
                    "p",
                    json!({ "os": { "family": "linux" }, "root": root, "kernel": { "path": "boot/vmlinuz" },
                    "nics": [{ "name": "front", "untagged": "web", "boot": true }] }),
                ),
                binding(mode),
            ])
            .await;
        small.restart();
        small
    }

    pub async fn apply(&self, objects: Vec<Object>) {
        apply::apply(&self.backend, objects, None, DryRun::No).await.unwrap_or_else(|e| panic!("the manifests are refused: {e:?}"));
    }

    pub async fn remove(&self, kind: ObjectKind, object: &str) -> Option<Object> {
        let gone = self.backend.delete(kind, &name(object), &Preconditions::default(), DryRun::No).await;
        gone.unwrap_or_else(|e| panic!("{kind}/{object} is not deleted: {e:?}"))
    }

    /// One more server, off, that no binding names and that is on no switch.
    pub async fn add_server(&self, server: &str, guid: [u8; 16]) {
        let config = BmcConfig { power: Power::Off, guid, ..BmcConfig::default() };
        self.centre.add_machine(&name(server), "02:00:00:00:00:02".parse().unwrap(), config, Duration::from_secs(5), Line::new(3));
        self.wire(server, json!({})).await;
    }

    /// One more server, off, that is on no switch, whose machine boots.
    pub async fn add_machine(&self, server: &str, number: u8) {
        let config = BmcConfig { power: Power::Off, guid: [number; 16], ..BmcConfig::default() };
        let mac = format!("02:00:00:00:00:{number:02x}");
        self.centre.add_machine(&name(server), mac.parse().unwrap(), config, Duration::from_secs(5), Line::new(number.into()));
        let holds = watch::channel(Some((0, self.lease.until(), self.boot.clone()))).1;
        let controller = self.to_controller.subscribe();
        tokio::spawn(Arc::clone(&self.centre).live(name(server), Answers { controller, holds }));
        let bmc = json!({ "address": format!("192.0.2.{number}"), "secretRef": { "name": "bmc" } });
        self.apply(vec![of("Server", server, json!({ "bmc": bmc, "nics": [{ "name": "nic1", "mac": mac, "boot": true }] }))]).await;
    }

    /// The NIC of a server that `add_server` added is where this says.
    pub async fn wire(&self, server: &str, at: Value) {
        let mut nic = json!({ "name": "nic1", "mac": "02:00:00:00:00:02", "boot": true });
        for (key, value) in at.as_object().into_iter().flatten() {
            nic[key] = value.clone();
        }
        let bmc = json!({ "address": "192.0.2.10", "secretRef": { "name": "bmc" } });
        self.apply(vec![of("Server", server, json!({ "bmc": bmc, "nics": [nic] }))]).await;
    }

    /// One more switch, which shows this serial number.
    pub async fn add_switch(&self, switch: &str, serial: &str) {
        let mut sim = SimSwitch::new(Kind::QBridge, switch, 16);
        [110, 120, 130].into_iter().for_each(|id: i64| sim.add_vlan(id.try_into().unwrap()));
        sim.save();
        self.centre.add_switch(&name(switch), sim, Line::new(4));
        self.centre.swap_switch(&name(switch), serial);
        self.apply(vec![of("Switch", switch, switch_spec("192.0.2.2"))]).await;
    }

    /// One more server is to run persona p.
    pub async fn bind(&self, server: &str) {
        let bound = json!({ "persona": "p", "target": { "server": server }, "correct": "enforce" });
        self.apply(vec![of("Binding", &format!("on-{server}"), bound)]).await;
    }

    /// Nobody acts any more.
    pub fn stop(&mut self) {
        if let Some(before) = self.controller.take() {
            before.abort();
        }
    }

    fn parts(&self, reports: mpsc::Sender<Report>) -> Parts {
        Parts {
            store: self.doubtful.clone(),
            records: Arc::clone(&self.records),
            devices: Arc::new(VirtualDevices { centre: Arc::clone(&self.centre), host: 0 }),
            lease: Arc::clone(&self.lease),
            clock: Clock::start(),
            reports,
            site: watch::Sender::default(),
            remembered: Remembered::default(),
            boot: self.boot.clone(),
        }
    }

    /// Why a controller does not begin.
    pub async fn refuses_to_begin(&self) -> String {
        let (reports, _inbound) = mpsc::channel(limits::REPORTS);
        Controller::load(self.parts(reports)).await.err().map(|e| e.to_string()).unwrap_or_default()
    }

    /// The controller begins anew, from nothing but the store.
    pub fn restart(&mut self) {
        self.start_over(None);
    }

    /// Another controller, whose watch tells what is sent here instead of what is stored.
    #[allow(dead_code, reason = "not every test needs one")]
    pub fn restart_deaf(&mut self) -> byte_channel::Sender<Result<Change, StoreError>> {
        let (to, changes) = byte_channel::channel(1 << 20, |_| 0);
        self.start_over(Some(changes));
        to
    }

    /// Another controller, whose watch tells nothing of server s while its store is in doubt.
    pub async fn restart_in_doubt(&mut self) {
        let now = self.store.list("").await.unwrap().1;
        let changes = self.doubtful.watch_but_s(now).await;
        self.start_over(Some(changes));
    }

    fn start_over(&mut self, deaf: Option<Changes>) {
        self.stop();
        let (store, to_controller): (Arc<dyn Store>, _) = (self.doubtful.clone(), Arc::clone(&self.to_controller));
        let (reports, inbound) = mpsc::channel(limits::REPORTS);
        let parts = self.parts(reports);
        self.controller = Some(tokio::spawn(async move {
            let (messages, inbox) = mpsc::channel(limits::REPORTS);
            let (mut controller, revision) = Controller::load(parts).await.unwrap();
            let watched = store.watch("", revision).await.unwrap();
            let watch = deaf.unwrap_or(watched);
            to_controller.send_replace(Some(messages));
            controller.run(inbox, inbound, watch).await;
        }));
    }

    /// Gives an image a content: 64 times this digit.
    pub async fn import(&self, image: &str, digit: char) -> Result<String, Refusal> {
        self.add(image, digit, "").await
    }

    /// Without a kernel, or without an init.
    pub async fn import_without(&self, image: &str, digit: char, what: &str) {
        self.add(image, digit, what).await.unwrap();
    }

    async fn add(&self, image: &str, digit: char, without: &str) -> Result<String, Refusal> {
        let mut record = json!({ "digest": digit.to_string().repeat(64), "entries": 3, "bytes": 4096, "kernel": { "version": "6.1.0", "path": "/boot/vmlinuz-6.1.0" },
            "imported": format!("2026-11-{}T00:00:00Z", digit.to_digit(16).unwrap() + 10), "by": "ann" });
        match without {
            "kernel" => drop(record.as_object_mut().unwrap().remove("kernel")),
            "init" => record["init"] = json!(false),
            _ => {}
        }
        self.words.add_image(&image.parse().unwrap(), serde_json::from_value(record).unwrap()).await
    }

    /// The files of that content are here now, or something of them is not.
    pub async fn image_is(&self, digit: char, lacks: Option<&str>) {
        let here = Here { lacks: lacks.map(str::to_owned), ram: Err("it is packed first".to_owned()) };
        self.image_is_here(digit, here).await;
    }

    pub async fn image_is_here(&self, digit: char, here: Here) {
        self.boot.images.is(&digit.to_string().repeat(64), here);
        let to_controller = self.to_controller.borrow().clone().unwrap();
        to_controller.send(Message::Images).await.unwrap();
    }

    /// What the machine of the server is told to boot.
    pub async fn boot(&self) -> Answer {
        self.boot_as(None).await
    }

    /// The same, if it says that it is this one.
    pub async fn boot_as(&self, uuid: Option<&str>) -> Answer {
        self.boot_of("02:00:00:00:00:01", uuid).await
    }

    /// What the machine with this address is told.
    pub async fn boot_of(&self, mac: &str, uuid: Option<&str>) -> Answer {
        let uuid = uuid.map(str::to_owned);
        let (reply, answer) = oneshot::channel();
        let to_controller = self.to_controller.borrow().clone().unwrap();
        let arch = serde_json::from_value(json!("x86_64")).unwrap();
        let from = self.has_address(mac).await;
        let ask = Ask { mac: mac.parse().unwrap(), uuid, arch, from, ours: true };
        to_controller.send(Message::Boot { ask, base: "http://192.0.2.1".to_owned(), reply }).await.unwrap();
        answer.await.unwrap()
    }

    /// What whoever asks here is told of by the view of this moment.
    pub fn machine(&self, mac: &str) -> Option<Arc<Machine>> {
        self.boot.view.borrow().as_ref()?.machine(mac.parse().unwrap()).cloned()
    }

    /// Whether this address may be given to this machine.
    pub async fn gives(&self, address: &str, mac: &str) -> bool {
        let (reply, given) = oneshot::channel();
        let to_controller = self.to_controller.borrow().clone().unwrap();
        let addresses = vec![(address.parse().unwrap(), mac.parse().unwrap(), name("web"))];
        to_controller.send(Message::Give { addresses, reply }).await.unwrap();
        given.await.unwrap() == [true]
    }

    /// The address that this machine is given, where machines boot over a network.
    async fn has_address(&self, mac: &str) -> Option<Ipv4Addr> {
        let mac: Mac = mac.parse().unwrap();
        let view = self.boot.view.borrow().clone()?;
        let network = view.networks.first()?;
        let address = network.boot.range?.nth(mac.octets()[5].into());
        let (reply, given) = oneshot::channel();
        let to_controller = self.to_controller.borrow().clone().unwrap();
        to_controller.send(Message::Give { addresses: vec![(address, mac, network.name.clone())], reply }).await.unwrap();
        assert_eq!(given.await.unwrap(), [true]);
        Some(address)
    }

    pub async fn plan(&self, changes: Vec<Object>) -> Forecast {
        self.words.forecast(changes).await
    }

    pub async fn status(&self, kind: ObjectKind, name: &str) -> Value {
        self.backend.read(kind, name).await.unwrap().status
    }

    pub async fn is_ready(&self) -> bool {
        let status = self.status(ObjectKind::Binding, "b").await;
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        status["conditions"].as_array().is_some_and(|all| all.iter().any(ready))
    }

    /// Until the binding is as desired.
    pub async fn ready(&self) {
        for _ in 0..600 {
            if self.is_ready().await {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("it is not ready after ten minutes: {}", self.status(ObjectKind::Binding, "b").await);
    }

    pub async fn events(&self) -> Vec<String> {
        let all = self.store.events(1000).await.unwrap();
        let line = |bytes: &Vec<u8>| {
            let event: Value = serde_json::from_slice(bytes).unwrap();
            format!("{} {} {}", event["regarding"].as_str().unwrap(), event["reason"].as_str().unwrap(), event["message"].as_str().unwrap())
        };
        all.iter().map(line).collect()
    }
}
