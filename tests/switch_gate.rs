//! Authority and identity where a switch is written: each SET on what one GET showed just before, through the gate, to the switch that is
//! meant; and what becomes of a port when that ends in the middle. All in virtual time.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use embody::testing::clock::BootClock;
use embody::testing::drivers::gate::{Gate, Key, Permit};
use embody::testing::drivers::switch::objects::{self as o, Arcs};
use embody::testing::drivers::switch::snmp::{Agent, Binding, Leave, Oid, SetAnswer, Value, Walked};
use embody::testing::drivers::switch::{SwitchDriver, SwitchSettings};
use embody::testing::drivers::{Depth, Driver, Fault, Notes, Observation};
use embody::testing::model::Vlan;
use embody::testing::model::fact::{Admin, PortConfig, SwitchSeen};
use embody::testing::model::identity::Identity;
use embody::testing::model::op::Op;
use embody::testing::sim::direct::Direct;
use embody::testing::sim::mib::Mib;
use embody::testing::sim::switch::{Kind, SimSwitch, Who};
use embody::testing::store::LeaseEnd;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn vlan(id: u16) -> Vlan {
    Vlan::try_from(i64::from(id)).unwrap()
}

fn config(admin: Admin, untagged: u16, tagged: &[u16]) -> PortConfig {
    PortConfig { admin, untagged: Some(vlan(untagged)), tagged: tagged.iter().copied().map(vlan).collect() }
}

/// A moment of one operation: just before or after its n-th SET, or the GET before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Get(usize),
    Got(usize),
    Set(usize),
    WasSet(usize),
}

type Hook = Box<dyn FnMut(At) + Send>;

#[derive(Default)]
struct Watch {
    gets: usize,
    sets: Vec<Vec<Binding>>,
    hook: Option<Hook>,
    /// How long a GET takes; and the n-th before a SET, so much more.
    takes: Duration,
    more: Option<(usize, Duration)>,
    /// What the GET before a SET shows in place of the truth.
    shows: Option<(Oid, Value)>,
    /// SETs of this are not answered, and do nothing.
    unanswered: Option<Arcs>,
}

/// The simulated switch, watched and interrupted.
struct Hooked {
    agent: Direct<SimSwitch>,
    watch: Arc<Mutex<Watch>>,
}

impl Hooked {
    fn at(&self, at: At) {
        // Taken out, so that it may look at the watch itself.
        let hook = self.watch.lock().unwrap().hook.take();
        if let Some(mut hook) = hook {
            hook(at);
            self.watch.lock().unwrap().hook.get_or_insert(hook);
        }
    }
}

#[async_trait]
impl Agent for Hooked {
    async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Binding>, Fault> {
        // Only the GET before a SET asks for what identifies the switch.
        let before_set = oids.iter().any(|oid| oid.0.starts_with(o::ENT_PHYSICAL_SERIAL));
        let (n, mut takes) = {
            let mut watch = self.watch.lock().unwrap();
            watch.gets += usize::from(before_set);
            (watch.gets, watch.takes)
        };
        if before_set {
            takes += self.watch.lock().unwrap().more.filter(|(nth, _)| *nth == n).map(|(_, more)| more).unwrap_or_default();
            self.at(At::Get(n));
        }
        let mut got = self.agent.get(oids).await?;
        sleep(takes).await;
        if before_set {
            self.at(At::Got(n));
            let shows = self.watch.lock().unwrap().shows.clone();
            let shown = got.iter_mut().filter(|(oid, _)| shows.as_ref().is_some_and(|(shown, _)| shown == oid));
            shown.for_each(|binding| *binding = shows.clone().unwrap());
        }
        Ok(got)
    }

    async fn walk(&mut self, columns: &[Oid], rows: usize) -> Result<Vec<Walked>, Fault> {
        self.agent.walk(columns, rows).await
    }

    async fn set(&mut self, bindings: &[Binding], leave: Leave<'_>) -> Result<SetAnswer, Fault> {
        let n = self.watch.lock().unwrap().sets.len() + 1;
        self.at(At::Set(n));
        let unanswered = self.watch.lock().unwrap().unanswered;
        if unanswered.is_some_and(|arcs| bindings.iter().any(|(oid, _)| oid.0.starts_with(arcs))) {
            leave.permit.pass(Some(leave.fresh), leave.half_way, || self.watch.lock().unwrap().sets.push(bindings.to_vec())).unwrap();
            return Err(Fault::Unknown { device: "sw".to_owned(), what: "a SET".to_owned() });
        }
        let answer = self.agent.set(bindings, leave).await;
        if answer.is_ok() {
            self.watch.lock().unwrap().sets.push(bindings.to_vec());
        }
        self.at(At::WasSet(n));
        answer
    }

    fn engine_id(&self) -> Option<Vec<u8>> {
        None
    }
}

struct Bench {
    sim: Arc<Mutex<SimSwitch>>,
    watch: Arc<Mutex<Watch>>,
    driver: SwitchDriver,
    lease: Arc<LeaseEnd>,
    gate: Arc<Gate>,
    pinned: Identity,
}

impl Bench {
    /// Eight ports in VLAN 10, and VLANs 20 and 30; it was observed, and what it showed is pinned.
    async fn new(kind: Kind) -> Bench {
        Bench::begun(kind, &[]).await
    }

    async fn with_uplinks(uplinks: &[&str]) -> Bench {
        Bench::begun(Kind::QBridge, uplinks).await
    }

    async fn begun(kind: Kind, uplinks: &[&str]) -> Bench {
        let mut sim = SimSwitch::new(kind, "sw", 8);
        [10, 20, 30].into_iter().for_each(|id| sim.add_vlan(vlan(id)));
        (1..=8).for_each(|port| sim.set_port(&format!("port{port}"), &config(Admin::Up, 10, &[])).unwrap());
        sim.log.clear();
        let sim = Arc::new(Mutex::new(sim));
        let watch = Arc::new(Mutex::new(Watch::default()));
        let agent = Hooked { agent: Direct::new(Arc::clone(&sim)), watch: Arc::clone(&watch) };
        let uplinks = uplinks.iter().map(|port| (*port).to_owned()).collect();
        let manage = Some(vec!["port1-4".to_owned()]);
        let settings = SwitchSettings { manage, create_vlans: true, uplinks, ..SwitchSettings::default() };
        let driver = SwitchDriver::new("sw".to_owned(), Box::new(agent), settings);
        let clock = BootClock::virtual_from_now();
        let lease = LeaseEnd::never(clock);
        let gate = Gate::new(Arc::clone(&lease), clock);
        let mut bench = Bench { sim, watch, driver, lease, gate, pinned: Identity::default() };
        bench.pinned = Identity::default().extended(&bench.look().await.shown);
        bench
    }

    fn sim(&self) -> MutexGuard<'_, SimSwitch> {
        self.sim.lock().unwrap()
    }

    async fn look(&mut self) -> SwitchSeen {
        match self.driver.observe(Depth::State, soon()).await.unwrap() {
            Observation::Switch(seen) => SwitchSeen::clone(&seen),
            Observation::Bmc(_) => panic!("a switch is no BMC"),
        }
    }

    fn when(&self, at: At, then: impl FnOnce() + Send + 'static) {
        let mut then = Some(then);
        self.watch.lock().unwrap().hook = Some(Box::new(move |now| {
            if now == at
                && let Some(then) = then.take()
            {
                then();
            }
        }));
    }

    fn permit(&self) -> Permit {
        let mut permit = self.gate.permit(Key::Port("port1".to_owned()), self.pinned.clone());
        permit.begin(90 * SECOND);
        permit
    }

    /// port1 from where it is.
    async fn set(&mut self, to: PortConfig) -> Result<Notes, Fault> {
        let from = self.truth();
        let op = Op::SetPort { switch: "sw".parse().unwrap(), port: "port1".to_owned(), from, to };
        let permit = self.permit();
        self.driver.execute(&op, &permit, Instant::now() + 90 * SECOND).await
    }

    fn sets(&self) -> usize {
        self.watch.lock().unwrap().sets.len()
    }

    fn truth(&self) -> PortConfig {
        self.sim().ports()["port1"].clone()
    }
}

fn soon() -> Instant {
    Instant::now() + 60 * SECOND
}

fn not_sent(result: Result<Notes, Fault>, word: &str) {
    let fault = result.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent { why, .. } if why.contains(word)), "{fault}");
}

const WAS: fn() -> PortConfig = || config(Admin::Up, 10, &[]);
const TO: fn() -> PortConfig = || config(Admin::Up, 20, &[30]);

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_between_two_sets_leaves_a_port_half_way_and_says_so() {
    for kind in [Kind::QBridge, Kind::Cisco] {
        let mut bench = Bench::new(kind).await;
        let gate = Arc::clone(&bench.gate);
        bench.when(At::WasSet(1), move || gate.void(&Key::Port("port1".to_owned())));
        let fault = bench.set(TO()).await.unwrap_err();
        assert_eq!((bench.sets(), bench.truth()), (1, config(Admin::Down, 10, &[])));
        let words = fault.to_string();
        assert!(words.contains("half-way") && words.contains("taken back") && words.contains("10 down"), "{words}");
        assert!(matches!(fault, Fault::Disagrees { .. }), "{words}");
        // And what was void from the start sends nothing.
        let permit = bench.permit();
        bench.gate.void_all();
        let op = Op::SetPort { switch: "sw".parse().unwrap(), port: "port1".to_owned(), from: bench.truth(), to: TO() };
        not_sent(bench.driver.execute(&op, &permit, soon()).await, "taken back");
        assert_eq!(bench.sets(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_lets_a_port_be_finished_and_knows_when_it_is() {
    let mut bench = Bench::new(Kind::QBridge).await;
    let (gate, halves) = (Arc::clone(&bench.gate), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&halves);
    bench.when(At::WasSet(1), move || seen.lock().unwrap().extend(gate.void_all_but_half_way()));
    bench.set(TO()).await.unwrap();
    assert_eq!((bench.truth(), halves.lock().unwrap().as_slice()), (TO(), [Key::Port("port1".to_owned())].as_slice()));
    assert!(bench.gate.half_way().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ends_between_the_get_and_the_set_lets_nothing_out() {
    for n in [1, 2] {
        let mut bench = Bench::new(Kind::QBridge).await;
        let lease = Arc::clone(&bench.lease);
        bench.when(At::Got(n), move || assert!(lease.end()));
        let result = bench.set(TO()).await;
        assert_eq!(bench.sets(), n - 1);
        match n {
            1 => not_sent(result, "lease"),
            _ => assert!(result.unwrap_err().to_string().contains("half-way")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_old_is_not_written_on() {
    // Steadily slow: 3 s for each answer is slow, but three round trips are 9 s.
    let mut bench = Bench::new(Kind::QBridge).await;
    bench.watch.lock().unwrap().takes = 3 * SECOND;
    bench.look().await;
    bench.set(config(Admin::Down, 10, &[])).await.unwrap();
    // Slower than any answer may be old.
    let mut bench = Bench::new(Kind::QBridge).await;
    bench.watch.lock().unwrap().takes = 11 * SECOND;
    not_sent(bench.set(config(Admin::Down, 10, &[])).await, "TooSlowToWrite");
    assert_eq!(bench.sets(), 0);
    // Quick, but this process, or the switch, stood still for a while: before the first SET, and between two.
    for n in [1, 2] {
        let mut bench = Bench::new(Kind::QBridge).await;
        bench.watch.lock().unwrap().takes = SECOND / 20;
        bench.watch.lock().unwrap().more = Some((n, 5 * SECOND));
        let result = bench.set(TO()).await;
        if n == 1 {
            not_sent(result, "TooSlowToWrite");
            assert_eq!(bench.sets(), 0);
        } else {
            assert!(result.unwrap_err().to_string().contains("TooSlowToWrite"));
            assert_eq!(bench.truth(), WAS(), "and it was brought back");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bit_that_somebody_else_sets_before_a_set_survives_it_and_one_after_is_said() {
    for n in 2..=5 {
        let mut bench = Bench::new(Kind::QBridge).await;
        let sim = Arc::clone(&bench.sim);
        bench.when(At::Get(n), move || sim.lock().unwrap().set_port("port5", &config(Admin::Up, 20, &[30])).unwrap());
        assert_eq!(bench.set(TO()).await.unwrap(), Notes::new());
        assert_eq!((bench.truth(), bench.sim().ports()["port5"].clone()), (TO(), config(Admin::Up, 20, &[30])), "{n}");
        let ours = |change: &embody::testing::sim::switch::Change| (change.who == Who::Snmp) == (change.port == "port1");
        assert!(bench.sim().log.iter().all(ours));
    }
    let mut bench = Bench::new(Kind::QBridge).await;
    let sim = Arc::clone(&bench.sim);
    // The second SET is of the lists of VLAN 20.
    bench.when(At::WasSet(2), move || sim.lock().unwrap().set_port("port5", &config(Admin::Up, 20, &[])).unwrap());
    let notes = bench.set(TO()).await.unwrap();
    assert!(notes.iter().any(|note| note.contains("+port5")), "{notes:?}");
    assert_eq!(bench.sim().ports()["port5"], config(Admin::Up, 20, &[]), "and it is left so");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_somebody_changed_since_the_plan_is_not_written() {
    let mut bench = Bench::new(Kind::QBridge).await;
    let sim = Arc::clone(&bench.sim);
    bench.when(At::Get(1), move || sim.lock().unwrap().set_port("port1", &config(Admin::Down, 10, &[])).unwrap());
    let fault = bench.set(TO()).await.unwrap_err();
    assert!(matches!(&fault, Fault::Disagrees { found, .. } if found == "10 down"), "{fault}");
    assert_eq!(bench.sets(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_was_renumbered_or_started_again_gets_nothing_and_is_read_anew() {
    type Change = fn(&mut SimSwitch);
    let changes: [(&str, Change); 2] = [
        ("renumbered", SimSwitch::renumber),
        ("started again", |sim| {
            sim.save();
            sim.reboot();
        }),
    ];
    for (word, change) in changes {
        let mut bench = Bench::new(Kind::QBridge).await;
        let sim = Arc::clone(&bench.sim);
        bench.when(At::Get(1), move || change(&mut sim.lock().unwrap()));
        not_sent(bench.set(TO()).await, word);
        assert_eq!((bench.sets(), bench.sim().log.iter().filter(|change| change.who == Who::Snmp).count()), (0, 0), "{word}");
        let seen = bench.look().await;
        assert_eq!(Some(seen.ports["port1"].if_index), bench.sim().if_index("port1"), "{word}");
        bench.set(TO()).await.unwrap();
        assert_eq!(bench.truth(), TO());
    }
    // A base port that is another interface now, though all names are as they were.
    let mut bench = Bench::new(Kind::QBridge).await;
    bench.watch.lock().unwrap().shows = Some((Oid([o::BASE_PORT_IF_INDEX, &[1]].concat()), Value::Integer(107)));
    not_sent(bench.set(TO()).await, "renumbered");
    assert_eq!(bench.sets(), 0);
}

/// A switch that is up for minutes now was up for less when it was last read, and all the same it has started again since.
#[tokio::test(start_paused = true)]
async fn a_restart_shows_by_the_time_that_is_missing() {
    for restarts in [true, false] {
        let mut bench = Bench::new(Kind::QBridge).await;
        let was = bench.look().await.ports["port1"].if_index;
        tokio::time::sleep(60 * SECOND).await;
        // Without a restart its numbers are not read again by a poll of the state.
        bench.sim().renumber();
        if restarts {
            bench.sim().save();
            bench.sim().reboot();
        }
        tokio::time::sleep(300 * SECOND).await;
        let seen = bench.look().await;
        let is = if restarts { bench.sim().if_index("port1") } else { Some(was) };
        assert_eq!(Some(seen.ports["port1"].if_index), is, "{restarts}");
    }
}

/// The tags of a new VLAN go to the uplinks that are named, not to the numbers that those had.
#[tokio::test(start_paused = true)]
async fn a_vlan_is_not_made_on_uplinks_that_were_renumbered() {
    let mut bench = Bench::with_uplinks(&["port8"]).await;
    bench.sim().renumber();
    let create = Op::CreateVlan { switch: "sw".parse().unwrap(), vlan: vlan(50) };
    let permit = bench.permit();
    let result = bench.driver.execute(&create, &permit, Instant::now() + 90 * SECOND).await;
    not_sent(result, "renumbered");
    assert_eq!(bench.sets(), 0);
    bench.look().await;
    let permit = bench.permit();
    bench.driver.execute(&create, &permit, Instant::now() + 90 * SECOND).await.unwrap();
    assert!(bench.sim().ports()["port8"].tagged.contains(&vlan(50)));
}

#[tokio::test(start_paused = true)]
async fn another_switch_at_the_address_gets_nothing() {
    for n in [1, 2] {
        let mut bench = Bench::new(Kind::QBridge).await;
        let sim = Arc::clone(&bench.sim);
        bench.when(At::Get(n), move || {
            let mut other = SimSwitch::new(Kind::QBridge, "other", 8);
            [10, 20, 30].into_iter().for_each(|id| other.add_vlan(vlan(id)));
            *sim.lock().unwrap() = other;
        });
        let fault = bench.set(TO()).await.unwrap_err();
        assert_eq!((bench.sets(), bench.sim().log.len()), (n - 1, 0), "{fault}");
        match n {
            1 => assert!(matches!(&fault, Fault::OtherDevice { found, .. } if found == "serial SIM-other"), "{fault}"),
            _ => assert!(fault.to_string().contains("half-way") && fault.to_string().contains("SIM-other"), "{fault}"),
        }
    }
    // One of which nothing is pinned, or that shows nothing of it, is no better.
    let mut bench = Bench::new(Kind::QBridge).await;
    bench.pinned = Identity { base: Some("020000aabbcc".to_owned()), ..Identity::default() };
    not_sent(bench.set(TO()).await, "shows nothing");
    bench.pinned = Identity::default();
    not_sent(bench.set(TO()).await, "nothing is known");
    assert_eq!(bench.sets(), 0);
}

/// The serial number is as it was: each source counts by itself.
#[tokio::test(start_paused = true)]
async fn a_switch_of_which_one_source_of_its_identity_is_another_gets_nothing() {
    // snmpEngineID, dot1dBaseBridgeAddress
    for (object, word) in [("1.3.6.1.6.3.10.2.1.1.0", "engine 020000000002"), ("1.3.6.1.2.1.17.1.1.0", "bridge 020000000002")] {
        let mut bench = Bench::new(Kind::QBridge).await;
        let shown = |last| (object.parse::<Oid>().unwrap(), Value::Octets(vec![2, 0, 0, 0, 0, last]));
        let (oid, value) = shown(1);
        bench.sim().show(oid, value);
        bench.driver.observe(Depth::Everything, soon()).await.unwrap();
        bench.pinned = Identity::default().extended(&bench.look().await.shown);
        bench.set(config(Admin::Down, 10, &[])).await.unwrap();
        let before = bench.sets();
        bench.watch.lock().unwrap().shows = Some(shown(2));
        let fault = bench.set(WAS()).await.unwrap_err();
        assert!(matches!(&fault, Fault::OtherDevice { found, .. } if found == word), "{fault}");
        assert_eq!(bench.sets(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_does_not_tell_any_more_when_it_started_gets_nothing() {
    let mut bench = Bench::new(Kind::QBridge).await;
    bench.watch.lock().unwrap().shows = Some(("1.3.6.1.2.1.1.3.0".parse().unwrap(), Value::NoSuchObject));
    not_sent(bench.set(TO()).await, "sysUpTime");
    assert_eq!(bench.sets(), 0);
}

/// What a port's untagged VLAN is written by.
fn vlan_object(kind: Kind) -> Arcs {
    match kind {
        Kind::QBridge => o::PVID,
        Kind::Cisco => o::VM_VLAN,
        Kind::Comware => o::STATIC_UNTAGGED,
        Kind::Foundry { .. } => o::FOUNDRY_MEMBER_STATUS,
    }
}

/// The same by name, and whether trunks can be written without it.
fn named(kind: Kind) -> (&'static str, bool) {
    match kind {
        Kind::QBridge => ("dot1qPvid", true),
        Kind::Cisco => ("vmVlan", true),
        Kind::Comware => ("dot1qVlanStaticUntaggedPorts", true),
        Kind::Foundry { .. } => ("snVLanByPortMemberRowStatus", false),
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_fails_in_its_middle_is_undone() {
    let to = config(Admin::Up, 20, &[]);
    for kind in [Kind::QBridge, Kind::Cisco, Kind::Comware, Kind::Foundry { dual_mode: true }, Kind::Foundry { dual_mode: false }] {
        let object = vlan_object(kind);
        for way in ["refuses", "ignores", "unanswered"] {
            let mut bench = Bench::new(kind).await;
            match way {
                "refuses" => bench.sim().faults.refuses = Some(object),
                "ignores" => bench.sim().faults.ignores = Some(object),
                _ => bench.watch.lock().unwrap().unanswered = Some(object),
            }
            let fault = bench.set(to.clone()).await.unwrap_err();
            assert_eq!(bench.truth(), WAS(), "{kind:?} {way}: {fault}");
            assert!(!fault.to_string().contains("half-way"), "{fault}");
            match way {
                "refuses" => assert!(matches!(&fault, Fault::Refused { code, .. } if code.starts_with("notWritable(17)")), "{fault}"),
                // What is left of the PDU makes an access port a tagged member, which is refused.
                "ignores" if kind == Kind::Comware => assert!(matches!(&fault, Fault::Refused { .. }), "{fault}"),
                "ignores" => assert!(matches!(&fault, Fault::Disagrees { .. }), "{fault}"),
                _ => assert!(matches!(&fault, Fault::Unknown { .. }), "{fault}"),
            }
            assert!(bench.gate.half_way().is_empty());
            bench.sim().log.clear();
            if way == "refuses" {
                // It is known now: the port is not shut for nothing again.
                let before = bench.sets();
                let fault = bench.set(to.clone()).await.unwrap_err();
                assert!(matches!(&fault, Fault::Refused { .. }) && fault.to_string().contains("not tried again"), "{fault}");
                assert_eq!((bench.sets(), bench.sim().log.len()), (before, 0));
                let seen = bench.look().await;
                let ((name, trunk), writable) = (named(kind), seen.writable);
                assert_eq!((writable.admin, writable.access, writable.trunk), (true, false, trunk), "{kind:?}");
                assert!(
                    matches!(seen.refused.iter().collect::<Vec<_>>()[..], [one] if one.starts_with(&format!("{name}: notWritable(17)")))
                );
                // Nor after a day: not before a person says so, or it starts again.
                sleep(Duration::from_secs(86_400)).await;
                assert!(bench.set(to.clone()).await.is_err() && bench.sets() == before);
                bench.sim().faults.refuses = None;
                match kind {
                    Kind::QBridge | Kind::Comware => bench.driver.forget_refusals(),
                    Kind::Cisco | Kind::Foundry { .. } => {
                        bench.sim().save();
                        bench.sim().reboot();
                    }
                }
                let seen = bench.look().await;
                assert!(seen.writable.access && seen.refused.is_empty(), "{kind:?}: {:?}", seen.refused);
                bench.set(to.clone()).await.unwrap();
                assert_eq!(bench.truth(), to);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_undone_is_said() {
    // A VLAN is refused, and then nothing more may be sent.
    let mut bench = Bench::new(Kind::QBridge).await;
    bench.sim().faults.refuses = Some(o::PVID);
    let gate = Arc::clone(&bench.gate);
    bench.when(At::WasSet(3), move || gate.void_all());
    let fault = bench.set(TO()).await.unwrap_err();
    assert!(fault.to_string().contains("half-way"), "{fault}");
    // The switch takes nothing any more once the port is shut.
    let mut bench = Bench::new(Kind::QBridge).await;
    let sim = Arc::clone(&bench.sim);
    bench.when(At::WasSet(1), move || sim.lock().unwrap().faults.read_only = true);
    let fault = bench.set(TO()).await.unwrap_err();
    let words = fault.to_string();
    assert!(matches!(&fault, Fault::Disagrees { found, .. } if found.starts_with("10 down (the port is half-way")), "{words}");
    assert!(words.contains("could not be undone"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_made_does_not_begin() {
    let mut bench = Bench::new(Kind::QBridge).await;
    let fault = bench.set(config(Admin::Up, 77, &[])).await.unwrap_err();
    assert!(matches!(&fault, Fault::Disagrees { expected, .. } if expected == "VLAN 77 to exist"), "{fault}");
    // The VLAN is taken away after the plan was made.
    let sim = Arc::clone(&bench.sim);
    let destroy = (Oid([o::STATIC_ROW_STATUS, &[20]].concat()), Value::Integer(6));
    bench.when(At::Get(2), move || sim.lock().unwrap().set(&[destroy]).unwrap());
    let fault = bench.set(config(Admin::Up, 20, &[])).await.unwrap_err();
    assert!(matches!(&fault, Fault::Disagrees { expected, .. } if expected == "VLAN 20 to exist"), "{fault}");
    assert_eq!(bench.truth(), WAS(), "and what had begun is undone");
}

#[tokio::test(start_paused = true)]
async fn making_a_vlan_and_saving_pass_the_gate_too() {
    let mut bench = Bench::new(Kind::Cisco).await;
    let lease = Arc::clone(&bench.lease);
    bench.when(At::Got(2), move || assert!(lease.end()));
    let permit = bench.permit();
    let save = Op::Save { switch: "sw".parse().unwrap() };
    not_sent(bench.driver.execute(&save, &permit, soon()).await, "lease");
    assert_eq!((bench.sets(), bench.sim().copies), (1, 0), "the row of an earlier copy was cleared, and no copy begun");

    let mut bench = Bench::new(Kind::QBridge).await;
    let gate = Arc::clone(&bench.gate);
    bench.when(At::Got(1), move || gate.void_all());
    let permit = bench.permit();
    let create = Op::CreateVlan { switch: "sw".parse().unwrap(), vlan: vlan(50) };
    not_sent(bench.driver.execute(&create, &permit, soon()).await, "taken back");
    assert_eq!(bench.sets(), 0);
}
