//! BMCs that take the boot device and show none, and BMCs that have no boot options at all: the whole controller in virtual time.

mod small;

use std::time::Duration;

use embody::testing::control::controller::Message;
use embody::testing::control::operator::{Control, Declaring};
use embody::testing::model::fact::{Power, Tick};
use embody::testing::model::{Kind as ObjectKind, Object};
use embody::testing::sim::bmc::{BmcFault, BootLie};
use embody::testing::sim::booting::BootFault;
use embody::testing::sim::centre::Runs;
use embody::testing::sim::switch::Kind;
use embody::testing::store::Store;
use serde_json::{Value, json};
use small::doubtful::Ends;
use small::{Small, name};
use tokio::time::sleep;

const MINUTES: Duration = Duration::from_secs(600);

fn persona(root: &Value, kernel: &Value) -> Object {
    let spec = json!({ "os": { "family": "linux" }, "root": root, "kernel": kernel,
        "nics": [{ "name": "front", "untagged": "web", "boot": true }] });
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Persona", "metadata": { "name": "p" }, "spec": spec })).unwrap()
}

fn bound(boot: &str) -> Object {
    let correct = json!({ "boot": boot, "power": "enforce", "network": "enforce" });
    let spec = json!({ "persona": "p", "target": { "server": "s" }, "correct": correct });
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec })).unwrap()
}

impl Small {
    /// Nothing is started before the BMC is so.
    async fn with_boot(lie: BootLie) -> Small {
        let site = Small::start(Kind::QBridge, json!({}), "observe").await;
        site.centre.touch(&name("s"), |bmc, now| bmc.inject(BmcFault::Boot { lie, until: Tick(u64::MAX) }, now));
        site
    }

    fn power(&self) -> Option<Power> {
        self.centre.power(&name("s"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_boot_device_that_is_taken_and_not_shown_counts_as_set() {
    let site = Small::with_boot(BootLie::ReadsEmpty).await;
    site.apply(vec![bound("enforce")]).await;
    site.ready().await;
    let sets = || async { site.events().await.iter().filter(|e| e.contains("Sent") && e.contains("boot device")).count() };
    assert_eq!(sets().await, 1, "that none is shown is no drift");
    sleep(MINUTES).await;
    assert_eq!(sets().await, 1);
    // Before each start.
    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    sleep(MINUTES).await;
    assert_eq!((sets().await, site.power()), (2, Some(Power::On)));
}

#[tokio::test(start_paused = true)]
async fn a_bmc_without_boot_options_keeps_nothing_off_but_what_needs_them() {
    let disk = persona(&json!({ "disk": {} }), &Value::Null);
    let network =
        persona(&json!({ "nfs": { "server": "10.0.20.5", "path": "/p", "mode": "overlay" } }), &json!({ "path": "boot/vmlinuz" }));
    for (persona, boot, starts) in [(&disk, "enforce", true), (&network, "enforce", false), (&network, "observe", true)] {
        let site = Small::with_boot(BootLie::Refuses).await;
        site.apply(vec![persona.clone(), bound(boot)]).await;
        sleep(MINUTES).await;
        assert_eq!(site.power(), Some(if starts { Power::On } else { Power::Off }), "{boot}");
        let conditions = site.status(ObjectKind::Server, "s").await["conditions"].clone();
        let told = conditions.as_array().unwrap().iter().any(|c| c["type"] == "BootDeviceSet" && c["status"] == "False");
        assert_eq!(told, boot == "enforce", "{conditions}");
        if starts {
            site.ready().await;
            continue;
        }
        let why = site.words.why(ObjectKind::Binding, &name("b")).await.unwrap();
        assert!(why.contains("refuses to be told so") && why.contains("boot: observe"), "{why}");
        // It was mended.
        site.centre.touch(&name("s"), |bmc, now| bmc.heal(now));
        site.words.retry(ObjectKind::Server, &name("s"), "me").await.unwrap();
        site.ready().await;
    }
}

fn restart(number: u64) -> Object {
    let spec =
        json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce", "restart": number, "shutdown": { "grace": "30s" } });
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec })).unwrap()
}

/// An older checkout and the newer one again: what was done is not done twice.
#[tokio::test(start_paused = true)]
async fn a_number_of_restarts_that_was_done_restarts_nothing() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    let offs = || async { site.events().await.iter().filter(|event| event.contains("Sent") && event.contains("off")).count() };
    site.apply(vec![restart(2)]).await;
    sleep(MINUTES).await;
    assert_eq!((offs().await, site.power()), (1, Some(Power::On)));
    assert_eq!(site.status(ObjectKind::Binding, "b").await["restarted"], json!(2));
    for number in [1, 2] {
        site.apply(vec![restart(number)]).await;
        sleep(MINUTES).await;
        site.ready().await;
        assert_eq!(offs().await, 1, "{:?}", site.events().await);
    }
    site.apply(vec![restart(3)]).await;
    sleep(MINUTES).await;
    assert_eq!((offs().await, site.power()), (2, Some(Power::On)));
}

/// The first that asked was a stranger, or the board was replaced since: the one that gets nothing is named, and a word gives it its persona.
#[tokio::test(start_paused = true)]
async fn a_machine_that_is_parked_is_named() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    // What its own firmware asks is over.
    sleep(MINUTES).await;
    let [first, other] = ["8f14e45f-ceea-467f-a0e6-000000000001", "8f14e45f-ceea-467f-a0e6-000000000002"].map(Some);
    let boot_as = async |uuid| {
        sleep(Duration::from_secs(2)).await;
        site.boot_as(uuid).await
    };
    assert!(boot_as(first).await.persona.is_some());
    assert!(boot_as(other).await.persona.is_none());
    sleep(Duration::from_secs(60)).await;
    let why = site.words.why(ObjectKind::Binding, &name("b")).await.unwrap();
    assert!(!site.is_ready().await && why.contains("`embody accept server s`") && why.contains("parked"), "{why}");
    site.words.accept(ObjectKind::Server, &name("s"), "me").await.unwrap();
    assert!(boot_as(other).await.persona.is_some());
    assert!(boot_as(first).await.persona.is_none());
    assert!(boot_as(other).await.persona.is_some());
    sleep(Duration::from_secs(60)).await;
    site.ready().await;
    // A restart is another start: whoever asks first after it is the machine.
    site.apply(vec![restart(1)]).await;
    sleep(MINUTES).await;
    site.ready().await;
    assert!(boot_as(first).await.persona.is_some());
}

// ---- what comes up -------------------------------------------------------------------------------------------------------------

fn boot_network() -> Object {
    let boot = json!({ "range": "10.1.20.100-10.1.20.199", "mode": "full" });
    let spec = json!({ "vlan": 120, "subnet": "10.1.20.0/24", "boot": boot });
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Network", "metadata": { "name": "web" }, "spec": spec }))
        .unwrap()
}

/// What is on, was taken from nobody, and asks again and again what to boot runs nothing: it is not switched off to be bound.
#[tokio::test(start_paused = true)]
async fn a_machine_that_waits_is_bound_without_being_switched_off() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    site.apply(vec![boot_network()]).await;
    site.add_server("t", [7; 16]).await;
    site.centre.touch(&name("t"), |bmc, now| bmc.press_button(now));
    let offs = || async {
        site.events().await.iter().filter(|event| event.contains("Sent") && event.contains(" t ") && event.contains("off")).count()
    };
    let asks = async |times: u32| {
        for _ in 0..times {
            sleep(Duration::from_secs(10)).await;
            let answer = site.boot_of("02:00:00:00:00:02", None).await;
            if answer.persona.is_some() {
                return true;
            }
        }
        false
    };
    assert!(!asks(6).await, "nobody is bound to it");
    site.bind("t").await;
    assert!(asks(6).await, "{}", site.words.why(ObjectKind::Server, &name("t")).await.unwrap());
    sleep(Duration::from_secs(30)).await;
    assert_eq!((offs().await, site.centre.power(&name("t"))), (0, Some(Power::On)));
    let status = site.status(ObjectKind::Binding, "on-t").await;
    assert!(status["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{status}");
}

/// Its answer stands while its port is still another network's: it is told to wait until that is read back.
#[tokio::test(start_paused = true)]
async fn a_machine_that_waits_is_told_after_its_ports() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    site.apply(vec![boot_network()]).await;
    site.add_server("t", [7; 16]).await;
    site.wire("t", json!({ "switch": "tor-1", "port": "port2" })).await;
    site.centre.touch(&name("t"), |bmc, now| bmc.press_button(now));
    let asks = async || {
        sleep(Duration::from_secs(10)).await;
        site.boot_of("02:00:00:00:00:02", None).await.persona.is_some()
    };
    for _ in 0..6 {
        assert!(!asks().await);
    }
    site.centre.reboot_switch(&name("tor-1"), Duration::from_secs(300));
    site.bind("t").await;
    for _ in 0..20 {
        assert!(!asks().await);
    }
    let why = site.words.why(ObjectKind::Server, &name("t")).await.unwrap();
    assert!(why.contains("By evidence it may run p (its boot answer stands") && why.contains("[PortsFirst"), "{why}");
    let mut told = false;
    for _ in 0..30 {
        told |= asks().await;
    }
    let why = site.words.why(ObjectKind::Server, &name("t")).await.unwrap();
    assert!(told && why.contains("Everything is as desired"), "{why}");
    assert!(!site.events().await.iter().any(|event| event.contains("Sent") && event.contains(" t ") && event.contains("off")));
}

/// One that has asked once, a while ago, may run anything: it is not disturbed before a person approves.
#[tokio::test(start_paused = true)]
async fn a_machine_that_asks_no_more_was_found_running() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    site.apply(vec![boot_network()]).await;
    site.add_server("t", [7; 16]).await;
    site.centre.touch(&name("t"), |bmc, now| bmc.press_button(now));
    for _ in 0..2 {
        sleep(Duration::from_secs(10)).await;
        site.boot_of("02:00:00:00:00:02", None).await;
    }
    sleep(Duration::from_secs(120)).await;
    site.bind("t").await;
    sleep(Duration::from_secs(120)).await;
    let why = site.words.why(ObjectKind::Binding, &name("on-t")).await.unwrap();
    assert!(why.contains("ApprovalNeeded"), "{why}");
}

/// It was told to wait, and never came back: that is told, and is not Ready.
#[tokio::test(start_paused = true)]
async fn a_machine_that_waited_and_is_silent_since_is_not_ready() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    site.apply(vec![boot_network()]).await;
    site.add_server("t", [7; 16]).await;
    site.centre.touch(&name("t"), |bmc, now| bmc.press_button(now));
    for _ in 0..6 {
        sleep(Duration::from_secs(10)).await;
        site.boot_of("02:00:00:00:00:02", None).await;
    }
    site.bind("t").await;
    sleep(MINUTES * 2).await;
    let why = site.words.why(ObjectKind::Binding, &name("on-t")).await.unwrap();
    assert!(why.contains("NoBootRequest") && why.contains("has fetched no boot script"), "{why}");
    let status = site.status(ObjectKind::Binding, "on-t").await;
    assert!(status["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] == "False"), "{status}");
}

/// What never says hello is begun anew as often as its binding says, and no more.
#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_begun_anew_so_often() {
    for (retries, offs) in [(0, 0), (2, 2)] {
        let site = Small::start(Kind::QBridge, json!({}), "observe").await;
        site.centre.never_says_hello(&name("s"));
        let root = json!({ "nfs": { "server": "10.0.20.5", "path": "/p", "mode": "overlay" } });
        let mut persona = persona(&root, &json!({ "path": "boot/vmlinuz" })).to_json();
        persona["spec"]["agent"] = json!("required");
        let boot = json!({ "deadline": "2m", "retries": retries });
        let spec =
            json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce", "boot": boot, "shutdown": { "grace": "30s" } });
        let binding = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec });
        site.apply(vec![boot_network(), Object::from_json(persona).unwrap(), Object::from_json(binding).unwrap()]).await;
        sleep(MINUTES * 3).await;
        let events = site.events().await;
        let count = |what: &str| events.iter().filter(|event| event.contains("Sent") && event.contains(what)).count();
        assert_eq!((count("soft-off"), count("power on")), (offs, offs + 1), "{events:#?}");
        let why = site.words.why(ObjectKind::Binding, &name("b")).await.unwrap();
        assert!(why.contains("[NoHello") && why.contains("nothing in it has said hello"), "{why}");
        assert!(!site.is_ready().await);
    }
}

/// What is up says what its hello waits for; that is told while it is said.
#[tokio::test(start_paused = true)]
async fn what_is_up_and_not_ready_says_what_for() {
    let site = Small::that_says_hello().await;
    site.centre.never_says_hello(&name("s"));
    let spec = json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce", "boot": { "deadline": "5m" } });
    let binding = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec });
    site.apply(vec![Object::from_json(binding).unwrap()]).await;
    sleep(Duration::from_secs(120)).await;
    let says = async |what: &str| {
        let message = Message::WaitsFor { server: name("s"), what: what.to_owned() };
        site.to_controller.borrow().clone().unwrap().send(message).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        site.words.why(ObjectKind::Binding, &name("b")).await.unwrap()
    };
    let why = says("nginx.service is failed").await;
    assert!(why.contains("is up, and is not ready yet: nginx.service is failed"), "{why}");
    sleep(MINUTES).await;
    let why = says("http://127.0.0.1/ answers 503, expected 200 to 399").await;
    assert!(
        why.contains("and is not ready: http://127.0.0.1/ answers 503") && why.contains("[NoHello") && !why.contains("its console"),
        "{why}"
    );
    // It is heard no more.
    sleep(MINUTES).await;
    let why = site.words.why(ObjectKind::Binding, &name("b")).await.unwrap();
    assert!(why.contains("nothing in it has said hello: see its console"), "{why}");
}

/// It ran for long, began anew by itself and does not come up: each start that it is given is one of those that its binding counts, however short the
/// time between them.
#[tokio::test(start_paused = true)]
async fn starts_that_are_begun_anew_are_no_contention() {
    let site = Small::that_says_hello().await;
    let boot = json!({ "deadline": "1m", "retries": 4 });
    let spec = json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce", "boot": boot, "shutdown": { "grace": "5s" } });
    let binding = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec });
    site.apply(vec![Object::from_json(binding).unwrap()]).await;
    sleep(MINUTES).await;
    assert!(site.is_ready().await, "{:#?}", site.events().await);
    site.centre.never_says_hello(&name("s"));
    site.centre.reboots(&name("s"));
    for _ in 0..30 {
        let why = site.words.why(ObjectKind::Binding, &name("b")).await.unwrap();
        assert!(!why.contains("Contended"), "{why}");
        sleep(Duration::from_secs(30)).await;
    }
    let events = site.events().await;
    let count = |what: &str| events.iter().filter(|event| event.contains("Sent") && event.contains(what)).count();
    assert_eq!((count("soft-off"), count("power off"), count("power on")), (4, 4, 5), "{events:#?}");
}

fn that_says_hello() -> Object {
    let root = json!({ "nfs": { "server": "10.0.20.5", "path": "/p", "mode": "overlay" } });
    let mut says = persona(&root, &json!({ "path": "boot/vmlinuz" })).to_json();
    says["spec"]["agent"] = json!("required");
    Object::from_json(says).unwrap()
}

impl Small {
    /// Its machine boots over a network, and what it runs is to say hello. Nothing is bound yet.
    async fn that_says_hello() -> Small {
        let site = Small::start(Kind::QBridge, json!({}), "observe").await;
        site.apply(vec![boot_network(), that_says_hello()]).await;
        site
    }

    /// Ready, at each second of so many.
    async fn stays_ready(&self, seconds: u32) {
        for second in 0..seconds {
            assert!(self.is_ready().await, "{second} s later: {}", self.status(ObjectKind::Binding, "b").await);
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn revision(&self) -> (u64, usize) {
        (self.store.list("").await.unwrap().1, self.events().await.len())
    }
}

/// It asks every half minute, and is told each time that nothing is to run there; so is one that no manifest names.
#[tokio::test(start_paused = true)]
async fn an_hour_of_parked_machines_writes_nothing() {
    for stranger in [false, true] {
        let site = Small::that_says_hello().await;
        sleep(Duration::from_secs(1)).await;
        site.remove(ObjectKind::Binding, "b").await;
        if stranger {
            site.centre.boot_fault(&name("s"), BootFault::OtherNic);
        }
        site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
        sleep(MINUTES * 3).await;
        assert_eq!(site.centre.runs(&name("s")), Some(Runs::Parked));
        let before = site.revision().await;
        sleep(Duration::from_secs(3600)).await;
        assert_eq!((site.revision().await, site.power()), (before, Some(Power::On)));
        // It was asked until the end.
        assert!(site.centre.state().trace.since(0).iter().filter(|event| event.text.starts_with("is parked")).count() > 120);
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_up_is_ready_until_it_begins_anew() {
    let mut site = Small::that_says_hello().await;
    site.centre.boot_fault(&name("s"), BootFault::HelloLost(3));
    sleep(Duration::from_secs(10)).await;
    // What would come up is not waited for in a plan.
    let plan = site.plan(vec![bound("enforce")]).await;
    assert!(plan.steps.len() >= 3 && plan.waits.is_empty(), "{plan:?}");
    site.apply(vec![bound("enforce")]).await;
    sleep(Duration::from_secs(60)).await;
    let why = site.words.why(ObjectKind::Binding, &name("b")).await.unwrap();
    assert!(!site.is_ready().await && why.contains("has said hello"), "{why}");
    // The token is good for another controller, and so is what was said with it.
    site.restart();
    site.ready().await;
    site.restart();
    site.stays_ready(600).await;
    // One answer of a BMC that restarts.
    site.centre.lie_off_once(&name("s"));
    sleep(Duration::from_secs(60)).await;
    site.ready().await;
    site.stays_ready(600).await;
    site.centre.reboots(&name("s"));
    sleep(Duration::from_secs(7)).await;
    assert!(!site.is_ready().await, "a hello of the start before");
    sleep(Duration::from_secs(30)).await;
    site.stays_ready(60).await;
    let events = site.events().await;
    assert!(!events.iter().any(|event| event.contains("off because")), "{events:?}");
    assert!(events.iter().any(|event| event.contains("StartedByItself")), "{events:?}");
}

/// A disk in the manifest of what was started over the network, and the other way round: that is for the next start.
#[tokio::test(start_paused = true)]
async fn an_edit_of_the_root_leaves_what_runs_ready() {
    let site = Small::start(Kind::QBridge, json!({}), "observe").await;
    site.apply(vec![boot_network(), persona(&json!({ "disk": {} }), &Value::Null), bound("enforce")]).await;
    site.ready().await;
    site.apply(vec![that_says_hello()]).await;
    sleep(MINUTES * 6).await;
    site.ready().await;
    let conditions = site.status(ObjectKind::Binding, "b").await["conditions"].clone();
    assert!(conditions.as_array().unwrap().iter().any(|c| c["type"] == "UpToDate" && c["status"] == "False"), "{conditions}");
}

/// Its power did not change: its time begins with the script that it fetched anew.
#[tokio::test(start_paused = true)]
async fn a_machine_that_reboots_itself_has_its_time_to_come_up() {
    let site = Small::that_says_hello().await;
    let spec = json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce", "boot": { "deadline": "2m", "retries": 1 } });
    let binding = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec });
    site.apply(vec![Object::from_json(binding).unwrap()]).await;
    site.ready().await;
    let offs = || async { site.events().await.iter().filter(|event| event.contains("Sent") && event.contains("soft-off")).count() };
    for _ in 0..3 {
        sleep(MINUTES).await;
        site.centre.reboots(&name("s"));
        sleep(MINUTES).await;
        site.ready().await;
        assert_eq!(offs().await, 0);
    }
    // One that comes up no more is begun anew, after its time.
    site.centre.never_says_hello(&name("s"));
    site.centre.reboots(&name("s"));
    sleep(Duration::from_secs(110)).await;
    assert_eq!(offs().await, 0);
    sleep(MINUTES).await;
    assert_eq!(offs().await, 1);
}

/// Its firmware took seconds before: when it asks for nothing after two minutes, that is told, and not after a quarter of an hour.
#[tokio::test(start_paused = true)]
async fn firmware_that_was_quick_and_asks_no_more_is_told_soon() {
    for (was_seen, within) in [(false, 840..960), (true, 60..180)] {
        let site = Small::that_says_hello().await;
        if was_seen {
            site.apply(vec![bound("enforce")]).await;
            site.ready().await;
        }
        site.centre.boot_fault(&name("s"), BootFault::OtherNic);
        site.apply(vec![restart(1)]).await;
        sleep(Duration::from_secs(30)).await;
        let mut seconds = 30;
        while !site.words.why(ObjectKind::Binding, &name("b")).await.unwrap().contains("[NoBootRequest") {
            assert!(!site.is_ready().await && seconds < 1000);
            sleep(Duration::from_secs(10)).await;
            seconds += 10;
        }
        assert!(within.contains(&seconds), "{seconds} s");
    }
}

/// Its script is fetched anew and anew, and each time it says hello: something ends it.
#[tokio::test(start_paused = true)]
async fn what_ends_again_and_again_is_not_ready() {
    let site = Small::that_says_hello().await;
    site.apply(vec![bound("enforce")]).await;
    site.ready().await;
    for _ in 0..3 {
        assert!(site.is_ready().await);
        site.centre.reboots(&name("s"));
        sleep(Duration::from_secs(60)).await;
    }
    let why = site.words.why(ObjectKind::Binding, &name("b")).await.unwrap();
    assert!(!site.is_ready().await && why.contains("begun persona p anew 3 times") && why.contains("[EndsAgain"), "{why}");
    let events = site.events().await;
    assert!(!events.iter().any(|event| event.contains("Sent") && event.contains("off")), "{events:?}");
    sleep(MINUTES * 2).await;
    site.ready().await;
}

/// The NIC was taken out of the manifest, and is in another machine by now, perhaps: what was answered for it may run on the first one.
#[tokio::test(start_paused = true)]
async fn a_nic_that_the_manifest_names_no_more_starts_nothing() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    sleep(MINUTES).await;
    let nic = json!({ "name": "nic1", "mac": "02:00:00:00:00:09", "switch": "tor-1", "port": "port1", "boot": true });
    let spec = json!({ "bmc": { "address": "192.0.2.9", "secretRef": { "name": "bmc" } }, "nics": [nic] });
    let server = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Server", "metadata": { "name": "s" }, "spec": spec });
    site.apply(vec![Object::from_json(server).unwrap()]).await;
    sleep(MINUTES).await;
    let before = site.boot_of("02:00:00:00:00:01", None).await;
    assert!(before.persona.is_none() && before.says.contains("s has no NIC 02:00:00:00:00:01"), "{}", before.says);
    assert!(site.is_ready().await, "what runs is none the worse for it");
    assert!(site.boot_of("02:00:00:00:00:09", None).await.persona.is_some());
}

/// What stands is withdrawn: from then on nobody is told of it, however long the store takes.
#[tokio::test(start_paused = true)]
async fn a_withdrawal_is_told_before_it_is_stored() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    let stands = || site.machine("02:00:00:00:00:01").unwrap().standing.is_some();
    assert!(stands());
    site.doubtful.ends(Ends::Waits);
    let stopped = json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce", "state": "Stopped" });
    let stopped = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": stopped });
    site.apply(vec![Object::from_json(stopped).unwrap()]).await;
    sleep(Duration::from_secs(5)).await;
    assert!(!stands(), "it is told still, and the store has not taken the withdrawal yet");
    assert_eq!(site.power(), Some(Power::On), "nothing is sent before that is stored");
    site.doubtful.ends(Ends::Well);
    sleep(MINUTES).await;
    assert_eq!(site.power(), Some(Power::Off));
}

/// Of a body that is not what it was thought to be, a question says nothing of what it runs.
#[tokio::test(start_paused = true)]
async fn a_body_that_was_declared_off_is_never_one_that_waits() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    site.ready().await;
    site.apply(vec![boot_network()]).await;
    site.centre.touch(&name("s"), |bmc, now| bmc.inject(BmcFault::Unplugged { until: Tick(u64::MAX) }, now));
    sleep(MINUTES).await;
    site.words.declare(&name("s"), Declaring::Off, "its power is cut", "ann").await.unwrap();
    sleep(MINUTES).await;
    assert!(site.boot_of("02:00:00:00:00:01", None).await.persona.is_none());
    let halt = site.machine("02:00:00:00:00:01").unwrap().parked.clone().unwrap();
    assert!(!halt.waits && halt.why.contains("was declared off"), "{halt:?}");
}

/// Neither one that a manifest names, nor one that another machine of a manifest has.
#[tokio::test(start_paused = true)]
async fn an_address_that_is_anothers_is_not_given() {
    let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
    let mut fixed =
        persona(&json!({ "nfs": { "server": "10.0.20.5", "path": "/p", "mode": "writable" } }), &json!({ "path": "vmlinuz" })).to_json();
    fixed["spec"]["nics"][0]["address"] = json!("10.1.20.21/24");
    site.apply(vec![boot_network(), Object::from_json(fixed).unwrap()]).await;
    site.add_server("t", [7; 16]).await;
    sleep(MINUTES).await;
    let (s, t, stranger) = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:09:09");
    assert!(!site.gives("10.1.20.21", stranger).await, "a binding claims it");
    assert!(site.gives("10.1.20.120", t).await && site.gives("10.1.20.120", t).await);
    for other in [s, stranger] {
        assert!(!site.gives("10.1.20.120", other).await, "{t} has it");
    }
    // Who had it last is nobody's machine.
    assert!(site.gives("10.1.20.121", stranger).await && site.gives("10.1.20.121", s).await);
}
