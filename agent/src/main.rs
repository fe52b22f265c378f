//! One static program: `/init` of the initrd, and later the service that says that the system is up.
//!
//! As process 1 it is `init`, which never does anything that may go wrong itself: the work is that of a child, `boot`, whose end is looked at. So a
//! panic is a message and a new start of the machine, not a kernel panic that leaves it standing. Leaves out: what the machine shall be, which the
//! controller decides and the command line tells. Invariant: a start ends in the system of its root, or in words to the controller and a reboot.
//! Shown by `tests/guests.py`.

mod boot;
mod command_line;
mod console;
mod controller;
mod dhcp;
mod exchange;
mod facts;
mod http;
mod init;
mod modules;
mod netlink;
mod network;
mod root;
mod run;
mod settle;
mod tls;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if std::process::id() == 1 {
        init::main(arguments.collect());
    }
    // The kernel asks for a module by running what it takes for modprobe(8).
    if Path::new(&name).file_name().is_some_and(|name| name == "modprobe") {
        return modules::asked_by_kernel(arguments.last());
    }
    let verb = arguments.next().unwrap_or_default();
    match (verb.to_str(), arguments.next()) {
        (Some(init::BOOT), None) => boot::main(),
        (Some(init::REPORT), Some(words)) => report(&words),
        (Some(init::SHELL), None) => init::shell(),
        (Some("run"), None) => run::main(),
        _ => {
            eprintln!("usage: embody-agent run\nembody-agent is started by the kernel as /init, and by the system as a service");
            ExitCode::from(2)
        }
    }
}

fn report(words: &OsString) -> ExitCode {
    match controller::Run::of_this_start() {
        Some(run) => run.failed(&words.to_string_lossy()),
        None => console::say("the command line has no embody.run: nobody is told"),
    }
    ExitCode::SUCCESS
}
