//! Scripts, loaders, kernels and initrds over HTTP, and what starts say of themselves. A port in use is a condition, not the end: it is tried again.
//!
//! Only the controller that acts gives scripts; another one says 503, and the machine's script asks again. Files are given always. Invariant: an
//! answer other than "parked" is given only while the lease under which it was asked for still holds, and while what is told still stands, both read
//! where the answer is built.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, Request, State};
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tower_http::services::{ServeDir, ServeFile};

use super::{Desk, Ends, base, joined, nocloud, peers};
use crate::boot::answer::{Ask, Verdict, judge, plain};
use crate::boot::script::{self, For, IMAGE, INITRD, JOINED, KERNEL, RAM, STOCK_INITRD, TREE};
use crate::boot::token::Token;
use crate::control::booting::Answer;
use crate::control::controller::Message;
use crate::control::systems::Hello;
use crate::control::timeline::Stage;
use crate::limits;
use crate::manifest::escaped;
use crate::model::server::Arch;
use crate::model::{Mac, Name};
use crate::server::images::Wanted;
use crate::server::listen::{self, Bounds};

#[derive(Clone)]
struct Http {
    desk: Desk,
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

/// What a machine says of itself.
#[derive(Debug, Deserialize)]
struct Asked {
    /// iPXE's `${buildarch}`.
    arch: Option<String>,
    /// iPXE's `${uuid}`: the SMBIOS UUID.
    uuid: Option<String>,
}

/// The loaders that may be asked for.
pub(super) const LOADERS: [&str; 4] = ["undionly.kpxe", "snponly.efi", "ipxe.efi", "snponly-arm64.efi"];

fn router(desk: Desk) -> Router {
    let options = Arc::clone(&desk.options);
    let mut loaders = Router::new();
    for name in LOADERS {
        loaders = loaders.route_service(&format!("/{name}"), ServeFile::new(options.loaders.join(name)));
    }
    // No redirects: UEFI HTTP boot follows none.
    let files = ServeDir::new(&options.files).append_index_html_on_directories(false);
    let of_peers = get(peers::tree).head(peers::has).put(peers::take).with_state(desk.clone());
    let http = Http { desk, told: Arc::default() };
    let seen = middleware::from_fn_with_state(http.clone(), fetched);
    Router::new()
        .nest("/loader", loaders)
        .nest_service("/files", files)
        .route(&format!("{JOINED}{{*parts}}"), get(joined_initrds))
        .route(&format!("{IMAGE}{{digest}}/{{what}}"), get(of_image))
        .layer(seen)
        .route(&format!("{IMAGE}{{digest}}/{TREE}"), of_peers)
        .route("/boot.ipxe", get(first))
        .route("/boot/{mac}", get(script))
        .route("/run/{server}/{token}/failed/{what}", get(failed))
        .route("/run/{server}/{token}/failed", post(failed_in_words))
        .route("/run/{server}/{token}/waits", post(waits_for))
        .route("/run/{server}/{token}/stage/{name}", post(stage))
        .route("/run/{server}/{token}/hello", post(hello))
        .route("/run/{server}/{token}/nocloud/{what}", get(nocloud::told).with_state(http.desk.clone()))
        .layer(DefaultBodyLimit::max(limits::BOOT_BODY_BYTES))
        .with_state(http)
}

/// The condition that tells whether the address could be taken.
const CONDITION: &str = "BootServed";

/// Serves until the process ends, binding as soon as there is something to serve and the address is free.
pub(super) async fn serve(desk: Desk) {
    let address = desk.options.address;
    let mut views = desk.shared.view.subscribe();
    let boots = |view: &Option<Arc<crate::boot::view::View>>| view.as_ref().is_some_and(|view| !view.networks.is_empty());
    if !desk.options.always && views.wait_for(boots).await.is_err() {
        return;
    }
    loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                let local = listener.local_addr().unwrap_or(address);
                tracing::info!(address = %local, "boot scripts and files are served");
                desk.condition(CONDITION, true, "Listening", format!("at http://{local}/boot/<mac>"));
                let (_never, stop) = watch::channel(false);
                let ends = |stream: &tokio::net::TcpStream| {
                    let mut about = Extensions::new();
                    if let Some(ends) = Ends::of(stream) {
                        about.insert(ends);
                    }
                    about
                };
                listen::serve(listener, Bounds::of_boot(), router(desk.clone()), ends, stop).await;
            }
            Err(error) => {
                let (reason, hint) = super::of_ports(&error);
                let message = format!(
                    "boot scripts cannot be served at {address}: {error}{hint}, or choose another with --boot-address; it is tried again every 10 s"
                );
                desk.condition(CONDITION, false, reason, message);
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

pub(super) fn later() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], "another controller acts, or none yet\n").into_response()
}

fn text(script: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], script).into_response()
}

async fn joined_initrds(State(http): State<Http>, Path(parts): Path<String>) -> Response {
    joined::answer(&http.desk.options.files, &parts).await
}

/// A kernel, an initrd or the packed root of an image, by the image's digest: from whoever has it, leader or not.
async fn of_image(State(http): State<Http>, Path((digest, what)): Path<(String, String)>, request: Request) -> Response {
    let wanted = match what.as_str() {
        KERNEL => Wanted::Kernel,
        INITRD => Wanted::Initrd,
        STOCK_INITRD => Wanted::StockInitrd,
        other => match other.strip_prefix(RAM) {
            Some(sha256) => Wanted::Ram(sha256.to_owned()),
            None => return (StatusCode::NOT_FOUND, "expected kernel, initrd, stock-initrd or ram-SHA256\n").into_response(),
        },
    };
    let Some(keeper) = &http.desk.options.keeper else { return StatusCode::NOT_FOUND.into_response() };
    let why = match keeper.file(&digest, wanted).await {
        Ok(Some(path)) => match ServeFile::new(&path).try_call(request).await {
            Ok(response) => return response.map(Body::new),
            Err(error) => format!("{}: {error}", path.display()),
        },
        Ok(None) => return (StatusCode::NOT_FOUND, "there is no such image here, or it has no such file\n").into_response(),
        Err(why) => why,
    };
    tracing::error!(image = plain(&digest), what = plain(&what), error = why, "a file of an image cannot be served");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", plain(&why))).into_response()
}

/// Asks the machine who it is: for everybody the same, so that it can stand in any DHCP server's configuration.
async fn first(State(http): State<Http>, Extension(ends): Extension<Ends>) -> Response {
    if http.desk.view().is_none() {
        return later();
    }
    text(script::first(&base(ends.ours)))
}

async fn script(
    State(http): State<Http>,
    Extension(ends): Extension<Ends>,
    Path(mac): Path<String>,
    Query(asked): Query<Asked>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let mac: Mac = match mac.parse() {
        Ok(mac) => mac,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    // iPXE's build architectures, where a BIOS one is `i386`; without one it is a PC.
    let arch = match asked.arch.as_deref() {
        Some("arm64" | "aarch64") => Arch::Aarch64,
        Some("sparc64") => Arch::Sparc64,
        Some(_) | None => Arch::X86_64,
    };
    let from = if let IpAddr::V4(from) = ends.theirs.ip() { Some(from) } else { None };
    let ours = from.is_some_and(|from| http.desk.gives_addresses_to(from));
    let ask = Ask { mac, uuid: asked.uuid, arch, from, ours };
    // A question for the head alone starts nothing; nor do people who look from where the machine is not.
    if method != Method::GET || ask.from.is_none() || (!is_ipxe(&headers) && http.is_elsewhere(&ask)) {
        return http.shown(&Ask { from: None, ..ask }).map_or_else(later, text);
    }
    match http.answer(ask, &base(ends.ours)).await {
        Some(answer) => {
            http.told.lock().unwrap_or_else(PoisonError::into_inner).tell(mac, &answer.says, Instant::now());
            text(answer.script)
        }
        None => later(),
    }
}

/// iPXE says so in each request, `iPXE/1.21.1+`. A guard against mistakes: whoever means harm says the same.
fn is_ipxe(headers: &HeaderMap) -> bool {
    headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"iPXE/"))
}

impl Http {
    /// Whether it is asked from another address than the machine was given.
    fn is_elsewhere(&self, ask: &Ask) -> bool {
        self.desk.view().is_some_and(|(view, _)| matches!(judge(ask, &view), Verdict::Parked(parked) if parked.elsewhere))
    }

    /// What the machine would be told, for people who look: no start, no token, and nothing said of the machine.
    fn shown(&self, ask: &Ask) -> Option<String> {
        let (view, _) = self.desk.view()?;
        let says = match judge(ask, &view) {
            Verdict::Parked(parked) => format!("it would be parked: {}", parked.why),
            Verdict::Starts { server, snapshot } => format!("it would start persona {} on {server}", snapshot.persona),
        };
        Some(format!(
            "{}: {says}\nThis only shows it: a script is told at the machine's own address, and each one told is a start.\n",
            ask.mac
        ))
    }

    async fn answer(&self, ask: Ask, base: &str) -> Option<Answer> {
        let (view, lease) = self.desk.view()?;
        let to = For { base, mac: ask.mac };
        let snapshot = match judge(&ask, &view) {
            Verdict::Parked(parked) => {
                let answer = Answer::of(to, &parked);
                match &parked.server {
                    Some(server) if self.desk.is_due(server, true) => self.desk.tell(Message::Parked(parked)),
                    Some(_) => {}
                    None => self.stranger(&ask, &view),
                }
                return Some(answer);
            }
            Verdict::Starts { snapshot, .. } => snapshot,
        };
        let (asked, base) = (ask.clone(), base.to_owned());
        let answer = self.desk.ask(|reply| Message::Boot { ask: asked, base, reply }).await?;
        // No await from here on.
        if answer.persona.is_none() {
            return Some(answer);
        }
        let (view, _) = self.desk.view()?;
        let stands = matches!(judge(&ask, &view), Verdict::Starts { snapshot: now, .. } if now.digest == snapshot.digest);
        (stands && lease.holds()).then_some(answer)
    }

    fn stranger(&self, ask: &Ask, view: &crate::boot::view::View) {
        let network = ask.from.and_then(|from| view.network_of(from));
        let mut stranger =
            crate::control::timeline::Stranger::now(ask.mac, network.map_or("-", |n| n.name.as_str()), "a boot script".to_owned());
        stranger.uuid = ask.uuid.as_deref().and_then(crate::boot::answer::uuid);
        self.desk.timelines().met(stranger);
    }

    fn is_last(&self, server: &Name, token: &Token) -> bool {
        let Some(view) = self.desk.shared.view.borrow().clone() else { return false };
        view.machine_of(server).is_some_and(|machine| machine.run.as_ref() == Some(&token.nonce))
    }
}

/// Which files a machine fetched: stages of its start.
async fn fetched(State(http): State<Http>, request: Request, next: Next) -> Response {
    let ends = request.extensions().get::<Ends>().copied();
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let response = next.run(request).await;
    let server = ends.filter(|_| method == Method::GET).and_then(|ends| http.desk.server_at(ends.theirs.ip()));
    match server {
        Some(server) if response.status().is_success() => http.saw_file(&server, &path),
        Some(server) if response.status() == StatusCode::NOT_FOUND => {
            http.misses_file(&server, &path);
        }
        Some(server) if response.status() == StatusCode::INTERNAL_SERVER_ERROR && path.starts_with(IMAGE) => {
            let what = "its image is damaged: the log of the controller names the file, and `embody image verify` all of them";
            http.desk.failed(&server, what.to_owned());
        }
        Some(_) | None => {}
    }
    response
}

impl Http {
    /// What the last start of a server says in plain words, for people.
    fn is_told(&self, server: &str, token: &str, body: &Bytes, then: impl FnOnce(&Name, String)) -> Response {
        if self.desk.view().is_none_or(|(view, _)| view.key.is_none()) {
            return later();
        }
        let Some((server, _)) = self.desk.run_of(server, token).filter(|(server, token)| self.is_last(server, token)) else {
            return GONE.into_response();
        };
        let words: String = String::from_utf8_lossy(body).chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
        then(&server, words.trim().to_owned());
        StatusCode::NO_CONTENT.into_response()
    }

    /// Something that its script names is not there.
    fn misses_file(&self, server: &Name, path: &str) {
        if self.stage_of(server, path).is_some() {
            let (file, files) = (path.trim_start_matches("/files/").trim_start_matches(JOINED), self.desk.options.files.display());
            self.desk.failed(server, format!("its boot script asks for {}, and there is no such file in {files}", escaped(file)));
        }
    }

    fn saw_file(&self, server: &Name, path: &str) {
        if let Some(loader) = path.strip_prefix("/loader/") {
            return self.desk.saw(server, Stage::Loader, &format!("{loader} by HTTP"));
        }
        if let Some(stage) = self.stage_of(server, path) {
            self.desk.saw(server, stage, "");
        }
    }

    /// Of what its script names, which one a path is.
    fn stage_of(&self, server: &Name, path: &str) -> Option<Stage> {
        let view = self.desk.shared.view.borrow().clone()?;
        let standing = view.machine_of(server)?.standing.clone()?;
        if let Some(image) = &standing.image {
            return match path.strip_prefix(IMAGE)?.strip_prefix(image.as_str())?.trim_start_matches('/') {
                KERNEL => Some(Stage::Kernel),
                INITRD | STOCK_INITRD => Some(Stage::Initrd),
                _ => None,
            };
        }
        let kernel = standing.kernel.as_ref()?;
        let is_it = |file: &str| path.strip_prefix("/files/") == Some(file.trim_start_matches('/'));
        let is_initrd = kernel.initrd.as_deref().is_some_and(is_it) || joined::is_of(path, &kernel.initrds);
        if kernel.path.as_deref().is_some_and(is_it) { Some(Stage::Kernel) } else { is_initrd.then_some(Stage::Initrd) }
    }
}

pub(super) const GONE: (StatusCode, &str) = (StatusCode::GONE, "this is no token of this server's last start\n");

/// A step of the script failed.
async fn failed(State(http): State<Http>, Path((server, token, what)): Path<(String, String, String)>) -> Response {
    let Some((server, token)) = http.desk.run_of(&server, &token).filter(|(server, token)| http.is_last(server, token)) else {
        return GONE.into_response();
    };
    drop(token);
    http.desk.failed(&server, format!("the boot script says that its step `{}` failed", plain(&what)));
    text("\n".to_owned())
}

/// What is in the initrd failed, and says how.
async fn failed_in_words(State(http): State<Http>, Path((server, token)): Path<(String, String)>, body: Bytes) -> Response {
    http.is_told(&server, &token, &body, |server, words| http.desk.failed(server, format!("its initrd says: {words}")))
}

/// What is up, and is not ready, says what it waits for.
async fn waits_for(State(http): State<Http>, Path((server, token)): Path<(String, String)>, body: Bytes) -> Response {
    // Whoever has the token may say it, again and again.
    let is_due = |server: &Name| http.desk.timelines().is_news(server, "WaitsFor", limits::FAILED_TOLD_EVERY, Instant::now());
    http.is_told(&server, &token, &body, |server, what| {
        if is_due(server) {
            http.desk.tell(Message::WaitsFor { server: server.clone(), what });
        }
    })
}

async fn stage(State(http): State<Http>, Path((server, token, name)): Path<(String, String, String)>) -> Response {
    let stage = match name.as_str() {
        "initrd" => Stage::InitrdRuns,
        "root" => Stage::Root,
        _ => return (StatusCode::NOT_FOUND, "expected the stage initrd or root\n").into_response(),
    };
    // Whoever does not act, or not yet, cannot tell whose token it is.
    if http.desk.view().is_none_or(|(view, _)| view.key.is_none()) {
        return later();
    }
    let Some((server, _)) = http.desk.run_of(&server, &token).filter(|(server, token)| http.is_last(server, token)) else {
        return GONE.into_response();
    };
    http.desk.saw(&server, stage, "");
    http.desk.is_alive(&server);
    StatusCode::NO_CONTENT.into_response()
}

async fn hello(State(http): State<Http>, Path((server, token)): Path<(String, String)>, body: Bytes) -> Response {
    // Whoever does not act, or not yet, cannot tell whose token it is: a system that is told Gone may never say it again.
    if http.desk.view().is_none_or(|(view, _)| view.key.is_none()) {
        return later();
    }
    match http.desk.run_of(&server, &token) {
        Some((server, token)) => hello_of(&http.desk, server, token, &body).await,
        None => GONE.into_response(),
    }
}

/// The names of units (systemd.unit(5): printable, at most 255), some of them. They come from a system that may be anybody's: they are shown, and decide
/// nothing.
fn units(said: &[String]) -> Vec<String> {
    let units = said.iter().filter(|unit| !unit.is_empty() && unit.len() <= 255);
    units.take(limits::FAILED_UNITS).map(|unit| escaped(unit)).collect()
}

/// A hello, over TLS or not. One without words is one.
pub(super) async fn hello_of(desk: &Desk, server: Name, token: Token, body: &[u8]) -> Response {
    let said: embody_protocol::Hello = serde_json::from_slice(body).unwrap_or_default();
    let (failed, secret) = (units(&said.failed_units), (!said.secret.0.is_empty()).then_some(said.secret.0));
    match desk.ask(|reply| Message::Hello { server: server.clone(), token, secret, failed, reply }).await {
        Some(Hello::Taken) => {
            desk.saw(&server, Stage::Hello, "");
            StatusCode::NO_CONTENT.into_response()
        }
        Some(Hello::NotIt) => (StatusCode::FORBIDDEN, "this start is known by another secret\n").into_response(),
        Some(Hello::Another) => GONE.into_response(),
        Some(Hello::Later) | None => later(),
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
