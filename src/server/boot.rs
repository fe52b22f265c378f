//! `GET /boot/<mac>`: the boot answer over HTTP. A port in use is a condition, not the end: it is tried again.
//!
//! Only the controller that acts answers; another one says 503, and the machine's script asks again. Invariant: an answer other than
//! "parked" is given only while the lease under which it was asked for still holds, read where the answer is built.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{Extensions, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::control::controller::Message;
use crate::control::status_writer::{Site, SiteCondition};
use crate::limits;
use crate::model::Mac;
use crate::model::server::Arch;
use crate::server::listen::{self, Bounds};
use crate::store::LeaseEnd;

/// The channel to the controller, while this controller acts.
pub(crate) type Controller = watch::Receiver<Option<mpsc::Sender<Message>>>;
/// The lease that this controller holds, while it acts.
pub(crate) type Holding = watch::Receiver<Option<Arc<LeaseEnd>>>;

/// Who answers, and by what right.
#[derive(Clone)]
struct Authority {
    controller: Controller,
    lease: Holding,
    told: Arc<Mutex<Told>>,
}

/// What the log says of boot answers: a line where that of a MAC is another one than before, and no more than a bucket holds, since whoever reaches
/// the port can ask for any MAC.
#[derive(Debug, Default)]
struct Told {
    last: BTreeMap<Mac, String>,
    /// How many lines were written of late, at which moment.
    spent: Option<(f64, Instant)>,
    left_out: u64,
}

impl Told {
    fn tell(&mut self, mac: Mac, says: &str, now: Instant) {
        if let Some(left_out) = self.is_due(mac, says, now) {
            tracing::info!(mac = %mac, says, left_out, "boot answer");
        }
    }

    /// Whether a line is due, and how many were left out before it.
    fn is_due(&mut self, mac: Mac, says: &str, now: Instant) -> Option<u64> {
        if self.last.get(&mac).is_some_and(|last| last == says) {
            return None;
        }
        let spent = self.spent.map_or(0.0, |(spent, at)| {
            let regained = now.saturating_duration_since(at).as_secs_f64() * limits::BOOT_LINES_PER_SECOND;
            (spent - regained).max(0.0)
        });
        if spent + 1.0 > limits::BOOT_LINES {
            self.left_out += 1;
            return None;
        }
        self.spent = Some((spent + 1.0, now));
        // Whoever is forgotten is told of once more.
        if self.last.len() == limits::BOOT_MACS_TOLD {
            self.last.pop_first();
        }
        self.last.insert(mac, says.to_owned());
        Some(std::mem::take(&mut self.left_out))
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    /// iPXE's `${buildarch}`.
    arch: Option<String>,
    /// iPXE's `${uuid}`: the SMBIOS UUID.
    uuid: Option<String>,
}

pub(crate) fn router(controller: Controller, lease: Holding) -> Router {
    Router::new().route("/boot/{mac}", get(script)).with_state(Authority { controller, lease, told: Arc::default() })
}

/// The condition that tells whether the address could be taken.
const CONDITION: &str = "BootServed";

/// Serves until the process ends, binding as soon as the address is free.
pub async fn serve(address: SocketAddr, controller: Controller, lease: Holding, site: Site) {
    let tell = |ok, reason, message: String| {
        let word = SiteCondition { ok, reason, message };
        site.send_if_modified(|site| site.insert(CONDITION, word.clone()).as_ref() != Some(&word));
    };
    loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                let local = listener.local_addr().unwrap_or(address);
                tracing::info!(address = %local, "boot answers are served");
                tell(true, "Listening", format!("at http://{local}/boot/<mac>"));
                let (_never, stop) = watch::channel(false);
                let router = router(controller.clone(), lease.clone());
                listen::serve(listener, Bounds::of_boot(), router, |_| Extensions::new(), stop).await;
            }
            Err(error) => {
                tell(false, "AddressInUse", format!("boot answers cannot be served at {address}: {error}; it is tried again every 10 s"))
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

async fn script(State(by): State<Authority>, Path(mac): Path<String>, Query(asked): Query<Asked>) -> Response {
    let mac: Mac = match mac.parse() {
        Ok(mac) => mac,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    // iPXE's build architectures; without one it is a PC.
    let arch = match asked.arch.as_deref() {
        Some("arm64" | "aarch64") => Arch::Aarch64,
        Some("sparc64") => Arch::Sparc64,
        Some(_) | None => Arch::X86_64,
    };
    // The lease first: of a newer controller's answer an older lease says no, never the other way round.
    let lease = by.lease.borrow().clone();
    let to_controller = by.controller.borrow().clone();
    let later =
        || (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], "another controller acts, or none yet\n").into_response();
    let (Some(to_controller), Some(lease)) = (to_controller, lease) else { return later() };
    let (reply, answer) = oneshot::channel();
    let answered = async {
        to_controller.send(Message::Boot { mac, uuid: asked.uuid, arch, reply }).await.ok()?;
        answer.await.ok()
    };
    let answer = tokio::time::timeout(limits::BOOT_ANSWER_WITHIN, answered).await.ok().flatten();
    // No await from here on.
    match answer {
        Some(answer) if answer.persona.is_none() || lease.holds() => {
            by.told.lock().unwrap_or_else(PoisonError::into_inner).tell(mac, &answer.says, Instant::now());
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], answer.script).into_response()
        }
        Some(_) | None => later(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 123,000 requests in five seconds, of one MAC that changes what it says of itself, and of as many MACs.
    #[test]
    fn a_flood_of_requests_is_a_handful_of_lines_and_a_rack_that_boots_is_told_whole() {
        let begun = Instant::now();
        let mac = |n: u32| -> Mac { format!("02:00:00:{:02x}:{:02x}:{:02x}", n >> 16 & 255, n >> 8 & 255, n & 255).parse().unwrap() };
        for of in [|_| 7, |n| n] {
            let mut told = Told::default();
            let at = |n: u32| begun + Duration::from_secs(5) * n / 123_000;
            let lines: Vec<u64> = (0..123_000).filter_map(|n| told.is_due(mac(of(n)), &format!("parked: {n}"), at(n))).collect();
            assert!(lines.len() <= 80 && told.last.len() <= limits::BOOT_MACS_TOLD, "{}", lines.len());
            let later = begun + Duration::from_secs(60);
            let left_out = told.is_due(mac(1 << 20), "parked", later).unwrap();
            assert_eq!(left_out + lines.iter().sum::<u64>() + lines.len() as u64, 123_000);
        }
        let mut told = Told::default();
        for round in 0..3 {
            let lines = (0..40).filter(|n| told.is_due(mac(*n), "persona web", begun).is_some()).count();
            assert_eq!(lines, if round == 0 { 40 } else { 0 });
        }
    }
}
