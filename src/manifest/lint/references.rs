//! Every name that an object gives another kind of object exists.

use super::Lay;
use crate::limits;
use crate::manifest::codes;
use crate::manifest::fault::{At, Fault, did_you_mean, listed, steps};
use crate::manifest::yaml::Step;
use crate::model::{Kind, Name, Spec};

pub(super) fn lint(lay: &mut Lay<'_>) {
    let known = lay.known;
    for (item, one) in known.iter().enumerate() {
        let Some((one, object)) = one.as_ref().and_then(|k| k.object.map(|o| (k, o))) else { continue };
        if !one.changed {
            continue;
        }
        for (kind, name, path) in references(&object.spec) {
            if let Some(fault) = unknown(lay, At::value(item, path), (one.kind, one.name), (kind, name)) {
                lay.faults.push(fault);
            }
        }
    }
}

fn unknown(lay: &Lay<'_>, at: At, (kind, name): (Kind, &Name), (wanted, target): (Kind, &Name)) -> Option<Fault> {
    if lay.find(wanted, target).is_some() {
        return None;
    }
    let fault = Fault::error(codes::UNKNOWN_REFERENCE, at, format!("{kind} `{name}` names the {wanted} `{target}`, which does not exist"));
    let fault = fault.label(format!("no such {wanted}"));
    if lay.faults.len() > limits::DIAGNOSTICS {
        // Not shown any more: what follows costs a poll at every name and every lost text.
        return lay.lost.is_empty().then_some(fault);
    }
    if lay.lost.iter().any(|text| text.contains(target.as_str())) {
        return None;
    }
    let names: Vec<&str> = lay.by_name.keys().filter(|(k, _)| *k == wanted).map(|(_, n)| n.as_str()).collect();
    let other = lay.by_name.keys().find(|(_, n)| *n == target).map(|(k, _)| *k);
    let hint = match (did_you_mean(target.as_str(), names.iter().copied()), other) {
        (Some(meant), _) => format!("did you mean `{meant}`?"),
        (None, Some(other)) => format!("`{target}` is a {other}"),
        (None, None) if names.is_empty() => format!("there is no {wanted} at all"),
        (None, None) => format!("known: {}", listed(names)),
    };
    Some(fault.hint(hint))
}

fn references(spec: &Spec) -> Vec<(Kind, &Name, Vec<Step>)> {
    let mut found = Vec::new();
    match spec {
        Spec::Policy(_) | Spec::Secret(_) | Spec::Network(_) => {}
        Spec::Switch(switch) => found.push((Kind::Secret, &switch.snmp.secret_ref.name, steps!["spec", "snmp", "secretRef", "name"])),
        Spec::Server(server) => {
            found.push((Kind::Secret, &server.bmc.secret_ref.name, steps!["spec", "bmc", "secretRef", "name"]));
            for (n, nic) in server.nics.iter().enumerate() {
                found.extend(nic.switch.iter().map(|s| (Kind::Switch, s, steps!["spec", "nics", n, "switch"])));
            }
            for (b, bond) in server.bonds.iter().enumerate() {
                let attach = bond.attach.iter().enumerate();
                found.extend(attach.map(|(a, at)| (Kind::Switch, &at.switch, steps!["spec", "bonds", b, "attach", a, "switch"])));
            }
        }
        Spec::Persona(persona) => {
            for (f, file) in persona.files.iter().enumerate() {
                found.extend(file.secret_ref.iter().map(|s| (Kind::Secret, &s.name, steps!["spec", "files", f, "secretRef", "name"])));
            }
            for (n, nic) in persona.nics.iter().enumerate() {
                found.extend(nic.untagged.iter().map(|net| (Kind::Network, net, steps!["spec", "nics", n, "untagged"])));
                found.extend(nic.tagged.iter().enumerate().map(|(t, net)| (Kind::Network, net, steps!["spec", "nics", n, "tagged", t])));
            }
        }
        Spec::Binding(binding) => {
            found.push((Kind::Persona, &binding.persona, steps!["spec", "persona"]));
            found.extend(binding.target.server.iter().map(|s| (Kind::Server, s, steps!["spec", "target", "server"])));
        }
    }
    found
}
