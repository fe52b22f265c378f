//! `embody demo` from outside, as a newcomer meets it: the program converges, what people break is repaired, and nothing is left behind.
//!
//! The addresses of `examples/` are fixed, so all of it is one test, and a second one at the same time fails with a clear message. Leaves
//! out: how it looks on a terminal. No peers are needed.

use std::io::Read;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_embody");
/// The switches and BMCs of `examples/`.
const PORTS: [std::ops::RangeInclusive<u16>; 2] = [16101..=16103, 16201..=16212];

/// Killed by its id, should the test end early.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        drop((self.0.kill(), self.0.wait()));
    }
}

/// Private directories for sockets and for the demo's store.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        Place { dir }
    }

    fn temporary(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("XDG_RUNTIME_DIR", self.dir.path()).env("TMPDIR", self.temporary()).env_remove("EMBODY_SERVER");
        command.env("EMBODY_SERVER", format!("unix://{}/embody/demo.sock", self.dir.path().display())).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        eprintln!("--- embody {}\n{text}", arguments.join(" "));
        (status.success(), text)
    }

    fn start(&self) -> Demo {
        Demo(self.command(&["demo"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Nothing in the directory for temporary files, and no socket.
    fn is_clean(&self) -> bool {
        let empty = |dir: &Path| std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
        let sockets = ["demo.sock", "demo-rack.sock"].map(|name| self.dir.path().join("embody").join(name));
        empty(&self.temporary()) && sockets.iter().all(|s| !s.exists())
    }
}

/// The first address of the rack that somebody has.
fn taken() -> Option<u16> {
    PORTS.into_iter().flatten().find(|port| UdpSocket::bind(("127.0.0.1", *port)).is_err())
}

fn until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn signal(demo: &Demo, name: &str) {
    let sent = Command::new("kill").args([name, &demo.0.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn said(demo: &mut Demo) -> String {
    let mut text = String::new();
    demo.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    demo.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn it_converges_heals_and_leaves_nothing_behind() {
    if let Some(port) = taken() {
        panic!("UDP port {port} of 127.0.0.1 is taken: another `embody demo` runs here, or another program has this port of examples/");
    }
    let place = Place::new();

    let (ready, text) = place.run(&["demo", "--exit-when-ready", "--timeout", "90s"]);
    assert!(ready && text.contains("7 of 8 bindings are as desired"), "{text}");
    assert!(text.contains("sql waits for a person") && !text.contains("r640-02 soft-off"), "{text}");
    assert!(place.is_clean() && taken().is_none());

    let mut demo = place.start();
    until("the demo answers", Duration::from_secs(60), || place.run(&["get", "bindings", "-o", "name"]).1.contains("binding/sql"));
    for binding in ["apache", "burn-in-1", "burn-in-2", "web-1", "web-2", "web-3", "web-4"] {
        assert!(place.run(&["wait", "binding", binding, "--timeout", "90s"]).0);
    }
    for (what, proof) in [("port", "SNMP tor-"), ("power", "power on"), ("bmc", "answers")] {
        let (repaired, text) = place.run(&["demo", "break", what]);
        assert!(repaired && text.contains(proof) && text.contains("repaired after"), "{what}: {text}");
    }

    // What was found running is left alone until a person says so.
    assert!(place.run(&["get", "binding", "sql"]).1.contains("False"));
    assert!(place.run(&["approve", "sql"]).0 && place.run(&["wait", "binding", "sql", "--timeout", "90s"]).0);

    let (second, text) = place.run(&["demo", "--exit-when-ready"]);
    assert!(!second && text.contains("127.0.0.1:16101: this UDP port is taken"), "{text}");

    signal(&demo, "-INT");
    until("the demo ends", Duration::from_secs(10), || demo.0.try_wait().unwrap().is_some());
    assert!(demo.0.wait().unwrap().success(), "{}", said(&mut demo));
    until("its rack ends", Duration::from_secs(5), || taken().is_none());
    assert!(place.is_clean());

    // Killed outright it cannot tidy up, but its rack still ends.
    let demo = place.start();
    until("the rack answers", Duration::from_secs(60), || taken().is_some());
    signal(&demo, "-KILL");
    until("the rack ends", Duration::from_secs(10), || taken().is_none());

    let (alone, text) = place.run(&["demo", "break", "port"]);
    assert!(!alone && text.contains("no demo runs here"), "{text}");
}
