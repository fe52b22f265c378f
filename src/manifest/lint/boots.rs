//! Whether personas boot over a network that can boot them, and are free of the hardware that they were made on.
//!
//! Warnings all: another boot service may answer there, and a kernel's arguments may mean what we do not know.

use super::Lay;
use crate::manifest::codes;
use crate::manifest::fault::{At, Fault, steps};
use crate::model::PersonaSpec;

pub(super) fn lint(lay: &mut Lay<'_>) {
    let some_boots = lay.networks().iter().any(|network| network.spec.boots().next().is_some());
    for persona in lay.personas().into_iter().filter(|persona| persona.whole) {
        let spec = persona.spec;
        if spec.root.disk.is_none() {
            lay.faults.extend(boot_nic(lay, persona.item, spec, some_boots));
        }
        let cmdline = spec.kernel.as_ref().map(|kernel| kernel.cmdline.as_str()).unwrap_or_default();
        let at = At::value(persona.item, steps!["spec", "kernel", "cmdline"]);
        lay.faults.extend(cmdline.split_ascii_whitespace().filter_map(hardware).map(|(label, hint)| {
            let message = format!("the persona `{}` names hardware on its kernel's command line", persona.name);
            Fault::warning(codes::HARDWARE_IN_PERSONA, at.clone(), message).label(label).hint(hint)
        }));
    }
}

fn boot_nic(lay: &Lay<'_>, item: usize, spec: &PersonaSpec, some_boots: bool) -> Option<Fault> {
    let warning = |at, message: &str, label: String| Fault::warning(codes::PERSONA_BOOTS_NOWHERE, at, message).label(label);
    let Some((index, nic)) = spec.nics.iter().enumerate().find(|(_, nic)| nic.boot) else {
        let none = warning(At::key(item, steps!["spec", "nics"]), "no NIC of this persona boots", "none says `boot: true`".to_owned());
        return (some_boots && !spec.nics.is_empty()).then(|| none.hint("say `boot: true` of the one that is on a network with `boot`"));
    };
    let path = steps!["spec", "nics", index];
    let Some(name) = &nic.untagged else {
        let label = format!("`{}` has no `untagged` network", nic.name);
        let fault = warning(At::value(item, path), "this persona boots over a NIC without an untagged network", label);
        return Some(fault.hint("firmware sends untagged frames: name the network with `boot` as `untagged` here"));
    };
    let network = lay.network(name).filter(|network| some_boots && network.whole && network.spec.boots().next().is_none())?;
    let at = At::value(item, [path, steps!["untagged"]].concat());
    let fault = warning(at, "this persona boots over a network without `boot`", format!("nobody of embody's answers on `{name}`"));
    let fault = fault.also("the network", At::key(network.item, steps!["spec"]));
    Some(fault.hint(format!("give `{name}` a `boot`, or put the boot NIC on a network that has one")))
}

/// What of a machine a word of the command line names, and where it belongs.
fn hardware(word: &str) -> Option<(String, &'static str)> {
    if let Some(console) = word.strip_prefix("console=").filter(|console| *console != "tty0") {
        return Some((format!("the console `{console}`"), "say `console` in the Server: another machine has another one"));
    }
    let is_octet = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = word.split([':', '-', '=', ',', '.', '/']).collect();
    if parts.windows(6).any(|six| six.iter().all(|part| is_octet(part))) {
        return Some((format!("the MAC address in `{word}`"), "leave it out: the boot script adds `BOOTIF=` of the machine that starts"));
    }
    let nic = parts.into_iter().find(|part| is_nic(part))?;
    let hint = "leave it out: the boot script adds `BOOTIF=` of the NIC that boots, by its MAC address; other arguments of one machine belong into `kernelArgs` of its Server";
    Some((format!("the NIC `{nic}`"), hint))
}

/// As kernels and systemd's predictable names call NICs: eth0, eno1, ens3f0, enp0s3, enx0017a4770001, em1, p1p1.
fn is_nic(word: &str) -> bool {
    let numbered = |prefix: &str| word.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let plugged = || {
        let (slot, port) = word.strip_prefix('p')?.split_once('p')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        Some(is_number(slot) && is_number(port))
    };
    ["eth", "eno", "ens", "enp", "enP", "enx", "em"].into_iter().any(numbered) || plugged().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::hardware;

    #[test]
    fn hardware_is_found_in_words_and_ordinary_arguments_are_not() {
        for bad in [
            "console=ttyS1,115200",
            "ip=:::::eth0:dhcp",
            "ifname=san:00:17:a4:77:00:01",
            "BOOTIF=01-00-17-a4-77-00-01",
            "ip=enp3s0f1:dhcp",
            "vlan=web.12:em1",
            "ip=p2p1:dhcp",
        ] {
            assert!(hardware(bad).is_some(), "{bad}");
        }
        for good in [
            "quiet",
            "console=tty0",
            "panic=30",
            "root=/dev/nfs",
            "nomodeset",
            "net.ifnames=0",
            "ip=dhcp",
            "mitigations=off",
            "embedded=1",
            "ethernet=yes",
            "nfsroot=10.0.20.5:/p,vers=3",
            "ip=10.0.0.1::10.0.0.254:255.255.255.0:host::off",
        ] {
            assert!(hardware(good).is_none(), "{good}");
        }
    }
}
