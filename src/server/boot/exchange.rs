//! Who a system is, told to itself over TLS; and what it says of itself from then on.
//!
//! Leaves out: what it is told (`boot::identity`), and what is made of what it says (`control::systems`). Invariants: it is told at its own address alone,
//! as far as addresses are known; nobody is told by a controller that does not act. Shown by `tests/boot/exchange.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use embody_protocol::{Alive, Identity, Question};
use tokio::sync::watch;

use super::http::{GONE, hello_of, later};
use super::{Desk, Ends};
use crate::boot::token::Token;
use crate::control::controller::Message;
use crate::control::systems::{Hello, Identified, Wanted};
use crate::control::timeline::Stage;
use crate::limits;
use crate::model::Name;
use crate::server::images::Keeper;
use crate::server::listen::{self, Bounds};
use crate::server::tls::{Secured, TlsDoor};

/// The condition that tells whether systems can be told who they are.
const CONDITION: &str = "IdentitiesServed";
/// How often a port that somebody else has is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Serves until the process ends, as soon as there is an image.
pub(super) async fn serve(desk: Desk, keeper: std::sync::Arc<Keeper>) {
    let address = SocketAddr::new(desk.options.address.ip(), desk.options.exchange);
    desk.shared.exchange.send_replace(Some(address.port()));
    keeper.has_any().await;
    let ends = |connection: &Secured| {
        let mut about = Extensions::new();
        if let Some(ends) = connection.ends {
            about.insert(ends);
        }
        about
    };
    loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                let keeper = std::sync::Arc::clone(&keeper);
                let key = move || keeper.key().map(|key| key.of_exchange());
                match TlsDoor::new(listener, Box::new(key)) {
                    Ok(door) => {
                        tracing::info!(address = %address, "systems are told who they are");
                        desk.condition(CONDITION, true, "Listening", format!("at https://{address}"));
                        desk.shared.exchange.send_replace(Some(address.port()));
                        let (_never, stop) = watch::channel(false);
                        listen::serve(door, Bounds::of_exchange(), router(desk.clone()), ends, stop).await;
                    }
                    Err(error) => desk.condition(CONDITION, false, "NoTls", crate::server::api::fault::chain(&error)),
                }
            }
            Err(error) => {
                let (reason, hint) = super::of_ports(&error);
                let message = format!(
                    "systems cannot be told who they are at {address}: {error}{hint}, or choose another with --exchange-port; it is tried again every 10 s"
                );
                desk.condition(CONDITION, false, reason, message);
            }
        }
        desk.shared.exchange.send_replace(None);
        tokio::time::sleep(AGAIN).await;
    }
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/run/{server}/{token}/identity", post(identity))
        .route("/run/{server}/{token}/hello", post(hello))
        .route("/run/{server}/{token}/alive", post(alive))
        .layer(DefaultBodyLimit::max(limits::BOOT_BODY_BYTES))
        .with_state(desk)
}

/// Why nobody is told anything.
enum Refusal {
    Later,
    /// Another start is the last one, or there never was this one.
    Gone,
    NotIt(String),
    NotYet(String),
    /// It is none of the protocol's messages.
    Unread(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Later => later(),
            Refusal::Gone => GONE.into_response(),
            Refusal::NotIt(why) => (StatusCode::FORBIDDEN, format!("{why}\n")).into_response(),
            Refusal::NotYet(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
            Refusal::Unread(why) => (StatusCode::BAD_REQUEST, format!("found what does not read: {why}\n")).into_response(),
        }
    }
}

/// The start of a token, if this controller acts, and if it is said at that server's own address.
fn asks(desk: &Desk, ends: Ends, server: &str, token: &str) -> Result<(Name, Token), Refusal> {
    // Whoever does not act, or not yet, cannot tell whose token it is: a system that is told Gone may never say it again.
    if desk.view().is_none_or(|(view, _)| view.key.is_none()) {
        return Err(Refusal::Later);
    }
    let (server, token) = desk.run_of(server, token).ok_or(Refusal::Gone)?;
    desk.is_its_address(&server, ends.theirs.ip()).map_err(Refusal::NotIt)?;
    Ok((server, token))
}

async fn identity(
    State(desk): State<Desk>,
    Extension(ends): Extension<Ends>,
    Path((server, token)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let (server, token) = asks(&desk, ends, &server, &token).inspect_err(|refusal| {
        // What goes down says until its end that it is up, from an address that is its own no more: only a question is told of.
        if let (Refusal::NotIt(why), Some((server, _))) = (refusal, desk.run_of(&server, &token)) {
            desk.note(&server, "IdentityRefused", format!("{server}: who it is was asked from {}, and not told: {why}", ends.theirs.ip()));
        }
    })?;
    let question: Question = serde_json::from_slice(&body).map_err(|error| Refusal::Unread(error.to_string()))?;
    if let Ok(mac) = question.mac.parse() {
        let look = desk.ask(|reply| Message::LookAt { server: server.clone(), token: token.clone(), mac, reply });
        // No answer says nothing.
        let _ = tokio::time::timeout(limits::PORT_ASKED_FOR, look).await;
    }
    let of = server.clone();
    match desk.ask(|reply| Message::Identify { server, token, question, reply }).await {
        Some(Identified::Told(identity, wanted)) => match whole(*identity, &wanted).await {
            Ok(identity) => {
                desk.saw(&of, Stage::Identity, "");
                Ok(axum::Json(identity).into_response())
            }
            Err(why) => {
                desk.failed(&of, format!("it cannot be told who it is: {why}"));
                Err(Refusal::NotYet(why))
            }
        },
        Some(Identified::NotIt(why)) => Err(Refusal::NotIt(why)),
        Some(Identified::Another) => Err(Refusal::Gone),
        Some(Identified::NotYet(why)) => Err(Refusal::NotYet(why)),
        Some(Identified::Later) | None => Err(Refusal::Later),
    }
}

/// With what Secrets hold.
async fn whole(mut identity: Identity, wanted: &[Wanted]) -> Result<Identity, String> {
    for wanted in wanted {
        let value = wanted.read().await.map_err(|why| format!("its file {}: {why}", wanted.path))?;
        let file = identity.files.iter_mut().find(|file| file.path == wanted.path);
        file.into_iter().for_each(|file| file.content = value.reveal().to_owned());
    }
    Ok(identity)
}

async fn hello(
    State(desk): State<Desk>,
    Extension(ends): Extension<Ends>,
    Path((server, token)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let (server, token) = asks(&desk, ends, &server, &token)?;
    Ok(hello_of(&desk, server, token, &body).await)
}

async fn alive(
    State(desk): State<Desk>,
    Extension(ends): Extension<Ends>,
    Path((server, token)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let (server, token) = asks(&desk, ends, &server, &token)?;
    let said: Alive = serde_json::from_slice(&body).map_err(|error| Refusal::Unread(error.to_string()))?;
    match desk.ask(|reply| Message::StillUp { server, token, said, reply }).await {
        Some(Hello::Taken) => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(Hello::NotIt) => Err(Refusal::NotIt("this start is known by another secret".to_owned())),
        Some(Hello::Another) => Err(Refusal::Gone),
        Some(Hello::Later) | None => Err(Refusal::Later),
    }
}
