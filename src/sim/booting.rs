//! What machines of the data centre do to boot: they ask as their firmware would, from the view that is published, run what they are told, and
//! say hello with the token of their script. And what goes wrong on that way.
//!
//! Leaves out: addresses (`addresses`) and files, which decide nothing. Invariant: what is not "parked" is run only if it was told while the lease
//! held under which it was asked for, as `server::boot` tells it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::addresses::Had;
use super::bmc::Cause;
use super::centre::{ANSWER_WAIT, ASK_AGAIN, Answers, Centre, Machine, Runs};
use super::exchange::Agent;
use crate::boot::answer::{Ask, Verdict, judge};
use crate::boot::script::For;
use crate::control::booting::Answer;
use crate::control::controller::Message;
use crate::control::systems::Hello;
use crate::model::claim::{self, Claim};
use crate::model::fact::{BootDevice, Tick};
use crate::model::server::Arch;
use crate::model::{Mac, Name};

const BASE: &str = "http://192.0.2.1";

/// Something that goes wrong with the starts of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootFault {
    /// So many hellos get nowhere.
    HelloLost(u32),
    /// Of so many the answer does not arrive.
    AnswerLost(u32),
    /// For so long its firmware asks for an address again and again, and never for a script.
    Loops(Duration),
    /// So many starts end after the script was fetched: another one is asked for.
    Fails(u32),
    /// Another NIC is in it, which no manifest names.
    OtherNic,
}

/// What is so of a machine's starts, beside what it was told last.
#[derive(Default)]
pub(super) struct Starts {
    /// What its scripts held and what runs there has said hello with, the last one at the end: the server, and the token.
    said: Vec<(Name, String)>,
    hellos_lost: u32,
    answers_lost: u32,
    loops_until: Tick,
    fails: u32,
    other_nic: bool,
    mute: bool,
    /// What says in this start that it is up does so no more.
    silent: u64,
    shows_uuid: bool,
    /// How it reaches the controller.
    pub(super) answers: Option<Answers>,
    pub(super) has: Option<Had>,
}

impl Machine {
    /// The address of the NIC that is in it.
    pub(super) fn asks_as(&self) -> Mac {
        let other = |mac: Mac| {
            let [_, b, c, d, e, f] = mac.octets();
            Mac::seen([0x06, b, c, d, e, f])
        };
        Some(self.mac).filter(|_| self.starts.other_nic).and_then(other).unwrap_or(self.mac)
    }

    fn uuid(&self) -> Option<String> {
        let [a, b, c, d, e, f] = self.mac.octets();
        let uuid = || format!("8f14e45f-ceea-467f-a0e6-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}");
        self.starts.shows_uuid.then(uuid)
    }
}

impl Centre {
    // ---- what happens to it ----------------------------------------------------------------------------------------------

    pub fn boot_fault(&self, server: &Name, fault: BootFault) {
        let now = self.now();
        let mut state = self.state();
        let Some(Machine { starts, .. }) = state.machines.get_mut(server) else { return };
        match fault {
            BootFault::HelloLost(times) => starts.hellos_lost = times,
            BootFault::AnswerLost(times) => starts.answers_lost = times,
            BootFault::Loops(takes) => starts.loops_until = now.plus(takes),
            BootFault::Fails(times) => starts.fails = times,
            BootFault::OtherNic => starts.other_nic = true,
        }
    }

    /// All that ends.
    pub fn heal_boot(&self, server: &Name) {
        if let Some(Machine { starts, .. }) = self.state().machines.get_mut(server) {
            (starts.hellos_lost, starts.answers_lost, starts.fails, starts.other_nic) = (0, 0, 0, false);
            starts.loops_until = Tick::START;
        }
    }

    /// It begins anew by itself, as after a panic: its power does not go off.
    pub fn reboots(&self, server: &Name) {
        let Some(boot) = self.touch(server, |bmc, now| bmc.boot(now)) else { return };
        let now = self.now();
        let mut state = self.state();
        let Some(machine) = state.machines.get_mut(server).filter(|machine| machine.runs != Runs::Nothing) else { return };
        machine.start += 1;
        machine.runs = Runs::Firmware;
        machine.from_disk = Some(Cause::Button).filter(|_| boot.valid && boot.device == BootDevice::Disk);
        machine.ask_at = Some((now.plus(machine.firmware_takes), false));
        machine.starts.has = None;
        machine.wake.notify_one();
        state.trace.note(now, &[server], "begins anew by itself");
        state.judge.rebooted(server);
    }

    /// It says which machine it is.
    pub fn shows_uuid(&self, server: &Name) {
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.starts.shows_uuid = true;
        }
    }

    /// What runs on it says no hello, ever: for the test of the checkers.
    pub fn never_says_hello(&self, server: &Name) {
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.starts.mute = true;
        }
    }

    /// Somebody says a hello again that was said by what ran on a machine so many starts ago; in the name of this server, perhaps of another one.
    pub fn hello_again(self: &Arc<Self>, server: &Name, ago: usize, name: &Name) {
        let of = |machine: &Machine| {
            let (_, token) = machine.starts.said.iter().rev().nth(ago)?;
            Some((token.clone(), machine.starts.answers.clone()?))
        };
        let Some((token, answers)) = self.state().machines.get(server).and_then(of) else { return };
        let (centre, server, name) = (Arc::clone(self), server.clone(), name.clone());
        tokio::spawn(async move {
            let said = centre.hello(&name, &token, None, &answers).await;
            centre.note(&[&server, &name], format!("a hello of {ago} starts ago on {server} is said as {name}: {said:?}"));
        });
    }

    // ---- what it asks ----------------------------------------------------------------------------------------------------

    pub(super) async fn ask_what_to_boot(self: Arc<Self>, server: Name, start: u64, again: bool, answers: Answers) {
        if self.loops(&server, start, &answers) {
            return;
        }
        let Ok(from) = self.looks_for_address(&server, start, &answers).await else {
            return self.booted(&server, start, again, None, answers);
        };
        let asks = |machine: &Machine| Ask { mac: machine.asks_as(), uuid: machine.uuid(), arch: Arch::X86_64, from, ours: true };
        let Some(ask) = self.state().machines.get(&server).map(asks) else { return };
        let answer = timeout(ANSWER_WAIT, self.answered(&server, ask, &answers)).await.ok().flatten();
        self.booted(&server, start, again, answer, answers);
    }

    /// Whether its firmware goes round and round.
    fn loops(&self, server: &Name, start: u64, answers: &Answers) -> bool {
        let now = self.now();
        let mut state = self.state();
        let Some(machine) = state.machines.get_mut(server).filter(|machine| machine.starts.loops_until > now) else { return false };
        if machine.start == start {
            machine.ask_at = Some((now.plus(ASK_AGAIN), false));
            machine.wake.notify_one();
        }
        let mac = machine.asks_as();
        state.trace.note(now, &[server], "asks for an address, and for nothing else");
        drop(state);
        answers.is_alive(mac);
        true
    }

    /// As `server::boot` answers: what is not "parked" only while the lease holds under which it was asked for.
    async fn answered(&self, server: &Name, ask: Ask, answers: &Answers) -> Option<Answer> {
        let holds = answers.holds.borrow().clone();
        let to_controller = answers.controller.borrow().clone();
        let ((host, lease, shared), to_controller) = (holds?, to_controller?);
        let now = || shared.view.borrow().as_ref().map(|view| judge(&ask, view));
        let to = For { base: BASE, mac: ask.mac };
        let answer = match now()? {
            Verdict::Parked(parked) => {
                let answer = Answer::of(to, &parked);
                // Its script takes an address anew first.
                let takes_anew =
                    self.state().machines.get_mut(server).filter(|_| parked.elsewhere).map(|machine| machine.starts.has.take());
                drop(takes_anew);
                if parked.server.is_some() {
                    to_controller.try_send(Message::Parked(parked)).ok()?;
                }
                return Some(answer);
            }
            Verdict::Starts { .. } => {
                let (reply, answer) = oneshot::channel();
                to_controller.send(Message::Boot { ask: ask.clone(), base: to.base.to_owned(), reply }).await.ok()?;
                answer.await.ok()?
            }
        };
        self.freezer.awake(host).await;
        if let Some(persona) = &answer.persona {
            // A process that stood still and goes on reads both anew.
            if !lease.holds() || !matches!(now()?, Verdict::Starts { snapshot, .. } if snapshot.persona == *persona) {
                return None;
            }
            let run = token(&answer.script);
            let image = self.judge(|judge, _| judge.body(server).evidence.get(persona).and_then(|e| e.snapshot.image.clone()));
            if let Some(why) = image.and_then(|image| shared.images.here(&image).lacks) {
                self.judge(|judge, _| judge.told_without_image(server, persona, &why));
            }
            self.judge(|judge, now| {
                judge.answering(host, server, now);
                judge.is_told_to_start(server, persona, run.as_ref().map(|told| (&told.server, nonce(&told.token))));
            });
        }
        Some(answer)
    }

    fn booted(self: &Arc<Self>, server: &Name, start: u64, again: bool, answer: Option<Answer>, answers: Answers) {
        let now = self.now();
        let mut state = self.state();
        let stands = state.judge.stands_on_disk(server);
        let Some(machine) = state.machines.get_mut(server) else { return };
        if machine.start != start || matches!(machine.runs, Runs::Nothing) {
            return;
        }
        machine.wake.notify_one();
        let persona = answer.as_ref().and_then(|a| a.persona.clone());
        if persona.is_some() && machine.starts.fails > 0 {
            machine.starts.fails -= 1;
            machine.ask_at = Some((now.plus(ASK_AGAIN), again));
            return state.trace.note(now, &[server], "fetches its script, and fails at a step of it");
        }
        let persona = match &mut machine.remembers {
            Some(last) => {
                *last = persona.or_else(|| last.take());
                last.clone()
            }
            None => persona,
        };
        let text = match (&persona, &answer) {
            (Some(persona), _) => {
                machine.runs = Runs::Persona(persona.clone());
                machine.disk = stands.filter(|p| p == persona).or(machine.disk.take());
                format!("runs persona {persona}")
            }
            (None, Some(answer)) => {
                machine.runs = Runs::Parked;
                machine.ask_at = Some((now.plus(ASK_AGAIN), true));
                format!("is {}", answer.says)
            }
            (None, None) => {
                machine.ask_at = Some((now.plus(ASK_AGAIN), again));
                "gets no boot answer".to_owned()
            }
        };
        let (after, waits) = (machine.firmware_takes / 2, matches!(machine.runs, Runs::Parked));
        state.trace.note(now, &[server], text);
        if waits {
            state.judge.waits(server);
        }
        if let Some(persona) = persona {
            state.judge.runs(server, &persona, answer.as_ref().and_then(|a| mounted(&a.script)));
            tokio::spawn(Arc::clone(self).comes_up(server.clone(), start, after, answer.and_then(|a| token(&a.script)), answers));
        }
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
    }

    // ---- what it says ----------------------------------------------------------------------------------------------------

    /// What was started asks for its address, and says hello until that is taken or refused.
    async fn comes_up(self: Arc<Self>, server: Name, start: u64, after: Duration, run: Option<Told>, answers: Answers) {
        sleep(after).await;
        if !self.is_up(&server, start) {
            return;
        }
        self.system_has_address(&server, start, &answers).await;
        let Some(Told { server: of, token, exchanges }) = run else { return };
        let mut agent = exchanges.then(|| Agent::new(&of, &token));
        if let Some(asks) = &agent
            && !self.learns_who_it_is(&server, start, asks, &answers).await
        {
            return;
        }
        let secret = agent.as_ref().map(|agent| agent.secret.clone());
        loop {
            let Some(lost) = self.is_saying_hello(&server, start, &of, &token) else { return };
            let said = match lost {
                true => None,
                false => self.hello(&of, &token, secret.clone(), &answers).await,
            };
            let said = said.filter(|_| !self.is_answer_lost(&server));
            let text = said.map_or("its hello gets no answer".to_owned(), |said| format!("says hello: {said:?}"));
            self.note(&[&server], text);
            match (said, agent.take_if(|_| said == Some(Hello::Taken))) {
                (Some(Hello::Taken), Some(agent)) => return drop(tokio::spawn(Arc::clone(&self).stays_up(server, start, agent, answers))),
                (Some(Hello::Taken | Hello::Another), _) => return,
                (_, _) => {}
            }
            sleep(ASK_AGAIN).await;
        }
    }

    pub(super) fn is_up(&self, server: &Name, start: u64) -> bool {
        self.state().machines.get(server).is_some_and(|machine| machine.start == start && matches!(machine.runs, Runs::Persona(_)))
    }

    /// Whether this one gets nowhere. Nothing: it runs no longer.
    fn is_saying_hello(&self, server: &Name, start: u64, of: &Name, token: &str) -> Option<bool> {
        if !self.is_up(server, start) {
            return None;
        }
        let mut state = self.state();
        state.judge.says_hello(server, nonce(token));
        let starts = &mut state.machines.get_mut(server)?.starts;
        let run = (of.clone(), token.to_owned());
        if starts.said.last() != Some(&run) {
            starts.said.push(run);
        }
        let lost = starts.hellos_lost > 0 || starts.mute;
        starts.hellos_lost = starts.hellos_lost.saturating_sub(1);
        Some(lost)
    }

    /// Its agent ends, and nothing else of what runs.
    pub fn agent_dies(&self, server: &Name) {
        if let Some(machine) = self.state().machines.get_mut(server) {
            machine.starts.silent = machine.start;
        }
    }

    pub(super) fn is_silent(&self, server: &Name, start: u64) -> bool {
        self.state().machines.get(server).is_none_or(|machine| machine.starts.mute || (start > 0 && machine.starts.silent == start))
    }

    pub(super) fn is_answer_lost(&self, server: &Name) -> bool {
        let mut state = self.state();
        let Some(Machine { starts, .. }) = state.machines.get_mut(server) else { return false };
        let lost = starts.answers_lost > 0;
        starts.answers_lost = starts.answers_lost.saturating_sub(1);
        lost
    }

    /// As `server::boot::http` takes one.
    async fn hello(&self, server: &Name, token: &str, secret: Option<String>, answers: &Answers) -> Option<Hello> {
        let said = async {
            let (host, _, shared) = answers.holds.borrow().clone()?;
            let to_controller = answers.controller.borrow().clone()?;
            let view = shared.view.borrow().clone()?;
            let Some(token) = view.key.as_ref()?.check(server, token) else { return Some(Hello::Another) };
            self.freezer.awake(host).await;
            let (reply, answer) = oneshot::channel();
            to_controller.send(Message::Hello { server: server.clone(), token, secret, failed: Vec::new(), reply }).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_WAIT, said).await.ok().flatten()
    }
}

impl Answers {
    /// Something of this NIC was heard.
    pub(super) fn is_alive(&self, mac: Mac) {
        let Some((_, _, shared)) = self.holds.borrow().clone() else { return };
        let server = shared.view.borrow().as_ref().and_then(|view| Some(view.machine(mac)?.server.clone()));
        if let (Some(server), Some(controller)) = (server, self.controller.borrow().as_ref()) {
            // What is told so is told again by the next question.
            let _full = controller.try_send(Message::Alive(server));
        }
    }
}

/// The directory that a boot script mounts to write, if it does: `nfsroot=10.0.20.5:/p/apache,vers=4.2 rw`.
fn mounted(script: &str) -> Option<Claim> {
    let (_, rest) = script.split_once("nfsroot=")?;
    let (place, rest) = rest.split_once(' ')?;
    let (host, path) = place.split_once(":/")?;
    rest.starts_with("rw").then(|| host.parse().ok().map(|host| claim::directory(&host, &format!("/{path}"))))?
}

/// What a script tells what it starts.
pub(super) struct Told {
    server: Name,
    token: String,
    /// It asks who it is before it says hello.
    exchanges: bool,
}

/// Where a script says that what it starts is to say hello: `embody.run=http://192.0.2.1/run/s0/TOKEN`.
fn token(script: &str) -> Option<Told> {
    let (_, rest) = script.split_once("embody.run=")?;
    let run = rest.split([' ', '\n']).next()?.strip_prefix(BASE)?.strip_prefix("/run/")?;
    let (server, token) = run.split_once('/')?;
    Some(Told { server: server.parse().ok()?, token: token.to_owned(), exchanges: script.contains("embody.exchange=") })
}

/// What tells a start from others.
fn nonce(token: &str) -> &str {
    token.split('-').nth(2).unwrap_or_default()
}
