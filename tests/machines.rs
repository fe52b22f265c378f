//! A rack of real machines: QEMU with real firmware behind a real VLAN switch, started by IPMI, booted by `embody` alone.
//!
//! Leaves out: what the protocols do in each corner (`tests/boot.rs`). Invariant: nothing is asked of `embody` that a person could not ask, and
//! nothing that it says of a machine is believed: the machine's own page is.

#[path = "rack/controller.rs"]
#[allow(dead_code, reason = "the rack of scripts uses the rest")]
mod controller;
#[path = "machines/debian.rs"]
mod debian;
#[path = "machines/demo.rs"]
mod demo;
#[path = "machines/faults.rs"]
mod faults;
#[path = "machines/filer.rs"]
mod filer;
#[path = "machines/hosts.rs"]
mod hosts;
#[path = "machines/image.rs"]
mod image;
#[path = "machines/initrd.rs"]
mod initrd;
#[path = "rack/ipmitool.rs"]
mod ipmitool;
#[path = "machines/lab.rs"]
#[allow(dead_code, reason = "benches use the rest")]
mod lab;
#[path = "machines/machine.rs"]
#[allow(dead_code, reason = "benches use the rest")]
mod machine;
#[path = "rack/programs.rs"]
#[allow(dead_code, reason = "the rack of scripts uses the rest")]
mod programs;
#[path = "machines/site.rs"]
mod site;
#[path = "machines/story.rs"]
mod story;
#[path = "machines/tree.rs"]
mod tree;
