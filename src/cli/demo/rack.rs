//! The simulated rack as a process of its own: the process itself, the demo's side of it, and the line over which people's hands reach it.
//!
//! Leaves out: the devices (`sim::rack`). Invariant: the process lives no longer than the one that started it; it ends when its standard input
//! does, and that happens however the parent ends. Shown by `tests/demo.rs`.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::failure::{Exit, Failure};
use super::super::output::print;
use super::examples;
use crate::server::api::fault::chain;
use crate::sim::rack::{Act, Rack, Scene};

const READY: &str = "ready";
/// SNMPv3 keys are derived before the rack is ready: a second each in an unoptimised build.
const START_WITHIN: Duration = Duration::from_secs(30);
const END_WITHIN: Duration = Duration::from_secs(2);

// ---- the process itself -------------------------------------------------------------------------------------------------------

/// Says `ready`, or in one line why not, on standard output; then serves until standard input ends.
pub(super) async fn run(socket: &Path) -> Result<(), Failure> {
    match start(socket).await {
        Ok((rack, listener)) => {
            print(&format!("{READY}\n"))?;
            serve(rack, &listener).await;
            // The demo is over: whatever else stands there now is not ours.
            drop(std::fs::remove_file(socket));
        }
        Err(why) => print(&format!("{why}\n"))?,
    }
    Ok(())
}

async fn start(socket: &Path) -> Result<(Rack, UnixListener), String> {
    let objects = examples::objects().map_err(|f| f.message)?;
    let running = examples::FOUND_RUNNING.parse().into_iter().collect();
    let rack = Rack::start(&objects, &running).await.map_err(|e| chain(&e))?;
    // The ports are ours: no other rack stands behind this socket.
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket).map_err(|e| format!("the rack cannot listen at {}: {e}", socket.display()))?;
    Ok((rack, listener))
}

async fn serve(rack: Rack, listener: &UnixListener) {
    let rack = Arc::new(Mutex::new(rack));
    let (mut stdin, mut nothing) = (tokio::io::stdin(), [0; 64]);
    let mut people = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            read = stdin.read(&mut nothing) => if !matches!(read, Ok(1..)) { return },
            Some(_) = people.join_next() => {}
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                people.spawn(listen(stream, Arc::clone(&rack)));
            },
        }
    }
}

/// One line, one act.
async fn listen(stream: UnixStream, rack: Arc<Mutex<Rack>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let scene = match serde_json::from_str::<Act>(&line) {
            Ok(act) => rack.lock().unwrap_or_else(PoisonError::into_inner).act(&act),
            Err(error) => Scene { refused: Some(format!("this does not read: {error}")), ..Scene::default() },
        };
        let mut answer = serde_json::to_vec(&scene).unwrap_or_default();
        answer.push(b'\n');
        if write.write_all(&answer).await.is_err() {
            return;
        }
    }
}

// ---- the demo's side ----------------------------------------------------------------------------------------------------------

/// The process, as long as it is held.
pub(super) struct RackProcess {
    child: Child,
    /// Closed, it ends the process.
    stdin: Option<ChildStdin>,
}

impl RackProcess {
    pub(super) async fn start(socket: &Path) -> Result<RackProcess, Failure> {
        let wrong = |what: &str, error: std::io::Error| Failure::failed(format!("{what}: {error}"));
        let program = std::env::current_exe().map_err(|e| wrong("cannot find this program", e))?;
        let mut command = Command::new(program);
        command.args(["demo", "rack", "--socket"]).arg(socket).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: Ctrl-C is for the demo, which then ends the rack.
        let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(|e| wrong("cannot start the rack", e))?;
        let mut said = String::new();
        if let Some(out) = child.stdout.take() {
            match timeout(START_WITHIN, BufReader::new(out).read_line(&mut said)).await {
                Ok(read) => drop(read.map_err(|e| wrong("cannot hear the rack", e))?),
                Err(_) => return Err(Failure::failed("the simulated rack did not start in time")),
            }
        }
        match said.trim() {
            READY => Ok(RackProcess { stdin: child.stdin.take(), child }),
            "" => Err(Failure::failed("the simulated rack ended before it was ready")),
            why => Err(Failure::failed(format!("the simulated rack cannot start: {why}"))
                .hint("perhaps another demo runs; `embody demo` needs its addresses to itself")),
        }
    }

    /// Ends when the process does, which it should not.
    pub(super) async fn ended(&mut self) -> Failure {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Failure::failed(format!("the simulated rack ended by itself ({how})"))
    }

    pub(super) async fn end(mut self) {
        drop(self.stdin.take());
        if timeout(END_WITHIN, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
    }
}

/// Hands in the rack of a running demo.
pub(super) struct Hands {
    stream: BufReader<UnixStream>,
}

impl Hands {
    pub(super) async fn reach(socket: &Path) -> Result<Hands, Failure> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|_| Failure::new(Exit::NoController, "no demo runs here").hint("start one in another terminal: `embody demo`"))?;
        Ok(Hands { stream: BufReader::new(stream) })
    }

    pub(super) async fn act(&mut self, act: &Act) -> Result<Scene, Failure> {
        let gone = |e: &dyn std::fmt::Display| Failure::failed(format!("the simulated rack went away: {e}"));
        let mut line = serde_json::to_string(act).unwrap_or_default();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).await.map_err(|e| gone(&e))?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).await.map_err(|e| gone(&e))?;
        let scene: Scene = serde_json::from_str(&answer).map_err(|e| gone(&e))?;
        match &scene.refused {
            Some(why) => Err(Failure::failed(why.clone())),
            None => Ok(scene),
        }
    }
}
