//! What may exist once only: a port's cable, a MAC, an address of a device, a body, an exclusive persona, a host name.

use super::{Claim, Lay};
use crate::manifest::codes;
use crate::manifest::fault::{At, Fault, steps};
use crate::manifest::yaml::Step;
use crate::model::server::Bmc;
use crate::model::switch::covers;
use crate::model::{HostPort, Name, ServerSpec};

/// RFC 3417, 3.1: the port where none is named.
const SNMP: u16 = 161;

pub(super) fn lint(lay: &mut Lay<'_>) {
    ports(lay);
    macs(lay);
    addresses(lay);
    bindings(lay);
    unmanaged(lay);
}

/// Each switch port that a server says it is plugged into: the NIC or bond, the switch, the port, and where that is written.
pub(super) fn plugged(server: &ServerSpec) -> Vec<(&Name, &Name, &str, Vec<Step>)> {
    let mut found = Vec::new();
    for (n, nic) in server.nics.iter().enumerate() {
        if let (Some(switch), Some(port)) = (&nic.switch, &nic.port) {
            found.push((&nic.name, switch, port.as_str(), steps!["spec", "nics", n, "port"]));
        }
    }
    for (b, bond) in server.bonds.iter().enumerate() {
        let attach = bond.attach.iter().enumerate();
        found.extend(attach.map(|(a, at)| (&bond.name, &at.switch, at.port.as_str(), steps!["spec", "bonds", b, "attach", a, "port"])));
    }
    found
}

fn ports(lay: &mut Lay<'_>) {
    let mut claims = Vec::new();
    for server in lay.servers() {
        for (nic, switch, port, path) in plugged(server.spec) {
            let who = format!("{}/{nic}", server.name);
            let at = At::value(server.item, path);
            if let Some(other) = lay.switch(switch).filter(|s| covers(&s.spec.uplinks, port)) {
                let message = format!("port `{switch}/{port}` is an uplink of the switch");
                let fault = Fault::error(codes::PORT_WIRED_TWICE, at.clone(), message).label(format!("wired to `{who}` here"));
                lay.faults.push(fault.also("the uplinks", At::key(other.item, steps!["spec", "uplinks"])));
            }
            claims.push(((switch.clone(), port.to_owned()), Claim { who, at }));
        }
    }
    lay.clash(claims, |(switch, port), claim, other| {
        let (one, two) = (claim.who.split('/').next(), other.who.split('/').next());
        let owners = if one == two { "two NICs of one server" } else { "two servers" };
        let fault = Fault::error(codes::PORT_WIRED_TWICE, claim.at.clone(), format!("port `{switch}/{port}` belongs to {owners}"));
        Some(fault.label(format!("wired to `{}` here", claim.who)).hint("follow the cable: one of the two is plugged in elsewhere"))
    });
}

fn macs(lay: &mut Lay<'_>) {
    let mut claims = Vec::new();
    for server in lay.servers() {
        for (n, nic) in server.spec.nics.iter().enumerate() {
            let at = At::value(server.item, steps!["spec", "nics", n, "mac"]);
            claims.push((nic.mac, Claim { who: format!("{}/{}", server.name, nic.name), at }));
        }
    }
    lay.clash(claims, |mac, claim, _| {
        let fault = Fault::error(codes::MAC_TWICE, claim.at.clone(), format!("two NICs have the MAC address {mac}"));
        Some(fault.label(format!("`{}` has it here", claim.who)).hint("read it from the NIC's label or the BMC"))
    });
}

fn addresses(lay: &mut Lay<'_>) {
    let full = |a: &HostPort, port| (one_spelling(&a.host), a.port.unwrap_or(port));
    let bmc = |item| At::value(item, steps!["spec", "bmc", "address"]);
    let claims =
        lay.servers().iter().map(|s| (full(&s.spec.bmc.address, Bmc::PORT), Claim { who: s.name.to_string(), at: bmc(s.item) })).collect();
    lay.clash(claims, |(host, port), claim, _| {
        let fault = Fault::error(codes::BMC_ADDRESS_TWICE, claim.at.clone(), format!("two servers have the BMC {host} port {port}"));
        Some(fault.label(format!("`{}` has it here", claim.who)).hint("switching one of them off would switch off the other"))
    });
    let agent = |item| At::value(item, steps!["spec", "address"]);
    let claims =
        lay.switches().iter().map(|s| (full(&s.spec.address, SNMP), Claim { who: s.name.to_string(), at: agent(s.item) })).collect();
    lay.clash(claims, |(host, port), claim, _| {
        let fault =
            Fault::error(codes::SWITCH_ADDRESS_TWICE, claim.at.clone(), format!("two switches have the address {host} port {port}"));
        Some(fault.label(format!("`{}` has it here", claim.who)))
    });
}

/// `::ffff:192.0.2.1` is 192.0.2.1, and `2001:DB8:0::1` is 2001:db8::1.
fn one_spelling(host: &str) -> String {
    host.parse::<std::net::IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |ip| ip.to_canonical().to_string())
}

fn bindings(lay: &mut Lay<'_>) {
    let (mut personas, mut servers, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
    for binding in lay.bindings() {
        let claim = |path| Claim { who: binding.name.to_string(), at: At::value(binding.item, path) };
        if lay.persona(&binding.spec.persona).is_some_and(|p| p.spec.is_exclusive()) {
            personas.push((binding.spec.persona.clone(), claim(steps!["spec", "persona"])));
        }
        servers.extend(binding.spec.target.server.iter().map(|s| (s.clone(), claim(steps!["spec", "target", "server"]))));
        hosts.extend(binding.spec.hostname.iter().map(|h| (h.to_ascii_lowercase(), claim(steps!["spec", "hostname"]))));
    }
    lay.clash(personas, |persona, claim, _| {
        let fault = Fault::error(codes::PERSONA_BOUND_TWICE, claim.at.clone(), format!("the exclusive persona `{persona}` is bound twice"));
        Some(
            fault
                .label(format!("by `{}` here", claim.who))
                .hint("it can have one live body: delete one binding, or give each a persona of its own"),
        )
    });
    lay.clash(servers, |server, claim, _| {
        let fault = Fault::error(codes::SERVER_BOUND_TWICE, claim.at.clone(), format!("the server `{server}` is bound twice"));
        Some(fault.label(format!("by `{}` here", claim.who)).hint("a body lives one persona at a time"))
    });
    lay.clash(hosts, |host, claim, _| {
        let fault = Fault::error(codes::HOSTNAME_TWICE, claim.at.clone(), format!("two bindings give the host name `{host}`"));
        Some(fault.label(format!("by `{}` here", claim.who)))
    });
}

/// Ports that will not be written: outside `manage.ports`, or (one warning for each switch) of a switch that is only observed.
fn unmanaged(lay: &mut Lay<'_>) {
    let mut warned = std::collections::BTreeSet::new();
    for server in lay.servers() {
        for (nic, name, port, path) in plugged(server.spec) {
            let Some(switch) = lay.switch(name).filter(|s| s.whole && !s.spec.manages(port) && !covers(&s.spec.uplinks, port)) else {
                continue;
            };
            let at = At::value(server.item, path);
            if switch.spec.manage.is_some() {
                let also = At::key(switch.item, steps!["spec", "manage", "ports"]);
                let message = format!("port `{name}/{port}` is outside the switch's `manage.ports`");
                let fault = Fault::error(codes::PORT_NOT_MANAGED, at, message).label(format!("`{}/{nic}` is plugged in here", server.name));
                lay.faults
                    .push(fault.also("`manage.ports`", also).hint("add the port there, or leave `switch` and `port` of this NIC out"));
            } else if warned.insert(name.clone()) {
                let also = At::key(switch.item, steps!["spec"]);
                let message = format!("switch `{name}` has no `manage`: it is only observed");
                let fault =
                    Fault::warning(codes::PORT_NOT_MANAGED, at, message).label(format!("`{}/{nic}` is plugged in here", server.name));
                lay.faults.push(fault.also("the switch", also).hint("add `manage: { ports: [ ... ] }` to the switch"));
            }
        }
    }
}
