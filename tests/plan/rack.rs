//! A small model of a data centre for the planner's proof: what truly runs where, what the controller knows of it, and the loop between
//! them (records stored, steps sent or lost, devices asked). Every step is checked against the invariants before it is carried out.
//!
//! Leaves out: latency inside one device, the store, the checks themselves (`checks`). What others have is put together as `control::cache`
//! does it, by claims; what became of operations is recorded as `control::outcome` does it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use embody::testing::limits;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::{Body, Declaration, Declared, Hold, Once, Phase, Sent, Snapshot};
use embody::testing::model::claim::{Claim, claims};
use embody::testing::model::fact::{Admin, BootDevice, BootOverride, PortConfig, Power, Seen, Tick};
use embody::testing::model::op::{Off, Op};
use embody::testing::model::{BindingSpec, Meta, Name, Object, Objects, Reason, Spec, Vlan};
use embody::testing::plan::approval::{Approval, Listed};
use embody::testing::plan::desired::{Desired, Holder};
use embody::testing::plan::observed::{Elsewhere, Observed, PortKey, PortObserved, SwitchObserved, There, Trouble};
use embody::testing::plan::record::Record;
use embody::testing::plan::resolve::{self, PortNames};
use embody::testing::plan::{Plan, fence, forecast, plan};
use serde_json::json;

pub const GRACE: Duration = Duration::from_secs(10);
pub const QUARANTINE: i64 = 999;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn vlan(id: i64) -> Vlan {
    Vlan::try_from(id).unwrap()
}

pub fn access(id: i64) -> PortConfig {
    PortConfig { admin: Admin::Up, untagged: Some(vlan(id)), tagged: BTreeSet::new() }
}

/// How a write leaves a port that ends in its middle.
pub fn between() -> PortConfig {
    PortConfig { admin: Admin::Down, untagged: None, tagged: BTreeSet::new() }
}

/// What is so, whatever anybody knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Truth {
    pub power: Power,
    /// What it was answered at its last start, and runs. Nothing: off, parked, or something that nobody declared.
    pub runs: Option<Rc<Snapshot>>,
    /// It runs from its own disk without an answer of ours.
    pub strays: bool,
    /// It ran when a binding took it, and was not off, approved or adopted since.
    pub stranger: bool,
    pub boot: BootDevice,
    /// The persona on its disk.
    pub disk: Option<Rc<Snapshot>>,
    /// It accepts a soft-off, and goes on.
    pub deaf: bool,
    /// Its BMC does not answer.
    pub silent: bool,
    /// A person has said of it what is not so.
    pub lied_about: bool,
    pub asked: Asked,
}

/// What was sent for the switching-off that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Asked {
    pub soft: u32,
    pub soft_at: Option<Tick>,
    pub accepted_at: Option<Tick>,
    pub refused: bool,
    pub hard_at: Option<Tick>,
}

impl Truth {
    pub fn off() -> Truth {
        Truth {
            power: Power::Off,
            runs: None,
            strays: false,
            stranger: false,
            boot: BootDevice::None,
            disk: None,
            deaf: false,
            silent: false,
            lied_about: false,
            asked: Asked::default(),
        }
    }

    pub fn persona(&self) -> Option<&str> {
        self.runs.as_ref().map(|s| s.persona.as_str())
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Luck {
    /// It happens, and the device is asked again.
    Good,
    /// It is lost.
    Lost,
    /// It happens; the reply is lost, and so is the poll after it.
    Unheard,
    /// The device refuses it; a port is left between the two states.
    Refused,
    /// It did not leave.
    NotSent,
}

type Owned = (Name, Option<Hold>, Option<Hold>, Option<Once>);

#[derive(Debug, Clone)]
pub struct Rack {
    pub objects: Objects,
    pub seen: BTreeMap<Name, Observed>,
    pub truth: BTreeMap<Name, Truth>,
    pub ports: BTreeMap<PortKey, PortConfig>,
    pub now: Tick,
    pub history: Vec<String>,
    pub sent: usize,
    /// Operations that a forecast had named and that were then sent.
    pub foreseen: usize,
    /// What was sent to which server.
    pub ops: Vec<(Name, Op)>,
    /// Lines of history, kept or not.
    pub events: usize,
    /// Desired state by server, holder and debt: until the next change of an object.
    wants: RefCell<BTreeMap<Owned, Rc<Desired>>>,
    /// No history: for worlds by the hundred thousand.
    pub quiet: bool,
    /// Ports of which a write of an earlier desired state is still on its way.
    pub in_flight: BTreeSet<PortKey>,
    /// The Policy's word.
    pub hard_off_without_soft: bool,
}

struct AsWritten;
impl PortNames for AsWritten {
    fn key(&self, _: &Name, port: &str) -> Result<String, String> {
        if port == "nowhere" { Err("there is no port nowhere".to_owned()) } else { Ok(port.to_owned()) }
    }
}

pub fn port_of(server: &str) -> PortKey {
    (name("sw"), format!("port-{server}"))
}

impl Rack {
    /// Servers of one NIC each on one switch, every one off and in VLAN 1; personas p, q, … of networks 110, 120, …, the first `exclusive`
    /// of them with writable roots.
    pub fn new(servers: &[&str], personas: &[&str], exclusive: usize) -> Rack {
        let mut rack = Rack {
            objects: Objects::default(),
            seen: BTreeMap::new(),
            truth: BTreeMap::new(),
            ports: BTreeMap::new(),
            now: Tick(1_000_000),
            history: Vec::new(),
            sent: 0,
            ops: Vec::new(),
            events: 0,
            foreseen: 0,
            wants: RefCell::default(),
            quiet: false,
            in_flight: BTreeSet::new(),
            hard_off_without_soft: false,
        };
        let spec = |v: serde_json::Value| serde_json::from_value(v).unwrap();
        rack.put("quarantine", Spec::Network(spec_of(json!({ "vlan": QUARANTINE, "role": "quarantine" }))));
        let ports: Vec<String> = servers.iter().map(|s| port_of(s).1).collect();
        rack.put("s", Spec::Secret(spec_of(json!({ "stringData": {} }))));
        let snmp = json!({ "version": "v2c", "secretRef": { "name": "s" }, "insecure": true });
        rack.put("sw", Spec::Switch(spec(json!({ "address": "127.0.0.1", "snmp": snmp, "manage": { "ports": ports } }))));
        for (i, persona) in personas.iter().enumerate() {
            let network = format!("net-{persona}");
            rack.put(&network, Spec::Network(spec_of(json!({ "vlan": 110 + 10 * i }))));
            rack.put_persona(persona, &network, i < exclusive);
        }
        for (i, server) in servers.iter().enumerate() {
            let bmc = json!({ "address": "127.0.0.1", "secretRef": { "name": "s" } });
            let mac = format!("02:00:00:00:00:{:02x}", i + 1);
            let nic = json!({ "name": "nic1", "mac": mac, "switch": "sw", "port": port_of(server).1, "boot": true });
            rack.put(server, Spec::Server(spec_of(json!({ "bmc": bmc, "nics": [nic] }))));
            rack.truth.insert(name(server), Truth::off());
            rack.ports.insert(port_of(server), access(1));
            let vlans = [1, 50, QUARANTINE].into_iter().chain((0..personas.len() as i64).map(|i| 110 + 10 * i)).map(vlan).collect();
            let switches = [(name("sw"), SwitchObserved { vlans, ..SwitchObserved::default() })].into();
            rack.seen.insert(name(server), Observed { switches, ..Observed::default() });
        }
        rack
    }

    pub fn put(&mut self, object: &str, spec: Spec) {
        let meta = Meta { uid: format!("uid-{object}"), generation: 1, ..Meta::named(name(object)) };
        self.wants.borrow_mut().clear();
        self.objects.insert(&Object { meta, spec, status: serde_json::Value::Null });
    }

    pub fn put_persona(&mut self, persona: &str, network: &str, exclusive: bool) {
        let nfs = json!({ "server": "10.0.0.5", "path": format!("/{persona}"), "mode": if exclusive { "writable" } else { "overlay" } });
        self.put_root(persona, network, &json!({ "nfs": nfs }));
    }

    pub fn put_root(&mut self, persona: &str, network: &str, root: &serde_json::Value) {
        let nics = json!([{ "name": "nic1", "untagged": network, "boot": true }]);
        self.put(persona, Spec::Persona(spec_of(json!({ "os": { "family": "linux" }, "root": root, "nics": nics }))));
    }

    /// A persona on its server's own disk, that may live once.
    pub fn put_disk(&mut self, persona: &str, network: &str) {
        let nics = json!([{ "name": "nic1", "untagged": network, "boot": true }]);
        let spec = json!({ "os": { "family": "linux" }, "root": { "disk": {} }, "exclusive": true, "nics": nics });
        self.put(persona, Spec::Persona(spec_of(spec)));
    }

    /// A persona that writes another directory, under its own name.
    pub fn put_directory(&mut self, persona: &str, network: &str, path: &str) {
        self.put_root(persona, network, &json!({ "nfs": { "server": "10.0.0.5", "path": path, "mode": "writable" } }));
    }

    /// Makes or changes a binding: another generation, and the uid that it had.
    pub fn bind(&mut self, binding: &str, persona: &str, server: &str, state: RunState, mode: Mode) {
        let shutdown = json!({ "grace": format!("{}s", GRACE.as_secs()) });
        let spec = json!({ "persona": persona, "target": { "server": server }, "state": state, "correct": mode, "shutdown": shutdown });
        let mut spec: BindingSpec = spec_of(spec);
        let old = self.objects.bindings.get(binding).cloned();
        spec.restart = old.as_ref().map_or(0, |o| o.spec.restart);
        let mut meta = old.map_or_else(|| Meta { uid: format!("uid-{binding}"), ..Meta::named(name(binding)) }, |o| o.meta);
        meta.generation += 1;
        self.wants.borrow_mut().clear();
        self.note(format_args!("bind {binding}: {persona} on {server}, {state:?}, {mode:?}"));
        self.objects.insert(&Object { meta, spec: Spec::Binding(spec), status: serde_json::Value::Null });
    }

    pub fn edit(&mut self, binding: &str, change: impl FnOnce(&mut BindingSpec)) {
        let Some(mut held) = self.objects.bindings.get(binding).cloned() else { return };
        change(&mut held.spec);
        held.meta.generation += 1;
        self.wants.borrow_mut().clear();
        self.note(format_args!("edit {binding}: {:?}", held.spec));
        self.objects.insert(&Object { meta: held.meta, spec: Spec::Binding(held.spec), status: serde_json::Value::Null });
    }

    pub fn unbind(&mut self, binding: &str) {
        self.note(format_args!("delete {binding}"));
        self.wants.borrow_mut().clear();
        self.objects.remove(embody::testing::model::Kind::Binding, &name(binding));
    }

    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.events += 1;
        if !self.quiet {
            self.history.push(format!("{:>12} {what}", self.now.0));
        }
    }

    pub fn tick(&mut self) -> Tick {
        self.now = Tick(self.now.0 + 1);
        self.now
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    pub fn want(&self, server: &Name) -> Rc<Desired> {
        let body = &self.seen[server].body;
        let key = (server.clone(), body.held_by.clone(), body.release.clone(), body.once.clone());
        let fresh = || Rc::new(resolve::want(server, &self.objects, body, &AsWritten));
        self.wants.borrow_mut().entry(key).or_insert_with(fresh).clone()
    }

    /// Everything that `plan` may know of one server, as `control::cache` puts it together.
    pub fn sight(&self, server: &Name, want: &Desired) -> Observed {
        let mut seen = self.sight_alone(server, want);
        let target = |binding: &Name| self.objects.bindings.get(binding)?.spec.target.server.clone().filter(|s| self.seen.contains_key(s));
        let look = |server: &Name| {
            let want = self.want(server);
            Some(((*want).clone(), self.sight_alone(server, &want)))
        };
        let bodies = fence::Bodies { target: &target, look: &look };
        seen.takeover = fence::leaves(want, &seen.body).map(|binding| fence::takeover(binding, server, &bodies));
        seen.memory.saw_takeover(seen.takeover.as_ref(), self.now);
        seen
    }

    fn sight_alone(&self, server: &Name, want: &Desired) -> Observed {
        let mut seen = self.seen[server].clone();
        seen.elsewhere = want.holder.as_ref().map(|h| self.elsewhere(server, h)).unwrap_or_default();
        seen.bmc_trouble = self.trouble(server);
        seen.hard_off_without_soft = self.hard_off_without_soft;
        seen.in_flight = self.in_flight.clone();
        seen
    }

    fn trouble(&self, server: &Name) -> Option<Trouble> {
        let message = || format!("bmc/{server} does not answer");
        self.truth[server].silent.then(|| Trouble { reason: Reason::NoAnswer, message: message() })
    }

    /// Who else has what a holder claims: by the claims, whatever the names.
    fn elsewhere(&self, server: &Name, holder: &Holder) -> Vec<Elsewhere> {
        let claims = &holder.snapshot.claims;
        if claims.is_empty() {
            return Vec::new();
        }
        let mut out = Vec::new();
        for (other, seen) in self.seen.iter().filter(|(other, _)| *other != server) {
            let silent = self.trouble(other).is_some();
            let there = There { answers: seen.power.is_some() && !silent, ..seen.there() };
            let (server, body) = (other.clone(), &seen.body);
            if seen.unreadable || body.anything {
                out.push(Elsewhere::Unreadable { server: server.clone(), there });
            }
            if body.may_run_from_disk(&holder.persona) && !seen.is(Power::Off) {
                out.push(Elsewhere::Disk { server: server.clone(), there });
            }
            let fencing = body.evidence.iter().filter(|_| body.fences());
            out.extend(fencing.filter_map(|(persona, evidence)| {
                let claim = evidence.snapshot.overlap(claims)?.to_string();
                Some(Elsewhere::Evidence { server: server.clone(), persona: persona.clone(), claim, there })
            }));
        }
        out.extend(self.reserved(&holder.authority.binding, claims));
        out
    }

    /// Of two bindings that claim one thing, which manifests refuse, the first one has it.
    fn reserved(&self, binding: &Name, mine: &BTreeSet<Claim>) -> Vec<Elsewhere> {
        let mut out = Vec::new();
        for (other, held) in self.objects.bindings.iter().filter(|(other, _)| *other < binding) {
            let Some(persona) = self.objects.personas.get(&held.spec.persona) else { continue };
            let theirs = claims(&held.spec.persona, &persona.spec, Some(&held.spec));
            let both = mine.iter().find(|claim| theirs.iter().any(|t| t.overlaps(claim)));
            out.extend(both.map(|claim| Elsewhere::Reserved { binding: other.clone(), claim: claim.to_string() }));
        }
        out
    }

    pub fn plan(&mut self, server: &Name) -> Plan {
        let want = self.want(server);
        self.count_grace(server, &want);
        let sight = self.sight(server, &want);
        self.seen.get_mut(server).unwrap().memory.takeover_since = sight.memory.takeover_since;
        plan(&want, &sight, self.now)
    }

    /// The grace of an accepted soft-off goes on only while nobody has paused it.
    fn count_grace(&mut self, server: &Name, want: &Desired) {
        let seen = self.seen.get_mut(server).unwrap();
        let paused = |binding: &Name| seen.stopped.get(binding).is_some_and(|t| t.reason == Reason::Paused);
        let any = want.releaser.iter().map(|r| &r.binding).chain(want.holder.iter().map(|h| &h.authority.binding)).any(paused);
        if seen.body.off.as_ref().is_some_and(|o| o.soft.last == Sent::Accepted) {
            seen.memory.grace.count(!any, self.now);
        }
    }

    /// One pass of the loop for one server: records until there are none, then what may be sent. The plan of the last pass.
    pub fn reconcile(&mut self, server: &Name, luck: &mut dyn FnMut() -> Luck) -> Plan {
        for _ in 0..limits::RECORD_ROUNDS {
            self.mark_done(server);
            let plan = self.plan(server);
            if plan.records.is_empty() {
                self.send(server, &plan, luck);
                return plan;
            }
            if !plan.steps.is_empty() {
                self.fail(&format!("{server}: steps beside records"));
            }
            for record in &plan.records {
                self.store(server, record);
            }
            self.check();
        }
        self.fail(&format!("the records of {server} never end"));
    }

    /// As `control::approve`: what is seen done of what was approved.
    fn mark_done(&mut self, server: &Name) {
        let mut approvals = self.seen[server].approvals.clone();
        for (binding, approval) in &mut approvals {
            if approval.sees(server, &self.seen[server]) {
                self.consent(binding.as_str(), approval);
            }
        }
    }

    pub fn store(&mut self, server: &Name, record: &Record) {
        let at = self.tick();
        self.note(format_args!("{server}: {record:?}"));
        if let Record::Release(hold) = record {
            self.check_release(server, hold);
        }
        let seen = self.seen.get_mut(server).unwrap();
        let truth = self.truth.get_mut(server).unwrap();
        match record {
            // Whose firmware asks and asks runs nothing.
            Record::Take { .. } if seen.body.release.is_none() => truth.stranger = truth.power == Power::On && !seen.waits_parked(),
            Record::Adopt(_) | Record::Leave => truth.stranger = false,
            Record::OffDone => truth.asked = Asked::default(),
            _ => {}
        }
        record.apply(&mut seen.body);
        seen.memory.recorded(record, at);
        seen.unreadable = false;
        if matches!(record, Record::StandAgain(_)) && truth.power == Power::On && truth.runs.is_none() {
            // It started meanwhile and was parked: parked machines ask again.
            self.starts(server);
        }
    }

    fn send(&mut self, server: &Name, plan: &Plan, luck: &mut dyn FnMut() -> Luck) {
        let was_on = self.seen[server].is(Power::On);
        for step in &plan.steps {
            self.check_step(server, step, was_on);
            for record in &step.write_ahead {
                self.store(server, record);
            }
            let luck = if self.truth[server].silent && !matches!(step.op, Op::SetPort { .. }) { Luck::Lost } else { luck() };
            let at = self.tick();
            self.note(format_args!("{server}: {} ({}) {luck:?}", step.op, step.because));
            self.sent += 1;
            self.ops.push((server.clone(), step.op.clone()));
            self.seen.get_mut(server).unwrap().memory.sent(&step.op, at);
            match luck {
                Luck::Good | Luck::Unheard => self.happens(&step.op),
                Luck::Refused => self.is_left_between(&step.op),
                Luck::Lost | Luck::NotSent => {}
            }
            self.delivered(server, &step.op, luck);
            if luck == Luck::Good {
                self.echo(server, &step.op);
                self.observe(server);
            }
            self.check();
        }
        if !plan.polls.is_empty() && luck() == Luck::Good {
            self.observe(server);
        }
    }

    /// As `control::outcome`: what became of a power command is known, or stays unknown.
    fn delivered(&mut self, server: &Name, op: &Op, luck: Luck) {
        let at = self.tick();
        if luck != Luck::NotSent {
            self.seen.get_mut(server).unwrap().memory.came_back(op, at);
        }
        self.asked(server, op, luck, at);
        if luck == Luck::Good {
            let mut approvals = self.seen[server].approvals.clone();
            approvals.values_mut().for_each(|approval| _ = approval.is_done(op));
            approvals.iter().for_each(|(binding, approval)| self.consent(binding.as_str(), approval));
        }
        let sent = match luck {
            Luck::Good => Sent::Accepted,
            Luck::Refused => Sent::Refused("D5h".to_owned()),
            Luck::NotSent => Sent::Nothing,
            Luck::Lost | Luck::Unheard => return,
        };
        let record = match op {
            Op::PowerOff { how, .. } if self.seen[server].body.off.is_some() => Record::OffSent { how: *how, sent },
            Op::PowerOn { .. } if sent != Sent::Accepted => Record::OnDone,
            _ => return,
        };
        self.store(server, &record);
    }

    /// The truth about what was sent for the open intent, for the checks.
    fn asked(&mut self, server: &Name, op: &Op, luck: Luck, at: Tick) {
        let asked = &mut self.truth.get_mut(server).unwrap().asked;
        match op {
            Op::PowerOff { how: Off::Soft, .. } if luck != Luck::NotSent => {
                (asked.soft, asked.soft_at) = (asked.soft + 1, Some(at));
                asked.refused = luck == Luck::Refused;
                asked.accepted_at = (luck == Luck::Good).then_some(at);
            }
            Op::PowerOff { how: Off::Hard, .. } if luck != Luck::NotSent => asked.hard_at = Some(at),
            _ => {}
        }
    }

    fn echo(&mut self, server: &Name, op: &Op) {
        let Op::SetBoot { device, efi, .. } = op else { return };
        let at = self.tick();
        let echo = BootOverride { valid: true, persistent: true, efi: *efi, device: *device };
        let seen = self.seen.get_mut(server).unwrap();
        seen.memory.boot_was_set(Some(echo), at);
        seen.boot = Some(Seen { value: echo, asked_at: at });
    }

    fn happens(&mut self, op: &Op) {
        match op {
            Op::PowerOn { server } => self.press(&server.clone(), Power::On),
            Op::PowerOff { server, how: Off::Soft } if self.truth[server].deaf => {}
            Op::PowerOff { server, .. } => self.press(&server.clone(), Power::Off),
            Op::SetPort { switch, port, from, to } => {
                let config = self.ports.get_mut(&(switch.clone(), port.clone())).unwrap();
                if config == from {
                    *config = to.clone();
                }
            }
            Op::CreateVlan { switch, vlan } => {
                for sight in self.seen.values_mut().filter_map(|s| s.switches.get_mut(switch)) {
                    sight.vlans.insert(*vlan);
                }
            }
            Op::SetBoot { server, device, .. } => self.truth.get_mut(server).unwrap().boot = *device,
            Op::Save { .. } => {}
        }
    }

    fn is_left_between(&mut self, op: &Op) {
        if let Op::SetPort { switch, port, .. } = op {
            self.ports.insert((switch.clone(), port.clone()), between());
        }
    }

    /// The button, whoever presses it: a start boots what the boot answer says.
    pub fn press(&mut self, server: &Name, power: Power) {
        let truth = self.truth.get_mut(server).unwrap();
        match (truth.power, power) {
            (Power::Off, Power::On) => return self.starts(server),
            (Power::On, Power::Off) => (truth.runs, truth.stranger, truth.strays) = (None, false, false),
            (Power::On, Power::On) | (Power::Off, Power::Off) => {}
        }
        truth.power = power;
    }

    /// A start, cold or warm: from the disk, or from the network, where the boot services answer with what stands.
    pub fn starts(&mut self, server: &Name) {
        let seen = &self.seen[server];
        let parked = seen.unreadable || seen.body.anything;
        let standing = seen.body.standing().filter(|_| !parked).map(|(_, e)| Rc::new(e.snapshot.clone()));
        let truth = self.truth.get_mut(server).unwrap();
        truth.power = Power::On;
        (truth.runs, truth.strays) = match truth.boot {
            BootDevice::Disk => match standing.filter(|s| s.boot == BootDevice::Disk) {
                Some(ours) => (Some(ours), false),
                None => (truth.disk.clone(), truth.disk.is_some()),
            },
            _ => (standing, false),
        };
        if let Some(runs) = truth.runs.as_ref().filter(|s| s.boot == BootDevice::Disk) {
            truth.disk = Some(Rc::clone(runs));
        }
        if truth.boot != BootDevice::Disk {
            // The boot services are asked for a script.
            self.asks_for_a_script(server);
        }
    }

    fn asks_for_a_script(&mut self, server: &Name) {
        let seen = self.seen.get_mut(server).unwrap();
        seen.memory.asked_what_to_boot(self.now);
        if seen.body.declared.as_ref().is_some_and(|d| d.what != Declaration::OffButRuns) {
            self.store(server, &Record::DeclaredAs(Declaration::OffButRuns));
        }
    }

    /// A question to the BMC and to the switch that the server is on.
    pub fn observe(&mut self, server: &Name) {
        let asked_at = self.tick();
        if !self.truth[server].silent {
            let power = Seen { value: self.truth[server].power, asked_at };
            let seen = self.seen.get_mut(server).unwrap();
            seen.memory.saw_power(&power);
            seen.power = Some(power);
        }
        let port = port_of(server.as_str());
        let ports = &mut self.seen.get_mut(server).unwrap().ports;
        let refuse = ports.get(&port).and_then(|sight| sight.refuse.clone());
        ports.insert(port.clone(), PortObserved { config: self.ports[&port].clone(), asked_at, refuse });
        self.tick();
    }

    /// Without losses, and where the plan asks a question, once more after its answer.
    pub fn reconcile_well(&mut self, server: &Name) -> Plan {
        let plan = self.reconcile(server, &mut || Luck::Good);
        if plan.polls.is_empty() {
            return plan;
        }
        for device in &plan.polls {
            if let embody::testing::model::op::Device::Bmc(asked) = device {
                self.observe(asked);
            }
        }
        self.reconcile(server, &mut || Luck::Good)
    }

    /// Another process: only what is stored is left.
    pub fn restart_process(&mut self) {
        self.note(format_args!("the process restarts"));
        for seen in self.seen.values_mut() {
            let (body, switches, approvals) = (seen.body.clone(), seen.switches.clone(), seen.approvals.clone());
            let (unreadable, stopped) = (seen.unreadable, seen.stopped.clone());
            *seen = Observed { body, switches, approvals, unreadable, stopped, ..Observed::default() };
        }
        // What was sent before counts as sent now, and a grace begins anew.
        for asked in self.truth.values_mut().map(|t| &mut t.asked) {
            for at in [&mut asked.soft_at, &mut asked.accepted_at, &mut asked.hard_at] {
                *at = at.map(|_| Tick::START);
            }
        }
        self.now = Tick::START;
    }

    /// Nothing is lost any more: until two rounds bring nothing. The rounds that brought something, and the last plans.
    pub fn calm(&mut self, most: usize) -> (usize, BTreeMap<Name, Plan>) {
        let names: Vec<Name> = self.seen.keys().cloned().collect();
        let (mut rounds, mut quiet) = (0, 0);
        while quiet < 3 {
            let before = self.events;
            let mut plans = BTreeMap::new();
            for server in &names {
                self.observe(server);
                plans.insert(server.clone(), self.reconcile_well(server));
                self.pass(Duration::from_millis(300));
            }
            self.pass(limits::SEEN_OFF_APART);
            if self.events == before {
                quiet += 1;
                self.pass(limits::HARD_OFF_WAIT + GRACE);
                if quiet == 3 {
                    return (rounds, plans);
                }
            } else {
                (rounds, quiet) = (rounds + 1, 0);
            }
            if rounds > most {
                self.fail(&format!("it does not come to rest within {most} rounds"));
            }
        }
        unreachable!("the loop returns")
    }

    pub fn forecast(&self) -> forecast::Future {
        let servers = self.seen.keys().map(|server| (server.clone(), self.sight(server, &self.want(server)))).collect();
        forecast::forecast(servers, &|server, body| resolve::want(server, &self.objects, body, &AsWritten), self.now)
    }

    /// A person approves what a binding's forecast shows.
    pub fn approve(&mut self, binding: &str) {
        let steps = self.forecast().steps;
        let ops = steps.into_iter().filter(|f| f.step.binding.as_str() == binding).map(|f| f.step.op).collect();
        let Some(mut approval) = self.approval(binding, ops) else { return };
        self.seen.iter().for_each(|(server, seen)| _ = approval.sees(server, seen));
        self.note(format_args!("approve {binding}: {:?}", approval.ops));
        self.consent(binding, &approval);
    }

    /// Of these operations, for what the binding is to do now.
    pub fn approval(&self, binding: &str, ops: Vec<Op>) -> Option<Approval> {
        let authority = resolve::authority_of(self.objects.bindings.get(binding)?, None, &self.objects);
        let ops = ops.into_iter().map(Listed::new).collect();
        Some(Approval {
            uid: authority.uid,
            generation: authority.generation,
            answer: authority.answer,
            made_from: String::new(),
            ops,
            hard: false,
            begun: false,
        })
    }

    /// `approve BINDING --hard`: shown as if that were said.
    pub fn approve_hard(&mut self, binding: &str) {
        let Some(said) = self.approval(binding, Vec::new()) else { return };
        self.consent(binding, &Approval { hard: true, ..said });
        self.approve(binding);
        for approval in self.seen.values_mut().filter_map(|s| s.approvals.get_mut(binding)) {
            approval.hard = true;
        }
    }

    pub fn consent(&mut self, binding: &str, approval: &Approval) {
        for seen in self.seen.values_mut() {
            seen.approvals.insert(name(binding), approval.clone());
        }
    }

    /// A person says `declare server X off`, of a BMC that does not answer.
    pub fn declare_off(&mut self, server: &str) {
        let declared = Declared { what: Declaration::Off, by: "ann".into(), reason: "its power is cut".into(), at: String::new() };
        self.store(&name(server), &Record::Declare(declared));
        self.truth.get_mut(server).unwrap().lied_about = self.truth[server].power == Power::On;
    }

    /// A move is planned, and the new body is asked, as it is before the old one is touched.
    pub fn asks_the_new_body(&mut self, old: &str, new: &str) {
        self.reconcile(&name(old), &mut || Luck::Lost);
        self.observe(&name(new));
    }

    /// The persona that truly runs there.
    pub fn runs(&self, server: &str) -> Option<&str> {
        self.truth[server].persona()
    }

    /// How far the evidence of a persona has come, and whether the answer is withdrawn.
    pub fn phase(&self, server: &str, persona: &str) -> Option<(Phase, bool)> {
        self.body(server).evidence.get(persona).map(|e| (e.phase, e.withdrawn))
    }

    pub fn body(&self, server: &str) -> &Body {
        &self.seen[server].body
    }

    pub fn is_exclusive(&self, persona: &Name) -> bool {
        self.objects.personas.get(persona).is_some_and(|p| p.spec.is_exclusive())
    }

    pub fn fail(&self, why: &str) -> ! {
        let from = self.history.len().saturating_sub(60);
        let truth: Vec<String> = self.truth.iter().map(|(s, t)| format!("{s}: {t:?}\n   {:?}", self.seen[s].body)).collect();
        panic!("{why}\n{}\ntruth:\n{}", self.history[from..].join("\n"), truth.join("\n"));
    }
}

pub fn spec_of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}
