//! The people of the simulated data centre: what they desired state, through the API's own checks, and what they do with their hands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use embody::testing::control::actions::Operators as Words;
use embody::testing::control::operator::{ApprovalShown, Approving, Control, Refusal, Scope};
use embody::testing::drivers::bmc::ipmi::commands::ChassisControl;
use embody::testing::drivers::gate::Key;
use embody::testing::drivers::switch::objects::{self, at};
use embody::testing::drivers::switch::snmp::Value as SnmpValue;
use embody::testing::drivers::switch::snmp::codec::{self, Pdu};
use embody::testing::model::claim::directory;
use embody::testing::model::fact::{Admin, PortConfig, Power, Tick};
use embody::testing::model::op::{Device, Off, Op};
use embody::testing::model::{Kind, Name, Object, Vlan};
use embody::testing::plan::off::sending;
use embody::testing::server::api::objects::Preconditions;
use embody::testing::server::api::{Backend, DryRun, apply};
use embody::testing::sim::centre::Centre;
use embody::testing::sim::checkers::{By, Write};
use embody::testing::sim::mib::Mib;
use embody::testing::sim::network::Wires;
use embody::testing::sim::switch::Faults;
use embody::testing::store::keys;
use serde_json::{Value, json};

use tokio::time::sleep;

use crate::checkouts::{Checkouts, RESCAN};
use crate::plan::{Act, Plan, RACK, Rogue, Rolls};
use crate::starts::booting;

pub const QUARANTINE: u16 = 999;
/// The root of a persona that is on the disk of its server.
const ON_DISK: &str = "disk";

/// Of the machine with this number, the so-manieth BMC in front of it.
pub fn guid(n: usize, which: u8) -> [u8; 16] {
    let mut guid = [0x20 + which; 16];
    guid[0] = n as u8;
    guid
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn server(n: usize) -> Name {
    name(&format!("s{n}"))
}

pub fn switch(n: usize) -> Name {
    name(&format!("tor-{}", n + 1))
}

/// The two switches of a server.
pub fn switch_of(server: usize, which: usize) -> Name {
    switch(2 * (server / RACK) + which)
}

/// The port of server n on each of them.
pub fn port(server: usize) -> String {
    format!("port{}", server % RACK + 1)
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Intent {
    pub persona: usize,
    pub server: usize,
    pub state: &'static str,
    pub restart: u64,
    pub mode: &'static str,
}

pub struct Operators {
    pub backend: Backend,
    pub words: Arc<Words>,
    pub(crate) centre: Arc<Centre>,
    pub(crate) plan: Plan,
    /// Where the drivers are the real ones.
    pub(crate) wires: Option<Arc<Wires>>,
    pub(crate) desired: BTreeMap<usize, Intent>,
    /// Each persona: whether it is exclusive, and its root.
    pub(crate) personas: BTreeMap<usize, (bool, String)>,
    vlans: [u16; 3],
    pub(crate) hard_off_without_soft: bool,
    /// What each BMC shows when it shows anything.
    guids: BTreeMap<usize, [u8; 16]>,
    lied_at: BTreeMap<usize, Tick>,
    /// Names and roots that nothing had before.
    pub(crate) fresh: usize,
    /// Of the persona that has a rollout: the revision before, and that of now.
    pub(crate) revisions: (usize, usize),
    pub(crate) rolls: Option<Rolls>,
    /// What a person was shown last of a binding, and when.
    pub(crate) shown: BTreeMap<usize, (ApprovalShown, Tick)>,
    /// Personas that have changed one network for another.
    pub(crate) in_other_network: BTreeSet<usize>,
    /// Where desired state comes from a directory.
    pub(crate) checkouts: Option<Checkouts>,
}

fn object(json: Value) -> Object {
    Object::from_json(json).unwrap()
}

fn of(kind: &str, name: &str, spec: Value) -> Object {
    object(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec }))
}

fn secret(name: &str, data: Value) -> Object {
    object(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Secret", "metadata": { "name": name }, "stringData": data }))
}

/// `machines`: so many machines boot over it, where it is a network of first NICs.
pub(crate) fn network(n: usize, vlan: u16, machines: Option<usize>) -> Object {
    let plain = of("Network", ["web", "db", "backup"][n], json!({ "vlan": vlan, "role": "service" }));
    booting(plain, [110, 120, 130][n], machines.filter(|_| n < 2))
}

impl Operators {
    pub fn new(plan: &Plan, centre: Arc<Centre>, wires: Option<Arc<Wires>>, backend: Backend, words: Arc<Words>) -> Operators {
        let shared = |n: usize| plan.rolled.as_ref().filter(|(_, bindings)| bindings.contains(&n)).map(|(persona, _)| *persona);
        let desired = |(n, server): (usize, &usize)| {
            (n, Intent { persona: shared(n).unwrap_or(n), server: *server, state: "Running", restart: 0, mode: "enforce" })
        };
        let desired = plan.bindings.iter().enumerate().map(desired).collect();
        let place = |n: usize| if plan.on_disk[n] { ON_DISK.to_owned() } else { format!("/personas/p{n}") };
        let root = |(n, exclusive): (usize, &bool)| (n, (*exclusive, place(n)));
        let personas = plan.exclusive.iter().enumerate().map(root).collect();
        let guids = (0..plan.machines.len()).map(|n| (n, guid(n, 0))).collect();
        let plan = plan.clone();
        let (vlans, lied_at) = ([110, 120, 130], BTreeMap::new());
        let (shown, in_other_network) = (BTreeMap::new(), BTreeSet::new());
        Operators {
            backend,
            words,
            centre,
            plan,
            wires,
            desired,
            personas,
            vlans,
            hard_off_without_soft: false,
            guids,
            lied_at,
            fresh: 0,
            revisions: (1, 1),
            rolls: Some(Rolls { most: 1, pause_after: None }),
            shown,
            in_other_network,
            checkouts: None,
        }
    }

    /// The first manifests.
    pub async fn move_in(&self) {
        let said = self.apply(self.everything()).await;
        said.unwrap_or_else(|why| panic!("the first manifests are refused: {why}"));
    }

    /// By a commit, or as `embody apply` does.
    pub(crate) async fn apply(&self, objects: Vec<Object>) -> Result<(), String> {
        match &self.checkouts {
            Some(checkouts) if checkouts.commit(&objects) => Ok(()),
            Some(_) => Err("it would not be valid".to_owned()),
            None => match apply::apply(&self.backend, objects, None, DryRun::No).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{} {:?}", error.message, error.causes)),
            },
        }
    }

    /// All manifests as they are to be now.
    pub(crate) fn everything(&self) -> Vec<Object> {
        let mut all = vec![
            secret("bmc", json!({ "username": "admin", "password": "admin" })),
            secret("snmp", json!({ "community": "private" })),
            secret(
                "snmp3",
                json!({ "username": "embody", "authProtocol": "SHA-256", "authPassword": "long enough", "privProtocol": "AES", "privPassword": "longer yet" }),
            ),
            self.policy(),
            booting(of("Network", "quarantine", json!({ "vlan": QUARANTINE, "role": "quarantine" })), 99, self.booting()),
        ];
        all.extend((0..3).map(|n| network(n, self.vlans[n], self.booting())));
        let last = self.plan.ports();
        for n in 0..self.plan.switches() {
            let mut spec = json!({
                "address": format!("192.0.2.{}", n + 1), "snmp": { "version": "v2c", "insecure": true, "secretRef": { "name": "snmp" } },
                "manage": { "ports": [format!("port1-{}", last - 1)] }, "protectedVlans": [1],
            });
            if n.is_multiple_of(2) {
                spec["vlans"] = json!("Create");
                spec["uplinks"] = json!([format!("port{last}")]);
            } else if self.plan.wired {
                spec["snmp"] = json!({ "version": "v3", "secretRef": { "name": "snmp3" } });
            }
            all.push(of("Switch", switch(n).as_str(), spec));
        }
        for n in 0..self.plan.machines.len() {
            let nic = |k: usize| json!({ "name": format!("nic{}", k + 1), "mac": format!("02:00:00:00:{n:02x}:{k:02x}"), "switch": switch_of(n, k), "port": port(n), "boot": k == 0 });
            let bmc = json!({ "address": format!("192.0.2.{}", 100 + n), "secretRef": { "name": "bmc" } });
            all.push(of("Server", server(n).as_str(), json!({ "arch": "x86_64", "bmc": bmc, "nics": [nic(0), nic(1)] })));
        }
        all.extend(self.personas.keys().map(|n| self.persona(*n)));
        all.extend(self.desired.iter().map(|(n, desired)| self.binding(*n, desired)));
        all
    }

    pub(crate) fn policy(&self) -> Object {
        // Seldom where it may be, so that hours go by in seconds; and now and then the intervals change under the workers.
        let (bmc, switch) = if self.hard_off_without_soft { ("20s", "10s") } else { ("45s", "2m") };
        let mut limits = json!({ "maxUnavailable": "100%", "hardOffWithoutSoft": self.hard_off_without_soft, "maxAffectedByChange": { "count": self.plan.affected } });
        if self.plan.is_large() {
            limits["maxPowerChanges"] = json!({ "atOnce": 16, "perMinute": 60 });
            limits["maxPortWrites"] = json!({ "atOnce": 16, "perMinute": 240 });
        }
        of("Policy", "default", json!({ "limits": limits, "bmc": { "pollInterval": bmc }, "switch": { "pollInterval": switch } }))
    }

    pub(crate) fn persona(&self, n: usize) -> Object {
        let (exclusive, root) = self.personas[&n].clone();
        let mode = if exclusive { "writable" } else { "overlay" };
        let web = n.is_multiple_of(2) != self.in_other_network.contains(&n);
        let mut nics = vec![json!({ "name": "nic1", "untagged": if web { "web" } else { "db" }, "boot": true })];
        if n % 3 != 2 {
            nics.push(json!({ "name": "nic2", "untagged": "db", "tagged": ["backup"] }));
        }
        let mut spec = json!({ "os": { "family": "linux", "arch": "x86_64" }, "exclusive": exclusive, "nics": nics });
        if root == ON_DISK {
            spec["root"] = json!({ "disk": {} });
        } else {
            spec["root"] = json!({ "nfs": { "server": "10.0.20.5", "path": root, "mode": mode } });
            spec["kernel"] = json!({ "path": "boot/vmlinuz" });
        }
        self.comes_up(n, &mut spec);
        self.is_rolled(n, &mut spec);
        of("Persona", &format!("p{n}"), spec)
    }

    pub(crate) fn binding(&self, n: usize, desired: &Intent) -> Object {
        let spec = json!({
            "persona": format!("p{}", desired.persona), "target": { "server": server(desired.server) }, "state": desired.state, "correct": desired.mode,
            "restart": desired.restart, "shutdown": { "grace": format!("{}s", self.plan.grace.as_secs()) },
        });
        of("Binding", &format!("b{n}"), spec)
    }

    pub(crate) async fn desired(&mut self, changes: Vec<(usize, Intent)>) {
        let objects: Vec<Object> = changes.iter().map(|(n, desired)| self.binding(*n, desired)).collect();
        match self.apply(objects).await {
            Ok(()) => self.desired.extend(changes),
            Err(why) => self.centre.note(&[], format!("a person's desired state is refused: {why}")),
        }
    }

    pub(crate) fn on(&self, server: usize) -> Option<usize> {
        self.desired.iter().find(|(_, w)| w.server == server).map(|(n, _)| *n)
    }

    pub async fn act(&mut self, act: &Act) {
        match act {
            Act::Move { binding, server } => {
                let Some(mine) = self.desired.get(binding).cloned() else { return };
                let mut changes = Vec::new();
                if let Some(other) = self.on(*server).filter(|o| o != binding) {
                    changes.push((other, Intent { server: mine.server, ..self.desired[&other].clone() }));
                }
                changes.push((*binding, Intent { server: *server, ..mine }));
                self.desired(changes).await;
            }
            Act::SwapPersonas(a, b) if a != b => {
                if let (Some(one), Some(two)) = (self.desired.get(a).cloned(), self.desired.get(b).cloned()) {
                    let (p, q) = (one.persona, two.persona);
                    self.desired(vec![(*a, Intent { persona: q, ..one }), (*b, Intent { persona: p, ..two })]).await;
                }
            }
            Act::Stop(n) => self.change(*n, |w| w.state = "Stopped").await,
            Act::Run(n) => self.change(*n, |w| w.state = "Running").await,
            Act::Restart(n) => self.change(*n, |w| w.restart += 1).await,
            Act::Mode { binding, mode } => self.change(*binding, |w| w.mode = mode).await,
            Act::Delete(n) => self.delete(*n).await,
            Act::Create { binding, server } => {
                let persona = self
                    .personas
                    .iter()
                    .find(|(p, (exclusive, _))| !exclusive || !self.desired.values().any(|w| w.persona == **p))
                    .map(|(p, _)| *p);
                if let (None, None, Some(persona)) = (self.desired.get(binding), self.on(*server), persona) {
                    self.desired(vec![(*binding, Intent { persona, server: *server, state: "Running", restart: 0, mode: "enforce" })])
                        .await;
                }
            }
            Act::Renumber { network: n, vlan } => {
                if self.apply(vec![network(*n, *vlan, self.booting())]).await.is_ok() {
                    self.vlans[*n] = *vlan;
                    // Whoever renumbers a network makes its VLAN where embody may not.
                    self.make_vlans();
                }
            }
            Act::Approve(n) => self.approve(*n).await,
            Act::Retry(n) => self.retry(*n).await,
            Act::AgentDies(n) => self.centre.agent_dies(&server(*n)),
            Act::Import => drop(self.import().await),
            Act::Revise { back } => self.revise(*back).await,
            Act::Rollout(rolls) => self.roll(*rolls).await,
            other if self.of_starts(other) || self.names_and_words(other).await || self.of_many(other).await => {}
            by_hand => self.by_hand(by_hand).await,
        }
    }

    async fn change(&mut self, n: usize, how: impl FnOnce(&mut Intent)) {
        if let Some(mut desired) = self.desired.get(&n).cloned() {
            how(&mut desired);
            self.desired(vec![(n, desired)]).await;
        }
    }

    pub(crate) async fn delete(&mut self, n: usize) {
        match self.backend.delete(Kind::Binding, &name(&format!("b{n}")), &Preconditions::default(), DryRun::No).await {
            Ok(_) => drop(self.desired.remove(&n)),
            Err(error) => self.centre.note(&[], format!("a person's deletion is refused: {}", error.message)),
        }
    }

    pub async fn approve(&self, n: usize) {
        let binding = name(&format!("b{n}"));
        self.centre.judge(|judge, _| judge.approved(&binding));
        let said = self.say_yes(&binding, Approving::ThePlan).await;
        self.centre.note(&[&binding], format!("a person approves: {}", said.unwrap_or_else(|e| e.to_string())));
    }

    /// To what is shown: one that has become something else meanwhile is refused.
    pub(crate) async fn say_yes(&self, binding: &Name, word: Approving) -> Result<String, Refusal> {
        let shown = self.words.show_approval(binding, word.clone()).await?;
        self.say_yes_to(binding, word, &shown, self.centre.now()).await
    }

    /// To what was shown at some time before.
    pub(crate) async fn say_yes_to(&self, binding: &Name, word: Approving, shown: &ApprovalShown, at: Tick) -> Result<String, Refusal> {
        let forecast = shown.forecast.steps.iter().map(|step| step.op.clone());
        let lines: Vec<String> = shown.earlier.iter().cloned().chain(forecast).collect();
        let is_kept = word != Approving::Adopt;
        if is_kept {
            self.centre.judge(|judge, now| judge.says_yes(binding, &lines, at, now));
        }
        let said = self.words.approve(binding, word, &shown.digest, "a person").await;
        // What was interrupted may have been stored.
        let for_certain = |refusal: &Refusal| match refusal {
            Refusal::NotFound { .. } | Refusal::NotLeader { .. } => true,
            Refusal::Refused { why } => !why.contains("interrupted"),
            Refusal::Store { .. } => false,
        };
        if is_kept && said.as_ref().err().is_some_and(for_certain) {
            self.centre.judge(|judge, now| judge.was_refused(binding, now));
        }
        said
    }

    pub async fn retry(&self, n: usize) {
        let binding = name(&format!("b{n}"));
        self.centre.judge(|judge, _| judge.retrying(Kind::Binding, &binding));
        let said = self.words.retry(Kind::Binding, &binding, "a person").await;
        self.centre.note(&[&binding], format!("a person says retry: {}", said.unwrap_or_else(|e| e.to_string())));
    }

    fn make_vlans(&self) {
        for n in (1..self.plan.switches()).step_by(2) {
            self.centre.switch(&switch(n), |sim| {
                for vlan in self.vlans.iter().chain(&[QUARANTINE]) {
                    sim.add_vlan(Vlan::try_from(i64::from(*vlan)).unwrap());
                }
                sim.save();
            });
        }
    }

    async fn by_hand(&mut self, act: &Act) {
        match act {
            Act::Button(n) => self.button(*n),
            Act::DiskButton(n) => self.start_from_disk(*n),
            Act::PortByHand { switch: s, server: n, vlan, shut } => {
                let admin = if *shut { Admin::Down } else { Admin::Up };
                let config = PortConfig { admin, untagged: Vlan::try_from(i64::from(*vlan)).ok(), tagged: Default::default() };
                self.centre.switch(&switch(*s), |sim| sim.set_port(&port(*n), &config));
            }
            Act::UnmanagedByHand { switch: s, vlan } => {
                let config = PortConfig { admin: Admin::Up, untagged: Vlan::try_from(i64::from(*vlan)).ok(), tagged: Default::default() };
                self.centre.switch(&switch(*s), |sim| sim.set_port(&format!("port{}", self.plan.ports()), &config));
            }
            Act::Bmc(n, fault) => drop(self.centre.touch(&server(*n), |bmc, now| bmc.inject(fault.from(now), now))),
            Act::BmcWeather(n, weather) => self.centre.set_weather(&Device::Bmc(server(*n)), *weather),
            Act::SwitchWeather(n, weather) => self.centre.set_weather(&Device::Switch(switch(*n)), *weather),
            Act::SwitchReboot(n, takes) => self.centre.reboot_switch(&switch(*n), *takes),
            Act::SwitchFaults(n, faults) => self.switch_is(*n, *faults),
            Act::SwapBmc(n) => {
                let which = self.guids[n][1] - 0x20 + 1;
                self.guids.insert(*n, guid(*n, which));
                self.centre.swap_bmc(&server(*n), guid(*n, which));
                self.centre.judge(|judge, now| judge.touched(&server(*n), now));
            }
            Act::HideGuid(n) => drop(self.centre.touch(&server(*n), |bmc, now| bmc.show([0; 16], now))),
            // Two within one streak of questions are more than anybody can tell from a body that is off.
            Act::LieOff(n) if self.lied_at.get(n).is_none_or(|at| self.centre.now().since(*at) > Duration::from_secs(120)) => {
                self.lied_at.insert(*n, self.centre.now());
                self.centre.lie_off_once(&server(*n));
            }
            Act::SwapSwitch(n) => {
                self.fresh += 1;
                self.centre.swap_switch(&switch(*n), &format!("SIM-{}", self.fresh));
                self.centre.judge(|judge, now| judge.touched(&switch(*n), now));
            }
            Act::RenumberPorts(n, takes) => self.centre.renumber_switch(&switch(*n), *takes),
            Act::PullPlug(n, after) => self.pull_plug(*n, *after).await,
            Act::Rogue(what) => self.rogue(*what),
            _ => {}
        }
    }

    fn rogue(&self, what: Rogue) {
        let shut = |port: u32| (at(objects::IF_ADMIN_STATUS, &[100 + port]), SnmpValue::Integer(2));
        match what {
            Rogue::Port => drop(self.centre.switch(&switch(0), |sim| sim.set(&[shut(8)]).unwrap())),
            Rogue::PortOfAnother(n) => {
                let write = Write { key: Key::Port("port7".to_owned()), read_at: self.centre.now(), left_at: self.centre.now() };
                self.centre.with_agent(&switch(0), Some(&write), |sim| sim.set(&[shut(n as u32 + 1)]).unwrap());
            }
            Rogue::OffOfStrange(n) => drop(self.centre.touch(&server(n), |bmc, now| bmc.chassis_control(ChassisControl::PowerDown, now))),
            Rogue::OffWithoutIntent(n) => self.off_leaves(n),
            Rogue::HardWithoutSoft(n) | Rogue::HardTooSoon(n) => {
                let mut body = self.centre.judge(|judge, _| judge.body(&server(n)));
                body.off = Some(sending(None, Off::Hard, "rogue"));
                let value = serde_json::to_vec(&body).unwrap();
                self.centre.judge(|judge, now| judge.stored(&keys::body(&server(n)), Some(&value), By::Controller, now));
                if matches!(what, Rogue::HardTooSoon(_)) {
                    self.centre.touch(&server(n), |bmc, now| bmc.chassis_control(ChassisControl::SoftShutdown, now));
                }
                self.off_leaves(n);
            }
            Rogue::RolledOff(n) => self.rolled_off(n),
            Rogue::ForGood(n) => {
                self.centre.touch(&server(n), |bmc, now| {
                    bmc.chassis_control(ChassisControl::PowerDown, now);
                    bmc.config.on_takes = Duration::from_secs(1_000_000);
                });
            }
            Rogue::PastTheGate => {
                let pdu = Pdu { kind: codec::Kind::Set, bindings: vec![shut(1)], ..Pdu::asking(codec::Kind::Set, 7, []) };
                let tor = "192.0.2.1:161".parse().unwrap();
                self.wires.as_ref().unwrap().slip_in(0, codec::message(b"private", &pdu), tor).unwrap();
            }
            Rogue::Set => self.centre.setting(0, &switch(0), &Key::Saved),
            Rogue::Answer => self.centre.judge(|judge, now| judge.answering(0, &server(0), now)),
            Rogue::Write { server, from, to } => {
                let config =
                    |vlan: u16| PortConfig { admin: Admin::Up, untagged: Vlan::try_from(i64::from(vlan)).ok(), tagged: Default::default() };
                let (tor, key) = (switch_of(server, 0), Key::Port(port(server)));
                let op = Op::SetPort { switch: tor.clone(), port: port(server), from: config(from), to: config(to) };
                self.centre.judge(|judge, _| judge.begins(0, &op));
                self.centre.setting(0, &tor, &key);
            }
            // By apply.
            Rogue::OldNetworks => {}
            Rogue::Starts { .. } | Rogue::Hello(_) | Rogue::Ready(_) | Rogue::AddressOf { .. } => self.rogue_of_starts(what),
            Rogue::CloseBreaker => self.centre.judge(|judge, now| judge.stored(&keys::pause("breaker"), None, By::Controller, now)),
            Rogue::OneRootTwice => {
                let root = directory(&"10.0.20.5".parse().unwrap(), "/personas/p0/var");
                self.centre.judge(|judge, _| judge.runs(&server(1), &name("p1"), Some(root)));
            }
        }
    }

    fn off_leaves(&self, n: usize) {
        let off = Op::PowerOff { server: server(n), how: Off::Hard };
        self.centre.sending(0, &server(n), &off);
    }

    pub(crate) async fn pause(&self, scope: Scope, takes: Option<Duration>) {
        let seconds = takes.map(|takes| takes.as_secs());
        // Its end is said to the second.
        let until = seconds.map(|s| self.centre.now().plus(Duration::from_secs(s.saturating_sub(1))));
        let said = self.words.pause(scope.clone(), "a person wants it", seconds, "a person").await;
        if said.is_ok() {
            self.centre.judge(|judge, now| judge.paused(scope, until, now));
        }
        self.centre.note(&[], format!("a person pauses: {}", said.unwrap_or_else(|e| e.to_string())));
    }

    pub async fn resume(&self, scope: Scope) {
        self.centre.judge(|judge, now| judge.resuming(&scope, now));
        let said = self.words.resume(scope, "a person").await;
        self.centre.note(&[], format!("a person resumes: {}", said.unwrap_or_else(|e| e.to_string())));
    }

    /// Each pause by its own word.
    pub async fn resume_all(&self) {
        for row in self.words.pauses().await {
            let of_one = [Kind::Binding, Kind::Server, Kind::Persona, Kind::Switch].into_iter().find_map(|kind| {
                let object = row.what.strip_prefix(&kind.singular().to_lowercase())?.strip_prefix(' ')?;
                Some(Scope::Object { kind, name: name(object) })
            });
            match of_one {
                Some(scope) => self.resume(scope).await,
                None if row.what == "everything" => self.resume(Scope::Everything).await,
                None => {}
            }
        }
        // A store that was emptied lost those that stood in it.
        self.centre.judge(|judge, now| judge.no_more_pauses(now));
    }

    pub async fn close_breaker(&self) {
        self.centre.judge(|judge, _| judge.closing_breaker());
        let said = self.words.close_breaker("a person").await;
        self.centre.note(&[], format!("a person closes the breaker: {}", said.unwrap_or_else(|e| e.to_string())));
    }

    pub(crate) fn button(&self, n: usize) {
        self.centre.judge(|judge, now| judge.touched(&server(n), now));
        self.centre.touch(&server(n), |bmc, now| bmc.press_button(now));
    }

    fn start_from_disk(&self, n: usize) {
        let body = self.centre.judge(|judge, _| judge.body(&server(n)));
        let nobodys = body.evidence.is_empty() && body.held_by.is_none() && self.on(n).is_none();
        if nobodys && self.centre.power(&server(n)) == Some(Power::Off) {
            self.centre.touch(&server(n), |bmc, now| bmc.choose_disk(now));
            self.button(n);
        }
    }

    /// All faults end.
    pub fn heal(&self) {
        for n in 0..self.plan.machines.len() {
            self.centre.set_weather(&Device::Bmc(server(n)), embody::testing::sim::line::Weather::FAIR);
            self.centre.heal_boot(&server(n));
            self.centre.touch(&server(n), |bmc, now| {
                bmc.heal(now);
                if bmc.config.guid != self.guids[&n] {
                    bmc.show(self.guids[&n], now);
                }
            });
        }
        for n in 0..self.plan.switches() {
            self.centre.set_weather(&Device::Switch(switch(n)), embody::testing::sim::line::Weather::FAIR);
            self.switch_is(n, Faults::default());
        }
        self.make_vlans();
    }

    /// What cannot be written there between the two is nobody's fault but the switch's.
    fn switch_is(&self, n: usize, faults: Faults) {
        let before = self.centre.switch(&switch(n), |sim| std::mem::replace(&mut sim.faults, faults));
        if before != Some(faults) {
            self.centre.judge(|judge, now| judge.touched(&switch(n), now));
        }
    }

    /// Bindings that only observe cannot converge: at the end all are enforced.
    pub async fn enforce(&mut self) {
        let changes = self.desired.iter().map(|(n, w)| (*n, Intent { mode: "enforce", ..w.clone() })).collect();
        self.desired(changes).await;
        self.roll_to_the_end().await;
        if let Some(checkouts) = &self.checkouts {
            (0..self.plan.controllers).for_each(|host| checkouts.pull(host));
            sleep(RESCAN * 2).await;
        }
    }
}
