//! What goes wrong with starts: machines that begin anew by themselves, loop in their firmware or fail at a step, hellos that are lost, said again, or
//! said in another server's name.
//!
//! Drawn beside what else goes wrong (`plan`), from a source of chance of its own, as in `masses`.

use embody::testing::model::{Kind, Name, Object};
use embody::testing::server::api::objects::key as object_key;
use embody::testing::sim::booting::BootFault;
use embody::testing::sim::checkers::By;
use embody::testing::store::keys;
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use crate::operators::{Operators, name, server};
use crate::plan::{Act, Plan, Rogue, secs};

/// What machines are told on a network over which they boot. Addresses are few; or all machines would like the same one first, since what is tried
/// first is chosen by a MAC address times 31.
pub fn boot(subnet: usize, machines: usize) -> (Value, Value) {
    let few = machines + 2;
    let last = 99 + if machines.is_multiple_of(2) { few.next_multiple_of(31) } else { few };
    (json!(format!("10.{subnet}.0.0/24")), json!({ "range": format!("10.{subnet}.0.100-10.{subnet}.0.{last}"), "mode": "full" }))
}

/// A network, and where machines boot over it what they are told.
pub fn booting(mut network: Object, subnet: usize, machines: Option<usize>) -> Object {
    if let Some(machines) = machines {
        let mut all = network.to_json();
        (all["spec"]["subnet"], all["spec"]["boot"]) = boot(subnet, machines);
        network = Object::from_json(all).unwrap();
    }
    network
}

impl Plan {
    pub(crate) fn starts(&mut self, rng: &mut StdRng) {
        self.boots = rng.random_bool(0.6);
        let share = if rng.random_bool(0.7) { 0.7 } else { 0.0 };
        self.agents = self.exclusive.iter().map(|_| rng.random_bool(share)).collect();
        let share = if self.boots && rng.random_bool(0.5) { 0.6 } else { 0.0 };
        self.fixed = self.exclusive.iter().map(|exclusive| rng.random_bool(share) && *exclusive).collect();
        if rng.random_bool(0.5) {
            let most = if self.is_large() { 20 } else { 10 };
            for _ in 0..rng.random_range(1..=most) {
                let act = self.of_a_start(rng);
                self.acts.push((secs(rng, 1, self.chaos.as_secs()), act));
            }
        }
        if rng.random_bool(0.5) {
            for _ in 0..rng.random_range(1..=3) {
                self.said_again(rng);
            }
        }
        self.acts.retain(|(at, _)| *at < self.chaos);
        self.acts.sort_by_key(|(at, _)| *at);
    }

    pub(crate) fn once(&mut self, rng: &mut StdRng) {
        if rng.random_bool(0.7) {
            return;
        }
        for _ in 0..rng.random_range(1..=4) {
            let (server, persona) = (rng.random_range(0..self.machines.len()), rng.random_range(0..self.exclusive.len()));
            self.acts.push((secs(rng, 60, self.chaos.as_secs()), Act::BootOnce { server, persona }));
        }
        self.acts.retain(|(at, _)| *at < self.chaos);
        self.acts.sort_by_key(|(at, _)| *at);
    }

    /// A machine begins anew, and before what it starts then says hello, that of the start before is said again.
    fn said_again(&mut self, rng: &mut StdRng) {
        let (at, server) = (secs(rng, 100, self.chaos.as_secs()), rng.random_range(0..self.machines.len()));
        let firmware = self.machines[server].firmware_takes;
        self.acts.push((at, Act::Boot(server, BootFault::HelloLost(rng.random_range(0..=1)))));
        self.acts.push((at, Act::BeginsAnew(server)));
        let again = at + firmware + firmware.mul_f64(rng.random_range(0.1..0.9));
        self.acts.push((again, Act::HelloAgain { server, ago: 0, name: server }));
    }

    fn of_a_start(&self, rng: &mut StdRng) -> Act {
        let servers = self.machines.len();
        let (server, other) = (rng.random_range(0..servers), rng.random_range(0..servers));
        let fault = |fault| Act::Boot(server, fault);
        match rng.random_range(0..8) {
            0 => fault(BootFault::HelloLost(rng.random_range(1..=10))),
            1 => fault(BootFault::AnswerLost(rng.random_range(1..=3))),
            2 => fault(BootFault::Loops(secs(rng, 30, 300))),
            3 => fault(BootFault::Fails(rng.random_range(1..=4))),
            4 => fault(BootFault::OtherNic),
            5 | 6 => Act::BeginsAnew(server),
            _ => Act::HelloAgain { server, ago: rng.random_range(0..=2), name: if rng.random_bool(0.6) { server } else { other } },
        }
    }
}

impl Operators {
    /// False: it is something else.
    pub(crate) fn of_starts(&self, act: &Act) -> bool {
        match act {
            Act::Boot(n, fault) => self.centre.boot_fault(&server(*n), *fault),
            Act::BeginsAnew(n) => self.centre.reboots(&server(*n)),
            Act::HelloAgain { server: n, ago, name } => self.centre.hello_again(&server(*n), *ago, &server(*name)),
            _ => return false,
        }
        true
    }

    /// What embody must never tell of a start, nor believe.
    pub(crate) fn rogue_of_starts(&self, what: Rogue) {
        let stores = |key: String, value: Value| {
            let value = value.to_string().into_bytes();
            self.centre.judge(|judge, now| judge.stored(&key, Some(&value), By::Controller, now));
        };
        match what {
            Rogue::Starts { server: n, persona } => {
                let (server, persona) = (server(n), name(&format!("p{persona}")));
                self.centre.judge(|judge, _| judge.is_told_to_start(&server, &persona, None));
            }
            Rogue::Hello(n) => {
                let body = self.centre.judge(|judge, _| judge.body(&server(n)));
                let mut body = serde_json::to_value(body).unwrap();
                for (_, evidence) in body["evidence"].as_object_mut().unwrap() {
                    evidence["run"] = json!({ "nonce": "0".repeat(32), "at": "2026-01-01T00:00:00Z", "hello": "2026-01-01T00:00:00Z" });
                }
                stores(keys::body(&server(n)), body);
            }
            Rogue::Ready(n) => {
                let intent = &self.desired[&n];
                let mut binding = self.binding(n, intent).to_json();
                binding["metadata"]["generation"] = json!(1);
                binding["status"] = json!({ "observedGeneration": 1, "conditions": [{ "type": "Ready", "status": "True" }] });
                stores(object_key(Kind::Binding, of_binding(n).as_str()), binding);
            }
            Rogue::AddressOf { server: n, other } => {
                let address = self.centre.judge(|judge, _| judge.address(&server(other)));
                self.centre.judge(|judge, _| judge.uses(&server(n), address));
            }
            _ => {}
        }
    }

    /// So many machines there are, where they boot over networks.
    pub(crate) fn booting(&self) -> Option<usize> {
        self.plan.boots.then_some(self.plan.machines.len())
    }

    /// What a persona says beside its root and its NICs. Only what boots with a kernel says hello.
    pub(crate) fn comes_up(&self, n: usize, spec: &mut Value) {
        let of = |list: &[bool]| list.get(n % list.len().max(1)).copied().unwrap_or_default();
        if of(&self.plan.agents) && spec["root"].get("disk").is_none() {
            spec["agent"] = json!("required");
        }
        if of(&self.plan.fixed) && n < self.plan.fixed.len() {
            let subnet = if spec["nics"][0]["untagged"] == "web" { 110 } else { 120 };
            spec["nics"][0]["address"] = json!(format!("10.{subnet}.0.{}/24", 10 + n));
        }
    }

    /// What says no hello, or fetched no script, as far as a restart may help.
    pub(crate) async fn restart_what_is_silent(&mut self, silent: &[usize]) -> usize {
        let mut changes = Vec::new();
        for n in silent {
            let Some(intent) = self.desired.get(n).cloned() else { continue };
            self.centre.note(&[&of_binding(*n)], "a person restarts it, since nothing is heard of it");
            changes.push((*n, crate::operators::Intent { restart: intent.restart + 1, ..intent }));
        }
        let done = changes.len();
        if done > 0 {
            self.desired(changes).await;
            self.checkouts.iter().for_each(|checkouts| (0..self.plan.controllers).for_each(|host| checkouts.pull(host)));
        }
        done
    }
}

fn of_binding(n: usize) -> Name {
    name(&format!("b{n}"))
}
