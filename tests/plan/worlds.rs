//! The worlds of `every_world`: what can be desired, stored, true, delivered and seen of two servers, without what cannot be or makes no
//! difference. Leaves out: what is done from there.

use std::collections::BTreeMap;
use std::rc::Rc;

use embody::testing::model::Name;
use embody::testing::model::binding::{Mode, RunState};
use embody::testing::model::body::{
    Body, Declaration, Declared, Evidence, Found, Hold, OffIntent, Phase, PortDebt, Sending, Sent, Snapshot, port_id,
};
use embody::testing::model::fact::{BootDevice, PortConfig, Power, Seen, Tick};
use embody::testing::model::op::{Off, Op};
use embody::testing::model::reason::Reason;
use embody::testing::plan::observed::{Memory, Observed, PortObserved, Trouble};
use embody::testing::plan::off::Grace;
use embody::testing::plan::rollout::Turn;

use crate::rack::{Asked, QUARANTINE, Rack, Truth, access, between, name, port_of};

/// Records were made at this moment, and old commands sent; a stale answer was asked before it. Recent commands left at `RECENT`; fresh
/// answers came after all of them, more than half a minute after the old ones.
const STALE: Tick = Tick(190_000_000);
const RECORDED: Tick = Tick(200_000_000);
const RECENT: Tick = Tick(245_000_000);
const FRESH: Tick = Tick(240_000_000);
const AGAIN: Tick = Tick(251_000_000);
const NOW: Tick = Tick(252_000_000);

/// Where a binding is desired: on a, on b, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    A(RunState),
    B(RunState),
    Deleted,
}

impl At {
    pub fn server(self) -> Option<(&'static str, RunState)> {
        match self {
            At::A(state) => Some(("a", state)),
            At::B(state) => Some(("b", state)),
            At::Deleted => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    Enforce,
    /// Enforced, and what is found running is approved.
    EnforceApproved,
    ApproveNone,
    ApproveX,
    Observe,
    Paused,
}

/// What q is to p.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It writes another directory.
    Apart,
    /// It writes a directory within that of p.
    Nested,
    /// It writes the same directory, written otherwise.
    Renamed,
    /// It writes nothing, and may live in many bodies.
    Shared,
    /// It writes another directory, and p lives on its server's own disk.
    Disk,
}

/// Whether p has a rollout: what runs its old revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rolls {
    No,
    /// It is its turn.
    Go,
    Waits,
    /// It is its turn, and the image of the new revision is not here.
    Missing,
}

#[derive(Debug, Clone, Copy)]
pub struct Intent {
    pub x: At,
    pub y: At,
    pub relation: Relation,
    /// x has its restart raised.
    pub restart: bool,
    pub rolls: Rolls,
    pub consent: Consent,
}

pub fn desired(consent: Consent) -> Vec<Intent> {
    let ats = [At::A(RunState::Running), At::A(RunState::Stopped), At::B(RunState::Running), At::Deleted];
    let mut out = Vec::new();
    for (x, y) in ats.iter().flat_map(|x| ats.iter().map(move |y| (*x, *y))) {
        if x.server().zip(y.server()).is_some_and(|(x, y)| x.0 == y.0) || (x, y) == (At::Deleted, At::Deleted) {
            continue;
        }
        let mut relations = vec![Relation::Nested];
        let plain = consent != Consent::Enforce;
        // How they are related makes a difference where one of them is to run.
        if y == At::A(RunState::Running) && !plain {
            relations.extend([Relation::Apart, Relation::Shared]);
        }
        if x == At::A(RunState::Running) && !plain {
            relations.push(Relation::Renamed);
        }
        if y == At::Deleted && matches!(x, At::A(RunState::Running) | At::B(_)) && consent != Consent::Observe {
            relations.push(Relation::Disk);
        }
        let restarts: &[bool] = if x == At::A(RunState::Running) { &[false, true] } else { &[false] };
        for (relation, &restart) in relations.iter().flat_map(|r| restarts.iter().map(move |s| (*r, s))) {
            if !restart || relation == Relation::Nested {
                out.push(Intent { x, y, relation, restart, rolls: Rolls::No, consent });
            }
        }
        if x == At::A(RunState::Running) && y.server().is_none_or(|(_, state)| state == RunState::Running) {
            let rolls: &[Rolls] = if consent == Consent::Enforce { &[Rolls::Go, Rolls::Waits, Rolls::Missing] } else { &[Rolls::Go] };
            out.extend(rolls.iter().map(|&rolls| Intent { x, y, relation: Relation::Nested, restart: false, rolls, consent }));
        }
    }
    out
}

pub fn rack_of(desired: &Intent) -> Rack {
    let mut rack = Rack::new(&["a", "b"], &["p", "q"], if desired.relation == Relation::Shared { 1 } else { 2 });
    rack.quiet = true;
    match desired.relation {
        Relation::Nested => rack.put_directory("q", "net-q", "/p/q"),
        Relation::Renamed => rack.put_directory("q", "net-q", "//x/../p/"),
        Relation::Disk => rack.put_disk("p", "net-p"),
        Relation::Apart | Relation::Shared => {}
    }
    if desired.rolls != Rolls::No {
        rack.rolls("p", desired.rolls == Rolls::Missing);
        let wait = || Turn::Wait { reason: Reason::RolloutWaits, message: "in its turn".to_owned(), comes: true };
        let turn = if desired.rolls == Rolls::Waits { wait() } else { Turn::Go };
        rack.seen.values_mut().for_each(|seen| seen.turn = turn.clone());
    }
    let mode = match desired.consent {
        Consent::Enforce | Consent::EnforceApproved | Consent::Paused => Mode::Enforce,
        Consent::ApproveNone | Consent::ApproveX => Mode::Approve,
        Consent::Observe => Mode::Observe,
    };
    for (binding, persona, at) in [("x", "p", desired.x), ("y", "q", desired.y)] {
        let Some((server, state)) = at.server() else { continue };
        rack.bind(binding, persona, server, state, mode);
        let approved = match desired.consent {
            Consent::EnforceApproved => true,
            Consent::ApproveX => binding == "x",
            Consent::Enforce | Consent::ApproveNone | Consent::Observe | Consent::Paused => false,
        };
        if desired.restart && binding == "x" {
            rack.edit("x", |spec| spec.restart = 1);
        }
        if approved {
            let approval = rack.approval(binding, everything()).unwrap();
            rack.consent(binding, &approval);
        }
        if desired.consent == Consent::Paused {
            let trouble = Trouble { reason: Reason::Paused, message: "paused".to_owned() };
            rack.seen.values_mut().for_each(|seen| drop(seen.stopped.insert(name(binding), trouble.clone())));
        }
    }
    rack
}

/// Whatever may be sent to both servers, three times over.
fn everything() -> Vec<Op> {
    let configs = || [110, 120, QUARANTINE].map(access);
    let from = || [1, 50, 110, 120, QUARANTINE].map(access).into_iter().chain([between()]);
    let of = |s: &'static str| {
        let (switch, port) = port_of(s);
        let pairs = from().flat_map(move |from| configs().map(|to| (from.clone(), to)));
        let ports = pairs.map(move |(from, to)| Op::SetPort { switch: switch.clone(), port: port.clone(), from, to });
        let boots = [BootDevice::Pxe, BootDevice::Disk].map(|device| Op::SetBoot { server: name(s), device, efi: true });
        let power = [Op::PowerOff { server: name(s), how: Off::Soft }, Op::PowerOn { server: name(s) }];
        power.into_iter().chain(boots).chain(ports)
    };
    (0..3).flat_map(|_| of("a").chain(of("b"))).collect()
}

/// Evidence of one persona.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Of {
    pub persona: &'static str,
    phase: Phase,
    withdrawn: bool,
    /// What was answered is not what the persona is now: another kernel, and another root.
    old: bool,
}

/// What is known of what a body runs, beside its evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Evidence,
    Unreadable,
    Anything,
    Declared(Declaration),
}

/// What was seen of its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Nothing,
    Stale(Power),
    On,
    OffOnce,
    OffTwice,
}

/// What was delivered of a switching-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    soft: (u32, Last),
    hard: (u32, Last),
    recent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Unknown,
    Accepted,
    Refused,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub held: Option<&'static str>,
    pub release: Option<&'static str>,
    pub evidence: Option<Of>,
    pub known: Known,
    pub power: Power,
    /// It runs what the evidence says.
    pub runs: bool,
    pub seen: Sight,
    pub found: Found,
    pub off: Option<Delivered>,
    pub on_sent: bool,
    pub silent: bool,
    /// Its port was left between two states.
    pub half_way: bool,
    /// A write of its port is on its way.
    pub in_flight: bool,
    /// The store went backwards while it was not seen running what is stored.
    pub confirm: bool,
}

pub fn free() -> Place {
    Place {
        held: None,
        release: None,
        evidence: None,
        known: Known::Evidence,
        power: Power::Off,
        runs: false,
        seen: Sight::Nothing,
        found: Found::Unknown,
        off: None,
        on_sent: false,
        silent: false,
        half_way: false,
        in_flight: false,
        confirm: false,
    }
}

/// Who holds a body and who must still release it.
const OWNERS: [(Option<&str>, Option<&str>); 7] = [
    (None, None),
    (Some("x"), None),
    (Some("y"), None),
    (None, Some("x")),
    (None, Some("y")),
    (Some("x"), Some("y")),
    (Some("y"), Some("x")),
];

const SIGHTS: [Sight; 6] = [Sight::Nothing, Sight::Stale(Power::On), Sight::Stale(Power::Off), Sight::On, Sight::OffOnce, Sight::OffTwice];

/// What may be alive, and what is.
fn lives() -> Vec<Place> {
    let mut out = vec![free(), Place { power: Power::On, ..free() }];
    for (persona, phase, withdrawn, old) in ["p", "q"].into_iter().flat_map(|p| {
        let phases = [Phase::Answered, Phase::Armed, Phase::Started];
        phases.into_iter().flat_map(move |phase| [(p, phase, false, false), (p, phase, true, false), (p, phase, false, true)])
    }) {
        if old && (persona == "q" || phase == Phase::Answered) {
            continue;
        }
        let evidence = Some(Of { persona, phase, withdrawn, old });
        out.push(Place { evidence, ..free() });
        out.push(Place { evidence, power: Power::On, runs: true, ..free() });
        // Once it was seen off while the answer stood, a start can only be this persona's.
        if phase == Phase::Answered || withdrawn {
            out.push(Place { evidence, power: Power::On, ..free() });
        }
    }
    // Found running: it may be what its binding says, or not.
    for (persona, power, runs) in [("p", Power::Off, false), ("p", Power::On, false), ("p", Power::On, true), ("q", Power::On, true)] {
        let evidence = Some(Of { persona, phase: Phase::Found, withdrawn: true, old: false });
        out.push(Place { evidence, power, runs, ..free() });
    }
    out
}

fn deliveries() -> Vec<Delivered> {
    let nothing = (0, Last::Nothing);
    let soft = |soft, recent| Delivered { soft, hard: nothing, recent };
    let hard = |hard, recent| Delivered { soft: (1, Last::Accepted), hard, recent };
    vec![
        soft((1, Last::Unknown), true),
        soft((1, Last::Unknown), false),
        soft((3, Last::Unknown), false),
        soft((1, Last::Accepted), true),
        soft((1, Last::Accepted), false),
        soft((1, Last::Refused), false),
        hard((1, Last::Unknown), true),
        hard((1, Last::Refused), false),
        hard((3, Last::Unknown), false),
    ]
}

impl Place {
    /// What was seen does not contradict what runs.
    fn is_sound(&self) -> bool {
        if self.found != Found::Managed
            && self.off.is_none()
            && matches!(self.seen, Sight::Stale(_))
            && self.held.or(self.release).is_some()
        {
            // How it was found is asked of fresh answers.
            return false;
        }
        let started_since = self.power == Power::On && matches!(self.seen, Sight::OffOnce | Sight::OffTwice);
        match self.evidence {
            // Seen off after the withdrawal: a start since then boots nothing of ours.
            Some(of) if of.withdrawn && started_since => !self.runs,
            // Seen off while the answer stood: a start since then boots the persona.
            Some(_) if started_since => self.runs,
            // An answer that stands is withdrawn before anything is sent, but for a restart.
            Some(of) if self.off.is_some() => of.withdrawn || of.phase == Phase::Started,
            None | Some(_) => true,
        }
    }

    /// Of places that differ in nothing that the desired state asks for, one is enough.
    pub fn matters(&self, desired: &Intent) -> bool {
        let old_counts = self.evidence.is_none_or(|of| !of.old || matches!(desired.x, At::A(_)) && desired.relation == Relation::Nested);
        let restart_counts = !desired.restart || self.held == Some("x");
        // What was delivered to which binding's body is the same for both.
        let x_alone = matches!((self.held, self.release), (Some("x"), None) | (None, Some("x")) | (None, None));
        let usual = self.off.is_none() || desired.relation == Relation::Nested && x_alone;
        old_counts && restart_counts && usual
    }

    /// What others may have makes no difference to the rest.
    pub fn is_plain(&self) -> bool {
        let usual = self.off.is_none() && !self.on_sent && !self.half_way && !self.in_flight && self.known == Known::Evidence;
        usual && matches!(self.seen, Sight::On | Sight::OffTwice) && !matches!(self.found, Found::Running | Found::Adopted)
    }

    /// Nothing was begun whose outcome only the devices know.
    pub fn is_foreseeable(&self) -> bool {
        let usual = self.held.or(self.release).is_none() || self.found != Found::Unknown && self.held != Some("y");
        usual && self.off.is_none() && !self.on_sent && !matches!(self.known, Known::Declared(_))
    }

    pub fn asks_for_consent(&self) -> bool {
        let usual =
            !self.confirm && matches!(self.seen, Sight::On | Sight::OffTwice) && self.release.is_none() && self.known == Known::Evidence;
        usual && self.off.is_none_or(|d| !d.recent && d.hard.0 == 0) && !self.on_sent && !self.half_way && !self.in_flight
    }
}

/// One server in all detail.
pub fn places() -> Vec<Place> {
    let mut out = Vec::new();
    for (held, release) in OWNERS {
        let owned = held.or(release).is_some();
        for life in lives() {
            let managed = if owned { Found::Managed } else { Found::Unknown };
            for seen in SIGHTS {
                let place = Place { held, release, seen, found: managed, ..life.clone() };
                out.push(place.clone());
                let plain = life.evidence.is_none_or(|of| !of.old);
                if owned && plain {
                    let adopted = life.evidence.is_some_and(|of| of.phase == Phase::Started);
                    let founds = [Found::Running, Found::Unknown].into_iter().chain(adopted.then_some(Found::Adopted));
                    out.extend(founds.map(|found| Place { found, ..place.clone() }));
                }
                if (owned || life.evidence.is_some()) && plain && matches!(seen, Sight::Nothing | Sight::On | Sight::OffTwice) {
                    out.extend(deliveries().into_iter().map(|d| Place { off: Some(d), ..place.clone() }));
                }
                if life.evidence.is_some_and(|of| of.phase == Phase::Armed && !of.old) {
                    out.push(Place { on_sent: true, ..place.clone() });
                }
                if plain && matches!(seen, Sight::On | Sight::OffTwice) {
                    out.push(Place { confirm: true, ..place.clone() });
                }
                if release.is_none() && plain && matches!(seen, Sight::On | Sight::OffOnce | Sight::OffTwice) {
                    out.push(Place { half_way: true, ..place.clone() });
                }
                if owned && release.is_none() && plain && matches!(seen, Sight::On | Sight::OffOnce | Sight::OffTwice) {
                    out.push(Place { in_flight: true, ..place.clone() });
                }
            }
        }
        out.extend(unknown_lives().into_iter().map(|place| Place {
            held,
            release,
            found: if owned { Found::Managed } else { Found::Unknown },
            ..place
        }));
    }
    out.retain(Place::is_sound);
    out
}

/// Of which a record says nothing, or a person has said something.
fn unknown_lives() -> Vec<Place> {
    let mut out = Vec::new();
    let evidence = Some(Of { persona: "p", phase: Phase::Started, withdrawn: true, old: false });
    let declarations = [Declaration::OffOncePortsAreReleased, Declaration::Off, Declaration::OffButRuns].map(Known::Declared);
    for (known, seen) in [Known::Unreadable, Known::Anything].into_iter().chain(declarations).flat_map(|k| SIGHTS.map(|s| (k, s))) {
        let ran = matches!(known, Known::Declared(_) | Known::Anything);
        for silent in [true, false] {
            let place = Place { evidence: evidence.filter(|_| ran), known, seen, silent, ..free() };
            out.push(place.clone());
            out.push(Place { power: Power::On, runs: ran, ..place.clone() });
        }
    }
    out
}

/// The other server, as far as it counts.
pub fn others() -> Vec<Place> {
    let seen_off = Place { seen: Sight::OffTwice, ..free() };
    let mut out = vec![seen_off.clone(), Place { silent: true, ..free() }, Place { power: Power::On, seen: Sight::On, ..free() }];
    for persona in ["p", "q"] {
        let evidence = Some(Of { persona, phase: Phase::Started, withdrawn: true, old: false });
        out.push(Place { evidence, power: Power::On, runs: true, seen: Sight::On, ..free() });
    }
    out.push(Place { known: Known::Unreadable, power: Power::On, seen: Sight::On, ..free() });
    out.push(Place { known: Known::Unreadable, seen: Sight::OffTwice, ..free() });
    // The partner of a swap.
    let evidence = Some(Of { persona: "q", phase: Phase::Started, withdrawn: false, old: false });
    out.push(Place { held: Some("y"), evidence, power: Power::On, runs: true, seen: Sight::On, found: Found::Managed, ..free() });
    out
}

pub fn both_claim(desired: &Intent, one: &Place, other: &Place) -> bool {
    let overlap = |p: &str, q: &str| match desired.relation {
        Relation::Nested | Relation::Renamed => true,
        Relation::Apart | Relation::Disk => p == q,
        Relation::Shared => p == q && p == "p",
    };
    one.evidence.zip(other.evidence).is_some_and(|(p, q)| overlap(p.persona, q.persona))
}

/// What b is makes a difference where a persona that it may have is desired on a, or where a move goes to it.
pub fn counts(desired: &Intent, other: &Place) -> bool {
    let goes_to_b = matches!(desired.x, At::B(_)) || matches!(desired.y, At::B(_));
    match (other.evidence.map(|of| of.persona), other.known) {
        (Some("p"), _) => matches!(desired.x, At::A(_)) || desired.relation != Relation::Apart,
        (Some(_), _) => matches!(desired.y, At::A(_)),
        (None, Known::Unreadable) => !goes_to_b || other.power == Power::Off,
        (None, _) => goes_to_b || (!other.silent && other.power == Power::Off),
    }
}

fn sending((tries, last): (u32, Last)) -> Sending {
    let last = match last {
        Last::Nothing => Sent::Nothing,
        Last::Unknown => Sent::Unknown,
        Last::Accepted => Sent::Accepted,
        Last::Refused => Sent::Refused("D5h".to_owned()),
    };
    Sending { tries, last }
}

/// As the persona is, or as it was before somebody edited it.
fn snapshot(rack: &Rack, server: &str, of: Of) -> Snapshot {
    let binding = if of.persona == "p" { "x" } else { "y" };
    let persona = &rack.objects.personas[of.persona].spec;
    let mut root = persona.root.clone();
    if let Some(nfs) = persona.root.nfs.clone().filter(|_| of.old) {
        root.nfs = Some(embody::testing::model::persona::NfsRoot { path: "/old".to_owned(), ..nfs });
    }
    let edited = embody::testing::model::PersonaSpec { root: root.clone(), ..persona.clone() };
    let name_of = name(of.persona);
    let held = rack.objects.bindings.get(binding);
    let snapshot = Snapshot {
        image: None,
        persona: name_of.clone(),
        hostname: server.to_owned(),
        arch: persona.os.arch,
        boot: if root.disk.is_some() { BootDevice::Disk } else { BootDevice::Pxe },
        root,
        kernel: None,
        claims: embody::testing::model::claim::claims(&name_of, &edited, held.map(|h| &h.spec)),
        macs: rack.objects.servers[server].spec.nics.iter().map(|n| n.mac).collect(),
        addresses: BTreeMap::new(),
        links: Vec::new(),
        files: Vec::new(),
        ready: Default::default(),
        arguments: String::new(),
        digest: String::new(),
    };
    snapshot.sealed()
}

fn body_of(rack: &Rack, server: &str, place: &Place) -> Body {
    let hold = |b: &str| Hold { binding: name(b), uid: format!("uid-{b}") };
    let evidence = place.evidence.map(|of| {
        let evidence = Evidence { phase: of.phase, withdrawn: of.withdrawn, snapshot: snapshot(rack, server, of), run: None };
        (name(of.persona), evidence)
    });
    let declared = match place.known {
        Known::Declared(what) => Some(Declared { what, by: "ann".into(), reason: "its power is cut".into(), at: String::new() }),
        Known::Evidence | Known::Unreadable | Known::Anything => None,
    };
    let (switch, port) = port_of(server);
    let debt = PortDebt { begun: Some((access(1), access(110))), by: Some(name("x")) };
    let on_disk = has_disk(rack, place).then(|| name("p")).into_iter().collect();
    let off = place.off.map(|d| OffIntent { because: String::new(), soft: sending(d.soft), hard: sending(d.hard) });
    let body = Body {
        held_by: place.held.map(hold),
        found: place.found,
        evidence: evidence.into_iter().collect(),
        off,
        on_sent: place.on_sent,
        release: place.release.map(hold),
        anything: place.known == Known::Anything,
        confirm_start: place.confirm,
        declared,
        on_disk,
        ports: place.half_way.then(|| (port_id(&switch, &port), debt)).into_iter().collect(),
        ..Body::default()
    };
    if place.known == Known::Unreadable { Body::default() } else { body }
}

/// Whether its disk may hold p.
fn has_disk(rack: &Rack, place: &Place) -> bool {
    let started = place.evidence.is_some_and(|of| of.persona == "p" && of.phase == Phase::Started);
    rack.objects.personas["p"].spec.root.disk.is_some() && (started || place.release == Some("x"))
}

fn memory_of(place: &Place) -> Memory {
    let mut memory = Memory::default();
    let at: BTreeMap<Name, Tick> = place.evidence.iter().map(|of| (name(of.persona), RECORDED)).collect();
    (memory.answered_at, memory.withdrawn_at, memory.declared_at) = (at.clone(), at, RECORDED);
    if let Some(delivered) = place.off {
        let sent = if delivered.recent { RECENT } else { RECORDED };
        (memory.soft_at, memory.hard_at) = if delivered.hard.0 > 0 { (RECORDED, sent) } else { (sent, Tick::START) };
        memory.grace = Grace::begin(memory.soft_at);
    }
    memory.on_sent_at = if place.on_sent { RECENT } else { Tick::START };
    for seen in sights(place.seen) {
        memory.saw_power(&seen);
    }
    if place.power == Power::On && matches!(place.seen, Sight::OffOnce | Sight::OffTwice) {
        // It has asked for a script.
        memory.may_be_on();
    }
    memory
}

fn sights(sight: Sight) -> Vec<Seen<Power>> {
    let seen = |value, asked_at| Seen { value, asked_at };
    match sight {
        Sight::Nothing => Vec::new(),
        Sight::Stale(power) => vec![seen(power, STALE)],
        Sight::On => vec![seen(Power::On, AGAIN)],
        Sight::OffOnce => vec![seen(Power::Off, AGAIN)],
        Sight::OffTwice => vec![seen(Power::Off, FRESH), seen(Power::Off, AGAIN)],
    }
}

fn asked(delivered: Delivered) -> Asked {
    let sent = if delivered.recent { RECENT } else { RECORDED };
    let soft_at = if delivered.hard.0 > 0 { RECORDED } else { sent };
    Asked {
        soft: delivered.soft.0,
        soft_at: (delivered.soft.0 > 0).then_some(soft_at),
        accepted_at: (delivered.soft.1 == Last::Accepted).then_some(soft_at),
        refused: delivered.soft.1 == Last::Refused,
        hard_at: (delivered.hard.0 > 0).then_some(sent),
    }
}

pub fn put(rack: &mut Rack, server: &str, place: &Place) {
    let body = body_of(rack, server, place);
    let unreadable = place.known == Known::Unreadable;
    let runs = place.evidence.filter(|_| place.runs).map(|of| Rc::new(snapshot(rack, server, of)));
    let disk = has_disk(rack, place)
        .then(|| Rc::new(snapshot(rack, server, Of { persona: "p", phase: Phase::Started, withdrawn: false, old: false })));
    let boot = if disk.is_some() && (place.runs || place.power == Power::Off) { BootDevice::Disk } else { BootDevice::None };
    let seen = rack.seen.get_mut(server).unwrap();
    let (switches, mut approvals) = (std::mem::take(&mut seen.switches), std::mem::take(&mut seen.approvals));
    // Another world: nothing of it is done.
    approvals.values_mut().flat_map(|a| &mut a.ops).for_each(|listed| (listed.reached, listed.done) = (false, false));
    let (stopped, turn) = (std::mem::take(&mut seen.stopped), std::mem::take(&mut seen.turn));
    let config: PortConfig = if place.half_way { between() } else { access(50) };
    let sight = PortObserved { config: config.clone(), asked_at: AGAIN, refuse: None };
    let power = sights(place.seen).pop();
    let ports = [(port_of(server), sight)].into();
    let memory = memory_of(place);
    *seen = Observed { body, unreadable, memory, power, switches, approvals, stopped, turn, ports, ..Observed::default() };
    let owned = place.held.or(place.release).is_some();
    // Whatever was found running has ended once it was seen off, or armed.
    let off_since = matches!(place.seen, Sight::OffOnce | Sight::OffTwice | Sight::Stale(Power::Off));
    let ended = place.found == Found::Running && off_since || place.evidence.is_some_and(|of| of.phase == Phase::Armed && !of.withdrawn);
    let stranger = place.power == Power::On && matches!(place.found, Found::Unknown | Found::Running) && !ended;
    let lied_about = place.power == Power::On && matches!(place.known, Known::Declared(_));
    let truth = Truth {
        power: place.power,
        runs,
        boot,
        disk,
        stranger: stranger && owned,
        silent: place.silent,
        lied_about,
        asked: place.off.map(asked).unwrap_or_default(),
        ..Truth::off()
    };
    rack.truth.insert(name(server), truth);
    rack.ports.insert(port_of(server), config);
    match place.in_flight {
        true => drop(rack.in_flight.insert(port_of(server))),
        false => drop(rack.in_flight.remove(&port_of(server))),
    }
    rack.now = NOW;
    rack.ops.clear();
}

/// As a new process finds it: nothing is seen yet. Rich: with every evidence, and a switching-off that was begun; else what lasts.
pub fn unseen(rich: bool) -> Vec<Place> {
    let mut out = Vec::new();
    let owners = OWNERS.into_iter().filter(|(_, release)| rich || release.is_none());
    for ((held, release), life) in owners.flat_map(|o| lives().into_iter().map(move |l| (o, l))) {
        let owned = held.or(release).is_some();
        let on = life.power == Power::On;
        let lasting = match life.evidence {
            None => !on,
            Some(of) => {
                !of.old && (of.phase == Phase::Started && life.runs && !of.withdrawn || of.phase == Phase::Armed && !on && !of.withdrawn)
            }
        };
        let usual = Place { held, release, found: if owned { Found::Managed } else { Found::Unknown }, ..life.clone() };
        out.extend((rich || lasting).then(|| usual.clone()));
        if rich && owned {
            out.push(Place { found: Found::Unknown, ..usual.clone() });
            let begun = on && life.evidence.is_none_or(|of| of.withdrawn);
            out.extend(deliveries().into_iter().filter(|_| begun && release.is_none()).map(|d| Place { off: Some(d), ..usual.clone() }));
        }
        if rich && release.is_none() && lasting {
            out.push(Place { half_way: true, ..usual.clone() });
        }
    }
    if rich {
        let known = unknown_lives().into_iter().filter(|p| p.seen == Sight::Nothing && !p.silent);
        out.extend(known);
    }
    out
}
