//! What planning costs: 2,000 bindings on 2,000 servers and 42 switches, from scratch, with the desired state resolved and the facts put together.
//!
//! One thread; no device, no store. Aim: at most 0.5 s for all of them. BINDINGS sets how many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use embody::testing::control::cache::{BmcFacts, Cache, Known};
use embody::testing::model::fact::{
    Admin, BmcIdentity, BmcSeen, BootDevice, BootOverride, Lag, Oper, PortConfig, PortMode, PortSeen, Power, Quality, Seen, SwitchIdentity,
    SwitchSeen, Tick, Writable,
};
use embody::testing::model::{Name, Object, Vlan};
use embody::testing::plan::plan;
use serde_json::{Value, json};
use tokio::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PORTS: usize = 48;

fn main() -> Result<(), Failure> {
    let bindings: usize = std::env::var("BINDINGS").ok().map_or(Ok(2000), |n| n.parse())?;
    let world = world(bindings)?;
    let servers: Vec<Name> = world.objects.servers.keys().cloned().collect();
    let mut best = Duration::MAX;
    let mut steps = 0;
    for _ in 0..5 {
        let begun = Instant::now();
        steps = 0;
        for server in &servers {
            let want = world.want(server);
            let seen = world.seen(server, &want);
            let plan = plan(&want, &seen, Tick(2));
            steps += plan.records.len() + plan.steps.len();
        }
        best = best.min(begun.elapsed());
    }
    assert!(steps >= bindings, "every server has something to do");
    let each = best.as_nanos() / bindings as u128;
    println!("plan of {bindings} bindings from scratch: {:.1} ms ({each} ns each), {steps} records and steps", best.as_secs_f64() * 1e3);
    Ok(())
}

fn object(kind: &str, name: &str, spec: Value) -> Result<Object, Failure> {
    let metadata = json!({ "name": name, "uid": format!("{kind}-{name}"), "generation": 1 });
    Ok(Object::from_json(json!({ "apiVersion": "embody.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec }))?)
}

fn world(bindings: usize) -> Result<Cache, Failure> {
    let mut world = Cache::default();
    for (name, vlan, role) in [("web", 120, "service"), ("san", 130, "storage"), ("quarantine", 666, "quarantine")] {
        world.objects.insert(&object("Network", name, json!({ "vlan": vlan, "role": role }))?);
    }
    let persona = json!({
        "os": { "family": "linux" }, "root": { "nfs": { "server": "10.0.0.1", "path": "/p" } }, "kernel": { "path": "vmlinuz" },
        "nics": [{ "name": "nic1", "untagged": "san", "boot": true }, { "name": "nic2", "untagged": "web", "tagged": ["san"] }],
    });
    world.objects.insert(&object("Persona", "apache", persona)?);
    for n in 0..bindings {
        let (switch, port) = (format!("tor-{}", n * 2 / PORTS), n * 2 % PORTS);
        let nic = |i: usize| {
            json!({ "name": format!("nic{}", i + 1), "mac": format!("00:17:a4:{:02x}:{:02x}:{:02x}", n >> 8, n & 0xff, i + 1),
            "switch": switch, "port": format!("Gi1/0/{}", port + i + 1), "boot": i == 0 })
        };
        let spec = json!({ "bmc": { "address": "127.0.0.1", "secretRef": { "name": "bmc" } }, "nics": [nic(0), nic(1)] });
        world.objects.insert(&object("Server", &format!("s{n}"), spec)?);
        let spec = json!({ "persona": "apache", "target": { "server": format!("s{n}") }, "correct": "enforce" });
        world.objects.insert(&object("Binding", &format!("b{n}"), spec)?);
        world.bmcs.insert(format!("s{n}").parse()?, off());
    }
    for n in 0..(bindings * 2).div_ceil(PORTS) {
        let spec = json!({ "address": "127.0.0.1", "snmp": { "version": "v2c", "insecure": true, "secretRef": { "name": "tor" } }, "manage": { "ports": ["Gi1/0/1-48"] } });
        world.objects.insert(&object("Switch", &format!("tor-{n}"), spec)?);
        world.switches.insert(format!("tor-{n}").parse()?, ports()?);
    }
    Ok(world)
}

fn off() -> BmcFacts {
    let boot = BootOverride { valid: true, persistent: true, efi: true, device: BootDevice::None };
    let seen = BmcSeen { shown: Default::default(), identity: BmcIdentity::default(), power: Power::Off, boot: Some(boot), suite: 17 };
    BmcFacts {
        known: Known { seen: Some(Seen { value: seen, asked_at: Tick(1) }), ..Known::default() },
        power: Some(Seen { value: Power::Off, asked_at: Tick(1) }),
        boot: Some(Seen { value: boot, asked_at: Tick(1) }),
        power_since: String::new(),
    }
}

fn ports() -> Result<Known<Arc<SwitchSeen>>, Failure> {
    let vlan = |id: i64| Vlan::try_from(id);
    let one = |n: usize| -> Result<(String, PortSeen), Failure> {
        let config = PortConfig { admin: Admin::Up, untagged: Some(vlan(1)?), tagged: BTreeSet::new() };
        let (oper, mode) = (Oper::Up, PortMode::Access);
        let (also, macs) = (Vec::new(), BTreeSet::new());
        let port =
            PortSeen { if_index: n as u32, also, config, oper, mode, neighbour: None, macs, lag: Lag::None, quality: Quality::Exact };
        Ok((format!("Gi1/0/{n}"), port))
    };
    let writable = Writable { admin: true, access: true, trunk: true, vlan_create: true, save: false };
    let seen = SwitchSeen {
        shown: Default::default(),
        identity: SwitchIdentity::default(),
        neighbours_told: true,
        notes: Default::default(),
        refused: Default::default(),
        profile: "q-bridge",
        writable,
        ports: (1..=PORTS).map(one).collect::<Result<BTreeMap<_, _>, _>>()?,
        vlans: [1, 120, 130, 666].into_iter().map(vlan).collect::<Result<_, _>>()?,
        unsaved: None,
    };
    Ok(Known { seen: Some(Seen { value: Arc::new(seen), asked_at: Tick(1) }), ..Known::default() })
}
