//! `embody demo break`: hands in the simulated rack change something behind embody's back, and the repair is watched.
//!
//! Leaves out: telling the controller anything. It finds out by itself, or the demo fails. Invariant: success is what the rack itself
//! shows, not what the controller says. Shown by `tests/demo.rs`.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use super::super::client::{API, Client};
use super::super::failure::{Exit, Failure};
use super::super::output::{clean, print};
use super::rack::Hands;
use super::show::{sentence, worth};
use super::site::{Bound, Site, Standing};
use crate::model::{Name, Vlan};
use crate::sim::rack::{Act, Scene};

/// Where a hand puts a port: what a switch has when it comes out of its box.
const DEFAULT_VLAN: u16 = 1;
/// How long a BMC is silent: longer than the driver takes to be sure of it.
const SILENCE_S: u64 = 20;
const REPAIRED_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Breakage {
    /// Somebody changes a switch port by hand
    Port,
    /// Somebody presses a power button
    Power,
    /// A BMC falls silent
    Bmc,
}

/// What is broken, and what the rack shows when it is whole again.
struct Damage {
    bound: Bound,
    act: Act,
    tale: String,
    /// What the rack shows of the thing; nothing where it shows nothing (a management cable).
    shows: fn(&Scene, &str) -> Option<String>,
    thing: String,
}

pub async fn run(what: Breakage, client: &Client, rack: &Path) -> Result<(), Failure> {
    let mut hands = Hands::reach(rack).await?;
    let before = Site::look(client).await?;
    let scene = hands.act(&Act::Look {}).await?;
    let damage = choose(what, &before, scene.acts)?;
    let whole = (damage.shows)(&scene, &damage.thing);
    print(&format!("{}\n", damage.tale))?;
    hands.act(&damage.act).await?;
    let repaired = follow(client, &mut hands, &damage, whole, before.events.len()).await?;
    print(&format!("repaired after {:.1} s\n", repaired.as_secs_f64()))?;
    Ok(())
}

/// Each time another one: the same thing three times in ten minutes would count as somebody else's doing, and be left alone.
fn choose(what: Breakage, site: &Site, acts: usize) -> Result<Damage, Failure> {
    let whole: Vec<&Bound> = site.bindings.iter().filter(|b| b.running && b.standing == Standing::AsWished).collect();
    let pick = |n: usize| (n > 0).then(|| acts % n);
    let none = || Failure::new(Exit::Refused, "nothing that runs is as wished yet").hint("wait until the demo says so");
    let name = |text: &str| text.parse::<Name>().map_err(|e| Failure::failed(e.to_string()));
    if what == Breakage::Port {
        let owner = |wired: &Option<String>| {
            let server = wired.as_deref().and_then(|w| w.split('/').next());
            whole.iter().find(|b| Some(b.server.as_str()) == server).copied()
        };
        let ports: Vec<_> = site.ports.iter().filter(|p| p.have == p.want).filter_map(|p| Some((p, owner(&p.wired_to)?))).collect();
        let (row, bound) = pick(ports.len()).and_then(|n| ports.get(n)).ok_or_else(none)?;
        let vlan = Vlan::try_from(i64::from(DEFAULT_VLAN)).map_err(|e| Failure::failed(e.to_string()))?;
        let (have, wired) = (row.have.as_deref().unwrap_or("?"), row.wired_to.as_deref().unwrap_or("?"));
        return Ok(Damage {
            bound: (*bound).clone(),
            act: Act::Port { switch: row.switch.clone(), port: row.port.clone(), vlan },
            tale: format!(
                "Somebody at the console of {} puts port {} into VLAN {vlan}. It was {have}: {wired} is there, and {} needs it.",
                row.switch, row.port, bound.name
            ),
            shows: |scene, thing| scene.ports.get(thing).cloned(),
            thing: format!("{}/{}", row.switch, row.port),
        });
    }
    let bound = pick(whole.len()).and_then(|n| whole.get(n)).ok_or_else(none)?;
    let server = name(&bound.server)?;
    let (act, tale, shows): (Act, String, fn(&Scene, &str) -> Option<String>) = match what {
        Breakage::Power => (
            Act::Button { server },
            format!("Somebody presses the power button of {}, on which {} runs: it is off.", bound.server, bound.name),
            |scene, thing| thing.parse().ok().and_then(|name: Name| scene.power.get(&name).cloned()),
        ),
        Breakage::Port | Breakage::Bmc => (
            Act::Silence { server, seconds: SILENCE_S },
            format!("The BMC of {}, on which {} runs, is silent for {SILENCE_S} s. The server itself goes on.", bound.server, bound.name),
            |_, _| None,
        ),
    };
    Ok(Damage { bound: (*bound).clone(), act, tale, shows, thing: bound.server.clone() })
}

/// Tells what the controller sees and does until everything is as it was; how long that took.
async fn follow(client: &Client, hands: &mut Hands, damage: &Damage, whole: Option<String>, mut told: usize) -> Result<Duration, Failure> {
    let (begun, mut last, mut noticed) = (Instant::now(), seen(&damage.bound, None), false);
    let say = |text: &str| print(&format!("{:>6.1} s  {}\n", begun.elapsed().as_secs_f64(), clean(text)));
    loop {
        let site = Site::look(client).await?;
        let about = |event: &&crate::model::status::Event| {
            event.regarding == format!("Binding/{}", damage.bound.name) || event.regarding == format!("Server/{}", damage.bound.server)
        };
        let fresh = site.events.get(told..).unwrap_or_default();
        told += fresh.len();
        let Some(now) = site.binding(&damage.bound.name) else {
            return Err(Failure::failed(format!("binding {} is gone", damage.bound.name)));
        };
        let port = site.ports.iter().find(|p| format!("{}/{}", p.switch, p.port) == damage.thing && p.have != p.want);
        let sight = seen(now, port.and_then(|p| p.have.as_deref()));
        if sight != last {
            say(&format!("seen: {sight}"))?;
            last = sight;
        }
        for event in fresh.iter().filter(about).filter(|e| worth(e)) {
            say(&sentence(event))?;
        }
        noticed |= now.standing != Standing::AsWished || fresh.iter().any(|e| about(&e));
        if noticed && now.standing == Standing::AsWished {
            let scene = hands.act(&Act::Look {}).await?;
            if (damage.shows)(&scene, &damage.thing) == whole {
                return Ok(begun.elapsed());
            }
        }
        if begun.elapsed() > REPAIRED_WITHIN {
            let why = client.get(&format!("{API}/bindings/{}/why", damage.bound.name)).await?;
            let why = why.get("message").and_then(serde_json::Value::as_str).unwrap_or("").to_owned();
            return Err(Failure::failed(format!("it is not repaired after {} s: {why}", REPAIRED_WITHIN.as_secs())));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What the controller says that it sees.
fn seen(bound: &Bound, port: Option<&str>) -> String {
    let port = port.map(|have| format!(", the port in VLAN {have}")).unwrap_or_default();
    match &bound.standing {
        Standing::AsWished => format!("{} as wished{port}", bound.name),
        Standing::Person(_, why) => format!("power {}{port}; {why}", bound.power),
        Standing::Underway(_) => format!("power {}, boot {}{port}", bound.power, bound.boot),
    }
}
