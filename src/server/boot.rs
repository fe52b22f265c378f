//! `GET /boot/<mac>`: the boot answer over HTTP. A port in use is a condition, not the end: it is tried again.
//!
//! Only the controller that acts answers; another one says 503, and the machine's script asks again.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::controller::{Message, Site, SiteCondition};
use crate::model::Mac;
use crate::model::server::Arch;

/// The channel to the controller, while this controller acts.
pub type Controller = watch::Receiver<Option<mpsc::Sender<Message>>>;

#[derive(Debug, Deserialize)]
struct Asked {
    /// iPXE's `${buildarch}`.
    arch: Option<String>,
    /// iPXE's `${uuid}`: the SMBIOS UUID.
    uuid: Option<String>,
}

pub fn router(controller: Controller) -> Router {
    Router::new().route("/boot/{mac}", get(script)).with_state(controller)
}

/// The condition that tells whether the address could be taken.
const CONDITION: &str = "BootServed";

/// Serves until the process ends, binding as soon as the address is free.
pub async fn serve(address: SocketAddr, controller: Controller, site: Site) {
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
                if let Err(error) = axum::serve(listener, router(controller.clone())).await {
                    tracing::warn!(error = %error, "the boot endpoint ended");
                }
            }
            Err(error) => {
                tell(false, "AddressInUse", format!("boot answers cannot be served at {address}: {error}; it is tried again every 10 s"))
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

async fn script(State(controller): State<Controller>, Path(mac): Path<String>, Query(asked): Query<Asked>) -> Response {
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
    let to_controller = controller.borrow().clone();
    let later =
        || (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], "another controller acts, or none yet\n").into_response();
    let Some(to_controller) = to_controller else { return later() };
    let (reply, answer) = oneshot::channel();
    if to_controller.send(Message::Boot { mac, uuid: asked.uuid, arch, reply }).await.is_err() {
        return later();
    }
    match answer.await {
        Ok(answer) => {
            tracing::info!(mac = %mac, says = answer.says, "boot answer");
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], answer.script).into_response()
        }
        Err(_) => later(),
    }
}
