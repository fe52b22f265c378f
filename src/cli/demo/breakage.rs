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
use crate::control::operator::PortRow;
use crate::limits;
use crate::model::name::BadName;
use crate::model::{Name, Vlan};
use crate::server::api::columns::drift;
use crate::sim::rack::{Act, Scene};

/// Where a hand puts a port: what a switch has when it comes out of its box.
const DEFAULT_VLAN: u16 = 1;
/// How long a BMC is silent: longer than `limits::BMC_DEADLINE`, after which a poll that nobody answers is given up.
const SILENCE_S: u64 = 30;
const REPAIRED_WITHIN: Duration = Duration::from_secs(120);
/// How long after the repair the controller's word for it is waited for: a short silence may go unnoticed.
const UNNOTICED: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Breakage {
    /// Somebody changes a switch port by hand
    Port,
    /// Somebody presses a power button
    Power,
    /// A BMC falls silent
    Bmc,
}

/// What is to be broken, and where its repair shows.
struct Damage {
    bound: Bound,
    act: Act,
    tale: String,
    thing: Thing,
}

enum Thing {
    Port { switch: Name, port: String },
    Power(Name),
    Cable(Name),
}

impl Thing {
    /// The truth about it.
    fn shown(&self, scene: &Scene) -> Option<String> {
        match self {
            Thing::Port { switch, port } => scene.ports.get(&format!("{switch}/{port}")).cloned(),
            Thing::Power(server) => scene.power.get(server).cloned(),
            Thing::Cable(server) => scene.silent.contains(server).then(|| "silent".to_owned()),
        }
    }

    fn is(&self, row: &PortRow) -> bool {
        match self {
            Thing::Port { switch, port } => row.switch == *switch && row.port == *port,
            Thing::Power(_) | Thing::Cable(_) => false,
        }
    }
}

pub(super) async fn run(what: Breakage, client: &Client, rack: &Path) -> Result<(), Failure> {
    let mut hands = Hands::reach(rack).await?;
    let before = Site::look(client).await?;
    let scene = hands.act(&Act::Look {}).await?;
    let damage = match what {
        Breakage::Port => port(&before, scene.acts),
        Breakage::Power | Breakage::Bmc => server(what, &before, scene.acts),
    }?;
    let whole = damage.thing.shown(&scene);
    print(&format!("{}\n", damage.tale))?;
    hands.act(&damage.act).await?;
    let repaired = follow(client, &mut hands, &damage, whole, before.events.len()).await?;
    print(&format!("repaired after {:.1} s\n", repaired.as_secs_f64()))?;
    Ok(())
}

/// Each time another one: the same thing three times in ten minutes would count as somebody else's doing, and be left alone.
fn pick<T>(all: &[T], acts: usize) -> Result<&T, Failure> {
    let none = || Failure::new(Exit::Refused, "nothing that runs is as desired yet").hint("wait until the demo says so");
    acts.checked_rem(all.len()).and_then(|n| all.get(n)).ok_or_else(none)
}

fn whole(site: &Site) -> Vec<&Bound> {
    site.bindings.iter().filter(|b| b.running && b.standing == Standing::AsDesired).collect()
}

fn port(site: &Site, acts: usize) -> Result<Damage, Failure> {
    let whole = whole(site);
    let owner = |row: &PortRow| {
        let server = row.wired_to.as_deref().and_then(|w| w.split('/').next());
        whole.iter().find(|b| Some(b.server.as_str()) == server).copied()
    };
    let all: Vec<(&PortRow, &Bound)> = site.ports.iter().filter(|p| p.have == p.want).filter_map(|p| Some((p, owner(p)?))).collect();
    let (row, bound) = pick(&all, acts)?;
    let vlan = Vlan::try_from(i64::from(DEFAULT_VLAN)).map_err(|e| Failure::failed(e.to_string()))?;
    let (have, wired) = (row.have.as_deref().unwrap_or("?"), row.wired_to.as_deref().unwrap_or("?"));
    let tale = format!(
        "Somebody at the console of {} puts port {} into VLAN {vlan}. It was {have}: {wired} is there, and {} needs it.",
        row.switch, row.port, bound.name
    );
    let (switch, port) = (row.switch.clone(), row.port.clone());
    let act = Act::Port { switch: switch.clone(), port: port.clone(), vlan };
    Ok(Damage { bound: (*bound).clone(), act, tale, thing: Thing::Port { switch, port } })
}

fn server(what: Breakage, site: &Site, acts: usize) -> Result<Damage, Failure> {
    let whole = whole(site);
    let bound = (*pick(&whole, acts)?).clone();
    let server: Name = bound.server.parse().map_err(|e: BadName| Failure::failed(e.to_string()))?;
    if what == Breakage::Power {
        let tale = format!("Somebody presses the power button of {server}, on which {} runs: it is off.", bound.name);
        return Ok(Damage { bound, act: Act::Button { server: server.clone() }, tale, thing: Thing::Power(server) });
    }
    let tale = format!(
        "The BMC of {server}, on which {} runs, is silent for {SILENCE_S} s; the server goes on.\n\
         It takes up to {} s to be sure that nobody answers.",
        bound.name,
        limits::BMC_DEADLINE.as_secs()
    );
    Ok(Damage { bound, act: Act::Silence { server: server.clone(), seconds: SILENCE_S }, tale, thing: Thing::Cable(server) })
}

/// Tells what the controller sees and does until everything is as it was; how long that took.
async fn follow(client: &Client, hands: &mut Hands, damage: &Damage, whole: Option<String>, mut told: usize) -> Result<Duration, Failure> {
    let (begun, mut last, mut noticed) = (Instant::now(), String::new(), false);
    let mut whole_since = None;
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
        let port = site.ports.iter().find(|p| damage.thing.is(p) && p.have != p.want);
        let sight = seen(now, port);
        if sight != last && !sight.is_empty() {
            say(&format!("{:<10} seen: {sight}", damage.bound.name))?;
        }
        last = sight;
        for event in fresh.iter().filter(about).filter(|e| worth(e)) {
            say(&sentence(event))?;
        }
        noticed |= now.standing != Standing::AsDesired || fresh.iter().any(|e| about(&e));
        if now.standing == Standing::AsDesired && damage.thing.shown(&hands.act(&Act::Look {}).await?) == whole {
            // What the controller saw and did is told before the end, where it noticed anything at all.
            let since = *whole_since.get_or_insert_with(Instant::now);
            if noticed || since.elapsed() > UNNOTICED {
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

/// What the controller sees that is not as desired; empty where nothing is.
fn seen(bound: &Bound, port: Option<&PortRow>) -> String {
    let mut differs: Vec<String> = port
        .map(|p| {
            format!("{}/{} {}", p.switch, p.port, drift(p.have.as_deref().unwrap_or("Unknown"), p.want.as_deref().unwrap_or("-"), false))
        })
        .into_iter()
        .collect();
    differs.extend(
        [("power", &bound.power), ("boot", &bound.boot)]
            .iter()
            .filter(|(_, p)| p.contains('→') || *p == "Unknown")
            .map(|(name, p)| format!("{name} {p}")),
    );
    differs.join(", ")
}
