//! BMCs that take the boot device and show none, and BMCs that have no boot options at all: the whole controller in virtual time.

mod small;

use std::time::Duration;

use embody::testing::control::operator::Control;
use embody::testing::model::fact::{Power, Tick};
use embody::testing::model::{Kind as ObjectKind, Object};
use embody::testing::sim::bmc::{BmcFault, BootLie};
use embody::testing::sim::switch::Kind;
use serde_json::{Value, json};
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
