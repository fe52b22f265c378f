//! Many connections that ask nothing: people and machines are answered all the same, and nothing else of the process suffers.
//!
//! Leaves out: what is answered (`tests/api.rs`, `tests/rack/boot.rs`). Real sockets; no figure here depends on how fast the machine is, but
//! for the time that a client would wait.

mod free_port;
mod site;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use embody::testing::boot::view::{Machine, View};
use embody::testing::clock::BootClock;
use embody::testing::control::booting::{Answer, Shared};
use embody::testing::control::controller::Message;
use embody::testing::model::server::Loader;
use embody::testing::server::{boot, listen};
use embody::testing::store::LeaseEnd;
use free_port::free_port;
use site::Site;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long iPXE waits for a byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// The boot endpoint, with a controller that answers with this persona, or not at all.
struct Boot {
    address: SocketAddr,
    lease: Arc<LeaseEnd>,
    asked: mpsc::Receiver<Message>,
    holds: watch::Sender<Option<Arc<LeaseEnd>>>,
    served: tokio::task::JoinHandle<()>,
}

/// Something stands for the machine that asks.
fn view() -> View {
    let snapshot = serde_json::json!({ "persona": "apache", "hostname": "h", "arch": "x86_64", "boot": "Pxe", "root": {}, "claims": [], "macs": [],
        "digest": "0123456789ab" });
    let standing = Some(Arc::new(serde_json::from_value(snapshot).unwrap()));
    let server = "s".parse().unwrap();
    let machine = Machine { server, boots_over: None, parked: None, standing, smbios: None, run: None, loader: Loader::Auto };
    let mut view = View::default();
    view.insert("52:54:00:00:00:01".parse().unwrap(), machine);
    view
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Boot {
    async fn start() -> Boot {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (to, asked) = mpsc::channel(64);
        let lease = LeaseEnd::never(BootClock::Kernel);
        let (holds, holding) = watch::channel(Some(Arc::clone(&lease)));
        let (_, controller) = watch::channel(Some(to));
        let options = boot::Options {
            address,
            always: true,
            files: "/nonexistent".into(),
            loaders: "/nonexistent".into(),
            vip: None,
            exchange: 443,
            keeper: None,
        };
        let shared = Shared { view: watch::Sender::new(Some(Arc::new(view()))), ..Shared::default() };
        let served = tokio::spawn(boot::serve(controller, holding, shared, watch::Sender::default(), options));
        let boot = Boot { address, lease, asked, holds, served };
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        boot
    }

    async fn send(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(b"GET /boot/52:54:00:00:00:01 HTTP/1.1\r\nHost: boot\r\nUser-Agent: iPXE/1.21.1+\r\n\r\n").await.unwrap();
        stream
    }

    /// The controller's answer to the next request.
    async fn answer(&mut self, persona: Option<&str>) {
        match timeout(PATIENCE, self.asked.recv()).await.unwrap() {
            Some(Message::Boot { reply, .. }) => {
                let persona = persona.map(|p| p.parse().unwrap());
                let _gone = reply.send(Answer { script: "#!ipxe\n".to_owned(), says: "so".to_owned(), persona });
            }
            _ => panic!("no boot request"),
        }
    }
}

async fn status(mut stream: TcpStream) -> u16 {
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn fifteen_hundred_who_ask_half_a_question_keep_nobody_from_an_answer() {
    listen::raise_files();
    let (site, mut boot) = (Site::start().await, Boot::start().await);
    let mut crowd = Vec::new();
    for _ in 0..1_500 {
        let mut stream = TcpStream::connect(boot.address).await.unwrap();
        let _turned_away = stream.write_all(b"GET /boot/02").await;
        crowd.push(stream);
    }
    let mut halves = Vec::new();
    for _ in 0..400 {
        let mut stream = UnixStream::connect(&site.socket).await.unwrap();
        let _turned_away = stream.write_all(b"GET /api HTTP/1.1\r\nHost").await;
        halves.push(stream);
    }
    let stream = boot.send().await;
    boot.answer(Some("apache")).await;
    assert_eq!(status(stream).await, 200);
    timeout(PATIENCE, site.create(site::network("web", 120))).await.unwrap();
    // Whoever went was told nothing, and holds nothing any more; the files of those that stay are bounded.
    let mut open = 0;
    for stream in &mut crowd {
        open += usize::from(timeout(Duration::from_millis(1), stream.read_u8()).await.is_err());
    }
    assert!(open <= embody::testing::limits::BOOT_CONNECTIONS, "{open} of {} are still open", crowd.len());
}

#[tokio::test]
async fn who_says_nothing_goes_after_a_while_and_who_says_too_much_at_once() {
    let boot = Boot::start().await;
    let mut silent = TcpStream::connect(boot.address).await.unwrap();
    silent.write_all(b"GET /boot/02").await.unwrap();
    let mut end = Vec::new();
    timeout(2 * embody::testing::limits::HEAD_WITHIN, silent.read_to_end(&mut end)).await.expect("it is closed").ok();
    let mut long = TcpStream::connect(boot.address).await.unwrap();
    long.write_all(format!("GET /boot/02 HTTP/1.1\r\nX: {}", "x".repeat(embody::testing::limits::BOOT_HEAD_BYTES)).as_bytes())
        .await
        .unwrap();
    assert_eq!(status(long).await, 431);
}

#[tokio::test]
async fn a_boot_answer_needs_the_lease_at_the_moment_when_it_is_given() {
    let mut boot = Boot::start().await;
    let stream = boot.send().await;
    boot.answer(Some("apache")).await;
    assert_eq!(status(stream).await, 200);
    // Lost between the controller's answer and the machine's.
    let stream = boot.send().await;
    while boot.asked.is_empty() {
        tokio::task::yield_now().await;
    }
    boot.lease.end();
    boot.answer(Some("apache")).await;
    assert_eq!(status(stream).await, 503);
    assert_eq!(status(boot.send().await).await, 503, "nobody is asked any more");
    boot.holds.send_replace(None);
    assert_eq!(status(boot.send().await).await, 503);
    let mut boot = Boot::start().await;
    let stream = boot.send().await;
    boot.answer(None).await;
    assert_eq!(status(stream).await, 200, "what the controller parks is told so");
}

#[tokio::test]
async fn a_controller_that_does_not_answer_holds_no_machine() {
    let boot = Boot::start().await;
    assert_eq!(status(boot.send().await).await, 503);
}

#[tokio::test]
async fn people_who_watch_keep_their_seats_and_more_of_them_are_told() {
    let site = Site::start().await;
    let mut watching = Vec::new();
    for _ in 0..embody::testing::limits::API_CONNECTIONS {
        watching.push(timeout(PATIENCE, site.send("GET", "/apis/embody.dev/v1alpha1/networks?watch=true", "", Vec::new())).await.unwrap());
    }
    let mut more = UnixStream::connect(&site.socket).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, more.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 503") && text.ends_with("too many connections\n"), "{text}");
    drop(watching.pop());
    timeout(PATIENCE, async {
        loop {
            let mut again = UnixStream::connect(&site.socket).await.unwrap();
            again.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok();
            let mut text = String::new();
            if again.read_to_string(&mut text).await.is_ok() && text.starts_with("HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}
