//! Personas whose roots are images: a name may come after what names it, and what a process has of its files comes and goes.
//!
//! What starts from one asks who it is before it says hello, and says again and again that it is up (`sim::exchange`). Drawn beside what else goes
//! wrong (`plan`), from a source of chance of its own, as in `masses`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use embody::testing::control::booting::Shared;
use embody::testing::control::controller::Message;
use embody::testing::control::images::Here;
use embody::testing::control::operator::Control;
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::operators::Operators;
use crate::plan::{Act, Plan, secs};

/// How often it is looked whether files are there.
const LOOKED_AT: Duration = Duration::from_secs(5);

impl Plan {
    /// In half of the worlds that roll out over networks.
    pub(crate) fn images(&mut self, rng: &mut StdRng) {
        if self.rolled.is_none() || !self.boots || rng.random_bool(0.5) {
            return;
        }
        self.imaged = true;
        self.acts.push((secs(rng, 1, 60), Act::Import));
        for _ in 0..rng.random_range(1..=6) {
            let act = match rng.random_range(0..3) {
                0 => Act::Import,
                1 => Act::AgentDies(rng.random_range(0..self.machines.len())),
                _ => Act::ImagesMissing(rng.random_range(0..self.controllers), secs(rng, 1, 200)),
            };
            self.acts.push((secs(rng, 30, self.chaos.as_secs()), act));
        }
        self.acts.retain(|(at, _)| *at < self.chaos);
        self.acts.sort_by_key(|(at, _)| *at);
    }
}

/// What a process has of the files of images: all of them, but for a time.
#[derive(Clone, Default)]
pub struct Keeper {
    missing_until: Arc<Mutex<Option<Instant>>>,
}

impl Keeper {
    pub fn miss(&self, takes: Duration) {
        *self.missing_until.lock().unwrap() = Some(Instant::now() + takes);
    }

    pub fn heal(&self) {
        *self.missing_until.lock().unwrap() = None;
    }

    /// Tells the controller of this process what is here, as `server::images` does.
    pub async fn keep(&self, boot: Shared, to_controller: mpsc::Sender<Message>) -> std::convert::Infallible {
        let mut known = boot.images.known.subscribe();
        loop {
            let all = known.borrow_and_update().clone().map(|known| known.images.clone()).unwrap_or_default();
            let is_missing = self.missing_until.lock().unwrap().is_some_and(|until| Instant::now() < until);
            let lacks = is_missing.then(|| "a file of it is not there".to_owned());
            let here = Here { lacks, ram: Err("it is packed first".to_owned()) };
            let news = all.values().filter(|image| boot.images.is(&image.digest, here.clone())).count();
            if news > 0 {
                let _ = to_controller.send(Message::Images).await;
            }
            tokio::select! {
                biased;
                Ok(()) = known.changed() => {}
                () = sleep(LOOKED_AT) => {}
            }
        }
    }
}

impl Operators {
    pub(crate) fn image_root(&self) -> Value {
        json!({ "image": { "name": format!("sys:r{}", self.revisions.1) } })
    }

    /// What is named, or was, as far as it is not there yet. How many of them came.
    pub(crate) async fn import(&self) -> usize {
        let mut came = 0;
        for revision in [self.revisions.0, self.revisions.1].into_iter().filter(|_| self.plan.imaged) {
            let record = json!({ "digest": format!("{revision:064x}"), "entries": 3, "bytes": 4096, "by": "ann", "imported": "2026-11-11T00:00:00Z",
                "kernel": { "version": "6.1.0", "path": "/boot/vmlinuz-6.1.0" } });
            let name = format!("sys:r{revision}").parse().unwrap();
            let said = self.words.add_image(&name, serde_json::from_value(record).unwrap()).await;
            came += usize::from(said.is_ok());
            self.centre.note(&[], format!("a person imports sys:r{revision}: {}", said.unwrap_or_else(|e| e.to_string())));
        }
        came
    }
}
