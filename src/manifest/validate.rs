//! What the fields of one object mean together. Pure; knows no other object (that is `lint`).
//!
//! An object whose form is faulty comes without the faulty fields (`whole` is false): then nothing is concluded from an absence.
//! Each code has a golden test in `tests/golden/manifest`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::codes;
use super::diagnostic::harmful;
use super::fault::{At, Fault, did_you_mean, listed, steps};
use super::yaml::Step;
use crate::model::body::LOCAL;
use crate::model::network::{Boot, BootMode};
use crate::model::persona::{Agent, Kernel};
use crate::model::policy::{self, Limits, Share};
use crate::model::script;
use crate::model::server::{BmcProtocol, DEDICATED};
use crate::model::switch::{SnmpVersion, VlanPolicy, no_port_range};
use crate::model::{BindingSpec, Meta, Name, NetworkSpec, Object, PersonaSpec, PolicySpec, SecretSpec, ServerSpec, Spec, SwitchSpec};

const FOR_SCRIPTS: &str = "it is read by iPXE and by the kernel: printable ASCII without $ | & # \" ' \\ `, in one line";

/// The faults of one object; `item` is its index among those that are judged.
pub(super) fn object(item: usize, object: &Object, whole: bool) -> Vec<Fault> {
    let mut check = Check { item, whole, faults: Vec::new() };
    check.labels(&object.meta);
    match &object.spec {
        Spec::Policy(spec) => check.policy(&object.meta.name, spec),
        Spec::Secret(spec) => check.secret(spec),
        Spec::Network(spec) => check.network(spec),
        Spec::Switch(spec) => check.switch(spec),
        Spec::Server(spec) => check.server(spec),
        Spec::Persona(spec) => check.persona(&object.meta.name, spec),
        Spec::Binding(spec) => check.binding(spec),
    }
    check.faults
}

/// As in Kubernetes ("Labels and Selectors, Syntax and character set"). Values are free: they are only compared.
fn is_label_key(key: &str) -> bool {
    let (prefix, word) = key.split_once('/').map_or((None, key), |(prefix, word)| (Some(prefix), word));
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_word = word.len() <= 63 && ends(word.chars().next()) && ends(word.chars().next_back()) && word.chars().all(inside);
    is_word && prefix.is_none_or(|prefix| prefix.parse::<Name>().is_ok())
}

struct Check {
    item: usize,
    whole: bool,
    faults: Vec<Fault>,
}

impl Check {
    fn value(&self, path: Vec<Step>) -> At {
        At::value(self.item, path)
    }

    fn key(&self, path: Vec<Step>) -> At {
        At::key(self.item, path)
    }

    fn bad(&mut self, path: Vec<Step>, message: &str, label: impl Into<String>) {
        let fault = Fault::error(codes::BAD_VALUE, self.value(path), message).label(label);
        self.faults.push(fault);
    }

    /// They stand in tables, selectors and logs.
    fn labels(&mut self, meta: &Meta) {
        for (key, value) in &meta.labels {
            let path = || steps!["metadata", "labels", key.as_str()];
            if key.chars().chain(value.chars()).any(harmful) {
                self.bad(path(), "a label has a control character, or one that turns the direction of text", "expected what can be seen");
            } else if !is_label_key(key) {
                let message = format!("`{key}` cannot be the key of a label: no selector could name it");
                self.bad(
                    path(),
                    &message,
                    "expected letters, digits, `-`, `_` and `.`, at most 63; before it a DNS name and `/`, if wanted",
                );
            }
        }
    }

    fn not_yet(&mut self, path: Vec<Step>, what: &str, hint: &str) {
        let fault = Fault::error(codes::NOT_YET_SUPPORTED, self.key(path), format!("{what} is not yet supported"));
        self.faults.push(fault.label("this version cannot act on it").hint(hint));
    }

    /// Exactly one of `fields`.
    fn one_of(&mut self, parent: Vec<Step>, fields: &[(&str, bool)]) {
        let given: Vec<&str> = fields.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let all = listed(fields.iter().map(|(name, _)| *name));
        let inside = |field: &str| {
            let mut path = parent.clone();
            path.push(field.into());
            path
        };
        match given.as_slice() {
            [_] => {}
            [] if !self.whole => {}
            [] => {
                let fault =
                    Fault::error(codes::ONE_OF, self.key(parent), format!("none of {all} is given")).label("expected one of them in here");
                self.faults.push(fault);
            }
            [first, others @ ..] => {
                for other in others {
                    let fault = Fault::error(codes::ONE_OF, self.key(inside(other)), format!("more than one of {all} is given"));
                    self.faults
                        .push(fault.label("a second one").also(format!("`{first}`"), self.key(inside(first))).hint("keep one of them"));
                }
            }
        }
    }

    /// Names that stand in one list must differ. `of` gives each with the path to it.
    fn distinct<'a>(&mut self, names: impl IntoIterator<Item = (&'a Name, Vec<Step>)>) {
        let mut seen: BTreeMap<&Name, Vec<Step>> = BTreeMap::new();
        for (name, path) in names {
            match seen.get(name) {
                Some(first) => {
                    let fault = Fault::error(codes::DUPLICATE_NIC, self.value(path), format!("the name `{name}` is given twice"));
                    self.faults.push(fault.label("again here").also("first", self.value(first.clone())));
                }
                None => {
                    seen.insert(name, path);
                }
            }
        }
    }

    fn one_boot(&mut self, boots: impl IntoIterator<Item = usize>) {
        let mut boots = boots.into_iter();
        let Some(first) = boots.next() else { return };
        for second in boots {
            let fault = Fault::error(codes::TWO_BOOT_NICS, self.key(steps!["spec", "nics", second, "boot"]), "two NICs say `boot: true`");
            let fault = fault.label("a second one").also("the first", self.key(steps!["spec", "nics", first, "boot"]));
            self.faults.push(fault.hint("keep the one that the firmware boots over"));
        }
    }

    fn policy(&mut self, name: &Name, spec: &PolicySpec) {
        if name.as_str() != policy::DEFAULT {
            let fault = Fault::error(codes::POLICY_NAME, self.value(steps!["metadata", "name"]), "there is one Policy, named `default`");
            self.faults.push(fault.label(format!("found `{name}`, expected `{}`", policy::DEFAULT)));
        }
        for (plane, period) in [("bmc", spec.bmc.poll_interval), ("switch", spec.switch.poll_interval)] {
            if period.0 < Duration::from_secs(1) {
                let at = self.value(steps!["spec", plane, "pollInterval"]);
                let fault = Fault::error(
                    codes::POLL_TOO_FAST,
                    at,
                    format!("a {} is not asked more than once a second", if plane == "bmc" { "BMC" } else { plane }),
                );
                self.faults.push(fault.label(format!("found {period}, expected at least 1s")));
            }
        }
        self.limits(&spec.limits);
    }

    fn limits(&mut self, limits: &Limits) {
        let (power, ports) = (limits.max_power_changes, limits.max_port_writes);
        let none = [
            (power.at_once == 0, steps!["maxPowerChanges", "atOnce"]),
            (power.per_minute == 0, steps!["maxPowerChanges", "perMinute"]),
            (ports.at_once == 0, steps!["maxPortWrites", "atOnce"]),
            (ports.per_minute == 0, steps!["maxPortWrites", "perMinute"]),
            (ports.per_switch == 0, steps!["maxPortWrites", "perSwitch"]),
            (limits.max_unavailable == Share::Count(0), steps!["maxUnavailable"]),
        ];
        for (_, field) in none.into_iter().filter(|(is_none, _)| *is_none) {
            let at = self.value([steps!["spec", "limits"], field].concat());
            let fault =
                Fault::error(codes::BAD_VALUE, at, "a limit of 0 stops everything, without a word").label("found 0, expected at least 1");
            self.faults.push(
                fault.hint("to have nothing changed say `correct: observe` in this Policy, or `embody pause --all --reason maintenance`"),
            );
        }
        if limits.max_affected_by_change.percent > 100 {
            let found = format!("found {}, expected 0 to 100", limits.max_affected_by_change.percent);
            self.bad(steps!["spec", "limits", "maxAffectedByChange", "percent"], "this is no percentage", found);
        }
    }

    fn secret(&mut self, spec: &SecretSpec) {
        self.one_of(Vec::new(), &[("stringData", !spec.string_data.is_empty()), ("from", spec.from.is_some())]);
        if let Some(from) = &spec.from {
            self.one_of(steps!["from"], &[("file", from.file.is_some()), ("env", from.env.is_some())]);
        }
    }

    fn network(&mut self, spec: &NetworkSpec) {
        self.gateway(spec.subnet, spec.gateway, steps!["spec"]);
        self.boot(spec.boot.as_ref(), spec.subnet, steps!["spec"]);
        if let Some(label) = spec.mtu.and_then(no_mtu) {
            self.bad(steps!["spec", "mtu"], "no network has this MTU", label);
        }
        for (index, segment) in spec.segments.iter().enumerate() {
            self.gateway(segment.subnet, segment.gateway, steps!["spec", "segments", index]);
            self.boot(segment.boot.as_ref(), segment.subnet, steps!["spec", "segments", index]);
            if segment.switches.match_labels.is_empty() {
                let at = steps!["spec", "segments", index, "switches", "matchLabels"];
                self.bad(at, "a selector without labels matches nothing", "expected at least one label");
            }
        }
    }

    /// What machines are told there must be of the subnet.
    fn boot(&mut self, boot: Option<&Boot>, subnet: Option<IpNet>, mut place: Vec<Step>) {
        place.push("boot".into());
        let Some(boot) = boot else { return };
        let inside = |field: &'static str| place.iter().cloned().chain([field.into()]).collect::<Vec<Step>>();
        let Some(IpNet::V4(subnet)) = subnet else {
            if self.whole {
                let at = self.key(place);
                let fault = Fault::error(codes::BOOT_NETWORK, at, "machines boot over a network whose IPv4 `subnet` is not said");
                self.faults.push(fault.label("needs a subnet").hint("name it beside `boot`: `subnet: 10.1.10.0/24`"));
            }
            return;
        };
        let usable = |address: Ipv4Addr| usable(IpNet::V4(subnet), IpAddr::V4(address));
        let mut wrong = |field: &'static str, message: &str, label: String| {
            let fault = Fault::error(codes::BOOT_NETWORK, At::value(self.item, inside(field)), message).label(label);
            self.faults.push(fault);
        };
        if let Some(range) = boot.range.filter(|range| !usable(range.first) || !usable(range.last)) {
            wrong("range", "the range is not inside the subnet", format!("found {range}, expected addresses of hosts in {subnet}"));
        }
        if let Some(router) = boot.router.filter(|router| !usable(*router)) {
            wrong("router", "the router is not inside the subnet", format!("found {router}, expected an address of a host in {subnet}"));
        }
        if let Some(label) = boot.mtu.and_then(no_mtu) {
            wrong("mtu", "no network has this MTU", label);
        }
        if boot.domain.as_ref().is_some_and(|domain| !is_host_name(domain)) {
            wrong("domain", "this is no DNS domain", "expected letters, digits, `-` and `.` (RFC 1123)".to_owned());
        }
        if boot.mode == BootMode::Full && boot.range.is_none() && self.whole {
            wrong(
                "mode",
                "`mode: full` gives addresses, and there are none to give",
                "expected a `range` beside it, or `mode: reservations`".to_owned(),
            );
        }
    }

    fn gateway(&mut self, subnet: Option<IpNet>, gateway: Option<IpAddr>, mut place: Vec<Step>) {
        let Some(gateway) = gateway else { return };
        place.push("gateway".into());
        let at = self.value(place);
        let fault = Fault::error(codes::GATEWAY_OUTSIDE_SUBNET, at, format!("the gateway `{gateway}` is not inside the subnet"));
        match subnet {
            None if self.whole => {
                self.faults.push(fault.label("there is no `subnet`").hint("name the subnet as well, or leave the gateway out"))
            }
            None => {}
            Some(subnet) if !usable(subnet, gateway) => self.faults.push(fault.label(format!("expected an address of a host in {subnet}"))),
            Some(_) => {}
        }
    }

    fn switch(&mut self, spec: &SwitchSpec) {
        if spec.snmp.version == SnmpVersion::V2c && !spec.snmp.insecure && self.whole {
            let at = self.value(steps!["spec", "snmp", "version"]);
            let fault = Fault::error(codes::INSECURE_SNMP, at, "SNMP v2c sends its community in the clear");
            self.faults.push(fault.label("v2c").hint("use `version: v3`, or say `insecure: true` beside it to show that you know"));
        }
        if !spec.uplinks.is_empty() && spec.vlans != VlanPolicy::Create && self.whole {
            let at = self.key(steps!["spec", "uplinks"]);
            let fault = Fault::error(codes::UPLINKS_WITHOUT_CREATE, at, "`uplinks` has no meaning without `vlans: Create`");
            self.faults.push(fault.label("never written").hint("say `vlans: Create`, or leave `uplinks` out"));
        }
        let managed = spec.manage.iter().flat_map(|m| m.ports.iter().enumerate()).map(|(i, p)| (p, steps!["spec", "manage", "ports", i]));
        let uplinks = spec.uplinks.iter().enumerate().map(|(i, p)| (p, steps!["spec", "uplinks", i]));
        for (port, at) in managed.chain(uplinks) {
            if port.trim().is_empty() {
                self.bad(at, "the name of a port is empty", "expected a port such as Gi1/0/1, or a range such as Gi1/0/1-24");
            } else if let Some(why) = no_port_range(port) {
                let fault = Fault::error(codes::BAD_VALUE, self.value(at), "this is no range of ports").label(why.to_string());
                let last = port.rsplit_once('-').map_or("", |(_, last)| last);
                self.faults.push(fault.hint(format!("write a range such as Gi1/0/1-24; one port that is called so is `{port}-{last}`")));
            }
        }
    }

    fn server(&mut self, spec: &ServerSpec) {
        if spec.bmc.protocol == BmcProtocol::Redfish {
            self.not_yet(steps!["spec", "bmc", "protocol"], "`protocol: redfish`", "use `protocol: ipmi`");
        }
        let suites = &spec.bmc.cipher_suites;
        if suites.is_empty() {
            self.bad(steps!["spec", "bmc", "cipherSuites"], "no cipher suite is left", "expected 17, 3, or both".to_owned());
        }
        for (index, suite) in suites.iter().enumerate().filter(|(i, suite)| ![3, 17].contains(*suite) || suites[..*i].contains(*suite)) {
            let at = steps!["spec", "bmc", "cipherSuites", index];
            self.bad(at, "this cipher suite is not spoken, or is there twice", format!("found {suite}, expected 17 or 3, each once"));
        }
        let console = spec.console.as_ref().filter(|c| script::word(c).is_err()).map(|_| steps!["spec", "console"]);
        let arguments = script::line(&spec.kernel_args).is_err() || spec.kernel_args.contains(['\n', '\r']);
        for path in console.into_iter().chain(arguments.then(|| steps!["spec", "kernelArgs"])) {
            let fault = Fault::error(codes::NO_BOOT_SCRIPT, self.value(path), "no boot script can be made of this");
            self.faults.push(fault.label("cannot stand in one").hint(FOR_SCRIPTS));
        }
        let nics = spec.nics.iter().enumerate().map(|(i, n)| (&n.name, steps!["spec", "nics", i, "name"]));
        let bonds = spec.bonds.iter().enumerate().map(|(i, b)| (&b.name, steps!["spec", "bonds", i, "name"]));
        self.distinct(nics.chain(bonds));
        self.one_boot(spec.nics.iter().enumerate().filter(|(_, n)| n.boot).map(|(i, _)| i));
        for (index, nic) in spec.nics.iter().enumerate() {
            let (given, missing) = match (&nic.switch, &nic.port) {
                (Some(_), None) => ("switch", "port"),
                (None, Some(_)) => ("port", "switch"),
                (Some(_), Some(_)) | (None, None) => continue,
            };
            if self.whole {
                let at = self.key(steps!["spec", "nics", index, given]);
                let fault = Fault::error(codes::HALF_WIRED, at, format!("NIC `{}` names a {given} without a {missing}", nic.name));
                self.faults.push(fault.label(format!("expected `{missing}` beside it")).hint("name both, or neither"));
            }
        }
        let via = &spec.bmc.via;
        if via != DEDICATED && self.whole && !spec.nics.iter().any(|n| n.name.as_str() == via) {
            let at = self.value(steps!["spec", "bmc", "via"]);
            self.unknown_nic(at, via, spec.nics.iter().map(|n| n.name.as_str()).chain([DEDICATED]));
        }
        self.bonds(spec);
    }

    fn unknown_nic<'a>(&mut self, at: At, found: &str, known: impl Iterator<Item = &'a str> + Clone) {
        let hint = did_you_mean(found, known.clone()).map(|m| format!("did you mean `{m}`?"));
        let hint = hint.unwrap_or_else(|| format!("it has {}", listed(known)));
        let fault = Fault::error(codes::UNKNOWN_NIC, at, format!("there is no NIC `{}` here", super::diagnostic::shown(found)));
        self.faults.push(fault.label("no such NIC").hint(hint));
    }

    fn bonds(&mut self, spec: &ServerSpec) {
        let mut used: BTreeMap<&Name, Vec<Step>> = BTreeMap::new();
        for (b, bond) in spec.bonds.iter().enumerate() {
            for (m, member) in bond.members.iter().enumerate() {
                let place = steps!["spec", "bonds", b, "members", m];
                let nic = spec.nics.iter().enumerate().find(|(_, n)| n.name == *member);
                let fault = |message: String| Fault::error(codes::BAD_BOND, At::value(self.item, place.clone()), message);
                match (nic, used.get(member)) {
                    (None, _) if self.whole => {
                        let at = self.value(place.clone());
                        self.unknown_nic(at, member.as_str(), spec.nics.iter().map(|n| n.name.as_str()));
                    }
                    (_, Some(first)) => {
                        let fault = fault(format!("NIC `{member}` is a member twice")).label("again here");
                        self.faults.push(fault.also("first", At::value(self.item, first.clone())));
                    }
                    (Some((n, nic)), None) if nic.switch.is_some() || nic.port.is_some() => {
                        let wired = if nic.switch.is_some() { "switch" } else { "port" };
                        let fault = fault(format!("NIC `{member}` is a member of the bond `{}` and is wired by itself", bond.name))
                            .label("a member here");
                        let fault = fault.also("its own wiring", At::key(self.item, steps!["spec", "nics", n, wired]));
                        self.faults
                            .push(fault.hint("leave the NIC's `switch` and `port` out: the bond's `attach` says where the aggregation is"));
                    }
                    (None | Some(_), None) => {}
                }
                used.entry(member).or_insert(place);
            }
            for (empty, field) in [(bond.members.is_empty(), "members"), (bond.attach.is_empty(), "attach")] {
                if empty && self.whole {
                    let at = self.value(steps!["spec", "bonds", b, field]);
                    let fault = Fault::error(codes::BAD_BOND, at, format!("the bond `{}` has no {field}", bond.name));
                    self.faults.push(fault.label("expected at least one"));
                }
            }
        }
    }

    fn persona(&mut self, name: &Name, spec: &PersonaSpec) {
        if name.as_str() == LOCAL {
            let fault = Fault::error(codes::BAD_NAME, self.value(steps!["metadata", "name"]), format!("no persona can be named `{LOCAL}`"));
            self.faults.push(fault.label(format!("`{LOCAL}` is what a server's own disk holds (`embody boot SERVER --once {LOCAL}`)")));
        }
        let root = &spec.root;
        let roots = [
            ("image", root.image.is_some()),
            ("nfs", root.nfs.is_some()),
            ("iscsi", root.iscsi.is_some()),
            ("fc", root.fc.is_some()),
            ("ram", root.ram.is_some()),
            ("disk", root.disk.is_some()),
        ];
        self.one_of(steps!["spec", "root"], &roots);
        if root.fc.is_some() {
            self.not_yet(steps!["spec", "root", "fc"], "a root on Fibre Channel", "use iscsi, nfs, ram or disk");
        }
        if let Some(iscsi) = &root.iscsi {
            if iscsi.chap_secret_ref.is_some() {
                let hint = "leave it out: a boot script is readable by all of the boot network; restrict the target by initiator and VLAN";
                self.not_yet(steps!["spec", "root", "iscsi", "chapSecretRef"], "CHAP", hint);
            }
            // RFC 7143, 4.2.7: the three types of iSCSI names.
            let named = |n: &str| ["iqn.", "eui.", "naa."].iter().any(|t| n.starts_with(t)) && !n.contains(char::is_whitespace);
            for (field, name) in [("target", Some(&iscsi.target)), ("initiator", iscsi.initiator.as_ref())] {
                if name.is_some_and(|n| !named(n)) {
                    self.bad(
                        steps!["spec", "root", "iscsi", field],
                        "this is no iSCSI name",
                        "expected a name such as iqn.2026-01.org.example:disk1",
                    );
                }
            }
        }
        if root.nfs.as_ref().is_some_and(|n| !n.path.starts_with('/')) {
            self.bad(steps!["spec", "root", "nfs", "path"], "the path of an NFS export begins with `/`", "expected a path from `/`");
        }
        if root.is_writable() && spec.exclusive == Some(false) {
            let at = self.value(steps!["spec", "exclusive"]);
            let fault = Fault::error(codes::WRITABLE_NOT_EXCLUSIVE, at, "a persona with a writable root is exclusive");
            self.faults
                .push(fault.label("two bodies would write one file system").hint("leave it out, or use `mode: overlay` or `readOnly`"));
        }
        self.kernel(spec);
        self.image(spec);
        self.initrds(spec);
        self.boot_script(spec);
        self.persona_nics(spec);
        self.rollout(spec);
        if self.whole {
            self.faults.extend(super::files::faults(self.item, spec));
            self.ready(spec);
        }
    }

    /// It is our agent that waits for it, and says it.
    fn ready(&mut self, spec: &PersonaSpec) {
        let Some(ready) = &spec.ready else { return };
        if spec.root.image.is_none() || spec.agent != Agent::Required {
            let at = self.key(steps!["spec", "ready"]);
            let fault = Fault::error(codes::READY_UNSAID, at, "nobody would say that it is ready");
            self.faults.push(fault.label("of no effect here").hint("it needs a root `image` and `agent: required`"));
        }
        // systemd.unit(5): at most 255, with one of these characters.
        let unit = |unit: &str| {
            unit.len() <= 255 && unit.contains('.') && unit.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b))
        };
        if ready.unit.as_ref().is_some_and(|name| !unit(name)) {
            self.bad(steps!["spec", "ready", "unit"], "this is no unit of systemd", "expected a name with its type, such as nginx.service");
        }
        if ready.http.as_ref().is_some_and(|url| !is_local_url(url)) {
            let expected = "expected http://ADDRESS[:PORT]/PATH, with an address and no name, such as http://127.0.0.1/";
            self.bad(steps!["spec", "ready", "http"], "this is no URL that can be asked", expected);
        }
        if ready.unit.is_none() && ready.http.is_none() {
            self.bad(steps!["spec", "ready"], "nothing is waited for", "expected `unit`, `http` or both");
        }
    }

    fn rollout(&mut self, spec: &PersonaSpec) {
        let Some(rollout) = &spec.rollout else { return };
        let none = [
            (rollout.max_unavailable == Share::Count(0), "maxUnavailable", "0"),
            (rollout.max_unavailable == Share::Percent(0), "maxUnavailable", "0%"),
            (rollout.pause_after == Some(0), "pauseAfter", "0"),
        ];
        for (_, field, found) in none.into_iter().filter(|(is_none, ..)| *is_none) {
            let at = self.value(steps!["spec", "rollout", field]);
            let fault = Fault::error(codes::BAD_VALUE, at, "a rollout of nothing never ends");
            let fault = fault.label(format!("found {found}, expected at least 1"));
            self.faults
                .push(fault.hint("to restart nothing by itself leave `rollout` out: an edit is then taken over by `embody restart`"));
        }
    }

    fn kernel(&mut self, spec: &PersonaSpec) {
        let root = &spec.root;
        let handed_out = [("nfs", root.nfs.is_some()), ("ram", root.ram.is_some())].into_iter().find(|(_, given)| *given);
        let Some((which, _)) = handed_out.filter(|_| self.whole) else { return };
        match &spec.kernel {
            None => {
                let at = self.key(steps!["spec", "root", which]);
                let fault = Fault::error(codes::KERNEL_MISSING, at, format!("a persona with the root {which} needs a `kernel`"));
                let fault = fault.label("booted with a kernel from the boot server");
                self.faults.push(fault.hint("add `kernel: { path: vmlinuz, initrd: initrd }` beside `root`"));
            }
            Some(kernel) => self.one_of(steps!["spec", "kernel"], &[("path", kernel.path.is_some()), ("image", kernel.image.is_some())]),
        }
    }

    /// An image has its kernel and its revision in itself.
    fn image(&mut self, spec: &PersonaSpec) {
        let (root, default) = (&spec.root, Kernel::default());
        let kernel = spec.kernel.as_ref().unwrap_or(&default);
        let initrd = kernel.initrd.iter().map(|_| steps!["spec", "kernel", "initrd"]);
        let initrds = (!kernel.initrds.is_empty()).then(|| steps!["spec", "kernel", "initrds"]);
        let of_kernel: Vec<Vec<Step>> = initrd.chain(initrds).collect();
        if root.image.is_some() {
            let revision = root.revision.iter().map(|_| steps!["spec", "root", "revision"]);
            let path = kernel.path.iter().map(|_| steps!["spec", "kernel", "path"]);
            let image = kernel.image.iter().map(|_| steps!["spec", "kernel", "image"]);
            for path in revision.chain(path).chain(image).chain(of_kernel) {
                self.twice(path, steps!["spec", "root", "image"], "an image brings this itself");
            }
            if root.overlay.is_some_and(|overlay| overlay.size.0 == 0) {
                let expected = "expected at least 1Mi, or no `overlay` for half of the memory";
                self.bad(steps!["spec", "root", "overlay", "size"], "nothing could be written", expected);
            }
            return;
        }
        if root.overlay.is_some() {
            let at = self.key(steps!["spec", "root", "overlay"]);
            let fault = Fault::error(codes::IMAGE_EXCLUDES, at, "`overlay` belongs to a root `image`").label("of no effect here");
            self.faults.push(fault.hint("of an NFS root of one's own `mode` says how it is written"));
        }
        if kernel.image.is_some() {
            for path in of_kernel {
                self.twice(path, steps!["spec", "kernel", "image"], "the image brings the initrd that belongs to its kernel");
            }
            if root.nfs.is_none() {
                let at = self.key(steps!["spec", "kernel", "image"]);
                let fault = Fault::error(codes::IMAGE_EXCLUDES, at, "the kernel of an image is for a root on an NFS server of one's own");
                self.faults.push(fault.label("there is no `root.nfs`").hint("to boot the image itself say `root: { image: { name: … } }`"));
            }
        }
    }

    fn twice(&mut self, path: Vec<Step>, image: Vec<Step>, message: &str) {
        let fault = Fault::error(codes::IMAGE_EXCLUDES, self.key(path), message).label("leave this out");
        let fault = fault.also("the image", self.key(image));
        self.faults.push(fault);
    }

    /// One by its path or URL, or several of our own files.
    fn initrds(&mut self, spec: &PersonaSpec) {
        let Some(kernel) = spec.kernel.as_ref().filter(|kernel| !kernel.initrds.is_empty()) else { return };
        if kernel.initrd.is_some() {
            self.one_of(steps!["spec", "kernel"], &[("initrd", true), ("initrds", true)]);
        }
        for (index, path) in kernel.initrds.iter().enumerate() {
            if path.contains("://") || path.contains(script::JOINED_BY) || path.split('/').any(|part| part == "..") {
                let expected = "expected a path under the boot server's files, without `,` and `..`: it joins no URLs";
                self.bad(steps!["spec", "kernel", "initrds", index], "this is no file that can be joined", expected);
            }
        }
    }

    /// What stands in the script that its machine boots. Without one that machine would be parked for ever.
    fn boot_script(&mut self, spec: &PersonaSpec) {
        let root = &spec.root;
        let mut words: Vec<(Vec<Step>, &str)> = Vec::new();
        words.extend(root.nfs.as_ref().map(|nfs| (steps!["spec", "root", "nfs", "path"], nfs.path.as_str())));
        if let Some(iscsi) = &root.iscsi {
            words.push((steps!["spec", "root", "iscsi", "target"], &iscsi.target));
            words.extend(iscsi.initiator.as_ref().map(|i| (steps!["spec", "root", "iscsi", "initiator"], i.as_str())));
        }
        let kernel = spec.kernel.as_ref().filter(|_| root.nfs.is_some() || root.ram.is_some());
        if let Some(kernel) = kernel {
            words.extend(kernel.path.as_ref().map(|path| (steps!["spec", "kernel", "path"], path.as_str())));
            words.extend(kernel.initrd.as_ref().map(|path| (steps!["spec", "kernel", "initrd"], path.as_str())));
            let parts = kernel.initrds.iter().enumerate();
            words.extend(parts.map(|(i, path)| (steps!["spec", "kernel", "initrds", i], path.as_str())));
        }
        let cmdline = spec.kernel.as_ref().map(|k| k.cmdline.as_str()).filter(|c| c.contains(['\n', '\r']) || script::line(c).is_err());
        let bad = words.into_iter().filter(|(_, text)| script::word(text).is_err()).map(|(path, _)| path);
        for path in bad.chain(cmdline.map(|_| steps!["spec", "kernel", "cmdline"])).collect::<Vec<_>>() {
            let fault = Fault::error(codes::NO_BOOT_SCRIPT, self.value(path), "no boot script can be made of this");
            self.faults.push(fault.label("cannot stand in one").hint(FOR_SCRIPTS));
        }
    }

    fn persona_nics(&mut self, spec: &PersonaSpec) {
        self.distinct(spec.nics.iter().enumerate().map(|(i, n)| (&n.name, steps!["spec", "nics", i, "name"])));
        self.one_boot(spec.nics.iter().enumerate().filter(|(_, n)| n.boot).map(|(i, _)| i));
        for (index, nic) in spec.nics.iter().enumerate() {
            let mut seen: BTreeSet<&Name> = nic.untagged.iter().collect();
            for (t, network) in nic.tagged.iter().enumerate() {
                if !seen.insert(network) {
                    let label = format!("`{network}` is already on this NIC");
                    self.bad(steps!["spec", "nics", index, "tagged", t], "a network is on one NIC twice", label);
                }
            }
            for network in nic.tagged_addresses.keys().filter(|network| !nic.tagged.contains(network)) {
                let label = format!("`{network}` is not in `tagged`");
                self.bad(
                    steps!["spec", "nics", index, "taggedAddresses", network.as_str()],
                    "an address on a network that is not on this NIC",
                    label,
                );
            }
        }
    }

    fn binding(&mut self, spec: &BindingSpec) {
        let target = &spec.target;
        let targets =
            [("server", target.server.is_some()), ("selector", target.selector.is_some()), ("platform", target.platform.is_some())];
        self.one_of(steps!["spec", "target"], &targets);
        if target.selector.is_some() {
            self.not_yet(steps!["spec", "target", "selector"], "a server out of a pool", "name one: `target: { server: ... }`");
        }
        if target.platform.is_some() {
            self.not_yet(steps!["spec", "target", "platform"], "a guest on a hypervisor", "name a server: `target: { server: ... }`");
        }
        if spec.failover.is_some() {
            self.not_yet(steps!["spec", "failover"], "failover", "leave it out, and move the persona by changing `target`");
        }
        self.distinct(spec.nics.iter().enumerate().map(|(i, n)| (&n.name, steps!["spec", "nics", i, "name"])));
        // hostname(7): a kernel holds 64.
        if spec.hostname.as_ref().is_some_and(|h| !is_host_name(h) || h.len() > 64) {
            self.bad(steps!["spec", "hostname"], "this is no host name", "expected letters, digits, `-` and `.` (RFC 1123), at most 64");
        }
    }
}

/// The agent resolves no names.
fn is_local_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_address = host.parse::<std::net::SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_address && path.bytes().all(|b| b.is_ascii_graphic())
}

/// RFC 791: every host takes 576; jumbo frames end at 9,216.
fn no_mtu(mtu: u16) -> Option<String> {
    (!(576..=9216).contains(&mtu)).then(|| format!("found {mtu}, expected 576 to 9216"))
}

/// RFC 1123, 2.1: labels of letters, digits and hyphens, at most 63 each and 253 in all.
fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        let good = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !l.is_empty() && l.len() <= 63 && good && !l.starts_with('-') && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether it is an address that a host in the subnet can have.
pub(super) fn usable(subnet: IpNet, address: IpAddr) -> bool {
    let edge = match subnet {
        IpNet::V4(net) if net.prefix_len() < 31 => address == subnet.network() || address == subnet.broadcast(),
        IpNet::V4(_) | IpNet::V6(_) => false,
    };
    subnet.contains(&address) && !edge
}
