//! OpenIPMI's `ipmi_sim` as BMC, with a machine behind it that is a shell script; `ipmitool` as referee.
//!
//! The machine appends every change of any machine of its site to one log, under one lock, with the power that followed: what that log
//! says in its order is what happened. `deaf` beside its state makes it ignore the soft-off, `slow` obey it two seconds later;
//! `loses-boot` makes a boot option last for one start, as many real BMCs do.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

pub use super::ipmitool::{PASSWORD, USER};
use super::ipmitool::{ipmitool, says_on};
use super::programs::{Process, until};
use crate::free_port::free_port;

const CHASSIS: &str = r#"#!/bin/sh
# chassis SITE NAME get|set|check ...
S=$1 N=$2 op=$3; shift 3; D=$S/$N
note() { echo "$(date +%s.%N) $N $* power:$(cat "$D/power")" >> "$S/changes"; }
case $op in
get) echo "get $*" >> "$D/gets"
  for n in "$@"; do case $n in power) echo "power:$(cat "$D/power")";; boot) echo "boot:$(cat "$D/boot")";; *) echo "$n:0";; esac; done;;
set) exec 9>> "$S/lock"; flock 9
  while [ $# -gt 1 ]; do
    case $1 in
    power) echo "$2" > "$D/power"; [ "$2" = 1 ] && [ -e "$D/loses-boot" ] && echo none > "$D/boot";;
    shutdown) if [ -e "$D/slow" ]; then
        (exec 9>&-; sleep 2; exec 9>> "$S/lock"; flock 9; echo 0 > "$D/power"; note set went off) < /dev/null > /dev/null 2>&1 &
      elif [ ! -e "$D/deaf" ]; then echo 0 > "$D/power"; fi;;
    boot) echo "$2" > "$D/boot";;
    esac
    note set "$1" "$2"; shift 2
  done;;
esac
exit 0
"#;

/// One change of a machine, in the words of `chassis_control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub machine: String,
    /// `power 1`, `shutdown 1`, `boot pxe`.
    pub what: String,
    /// What power then was.
    pub on: bool,
}

pub struct Bmc {
    pub name: String,
    pub port: u16,
    site: PathBuf,
    guid: String,
    process: Option<Process>,
}

impl Bmc {
    /// A machine that is off, and its BMC.
    pub async fn start(site: &Path, name: &str, guid: &str) -> Bmc {
        let mut bmc = Bmc { name: name.to_owned(), port: free_port(), site: site.to_owned(), guid: guid.to_owned(), process: None };
        let dir = bmc.dir();
        fs::create_dir_all(dir.join("state")).unwrap();
        fs::write(site.join("chassis"), CHASSIS).unwrap();
        fs::write(dir.join("power"), "0\n").unwrap();
        fs::write(dir.join("boot"), "none\n").unwrap();
        fs::write(site.join("changes"), fs::read(site.join("changes")).unwrap_or_default()).unwrap();
        bmc.run().await;
        bmc
    }

    fn dir(&self) -> PathBuf {
        self.site.join(&self.name)
    }

    async fn run(&mut self) {
        let (dir, site) = (self.dir(), self.site.display());
        let auths: String =
            ["callback", "user", "operator", "admin"].map(|who| format!("    allowed_auths_{who} none md2 md5 straight\n")).concat();
        let lan = format!(
            "name \"{name}\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n{auths}    guid {guid}\n  endlan\n  \
             chassis_control \"/bin/sh {site}/chassis {site} {name}\"\n  user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  \
             user 2 true \"{USER}\" \"{PASSWORD}\" admin 40 none md2 md5 straight\n",
            name = self.name,
            port = self.port,
            guid = self.guid,
        );
        fs::write(dir.join("lan"), lan).unwrap();
        fs::write(dir.join("emu"), "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n")
            .unwrap();
        let mut command = Command::new("ipmi_sim");
        command.arg("-n").arg("-c").arg(dir.join("lan")).arg("-f").arg(dir.join("emu")).arg("-s").arg(dir.join("state"));
        self.process = Some(Process::start(&mut command, &dir.join("log")));
        until(&format!("the BMC of {}", self.name), Duration::from_secs(20), async || {
            self.try_tool(&["chassis", "power", "status"]).await.map(drop)
        })
        .await;
    }

    /// Another machine at the same address: its BMC shows another GUID.
    pub async fn exchange(&mut self, guid: &str) {
        self.kill().await;
        self.guid = guid.to_owned();
        self.run().await;
    }

    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the BMC runs")
    }

    async fn try_tool(&self, words: &[&str]) -> Result<String, String> {
        ipmitool(Command::new("ipmitool"), "127.0.0.1", &self.port.to_string(), words).await
    }

    /// `ipmitool`, as a person beside us would use it.
    pub async fn tool(&self, words: &[&str]) -> String {
        self.try_tool(words).await.unwrap_or_else(|e| panic!("ipmitool {words:?} at {}: {e}", self.name))
    }

    /// Power, as `ipmitool` sees it.
    pub async fn is_on(&self) -> bool {
        says_on(&self.tool(&["chassis", "power", "status"]).await)
    }

    /// The boot device, as `ipmitool` sees it.
    pub async fn boots_by(&self) -> String {
        let said = self.tool(&["chassis", "bootparam", "get", "5"]).await;
        let line = said.lines().find_map(|l| l.trim().strip_prefix("- Boot Device Selector : "));
        line.unwrap_or_else(|| panic!("no boot device in {said}")).to_owned()
    }

    pub fn mark(&self, name: &str, there: bool) {
        let file = self.dir().join(name);
        if there { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    /// How often the machine's state was asked for.
    pub fn looks(&self) -> usize {
        fs::read_to_string(self.dir().join("gets")).unwrap_or_default().lines().count()
    }
}

/// Everything that was done to the machines of a site, in order.
pub fn changes(site: &Path) -> Vec<Change> {
    let text = fs::read_to_string(site.join("changes")).unwrap_or_default();
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, machine, "set", what, value, power] = words[..] else { panic!("the log of changes does not read: {line}") };
        Change { machine: machine.to_owned(), what: format!("{what} {value}"), on: power == "power:1" }
    };
    text.lines().map(read).collect()
}
