//! Which modules of a kernel an initrd has: every Ethernet driver, since an image may run anywhere, and what mounts the root.
//!
//! Leaves out: disks, screens, wireless: nothing that the network and the root do not need. Invariant: with a module comes all that it needs; what a
//! root cannot be mounted without is there, or is an error by name. Shown by the tests below and `tests/importing/initrd.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::initrd::InitrdError;
use crate::image::initrd::kernel::Kernel;

/// Without these no root is mounted.
const NEEDED: [(&str, &str); 5] = [
    ("overlay", "the layer for what is written"),
    ("nfs", "a root over NFS"),
    ("nfsv3", "a root over NFS"),
    ("squashfs", "a root in memory"),
    ("loop", "a root in memory"),
];

/// Where there are any: buses that cards are found behind.
const WANTED: [&str; 13] = [
    "af_packet",
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "hv_vmbus",
    "hv_netvsc",
    "pci_hyperv",
    "xen_netfront",
    "xhci_pci",
    "xhci_plat_hcd",
    "ehci_pci",
    "uhci_hcd",
    "ohci_pci",
];

/// Below kernel/drivers/net.
const DIRECTORIES: [&str; 7] = ["ethernet/", "phy/", "mdio/", "pcs/", "vmxnet3/", "hyperv/", "usb/"];

/// Switch chips, which are no cards, and modems and telephones behind USB.
const NOT: [&str; 13] = [
    "ethernet/mellanox/mlxsw/",
    "ethernet/microchip/sparx5/",
    "ethernet/mscc/",
    "ethernet/rocker/",
    "usb/cdc_mbim",
    "usb/cdc-phonet",
    "usb/hso",
    "usb/huawei_cdc_ncm",
    "usb/ipheth",
    "usb/kalmia",
    "usb/lg-vl600",
    "usb/qmi_wwan",
    "usb/sierra_net",
];

/// What every Ethernet driver calls, and what every wireless one does.
const MAKES_ETHERNET: &str = "alloc_etherdev_mqs";
const MAKES_WIRELESS: &str = "wiphy_new_nm";

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Names, in order.
    pub modules: BTreeSet<String>,
    /// Of those asked for by name.
    pub built_in: BTreeSet<String>,
}

/// `symbols` says whether a module outside the kernel's own tree names a symbol.
pub(crate) fn select(
    kernel: &Kernel,
    mut names_symbol: impl FnMut(&str, &str) -> Result<bool, InitrdError>,
) -> Result<Selection, InitrdError> {
    let mut selection = Selection::default();
    let mut waiting: Vec<String> = Vec::new();
    for (name, used) in NEEDED {
        match (kernel.modules.contains_key(name), kernel.built_in.contains(name)) {
            (true, _) => waiting.push(name.to_owned()),
            (false, true) => {
                selection.built_in.insert(name.to_owned());
            }
            (false, false) => return Err(InitrdError::Needed { kernel: kernel.version.clone(), module: name, used }),
        }
    }
    selection.built_in.extend(WANTED.into_iter().filter(|name| kernel.built_in.contains(*name)).map(str::to_owned));
    waiting.extend(WANTED.into_iter().filter(|name| kernel.modules.contains_key(*name)).map(str::to_owned));
    for (name, module) in &kernel.modules {
        let is_ethernet = match module.path.strip_prefix("kernel/") {
            Some(path) => path.strip_prefix("drivers/net/").is_some_and(is_driver),
            // Of a vendor, in updates, extra, dkms: wherever it was put.
            None => names_symbol(name, MAKES_ETHERNET)? && !names_symbol(name, MAKES_WIRELESS)?,
        };
        if is_ethernet {
            waiting.push(name.clone());
        }
    }
    while let Some(name) = waiting.pop() {
        let Some(module) = kernel.modules.get(&name) else { continue };
        if selection.modules.insert(name) {
            waiting.extend(module.needs.iter().cloned());
            waiting.extend(module.before.iter().chain(&module.after).flat_map(|name| kernel.named(name)));
        }
    }
    Ok(selection)
}

fn is_driver(path: &str) -> bool {
    DIRECTORIES.iter().any(|directory| path.starts_with(directory)) && !NOT.iter().any(|not| path.starts_with(not))
}

/// `/embody/modules`, as the first program reads it: `m NAME PATH NEEDS BEFORE AFTER`, `a PATTERN NAME`, `b NAME` (built in).
pub(crate) fn list(kernel: &Kernel, selection: &Selection, paths: &BTreeMap<String, String>) -> String {
    let mut list = String::new();
    let joined = |names: Vec<String>| if names.is_empty() { "-".to_owned() } else { names.join(",") };
    let soft = |names: &[String]| joined(names.iter().flat_map(|name| kernel.named(name)).collect());
    for name in &selection.modules {
        let (Some(module), Some(path)) = (kernel.modules.get(name), paths.get(name)) else { continue };
        let (needs, before, after) = (joined(module.needs.clone()), soft(&module.before), soft(&module.after));
        list += &format!("m {name} /{path} {needs} {before} {after}\n");
    }
    for (pattern, name) in kernel.aliases.iter().filter(|(_, name)| selection.modules.contains(name)) {
        list += &format!("a {pattern} {name}\n");
    }
    for name in &selection.built_in {
        list += &format!("b {name}\n");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::initrd::kernel::Module;

    fn kernel(paths: &[(&str, &[&str])], built_in: &[&str]) -> Kernel {
        let module = |(path, needs): &(&str, &[&str])| {
            let needs = needs.iter().map(|name| (*name).to_owned()).collect();
            (crate::image::initrd::kernel::name_of(path), Module { path: (*path).to_owned(), needs, ..Module::default() })
        };
        let built_in = built_in.iter().map(|name| (*name).to_owned()).collect();
        Kernel { version: "6.1".to_owned(), modules: paths.iter().map(module).collect(), built_in, ..Kernel::default() }
    }

    const ROOT: [&str; 5] = ["overlay", "nfs", "nfsv3", "squashfs", "loop"];

    #[test]
    fn ethernet_drivers_and_what_they_need_and_nothing_wireless() {
        let kernel = kernel(
            &[
                ("kernel/drivers/net/ethernet/intel/igb/igb.ko", &["dca", "ptp"]),
                ("kernel/drivers/dca/dca.ko", &[]),
                ("kernel/drivers/ptp/ptp.ko", &["pps_core"]),
                ("kernel/drivers/pps/pps_core.ko", &[]),
                ("kernel/drivers/net/wireless/iwlwifi.ko", &[]),
                ("kernel/drivers/net/can/can-dev.ko", &[]),
                ("kernel/drivers/net/usb/qmi_wwan.ko", &[]),
                ("kernel/drivers/net/usb/r8152.ko", &[]),
                ("kernel/drivers/net/ethernet/mellanox/mlxsw/mlxsw_core.ko", &[]),
                ("kernel/drivers/nvme/host/nvme.ko", &[]),
                ("updates/dkms/r8168.ko", &[]),
                ("updates/dkms/rtl8812au.ko", &[]),
                ("updates/dkms/nvidia.ko", &[]),
            ],
            &ROOT,
        );
        let names = |module: &str, symbol: &str| {
            Ok(matches!((module, symbol), ("r8168" | "rtl8812au", MAKES_ETHERNET) | ("rtl8812au", MAKES_WIRELESS)))
        };
        let selection = select(&kernel, names).unwrap();
        assert_eq!(selection.modules.into_iter().collect::<Vec<_>>(), ["dca", "igb", "pps_core", "ptp", "r8152", "r8168"]);
        assert_eq!(selection.built_in.len(), 5);
    }

    #[test]
    fn a_ring_of_needs_ends() {
        let kernel = kernel(&[("kernel/drivers/net/ethernet/a.ko", &["b"]), ("kernel/b.ko", &["a"])], &ROOT);
        assert_eq!(select(&kernel, |_, _| Ok(false)).unwrap().modules.len(), 2);
    }

    #[test]
    fn what_no_root_can_do_without_is_an_error_by_name() {
        let said = select(&kernel(&[], &["overlay", "nfs", "nfsv3", "loop"]), |_, _| Ok(false)).unwrap_err().to_string();
        assert!(said.contains("6.1 has `squashfs` neither as a module nor built in") && said.contains("a root in memory"), "{said}");
    }
}
