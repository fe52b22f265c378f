//! `boot --once`: another persona, or the server's own disk, for one start; the whole controller in virtual time.

mod small;

use std::time::Duration;

use embody::testing::control::operator::{Approving, Control, Refusal};
use embody::testing::model::body::BootsOnce;
use embody::testing::model::fact::Power;
use embody::testing::model::{Kind as ObjectKind, Object};
use embody::testing::sim::centre::Runs;
use embody::testing::sim::switch::Kind;
use serde_json::{Value, json};
use small::{Small, name, network};
use tokio::time::sleep;

const A_WHILE: Duration = Duration::from_secs(300);

fn persona(persona: &str, root: Value) -> Object {
    let kernel = root.get("disk").is_none().then(|| json!({ "path": "vmlinuz" }));
    let mut spec = json!({ "os": { "family": "linux" }, "root": root, "nics": [{ "name": "front", "untagged": "rescue", "boot": true }] });
    kernel.into_iter().for_each(|kernel| spec["kernel"] = kernel);
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Persona", "metadata": { "name": persona }, "spec": spec }))
        .unwrap()
}

fn bound(more: Value) -> Object {
    let mut spec = json!({ "persona": "p", "target": { "server": "s" }, "correct": "enforce", "shutdown": { "grace": "30s" } });
    more.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
    Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "b" }, "spec": spec })).unwrap()
}

impl Small {
    /// Persona p runs on server s; a rescue persona in a network of its own is there.
    async fn with_rescue() -> Small {
        let site = Small::start(Kind::QBridge, json!({}), "enforce").await;
        site.apply(vec![network("rescue", 110), persona("rescue", json!({ "ram": {} })), bound(json!({}))]).await;
        site.ready().await;
        site
    }

    async fn once(&self, boots: BootsOnce) -> Result<String, Refusal> {
        self.words.boot_once(&name("s"), Some(boots), "ann").await
    }

    async fn rescue(&self) {
        self.once(BootsOnce::Persona(name("rescue"))).await.unwrap();
    }

    fn runs(&self) -> Option<Runs> {
        self.centre.runs(&name("s"))
    }

    async fn until_it_runs(&self, what: &str) {
        for _ in 0..300 {
            if self.runs() == Some(Runs::Persona(name(what))) {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("{what} does not run: {:?}; {}", self.runs(), self.why().await);
    }

    async fn why(&self) -> String {
        self.words.why(ObjectKind::Binding, &name("b")).await.unwrap()
    }

    /// What was sent that switches it off.
    async fn offs(&self) -> usize {
        self.events().await.iter().filter(|event| event.contains("Sent") && event.contains("soft-off")).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_rescue_persona_runs_until_it_is_off_and_what_is_bound_follows() {
    let mut site = Small::with_rescue().await;
    site.rescue().await;
    site.until_it_runs("rescue").await;
    assert_eq!(site.offs().await, 1);
    sleep(A_WHILE).await;
    let why = site.why().await;
    assert!(!site.is_ready().await && why.contains("[BootsOnce") && why.contains("as ann said") && why.contains("--cancel"), "{why}");
    // Nothing is done meanwhile, by another controller neither; and a machine that reboots itself is in it still.
    site.restart();
    sleep(A_WHILE).await;
    let before = site.events().await.len();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((site.offs().await, site.events().await.len()), (1, before));
    site.centre.reboots(&name("s"));
    sleep(A_WHILE).await;
    assert_eq!(site.runs(), Some(Runs::Persona(name("rescue"))));
    // One answer of a BMC that restarts is no end of it.
    site.centre.lie_off_once(&name("s"));
    sleep(A_WHILE).await;
    assert_eq!((site.runs(), site.offs().await), (Some(Runs::Persona(name("rescue"))), 1));
    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    site.until_it_runs("p").await;
    site.ready().await;
    assert_eq!(site.offs().await, 1);
    sleep(A_WHILE).await;
    site.ready().await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_a_word() {
    let site = Small::with_rescue().await;
    let nothing = site.words.boot_once(&name("s"), None, "ann").await;
    assert!(matches!(&nothing, Err(Refusal::Refused { why }) if why.contains("nothing to cancel")), "{nothing:?}");
    site.rescue().await;
    site.until_it_runs("rescue").await;
    site.words.boot_once(&name("s"), None, "ann").await.unwrap();
    site.until_it_runs("p").await;
    site.ready().await;
    assert_eq!(site.offs().await, 2);
    // One that was not begun yet leaves no trace.
    site.words.pause(embody::testing::control::operator::Scope::Everything, "a look", None, "ann").await.unwrap();
    site.rescue().await;
    sleep(A_WHILE).await;
    site.words.boot_once(&name("s"), None, "ann").await.unwrap();
    site.words.resume(embody::testing::control::operator::Scope::Everything, "ann").await.unwrap();
    sleep(A_WHILE).await;
    site.ready().await;
    assert_eq!((site.runs(), site.offs().await), (Some(Runs::Persona(name("p"))), 2));
}

#[tokio::test(start_paused = true)]
async fn its_own_disk_is_started_in_quarantine() {
    let site = Small::with_rescue().await;
    let quarantine = json!({ "vlan": 130, "role": "quarantine" });
    let quarantine = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Network", "metadata": { "name": "db" }, "spec": quarantine });
    site.apply(vec![Object::from_json(quarantine).unwrap()]).await;
    site.once(BootsOnce::Local).await.unwrap();
    for _ in 0..300 {
        if site.why().await.contains("By evidence it may run local") && site.centre.power(&name("s")) == Some(Power::On) {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(30)).await;
    let why = site.why().await;
    assert!(why.contains("boots its own disk once"), "{why}");
    let events = site.events().await;
    assert!(events.iter().any(|event| event.contains("Sent") && event.contains("boot device Disk")), "{events:#?}");
    let port = site.words.ports().await.into_iter().find(|port| port.port == "port1").unwrap();
    assert!(port.have.as_deref().unwrap().contains("130"), "{port:?}");
    // One whose BMC lost its boot device asks, and is sent to its disk.
    let script = site.boot().await.script;
    assert!(script.contains("sanboot") && !script.contains("kernel"), "{script}");
    site.centre.touch(&name("s"), |bmc, now| bmc.press_button(now));
    site.until_it_runs("p").await;
    site.ready().await;
}

#[tokio::test(start_paused = true)]
async fn where_a_person_approves_starts_that_one_is_approved() {
    let site = Small::with_rescue().await;
    site.apply(vec![bound(json!({ "correct": "approve" }))]).await;
    site.rescue().await;
    sleep(A_WHILE).await;
    let why = site.why().await;
    assert!(why.contains("[ApprovalNeeded") && site.runs() == Some(Runs::Persona(name("p"))), "{why}");
    let approve = async |word: Approving| {
        let shown = site.words.show_approval(&name("b"), word.clone()).await.unwrap();
        site.words.approve(&name("b"), word, &shown.digest, "ann").await.unwrap();
    };
    approve(Approving::ThePlan).await;
    site.until_it_runs("rescue").await;
    // The approval was of that start: what is bound is started by another one.
    site.words.boot_once(&name("s"), None, "ann").await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(site.runs(), Some(Runs::Persona(name("rescue"))));
    approve(Approving::ThePlan).await;
    site.until_it_runs("p").await;
}

/// The word was of this body and this binding: what moves away takes nothing of it along.
#[tokio::test(start_paused = true)]
async fn a_binding_that_moves_leaves_it_behind() {
    let site = Small::with_rescue().await;
    site.add_server("t", [7; 16]).await;
    site.rescue().await;
    site.until_it_runs("rescue").await;
    sleep(Duration::from_secs(60)).await;
    site.apply(vec![bound(json!({ "target": { "server": "t" } }))]).await;
    sleep(A_WHILE * 2).await;
    let why = site.why().await;
    assert!(why.contains("on server t") && why.contains("By evidence it may run p (its start was seen)") && !why.contains("once"), "{why}");
    let power = |server: &str| site.centre.power(&name(server));
    assert_eq!((power("t"), power("s")), (Some(Power::On), Some(Power::Off)));
    site.apply(vec![bound(json!({}))]).await;
    site.until_it_runs("p").await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_with_what_can() {
    let site = Small::with_rescue().await;
    site.add_server("t", [7; 16]).await;
    site.apply(vec![persona("disk", json!({ "disk": {} }))]).await;
    let two = json!({ "os": { "family": "linux" }, "root": { "ram": {} }, "kernel": { "path": "vmlinuz" },
        "nics": [{ "name": "a", "untagged": "web", "boot": true }, { "name": "b", "untagged": "db" }] });
    let two = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Persona", "metadata": { "name": "two" }, "spec": two });
    site.apply(vec![Object::from_json(two).unwrap()]).await;
    let refused = async |server: &str, boots: BootsOnce| match site.words.boot_once(&name(server), Some(boots), "ann").await {
        Err(Refusal::Refused { why }) => why,
        other => panic!("{other:?}"),
    };
    let rescue = || BootsOnce::Persona(name("rescue"));
    assert!(refused("t", rescue()).await.contains("bind a persona to it"));
    assert!(refused("s", BootsOnce::Persona(name("p"))).await.contains("`embody restart b`"));
    assert!(refused("s", BootsOnce::Persona(name("disk"))).await.contains("`--once local`"));
    assert!(refused("s", BootsOnce::Persona(name("two"))).await.contains("cannot live on server s"));
    assert!(matches!(site.once(BootsOnce::Persona(name("none"))).await, Err(Refusal::NotFound { .. })));
    assert!(matches!(site.words.boot_once(&name("none"), None, "ann").await, Err(Refusal::NotFound { .. })));
    // What it claims is another binding's.
    let mut single = persona("single", json!({ "nfs": { "server": "10.0.20.5", "path": "/single", "mode": "writable" } })).to_json();
    single["spec"]["nics"] = json!([{ "name": "front", "untagged": "rescue", "boot": true }]);
    site.apply(vec![Object::from_json(single).unwrap()]).await;
    let on_t = json!({ "persona": "single", "target": { "server": "t" }, "correct": "enforce" });
    let on_t = json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Binding", "metadata": { "name": "a" }, "spec": on_t });
    site.apply(vec![Object::from_json(on_t).unwrap()]).await;
    sleep(A_WHILE).await;
    let why = refused("s", BootsOnce::Persona(name("single"))).await;
    assert!(why.contains("cannot start on server s") && why.contains("single"), "{why}");
    site.apply(vec![bound(json!({ "state": "Stopped" }))]).await;
    sleep(A_WHILE).await;
    assert!(refused("s", rescue()).await.contains("is Stopped"));
    // Its disk is known to hold something.
    site.apply(vec![bound(json!({ "persona": "disk" }))]).await;
    sleep(A_WHILE).await;
    site.ready().await;
    assert!(refused("s", BootsOnce::Local).await.contains("holds persona disk"));
}

/// What it runs is not known: a person who says that it runs the bound persona must not say so of the other one.
#[tokio::test(start_paused = true)]
async fn of_a_server_that_was_found_running_nothing_is_booted_before_that_is_settled() {
    let site = Small::with_rescue().await;
    site.add_server("t", [7; 16]).await;
    site.centre.touch(&name("t"), |bmc, now| bmc.press_button(now));
    sleep(A_WHILE).await;
    site.bind("t").await;
    sleep(A_WHILE).await;
    let said = site.words.boot_once(&name("t"), Some(BootsOnce::Persona(name("rescue"))), "ann").await;
    assert!(matches!(&said, Err(Refusal::Refused { why }) if why.contains("was found running")), "{said:?}");
    let shown = site.words.show_approval(&name("on-t"), Approving::Adopt).await.unwrap();
    site.words.approve(&name("on-t"), Approving::Adopt, &shown.digest, "ann").await.unwrap();
    sleep(A_WHILE).await;
    let why = site.words.why(ObjectKind::Server, &name("t")).await.unwrap();
    assert!(why.contains("By evidence it may run p (") && !why.contains("rescue"), "{why}");
}

/// A stop ends it: whoever starts the binding again means what it names.
#[tokio::test(start_paused = true)]
async fn it_ends_with_a_stop() {
    let site = Small::with_rescue().await;
    site.rescue().await;
    site.until_it_runs("rescue").await;
    sleep(Duration::from_secs(60)).await;
    site.apply(vec![bound(json!({ "state": "Stopped" }))]).await;
    sleep(A_WHILE).await;
    assert_eq!(site.centre.power(&name("s")), Some(Power::Off));
    site.apply(vec![bound(json!({}))]).await;
    site.until_it_runs("p").await;
    site.ready().await;
}
