//! Every name that an object gives another kind of object exists.

use super::Lay;
use crate::limits;
use crate::manifest::codes;
use crate::manifest::fault::{At, Fault, did_you_mean, listed};
use crate::manifest::yaml::Step;
use crate::model::references::{self, Reference};
use crate::model::{Kind, Name};

pub(super) fn lint(lay: &mut Lay<'_>) {
    let known = lay.known;
    for (item, one) in known.iter().enumerate() {
        let Some((one, object)) = one.as_ref().and_then(|k| k.object.map(|o| (k, o))) else { continue };
        if !one.changed {
            continue;
        }
        for reference in references::of(&object.spec) {
            if let Some(fault) = unknown(lay, At::value(item, path(&reference)), (one.kind, one.name), (reference.kind, reference.name)) {
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

/// `spec.nics[].tagged[]` and what is in its brackets.
fn path(reference: &Reference<'_>) -> Vec<Step> {
    let mut at = reference.at.into_iter();
    let mut steps = Vec::new();
    for part in reference.field.split('.') {
        steps.push(Step::from(part.trim_end_matches("[]")));
        if part.ends_with("[]") {
            steps.extend(at.next().map(Step::from));
        }
    }
    steps
}
