//! A machine of a rack: QEMU with real firmware, switched on and off by `tests/peers/chassis.sh` behind OpenIPMI's `ipmi_sim`.
//!
//! Port P of the switch is the NIC 52:54:00:77:00:0P. Asked for the boot device `pxe`, a machine boots from its first NIC, again and again
//! until somebody answers; asked for any other, it finds nothing to boot from and stays on. Leaves out: disks, and the loss of a one-shot
//! boot device when a guest restarts itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

pub use super::ipmitool::{PASSWORD, USER};
use super::ipmitool::{ipmitool, says_on};
use super::lab::{Lab, inside, peer};
use super::programs::{Process, until};

const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// Which firmware, and who in it speaks to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SeaBIOS; the ROM of the virtio NIC is iPXE.
    Bios,
    /// OVMF; the ROM of the vmxnet3 NIC is iPXE.
    UefiRom,
    /// OVMF, which boots by HTTP: vendor class `HTTPClient`, architecture 16.
    UefiHttp,
    /// OVMF, which boots by PXE and TFTP; its NIC has no ROM.
    UefiPxe,
}

impl Kind {
    /// Of Debian's packages, a file that has to be there.
    pub fn needs(self) -> &'static [&'static str] {
        match self {
            Kind::Bios => &["/usr/lib/ipxe/qemu/pxe-virtio.rom"],
            Kind::UefiRom => &["/usr/lib/ipxe/qemu/efi-vmxnet3.rom", OVMF],
            Kind::UefiHttp | Kind::UefiPxe => &[OVMF],
        }
    }

    /// Arguments of QEMU whatever it boots from.
    fn firmware(self) -> &'static str {
        // IPv6 would be tried first, or for minutes after nobody answered.
        match self {
            Kind::Bios => "-machine pc,graphics=off",
            Kind::UefiRom | Kind::UefiPxe => {
                "-machine q35 -bios /usr/share/ovmf/OVMF.fd -fw_cfg name=opt/org.tianocore/IPv6Support,string=n"
            }
            Kind::UefiHttp => {
                "-machine q35 -bios /usr/share/ovmf/OVMF.fd -fw_cfg name=opt/org.tianocore/IPv6Support,string=n \
                 -fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n"
            }
        }
    }

    /// The NIC to boot from, and the order of boot devices, where the network comes first, and where it comes never.
    fn ways(self) -> [(&'static str, &'static str); 2] {
        match self {
            Kind::Bios => {
                [("virtio-net-pci", "-boot order=n,reboot-timeout=1000"), ("virtio-net-pci,romfile=", "-boot order=c,reboot-timeout=1000")]
            }
            Kind::UefiRom => [("vmxnet3,bootindex=1", ""), ("vmxnet3,romfile=", "-fw_cfg name=opt/org.tianocore/IPv4Support,string=n")],
            Kind::UefiHttp | Kind::UefiPxe => [
                ("virtio-net-pci,romfile=,bootindex=1", ""),
                ("virtio-net-pci,romfile=", "-fw_cfg name=opt/org.tianocore/IPv4Support,string=n"),
            ],
        }
    }

    fn other_nic(self) -> &'static str {
        if self == Kind::UefiRom { "vmxnet3,romfile=" } else { "virtio-net-pci,romfile=" }
    }
}

/// One change of a machine, in the words of `chassis_control`.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Seconds since 1970.
    pub at: f64,
    pub machine: String,
    /// `power 1`, `shutdown 1`, `boot pxe`; `went off` if it did so by itself.
    pub what: String,
    /// What power then was.
    pub on: bool,
}

pub struct Machine {
    pub name: String,
    /// Where its BMC is, in the services' namespace.
    pub bmc: String,
    /// Also its SMBIOS UUID.
    pub guid: String,
    pub ports: Vec<usize>,
    pub kind: Kind,
    site: PathBuf,
    services: String,
    process: Option<Process>,
}

pub fn mac_of(port: usize) -> String {
    format!("52:54:00:77:00:{port:02x}")
}

impl Machine {
    /// A machine that is off, on these ports of the switch; it boots from the first.
    pub async fn start(lab: &Lab, name: &str, kind: Kind, ports: &[usize]) -> Machine {
        let guid = format!("{:02x}0000000000400080000000000000{:02x}", 0xa0 + ports[0], ports[0]);
        let bmc = format!("127.0.0.1:{}", 6230 + ports[0]);
        let (site, services) = (lab.dir.clone(), lab.services.clone());
        let mut machine = Machine { name: name.to_owned(), bmc, guid, ports: ports.to_vec(), kind, site, services, process: None };
        let dir = machine.dir();
        fs::create_dir_all(dir.join("state")).unwrap();
        fs::write(dir.join("boot"), "none\n").unwrap();
        fs::write(dir.join("serial"), "").unwrap();
        fs::write(dir.join("qemu"), machine.qemu(kind, &lab.switch)).unwrap();
        for pipe in ["monitor.in", "monitor.out"] {
            assert!(Command::new("mkfifo").arg(dir.join(pipe)).status().await.unwrap().success());
        }
        machine.run().await;
        machine
    }

    pub fn dir(&self) -> PathBuf {
        self.site.join(&self.name)
    }

    /// The script that becomes the machine.
    fn qemu(&self, kind: Kind, namespace: &str) -> String {
        let (dir, name, g) = (self.dir(), &self.name, &self.guid);
        let uuid = [&g[..8], &g[8..12], &g[12..16], &g[16..20], &g[20..]].join("-");
        let nic = |index: usize, model: &str| {
            let port = self.ports[index];
            format!(
                "-netdev tap,id=n{index},ifname=port{port},script=no,downscript=no,vnet_hdr=off -device {model},netdev=n{index},mac={}",
                mac_of(port)
            )
        };
        let others: Vec<String> = (1..self.ports.len()).map(|i| nic(i, kind.other_nic())).collect();
        let [network, disk] = kind.ways().map(|(model, order)| format!("{} {order}", nic(0, model)));
        format!(
            "case $1 in network) set -- {network};; *) set -- {disk};; esac\n\
             exec ip netns exec {namespace} qemu-system-x86_64 -name {name} -accel tcg,tb-size=64 -cpu max -m 256 {firmware} \
             -nodefaults -no-user-config -vga none -display none \
             -chardev file,id=serial,path={dir}/serial,append=on -serial chardev:serial \
             -chardev pipe,id=monitor,path={dir}/monitor -mon chardev=monitor,mode=readline \
             -uuid {uuid} -smbios type=1,serial=SN-{name} \"$@\" {others}\n",
            firmware = kind.firmware(),
            dir = dir.display(),
            others = others.join(" "),
        )
    }

    async fn run(&mut self) {
        let (dir, site, name) = (self.dir(), self.site.display(), &self.name);
        let auths: String =
            ["callback", "user", "operator", "admin"].map(|who| format!("    allowed_auths_{who} none md2 md5 straight\n")).concat();
        let (address, port) = self.bmc.split_once(':').unwrap();
        let lan = format!(
            "name \"{name}\"\nset_working_mc 0x20\n  startlan 1\n    addr {address} {port}\n    priv_limit admin\n{auths}    guid {guid}\n  endlan\n  \
             chassis_control \"/bin/sh {chassis} {site} {name}\"\n  user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  \
             user 2 true \"{USER}\" \"{PASSWORD}\" admin 40 none md2 md5 straight\n",
            guid = self.guid,
            chassis = peer("chassis.sh").display(),
        );
        fs::write(dir.join("lan"), lan).unwrap();
        fs::write(dir.join("emu"), "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n")
            .unwrap();
        let mut command = inside(&self.services, "ipmi_sim");
        command.arg("-n").arg("-c").arg(dir.join("lan")).arg("-f").arg(dir.join("emu")).arg("-s").arg(dir.join("state"));
        self.process = Some(Process::start(&mut command, &dir.join("log")));
        until(&format!("the BMC of {}", self.name), Duration::from_secs(20), async || {
            self.try_tool(&["chassis", "power", "status"]).await.map(drop)
        })
        .await;
    }

    /// The BMC is gone; the machine goes on.
    pub async fn kill_bmc(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    pub async fn revive_bmc(&mut self) {
        self.run().await;
    }

    async fn try_tool(&self, words: &[&str]) -> Result<String, String> {
        let (address, port) = self.bmc.split_once(':').unwrap();
        ipmitool(inside(&self.services, "ipmitool"), address, port, words).await
    }

    /// `ipmitool`, as a person beside us would use it.
    pub async fn tool(&self, words: &[&str]) -> String {
        self.try_tool(words).await.unwrap_or_else(|e| panic!("ipmitool {words:?} at {}: {e}", self.name))
    }

    /// Power, as `ipmitool` sees it.
    pub async fn is_on(&self) -> bool {
        says_on(&self.tool(&["chassis", "power", "status"]).await)
    }

    /// On, with the network as boot device.
    pub async fn boot_from_network(&self) {
        self.tool(&["chassis", "bootdev", "pxe"]).await;
        self.tool(&["chassis", "power", "on"]).await;
    }

    /// `loses-boot`: a boot device lasts for one start; `deaf`: the power button does nothing.
    pub fn mark(&self, name: &str, there: bool) {
        let file = self.dir().join(name);
        if there { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    /// Other hardware, from its next start on: so much memory, and these arguments of QEMU as well.
    pub fn refit(&self, memory_mib: u32, more: &str) {
        let file = self.dir().join("qemu");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(" -m 256 "), "{text}");
        fs::write(file, text.replace(" -m 256 ", &format!(" -m {memory_mib} {more} "))).unwrap();
    }

    /// A command for QEMU's monitor, as `set_link n0 off` or `system_reset`; the machine is on.
    pub fn monitor(&self, command: &str) {
        use std::io::Write;
        // Read and write: opening a pipe that nobody reads would wait.
        let mut pipe = fs::OpenOptions::new().read(true).write(true).open(self.dir().join("monitor.in")).unwrap();
        writeln!(pipe, "{command}").unwrap();
    }

    /// Everything that firmware and guests ever said.
    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir().join("serial")).unwrap()).into_owned()
    }

    /// The last lines of what it said, for whoever has to find out why it does not boot.
    pub fn last_words(&self) -> String {
        let all = self.serial();
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// How often the machine's state was asked for.
    pub fn looks(&self) -> usize {
        fs::read_to_string(self.dir().join("gets")).unwrap_or_default().lines().count()
    }
}

/// Everything that was done to the machines of a rack, and that they did themselves, in order.
pub fn changes(site: &Path) -> Vec<Change> {
    let text = fs::read_to_string(site.join("changes")).unwrap_or_default();
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [at, machine, "set", what, value, power] = words[..] else { panic!("the log of changes does not read: {line}") };
        let at = at.parse().unwrap();
        Change { at, machine: machine.to_owned(), what: format!("{what} {value}"), on: power == "power:1" }
    };
    text.lines().map(read).collect()
}
