//! Network namespaces of one test, wired by veth pairs over a bridge, and what other programs see there. Needs root and iproute2.
#![allow(dead_code, clippy::disallowed_methods)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// Namespaces are root's.
pub fn is_unable() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:\t0\t")));
    let tcpdump = ["/usr/bin/tcpdump", "/usr/sbin/tcpdump"].iter().any(|path| std::path::Path::new(path).exists());
    if root && tcpdump {
        return false;
    }
    assert!(std::env::var_os("EMBODY_REQUIRE_PEERS").is_none() || !root, "tcpdump is not installed");
    eprintln!("SKIP: network namespaces need root, and tcpdump");
    true
}

/// A network namespace, deleted when it is dropped.
pub struct Netns(pub String);

impl Netns {
    pub fn new(what: &str) -> Netns {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("emb-{}-{}-{what}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        let netns = Netns(name);
        netns.ip("link set lo up");
        netns
    }

    /// `ip -n NAMESPACE ...`
    pub fn ip(&self, words: &str) -> String {
        run("ip", &[&["-n", &self.0], &words.split_whitespace().collect::<Vec<_>>()[..]].concat())
    }

    pub fn exec(&self, words: &str) -> String {
        run("ip", &[&["netns", "exec", &self.0], &words.split_whitespace().collect::<Vec<_>>()[..]].concat())
    }

    /// Runs something within the namespace, in a thread with a runtime of its own.
    pub fn within<T: Send + 'static, F: Future<Output = T>>(&self, what: impl FnOnce() -> F + Send + 'static) -> T {
        self.start(what).join().unwrap()
    }

    pub fn start<T: Send + 'static, F: Future<Output = T>>(&self, what: impl FnOnce() -> F + Send + 'static) -> std::thread::JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what())
        })
    }

    /// Frames as tcpdump tells them, from now on.
    pub fn tcpdump(&self, interface: &str, filter: &str) -> Dump {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0, "tcpdump", "--immediate-mode", "-l", "-n", "-e", "-vv", "-i", interface])
            .args(filter.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("listening on")), "tcpdump does not listen");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| heard.lock().unwrap().push((Instant::now(), line))));
        Dump { child, lines }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// What tcpdump has said, killed when it is dropped.
pub struct Dump {
    child: Child,
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Dump {
    pub fn lines(&self) -> Vec<(Instant, String)> {
        self.lines.lock().unwrap().clone()
    }

    pub fn count(&self, what: &str) -> usize {
        self.lines().iter().filter(|(_, line)| line.contains(what)).count()
    }

    pub fn text(&self) -> String {
        self.lines().into_iter().map(|(_, line)| line + "\n").collect()
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub fn run(program: &str, words: &[&str]) -> String {
    let out = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {}: {said}", words.join(" "));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A bridge with one port per namespace; there it is `eth0`, up, with 10.7.0.N/24.
pub struct Lan {
    pub switch: Netns,
    pub hosts: Vec<Netns>,
}

impl Lan {
    pub fn new(hosts: usize) -> Lan {
        let switch = Netns::new("sw");
        // Its own ends of the cables say nothing themselves.
        switch.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let hosts: Vec<Netns> = (1..=hosts)
            .map(|n| {
                let host = Netns::new(&format!("h{n}"));
                switch.ip(&format!("link add p{n} type veth peer name eth0 netns {}", host.0));
                switch.ip(&format!("link set p{n} master br0 up"));
                host.ip("link set eth0 up");
                host.ip(&format!("addr add 10.7.0.{n}/24 dev eth0"));
                host
            })
            .collect();
        eventually("every port forwards", || !run("ip", &["netns", "exec", &switch.0, "bridge", "link"]).contains("state disabled"));
        Lan { switch, hosts }
    }

    pub fn mac(&self, host: usize) -> String {
        let said = self.hosts[host].ip("-o link show eth0");
        said.split("link/ether ").nth(1).unwrap()[..17].to_owned()
    }
}

/// Within five seconds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(5), "not so within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}
