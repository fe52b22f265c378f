//! The real `embody`: `serve` as a process that can be killed, every other verb as a person would call it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::programs::{PATIENCE, Process, until};

/// How one call of the program ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub struct Controller {
    dir: PathBuf,
    socket: String,
    arguments: Vec<String>,
    /// What runs it: `ip netns exec …`, and the program itself.
    program: Vec<String>,
    process: Option<Process>,
}

impl Controller {
    /// A controller that is not started yet: `name` tells several of one site apart.
    pub fn new(site: &Path, name: &str, arguments: &[&str]) -> Controller {
        let dir = site.join(name);
        fs::create_dir_all(&dir).unwrap();
        let socket = format!("unix://{}", dir.join("run/embody.sock").display());
        Controller { dir, socket, arguments: owned(arguments), program: owned(&[env!("CARGO_BIN_EXE_embody")]), process: None }
    }

    /// The same, in a network namespace.
    #[allow(dead_code, reason = "the rack of scripts has none")]
    pub fn within(mut self, namespace: &str) -> Controller {
        self.program.splice(0..0, owned(&["ip", "netns", "exec", namespace]));
        self
    }

    /// The same, as an ordinary user with these capabilities and no others; `copy`: a place of the program that this user reads.
    #[allow(dead_code, reason = "the rack of scripts is root's")]
    pub fn ordinary(mut self, copy: &Path, user: &str, capabilities: &str) -> Controller {
        let caps = [format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")];
        let words = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", &caps[0], &caps[1]];
        self.program = [owned(&words), vec![copy.display().to_string()]].concat();
        self
    }

    #[allow(dead_code, reason = "the rack of scripts has no use for it")]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        command.env("EMBODY_SERVER", &self.socket).env_remove("EMBODY_LOG").kill_on_drop(true);
        command
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) {
        self.spawn();
        until("the controller's answer", Duration::from_secs(30), async || {
            let said = self.say(&["get", "policies"]).await;
            if said.code == 0 { Ok(()) } else { Err(format!("{said:?}\n{}", self.log())) }
        })
        .await;
    }

    pub fn spawn(&mut self) {
        let mut command = self.command();
        command.arg("serve").arg("--data").arg(self.dir.join("data")).args(&self.arguments);
        self.process = Some(Process::start(&mut command, &self.dir.join("log")));
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the controller runs")
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/embody.sock")
    }

    /// What it has logged, all starts of it.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// One call of the program.
    pub async fn say(&self, words: &[&str]) -> Outcome {
        let output = self.command().args(words).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// A call that goes on.
    pub fn watch(&self, words: &[&str]) -> Process {
        Process::start(self.command().args(words), &self.dir.join("watch"))
    }

    /// One call that must succeed; what it printed.
    pub async fn run(&self, words: &[&str]) -> String {
        let said = self.say(words).await;
        assert!(said.code == 0, "embody {words:?} ended with {}\n{}{}\n{}", said.code, said.out, said.err, self.log());
        said.out
    }

    /// Applies a text.
    pub async fn apply(&self, text: &str) -> String {
        let file = self.dir.join("apply.yaml");
        fs::write(&file, text).unwrap();
        self.run(&["apply", "-f", &file.display().to_string()]).await
    }

    pub async fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.run(&["get", kind, name, "-o", "json"]).await).unwrap()
    }

    /// `True AsDesired: …` of one condition of an object; empty where it has none.
    pub async fn condition(&self, kind: &str, name: &str, condition: &str) -> String {
        // One that the controller makes itself may be on its way.
        let said = self.say(&["get", kind, name, "-o", "json"]).await;
        assert!(said.code == 0 || said.code == 4, "{said:?}");
        let object: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let all = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |c: &Value, key: &str| c.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = all.iter().find(|c| text(c, "type") == condition);
        found.map(|c| format!("{} {}: {}", text(c, "status"), text(c, "reason"), text(c, "message"))).unwrap_or_default()
    }

    /// Waits until a condition reads as it must: all of `parts` are in it.
    pub async fn reads(&self, kind: &str, name: &str, condition: &str, parts: &[&str], within: u64) -> String {
        let mut last = String::new();
        until(&format!("{parts:?} in {condition} of {kind} {name}"), Duration::from_secs(within), async || {
            last = self.condition(kind, name, condition).await;
            if parts.iter().all(|p| last.contains(p)) { Ok(()) } else { Err(format!("{last}\n{}", self.log_end())) }
        })
        .await;
        last
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// `embody wait` for Ready.
    pub async fn ready(&self, binding: &str, within: u64) {
        let within = within * u64::from(PATIENCE);
        let said = self.say(&["wait", "binding", binding, "--for=condition=Ready", &format!("--timeout={within}s")]).await;
        if said.code != 0 {
            let why = self.say(&["why", binding]).await;
            panic!("{binding} is not Ready after {within} s: {}\n{}\n{}\n{}", said.err, why.out, why.err, self.log_end());
        }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
