//! A small model of a data centre for the planner's proof: what truly runs where, what the controller knows of it, and the loop between
//! them (records stored, steps sent or lost, devices asked). Every step is checked against the invariants before it is carried out.
//!
//! Leaves out: latency inside one device, the store, the network (a SET either happens or not). Truth is only read by `look_*` and `check`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use embody::limits;
use embody::model::binding::{Mode, RunState};
use embody::model::body::{Body, Hold, Phase};
use embody::model::fact::{Admin, BootOverride, PortConfig, Power, Seen, Tick};
use embody::model::op::{Disruption, Off, Op};
use embody::model::{BindingSpec, Meta, Name, Object, Objects, Spec, Vlan};
use embody::plan::desired::Desired;
use embody::plan::observed::{Approval, Elsewhere, Observed, PortKey, PortSeenHere, SwitchSeenHere, Trouble};
use embody::plan::record::Record;
use embody::plan::resolve::{self, PortNames};
use embody::plan::{Plan, Step, consent, forecast, plan};
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

/// What is so, whatever anybody knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Truth {
    pub power: Power,
    /// The persona that runs. Nothing: off, parked, or something that nobody declared.
    pub runs: Option<Name>,
    /// It ran when a binding took it, and was not off, approved or adopted since.
    pub stranger: bool,
    /// The last switching-off that was sent: before this moment it must not be sent again, unless it was off in between.
    pub off_again_at: Option<Tick>,
    pub silent: bool,
}

impl Truth {
    pub fn off() -> Truth {
        Truth { power: Power::Off, runs: None, stranger: false, off_again_at: None, silent: false }
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
}

type Owned = (Name, Option<Hold>, Option<Hold>);

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
        };
        let spec = |v: serde_json::Value| serde_json::from_value(v).unwrap();
        rack.put("quarantine", Spec::Network(spec_of(json!({ "vlan": QUARANTINE, "role": "quarantine" }))));
        let ports: Vec<String> = servers.iter().map(|s| port_of(s).1).collect();
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
            let switches = [(name("sw"), SwitchSeenHere { vlans, ..SwitchSeenHere::default() })].into();
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
        let nics = json!([{ "name": "nic1", "untagged": network, "boot": true }]);
        self.put(persona, Spec::Persona(spec_of(json!({ "os": { "family": "linux" }, "root": { "nfs": nfs }, "nics": nics }))));
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
        self.objects.remove(embody::model::Kind::Binding, &name(binding));
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
        let key = (server.clone(), body.held_by.clone(), body.release.clone());
        let fresh = || Rc::new(resolve::want(server, &self.objects, body, &AsWritten));
        self.wants.borrow_mut().entry(key).or_insert_with(fresh).clone()
    }

    /// What `plan` is to look at: the facts, with the evidence of the others.
    pub fn sight(&mut self, server: &Name, want: &Desired) -> &Observed {
        let persona = want.holder.as_ref().map(|h| h.persona.clone());
        let runs = |p: &Name| {
            let others = self.seen.iter().filter(|(other, seen)| *other != server && seen.body.may_run.contains_key(p));
            others.map(|(other, seen)| Elsewhere { server: other.clone(), asked_at: seen.power.as_ref().map(|p| p.asked_at) }).collect()
        };
        let elsewhere = persona.into_iter().map(|p| (p.clone(), runs(&p))).collect();
        let silent = self.truth[server].silent;
        let seen = self.seen.get_mut(server).unwrap();
        seen.elsewhere = elsewhere;
        seen.bmc_trouble = silent.then(|| Trouble { reason: "NoAnswer", message: format!("bmc/{server} does not answer") });
        seen
    }

    pub fn plan(&mut self, server: &Name) -> Plan {
        let want = self.want(server);
        let now = self.now;
        plan(&want, self.sight(server, &want), now)
    }

    /// One pass of the loop for one server: records until there are none, then what may be sent. The plan of the last pass.
    pub fn reconcile(&mut self, server: &Name, luck: &mut dyn FnMut() -> Luck) -> Plan {
        for _ in 0..16 {
            let plan = self.plan(server);
            if plan.records.is_empty() {
                self.send(server, &plan, luck);
                return plan;
            }
            for record in &plan.records {
                self.store(server, record);
            }
            self.check();
        }
        self.fail(&format!("the records of {server} never end"));
    }

    pub fn store(&mut self, server: &Name, record: &Record) {
        let at = self.tick();
        self.note(format_args!("{server}: {record:?}"));
        let seen = self.seen.get_mut(server).unwrap();
        let truth = self.truth.get_mut(server).unwrap();
        match record {
            Record::Take { .. } if seen.body.release.is_none() => truth.stranger = truth.power == Power::On,
            Record::Adopt(_) | Record::Leave => truth.stranger = false,
            _ => {}
        }
        record.apply(&mut seen.body);
        seen.memory.recorded(record, at);
    }

    fn send(&mut self, server: &Name, plan: &Plan, luck: &mut dyn FnMut() -> Luck) {
        for step in &plan.steps {
            self.check_step(server, step);
            if let Some(record) = &step.write_ahead {
                self.store(server, record);
            }
            let luck = luck();
            let at = self.tick();
            self.note(format_args!("{server}: {} ({}) {luck:?}", step.op, step.because));
            self.sent += 1;
            if !self.quiet {
                self.ops.push((server.clone(), step.op.clone()));
            }
            self.seen.get_mut(server).unwrap().memory.sent(&step.op, at);
            if let Op::PowerOff { how, .. } = &step.op {
                let wait = if *how == Off::Hard { limits::HARD_OFF_WAIT } else { GRACE };
                let attempt_at = self.seen[server].memory.attempt_at;
                self.truth.get_mut(server).unwrap().off_again_at = Some(attempt_at.plus(wait));
            }
            if luck != Luck::Lost && !self.truth[server].silent {
                self.happens(&step.op);
            }
            if luck == Luck::Good {
                if let Op::SetBoot { device, efi, .. } = &step.op
                    && !self.truth[server].silent
                {
                    let echo = BootOverride { valid: true, persistent: true, efi: *efi, device: *device };
                    let seen = self.seen.get_mut(server).unwrap();
                    seen.memory.boot_was_set(Some(echo), at);
                    seen.boot = Some(Seen { value: echo, asked_at: at });
                }
                self.look(server);
            }
            self.check();
        }
        if !plan.looks.is_empty() && luck() == Luck::Good {
            self.look(server);
        }
    }

    fn happens(&mut self, op: &Op) {
        match op {
            Op::PowerOn { server } => self.press(&server.clone(), Power::On),
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
            Op::SetBoot { .. } | Op::Save { .. } => {}
        }
    }

    /// The button, whoever presses it: a start boots what the boot answer says.
    pub fn press(&mut self, server: &Name, power: Power) {
        let truth = self.truth.get_mut(server).unwrap();
        match (truth.power, power) {
            (Power::Off, Power::On) => return self.starts(server),
            (Power::On, Power::Off) => (truth.runs, truth.stranger, truth.off_again_at) = (None, false, None),
            (Power::On, Power::On) | (Power::Off, Power::Off) => {}
        }
        truth.power = power;
    }

    /// A start, cold or warm. The boot services see whom they serve.
    pub fn starts(&mut self, server: &Name) {
        let standing = self.standing(server);
        let at = self.tick();
        if standing.is_some() {
            self.seen.get_mut(server).unwrap().memory.start_seen_at = Some(at);
        }
        let truth = self.truth.get_mut(server).unwrap();
        (truth.power, truth.runs, truth.off_again_at) = (Power::On, standing, None);
    }

    fn standing(&self, server: &Name) -> Option<Name> {
        self.seen[server].body.may_run.iter().find(|(_, phase)| phase.stands()).map(|(persona, _)| persona.clone())
    }

    /// A question to the BMC and to the switch that the server is on.
    pub fn look(&mut self, server: &Name) {
        let asked_at = self.tick();
        if !self.truth[server].silent {
            let power = Seen { value: self.truth[server].power, asked_at };
            let seen = self.seen.get_mut(server).unwrap();
            seen.memory.saw_power(seen.power.as_ref().map(|p| p.value), &power);
            seen.power = Some(power);
        }
        let port = port_of(server.as_str());
        let ports = &mut self.seen.get_mut(server).unwrap().ports;
        let refuse = ports.get(&port).and_then(|sight| sight.refuse.clone());
        ports.insert(port.clone(), PortSeenHere { config: self.ports[&port].clone(), asked_at, refuse });
        self.tick();
    }

    /// Another process: only what is stored is left.
    pub fn restart_process(&mut self) {
        self.note(format_args!("the process restarts"));
        for seen in self.seen.values_mut() {
            let (body, switches, approvals) = (seen.body.clone(), seen.switches.clone(), seen.approvals.clone());
            *seen = Observed { body, switches, approvals, ..Observed::default() };
        }
        for truth in self.truth.values_mut() {
            truth.off_again_at = truth.off_again_at.map(|at| Tick(at.0.saturating_sub(self.now.0)));
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
                self.look(server);
                plans.insert(server.clone(), self.reconcile(server, &mut || Luck::Good));
                self.pass(Duration::from_millis(300));
            }
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
        let mut servers = self.seen.clone();
        for (server, seen) in &mut servers {
            let silent = self.truth[server].silent;
            seen.bmc_trouble = silent.then(|| Trouble { reason: "NoAnswer", message: format!("bmc/{server} does not answer") });
        }
        forecast::forecast(servers, &|server, body| resolve::want(server, &self.objects, body, &AsWritten), self.now)
    }

    /// A person approves what a binding's forecast disturbs.
    pub fn approve(&mut self, binding: &str) {
        let Some(held) = self.objects.bindings.get(binding) else { return };
        let (uid, generation) = (held.meta.uid.clone(), held.meta.generation);
        let steps = self.forecast().steps;
        let mine = steps.iter().filter(|f| f.step.binding.as_str() == binding && f.disruption != Disruption::None);
        let ops: BTreeSet<String> = mine.map(|f| consent::signature(&f.step.op)).collect();
        self.note(format_args!("approve {binding}: {ops:?}"));
        self.consent(binding, &Approval { uid, generation, ops });
    }

    pub fn consent(&mut self, binding: &str, approval: &Approval) {
        for seen in self.seen.values_mut() {
            seen.approvals.insert(name(binding), approval.clone());
        }
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

/// The checks: each is one of the invariants of the design, said without the planner's words.
impl Rack {
    /// What must be so at every moment.
    pub fn check(&self) {
        for persona in self.objects.personas.keys() {
            let live: Vec<&Name> = self.truth.iter().filter(|(_, t)| t.runs.as_ref() == Some(persona)).map(|(s, _)| s).collect();
            let claims: Vec<&Name> = self.seen.iter().filter(|(_, s)| s.body.may_run.contains_key(persona)).map(|(s, _)| s).collect();
            if self.is_exclusive(persona) && live.len() > 1 {
                self.fail(&format!("persona {persona} lives twice: {live:?}"));
            }
            if self.is_exclusive(persona) && claims.len() > 1 {
                self.fail(&format!("persona {persona} is claimed twice: {claims:?}"));
            }
            if let Some(server) = live.iter().find(|s| !claims.contains(s)) {
                self.fail(&format!("persona {persona} runs on {server} without any evidence"));
            }
        }
        for (server, seen) in &self.seen {
            if seen.body.may_run.len() > 1 {
                self.fail(&format!("{server} may run two personas"));
            }
        }
    }

    fn check_step(&self, server: &Name, step: &Step) {
        let seen = &self.seen[server];
        let Some(binding) = self.objects.bindings.get(&step.binding) else {
            self.fail(&format!("{} in the name of binding {}, which does not exist", step.op, step.binding));
        };
        let signature = consent::signature(&step.op);
        let approval = seen.approvals.get(&step.binding);
        let approval = approval.filter(|a| a.uid == binding.meta.uid && a.generation == binding.meta.generation);
        match binding.spec.mode(step.plane, Mode::Approve) {
            Mode::Observe => self.fail(&format!("{} by a binding that only observes", step.op)),
            Mode::Approve if approval.is_none() => self.fail(&format!("{} without an approval", step.op)),
            Mode::Approve | Mode::Enforce => {}
        }
        let disturbs = step.op.disruption() != Disruption::None || matches!(step.op, Op::SetBoot { .. });
        if self.truth[server].stranger && disturbs && !approval.is_some_and(|a| a.ops.contains(&signature)) {
            self.fail(&format!("{} disturbs what was found running on {server}", step.op));
        }
        match &step.op {
            Op::PowerOff { how, .. } => self.check_off(server, *how, step),
            Op::PowerOn { .. } => self.check_on(server, step),
            Op::SetPort { switch, port, from, to } => {
                let key = (switch.clone(), port.clone());
                if key != port_of(server.as_str()) || seen.ports.get(&key).is_none_or(|s| s.config != *from) || from == to {
                    self.fail(&format!("{} is not from what was seen of a port of {server}", step.op));
                }
            }
            Op::SetBoot { .. } | Op::CreateVlan { .. } | Op::Save { .. } => {}
        }
    }

    fn check_off(&self, server: &Name, how: Off, step: &Step) {
        let seen = &self.seen[server];
        let Some(Record::Off(intent)) = &step.write_ahead else { self.fail("a power-off without write-ahead") };
        let attempt = seen.body.off.as_ref().map_or(1, |i| i.attempt + 1);
        if intent.attempt != attempt || intent.hard != (how == Off::Hard) || (attempt == 1 && how == Off::Hard) {
            self.fail(&format!("the intent {intent:?} does not follow {:?}", seen.body.off));
        }
        if let Some(again_at) = self.truth[server].off_again_at
            && seen.power.as_ref().is_none_or(|p| p.value != Power::On || p.asked_at <= again_at)
        {
            self.fail(&format!("{} is sent again before its outcome is known", step.op));
        }
        if let Some(standing) = self.standing(server)
            && !self.is_restart(server, &standing)
        {
            self.fail(&format!("{} while {server} still answers with persona {standing}", step.op));
        }
    }

    fn is_restart(&self, server: &Name, persona: &Name) -> bool {
        let body = &self.seen[server].body;
        let desired = |b: &&embody::model::objects::Held<BindingSpec>| {
            body.held_by.as_ref().is_some_and(|h| h.uid == b.meta.uid) && b.spec.persona == *persona && b.spec.restart > body.restart_done
        };
        body.may_run.get(persona) == Some(&Phase::Started) && self.objects.bindings.values().any(|b| desired(&b))
    }

    fn check_on(&self, server: &Name, step: &Step) {
        let seen = &self.seen[server];
        let binding = &self.objects.bindings[&step.binding];
        let network = &self.objects.personas[&binding.spec.persona].spec.nics[0].untagged;
        let vlan = network.as_ref().map(|n| self.objects.networks[n].spec.vlan);
        let port = seen.ports.get(&port_of(server.as_str()));
        if port.is_none_or(|s| s.config.untagged != vlan || s.config.admin != Admin::Up) {
            self.fail(&format!("{} before its port was read back as desired", step.op));
        }
        if self.standing(server).as_ref() != Some(&binding.spec.persona) || binding.spec.state != RunState::Running {
            self.fail(&format!("{} would not start persona {}", step.op, binding.spec.persona));
        }
        if binding.spec.target.server.as_ref() != Some(server) {
            self.fail(&format!("{} for a binding that has another target", step.op));
        }
        if seen.memory.boot_set_at.is_none() {
            self.fail(&format!("{} without a boot device", step.op));
        }
    }
}
