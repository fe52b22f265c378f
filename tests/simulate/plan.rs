//! What will go wrong, drawn from the seed before anything begins: a world, and a list of what people and devices do to it.
//!
//! A swarm: each seed has its own kinds of trouble, so that rare combinations get their turn.

use std::fmt;
use std::time::Duration;

use embody::testing::sim::bmc::{BmcFault, BootLie, SoftOff};
use embody::testing::sim::booting::BootFault;
use embody::testing::sim::line::Weather;
use embody::testing::sim::switch::Faults;
use embody::testing::sim::trial_store::StoreLuck;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Something that happens. Servers, switches, bindings are numbers: whoever does it takes the one that there is.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    Button(usize),
    /// A person starts a server that is nobody's from its disk.
    DiskButton(usize),
    PortByHand {
        switch: usize,
        server: usize,
        vlan: u16,
        shut: bool,
    },
    /// At a port that no manifest names, which shares its lists with those that some do.
    UnmanagedByHand {
        switch: usize,
        vlan: u16,
    },
    /// To a server; where another binding has it, that one goes the other way.
    Move {
        binding: usize,
        server: usize,
    },
    SwapPersonas(usize, usize),
    Stop(usize),
    Run(usize),
    Delete(usize),
    Create {
        binding: usize,
        server: usize,
    },
    Restart(usize),
    Renumber {
        network: usize,
        vlan: u16,
    },
    Mode {
        binding: usize,
        mode: &'static str,
    },
    Approve(usize),
    Retry(usize),
    /// Of everything.
    Pause,
    /// The same, or of one binding, with an end.
    PauseFor(Option<usize>, Duration),
    /// The Policy lets a hard off follow where no soft-off was accepted, or does not any more.
    HardOffWithoutSoft(bool),
    Resume,
    Bmc(usize, Bmc),
    BmcWeather(usize, Weather),
    SwitchWeather(usize, Weather),
    SwitchReboot(usize, Duration),
    /// The agent of what runs there ends.
    AgentDies(usize),
    /// What is named comes, as far as it is not there.
    Import,
    /// A process has not all files of its images for a time.
    ImagesMissing(usize, Duration),
    SwitchFaults(usize, Faults),
    Store(StoreLuck),
    /// For so long it takes no writes.
    StoreFull(Duration),
    WatchesEnd,
    Kill {
        down: Duration,
    },
    KillAtNextOp,
    /// The process that acts stands still for so long.
    Freeze(Duration),
    /// The same directly before it sends a change.
    FreezeAtNextOp(Duration),
    /// The process that acts does not reach the store any more, or does again.
    CutOff(bool),
    /// Another BMC in front of the machine, which shows another GUID.
    SwapBmc(usize),
    /// A BMC shows no GUID any more.
    HideGuid(usize),
    /// One answer about power says Off.
    LieOff(usize),
    SwapSwitch(usize),
    RenumberPorts(usize, Duration),
    /// The plug is pulled, and some time later a person says so.
    PullPlug(usize, Duration),
    /// The store as it is now is what `Restore` brings back.
    Backup,
    Restore,
    Wipe,
    /// The record of a body becomes unreadable.
    Garble(usize),
    DeleteRecord(usize),
    /// The record of a body does not say any more what its disk holds.
    ForgetDisk(usize),
    AcceptStore,
    Accept(usize),
    AcceptSwitch(usize),
    DeclareForeign(usize),
    Adopt(usize),
    ApproveHard(usize),
    PauseBinding(usize),
    ResumeBinding(usize),
    /// A binding under another name, to the same server.
    RenameBinding(usize),
    /// Binding and persona are deleted, and the same root is to run elsewhere under another name.
    RenamePersona {
        binding: usize,
        server: usize,
    },
    /// The root of one persona becomes another one, and the other persona takes the old one.
    SwapRoots(usize, usize),
    EditRoot(usize),
    /// The persona that has a rollout gets another revision, a new one or the one before.
    Revise {
        back: bool,
    },
    Rollout(Option<Rolls>),
    /// A person changes all of these bindings in one apply.
    Many(Vec<usize>, Do),
    /// These BMCs do not answer for so long.
    Silent(Vec<usize>, Duration),
    /// The buttons of all of these.
    Buttons(Vec<usize>),
    CloseBreaker,
    /// A person is shown the plan of a binding.
    Look(usize),
    /// And says yes to what they were shown last.
    ApproveShown(usize),
    PauseOf(Stop, Duration),
    /// The wall clock is set by so many seconds.
    ClockJumps(i64),
    /// The checkout of this process becomes the newest one.
    Pull(usize),
    /// The starts of a machine go wrong.
    Boot(usize, BootFault),
    /// A machine begins anew by itself, without going off.
    BeginsAnew(usize),
    /// A hello of some starts ago is said again, in the name of a server.
    HelloAgain {
        server: usize,
        ago: usize,
        name: usize,
    },
    /// A person has a server boot another persona once.
    BootOnce {
        server: usize,
        persona: usize,
    },
    /// What embody must never do, done in its name: the checkers must say so.
    Rogue(Rogue),
}

/// What is done to many bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    Restart,
    Stop,
    Run,
    /// Their personas change one network for another, or change back.
    OtherNetwork,
    /// To a server that is free, while there are any; the others change places with the one before.
    Move,
}

impl Do {
    pub fn taken_back(self) -> Option<Do> {
        match self {
            Do::Restart | Do::Move => None,
            Do::Stop | Do::Run => Some(Do::Run),
            Do::OtherNetwork => Some(Do::OtherNetwork),
        }
    }
}

/// What a pause covers, beside everything and a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Server(usize),
    Persona(usize),
    Switch(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rogue {
    /// A port that no manifest names is shut by SNMP.
    Port,
    /// A write of one port shuts that of this server.
    PortOfAnother(usize),
    /// A server that was found running is switched off.
    OffOfStrange(usize),
    /// An off without an intent.
    OffWithoutIntent(usize),
    /// A hard off by an intent of which no soft-off was accepted.
    HardWithoutSoft(usize),
    /// A hard off directly after the soft-off that was accepted.
    HardTooSoon(usize),
    /// A server is switched off by a rollout.
    RolledOff(usize),
    /// A server is switched off by command, and its BMC then does nothing any more.
    ForGood(usize),
    /// A SET leaves.
    Set,
    /// A datagram with a SET leaves as a question does.
    PastTheGate,
    /// A boot answer reaches a machine.
    Answer,
    /// A second body mounts a directory that another one writes, under another persona's name.
    OneRootTwice,
    /// The first SET leaves of a write of the first port of a server.
    Write { server: usize, from: u16, to: u16 },
    /// The record that the breaker is open goes.
    CloseBreaker,
    /// The networks are stored as they were at first.
    OldNetworks,
    /// A machine is told to start the persona of another one.
    Starts { server: usize, persona: usize },
    /// A hello is recorded that nobody said.
    Hello(usize),
    /// A binding is said to be Ready, whatever was heard of what it runs.
    Ready(usize),
    /// A machine gets the address of another one.
    AddressOf { server: usize, other: usize },
}

/// A fault with a length instead of an end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bmc {
    Reboot(Duration),
    AckOnly(Duration),
    Late(Duration, Duration),
    Busy(Duration),
    Boot(BootLie, Duration),
}

impl Bmc {
    pub fn from(self, now: embody::testing::model::fact::Tick) -> BmcFault {
        match self {
            Bmc::Reboot(takes) => BmcFault::Reboot { takes },
            Bmc::AckOnly(takes) => BmcFault::AckOnly { until: now.plus(takes) },
            Bmc::Late(by, takes) => BmcFault::Late { by, until: now.plus(takes) },
            Bmc::Busy(takes) => BmcFault::Busy { code: 0xc0, until: now.plus(takes) },
            Bmc::Boot(lie, takes) => BmcFault::Boot { lie, until: now.plus(takes) },
        }
    }
}

/// How a persona is rolled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rolls {
    pub most: u32,
    pub pause_after: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Machine {
    pub on: bool,
    pub soft_off: SoftOff,
    pub on_takes: Duration,
    pub off_takes: Duration,
    pub firmware_takes: Duration,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub machines: Vec<Machine>,
    /// Of them, the first is exclusive; whether each of the others is.
    pub exclusive: Vec<bool>,
    /// Whether the root of each is the disk of its server.
    pub on_disk: Vec<bool>,
    /// The persona that has a rollout, if there is one, and the bindings that begin with it.
    pub rolled: Option<(usize, Vec<usize>)>,
    /// How many bindings begin, and on which server each.
    pub bindings: Vec<usize>,
    pub grace: Duration,
    /// Processes that may act.
    pub controllers: usize,
    /// They have the real drivers, which talk to the wire endpoints of the devices.
    pub wired: bool,
    pub acts: Vec<(Duration, Act)>,
    pub chaos: Duration,
    /// How many bodies a change may disrupt unasked, by the Policy.
    pub affected: u32,
    /// Desired state comes from a directory, of which each process has a checkout.
    pub sourced: bool,
    /// Machines boot over the networks of their first NICs.
    pub boots: bool,
    /// Of each persona: whether something in it says hello.
    pub agents: Vec<bool>,
    /// Of each persona: whether it has an address of its own.
    pub fixed: Vec<bool>,
    /// The root of the persona that has a rollout is an image.
    pub imaged: bool,
}

/// Servers that share two switches.
pub const RACK: usize = 16;
/// A world of so many servers is a large one.
const LARGE: usize = 20;

pub(crate) fn secs(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from * 1000..=to * 1000))
}

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let is_large = seed % LARGE_EVERY == LARGE_AT;
        let count = if is_large { large(&mut rng) } else { rng.random_range(4..=6) };
        let machines = (0..count).map(|_| machine(&mut rng)).collect();
        let personas = if is_large { count - count / rng.random_range(4..=10) } else { rng.random_range(3..=5) };
        let exclusive = (0..personas).map(|n| n == 0 || rng.random_bool(0.7)).collect();
        let mut free: Vec<usize> = (0..count).collect();
        let bindings = (0..usize::min(personas, count - 1)).map(|_| free.swap_remove(rng.random_range(0..free.len()))).collect();
        let grace = Duration::from_secs(*pick(&mut rng, &[0, 10, 20, 30]));
        let chaos = if is_large { secs(&mut rng, 500, 900) } else { secs(&mut rng, 600, 1500) };
        let controllers = rng.random_range(1..=2);
        let wired = rng.random_bool(0.25);
        // In some worlds none is.
        let share = *pick(&mut rng, &[0.0, 0.3, 0.6]);
        let on_disk = (0..personas).map(|_| rng.random_bool(share)).collect();
        let wired = wired && !is_large;
        let mut plan = Plan {
            seed,
            machines,
            exclusive,
            on_disk,
            rolled: None,
            bindings,
            grace,
            controllers,
            wired,
            acts: Vec::new(),
            chaos,
            affected: 5,
            sourced: false,
            boots: false,
            agents: Vec::new(),
            fixed: Vec::new(),
            imaged: false,
        };
        let kinds: Vec<u32> = (0..KINDS).filter(|_| rng.random_bool(0.3)).collect();
        let number = rng.random_range(8..=40);
        for _ in 0..number {
            let at = secs(&mut rng, 1, plan.chaos.as_secs());
            let kind = kinds.get(rng.random_range(0..kinds.len().max(1))).copied().unwrap_or(0);
            let act = plan.act(kind, &mut rng);
            plan.acts.push((at, act));
        }
        plan.acts.sort_by_key(|(at, _)| *at);
        plan.masses(&mut StdRng::seed_from_u64(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        plan.starts(&mut StdRng::seed_from_u64(seed.wrapping_mul(0xaf25_1af3_b0f0_25b5)));
        plan.rollouts(&mut StdRng::seed_from_u64(seed.wrapping_mul(0x1b87_3593_cc9e_2d51)));
        plan.once(&mut StdRng::seed_from_u64(seed.wrapping_mul(0x6c62_272e_07bb_0142)));
        plan.images(&mut StdRng::seed_from_u64(seed.wrapping_mul(0x85eb_ca6b_27d4_eb2f)));
        plan
    }

    pub fn is_large(&self) -> bool {
        self.machines.len() >= LARGE
    }

    /// Two for each rack.
    pub fn switches(&self) -> usize {
        2 * self.machines.len().div_ceil(RACK)
    }

    /// Of each switch; the last one is no server's.
    pub fn ports(&self) -> usize {
        if self.machines.len() < 8 { 8 } else { RACK + 1 }
    }

    /// A small world in which nothing goes wrong: two exclusive personas on the first two of four servers; the last one was found running.
    pub fn fair(seed: u64, acts: Vec<(Duration, Act)>) -> Plan {
        let secs = Duration::from_secs;
        let machine = |on| Machine {
            on,
            soft_off: SoftOff::TakesEffectAfter(secs(5)),
            on_takes: secs(2),
            off_takes: secs(1),
            firmware_takes: secs(20),
        };
        let machines = vec![machine(false), machine(false), machine(false), machine(true)];
        let (exclusive, bindings, grace, chaos) = (vec![true, true], vec![0, 1], secs(10), secs(900));
        Plan {
            seed,
            machines,
            exclusive,
            on_disk: vec![false; 2],
            rolled: None,
            bindings,
            grace,
            controllers: 1,
            wired: false,
            acts,
            chaos,
            affected: 5,
            sourced: false,
            boots: false,
            agents: vec![false; 2],
            fixed: vec![false; 2],
            imaged: false,
        }
    }

    /// The same with so many servers and bindings, and one server more.
    pub fn of(self, bindings: usize) -> Plan {
        let machines = vec![self.machines[0].clone(); bindings + 1];
        Plan { machines, exclusive: vec![true; bindings], on_disk: vec![false; bindings], bindings: (0..bindings).collect(), ..self }
    }

    /// The same, with the first persona on the disk of its server.
    pub fn on_disk(self) -> Plan {
        Plan { on_disk: vec![true, false], ..self }
    }

    /// The same, where machines boot over networks, and the first persona says hello.
    pub fn booting(self) -> Plan {
        Plan { boots: true, agents: vec![true, false], ..self }
    }

    /// The same, where both bindings have the second persona, which has a rollout.
    pub fn rolled(self) -> Plan {
        Plan { exclusive: vec![true, false], rolled: Some((1, vec![0, 1])), ..self }
    }

    /// The same, by the real drivers.
    pub fn wired(self) -> Plan {
        Plan { wired: true, ..self }
    }

    fn act(&self, kind: u32, rng: &mut StdRng) -> Act {
        let servers = self.machines.len();
        let (server, binding, switch) =
            (rng.random_range(0..servers), rng.random_range(0..self.exclusive.len()), rng.random_range(0..self.switches()));
        match kind {
            0 | 1 => Act::Move { binding, server },
            2 => Act::Button(server),
            3 if rng.random_bool(0.3) => Act::UnmanagedByHand { switch, vlan: *pick(rng, &[1, 50, 110, 120, 130]) },
            3 => Act::PortByHand { switch, server, vlan: *pick(rng, &[1, 50, 110, 120, 999]), shut: rng.random_bool(0.2) },
            4 => Act::SwapPersonas(binding, rng.random_range(0..self.exclusive.len())),
            5 => {
                if rng.random_bool(0.5) {
                    Act::Stop(binding)
                } else {
                    Act::Run(binding)
                }
            }
            6 => {
                if rng.random_bool(0.5) {
                    Act::Delete(binding)
                } else {
                    Act::Create { binding, server }
                }
            }
            7 => Act::Restart(binding),
            8 => Act::Renumber { network: rng.random_range(0..3), vlan: rng.random_range(200..260) },
            9 => Act::Mode { binding, mode: MODES[rng.random_range(0..MODES.len())] },
            10 => {
                if rng.random_bool(0.7) {
                    Act::Approve(binding)
                } else {
                    Act::Retry(binding)
                }
            }
            11 => Act::Bmc(server, Bmc::Reboot(secs(rng, 60, 180))),
            12 => Act::Bmc(server, bmc_fault(rng)),
            13 => Act::BmcWeather(server, weather(rng, true)),
            14 => Act::SwitchWeather(switch, weather(rng, true)),
            15 => Act::SwitchReboot(switch, secs(rng, 30, 120)),
            16 => Act::SwitchFaults(switch, switch_faults(rng)),
            17 => Act::Store(store_luck(rng)),
            18 => Act::WatchesEnd,
            19 => Act::Kill { down: secs(rng, 0, 60) },
            20 => Act::KillAtNextOp,
            21 => Act::Freeze(secs(rng, 1, 60)),
            22 => Act::FreezeAtNextOp(secs(rng, 1, 60)),
            23 => Act::CutOff(rng.random_bool(0.6)),
            24 => Act::SwapBmc(server),
            25 => Act::HideGuid(server),
            26 => Act::LieOff(server),
            27 if rng.random_bool(0.5) => Act::SwapSwitch(switch),
            27 => Act::RenumberPorts(switch, secs(rng, 30, 120)),
            28 => Act::PullPlug(server, secs(rng, 20, 120)),
            41 => Act::DiskButton(server),
            42 if rng.random_bool(0.5) => Act::PauseFor(None, secs(rng, 10, 300)),
            42 => Act::PauseFor(Some(binding), secs(rng, 10, 300)),
            43 => Act::HardOffWithoutSoft(rng.random_bool(0.5)),
            44 => Act::StoreFull(secs(rng, 5, 120)),
            29..=31 => self.store_act(kind, server, rng),
            _ => self.word(kind, (server, binding, switch), rng),
        }
    }
}

impl Plan {
    fn store_act(&self, kind: u32, server: usize, rng: &mut StdRng) -> Act {
        match (kind, rng.random_range(0..4)) {
            (29, 0 | 1) => Act::Backup,
            (29, 2) => Act::Restore,
            (29, _) => Act::Wipe,
            (30, 0 | 1) => Act::Garble(server),
            (30, _) => Act::DeleteRecord(server),
            _ => Act::AcceptStore,
        }
    }

    /// What people say, and what they do to names and roots.
    fn word(&self, kind: u32, (server, binding, switch): (usize, usize, usize), rng: &mut StdRng) -> Act {
        let persona = rng.random_range(0..self.exclusive.len());
        match (kind, rng.random_range(0..3)) {
            (32, 0) => Act::Pause,
            (32, _) => Act::Resume,
            (33, 0) => Act::PauseBinding(binding),
            (33, _) => Act::ResumeBinding(binding),
            (34, 0) => Act::Accept(server),
            (34, 1) => Act::AcceptSwitch(switch),
            (34, _) => Act::DeclareForeign(server),
            (35, _) => Act::Adopt(binding),
            (36, _) => Act::ApproveHard(binding),
            (37, _) => Act::RenameBinding(binding),
            (38, _) => Act::RenamePersona { binding, server },
            (39, _) => Act::SwapRoots(persona, rng.random_range(0..self.exclusive.len())),
            (_, _) => Act::EditRoot(persona),
        }
    }
}

const MODES: [&str; 4] = ["enforce", "enforce", "approve", "observe"];
/// Kinds of `Plan::act`.
const KINDS: u32 = 45;

/// One seed of so many has a large world.
const LARGE_EVERY: u64 = 20;
const LARGE_AT: u64 = 7;

/// More small ones than large ones: each costs by its size.
fn large(rng: &mut StdRng) -> usize {
    let most = *pick(rng, &[25, 25, 30, 40, 80]);
    rng.random_range(LARGE..=most)
}

pub(crate) fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

fn machine(rng: &mut StdRng) -> Machine {
    let soft_off = if rng.random_bool(0.3) { SoftOff::Ignored } else { SoftOff::TakesEffectAfter(secs(rng, 3, 60)) };
    Machine { on: rng.random_bool(0.25), soft_off, on_takes: secs(rng, 1, 6), off_takes: secs(rng, 1, 6), firmware_takes: secs(rng, 5, 60) }
}

fn bmc_fault(rng: &mut StdRng) -> Bmc {
    let takes = secs(rng, 20, 200);
    match rng.random_range(0..4) {
        0 => Bmc::AckOnly(takes),
        1 => Bmc::Late(secs(rng, 5, 30), takes),
        2 => Bmc::Busy(takes),
        _ => Bmc::Boot(*pick(rng, &[BootLie::LosesBits, BootLie::ReadsEmpty, BootLie::ForgetsWrites]), takes),
    }
}

fn weather(rng: &mut StdRng, late: bool) -> Weather {
    let chance = |rng: &mut StdRng, most: f64| if rng.random_bool(0.5) { rng.random_range(0.0..most) } else { 0.0 };
    let slow = *pick(rng, &[20, 200, 2000, 4500]);
    Weather {
        request_lost: chance(rng, 0.4),
        reply_lost: chance(rng, 0.4),
        late: if late { chance(rng, 0.1) } else { 0.0 },
        doubled: chance(rng, 0.2),
        takes: (Duration::from_millis(10), Duration::from_millis(slow)),
    }
}

fn switch_faults(rng: &mut StdRng) -> Faults {
    let mut is = |chance| rng.random_bool(chance);
    Faults {
        first_varbind_only: is(0.2),
        error_but_applied: is(0.2),
        ok_but_not_applied: is(0.2),
        not_atomic: is(0.3),
        read_only: is(0.1),
        pvid_follows: is(0.2),
        row_status_alone: is(0.2),
        ..Faults::default()
    }
}

fn store_luck(rng: &mut StdRng) -> StoreLuck {
    let mut chance = |most: f64| if rng.random_bool(0.5) { rng.random_range(0.0..most) } else { 0.0 };
    StoreLuck {
        unreachable: chance(0.3),
        applied_unknown: chance(0.2),
        lost_unknown: chance(0.2),
        applied_conflict: chance(0.1),
        crash: chance(0.05),
        takes: Duration::from_secs_f64(chance(0.5)),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "world of seed {}: {} controllers, {} drivers, {}, rolled {:?}{}, booted {}, saying hello {:?}, with addresses {:?}, exclusive {:?}, on disks {:?}, bindings on servers {:?}, grace {:?}",
            self.seed,
            self.controllers,
            if self.wired { "real" } else { "virtual" },
            if self.sourced { "from a directory" } else { "by apply" },
            self.rolled,
            if self.imaged { " by images" } else { "" },
            if self.boots { "over networks" } else { "by others" },
            self.agents,
            self.fixed,
            self.exclusive,
            self.on_disk,
            self.bindings,
            self.grace
        )?;
        for (n, machine) in self.machines.iter().enumerate() {
            writeln!(f, "  s{n}: {machine:?}")?;
        }
        for (at, act) in &self.acts {
            writeln!(f, "  {:>7.1} s: {act:?}", at.as_secs_f64())?;
        }
        write!(f, "  {:>7.1} s: calm", self.chaos.as_secs_f64())
    }
}
