//! A relay in front of a BMC, which counts what passes and can swallow it all.
//!
//! Leaves out: reading what is inside sessions. It serves one client: the controller's one socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

#[derive(Default)]
pub struct Counts {
    pub datagrams: AtomicUsize,
    /// RAKP 1: each is an attempt to log in.
    pub logins: AtomicUsize,
    pub silent: AtomicBool,
}

pub struct Tap {
    pub port: u16,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Tap {
    pub async fn before(port: u16) -> Tap {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(("127.0.0.1", port)).await.unwrap();
        let counts = Arc::new(Counts::default());
        let port = front.local_addr().unwrap().port();
        let task = tokio::spawn(relay(front, back, Arc::clone(&counts)));
        Tap { port, counts, task }
    }

    pub fn datagrams(&self) -> usize {
        self.counts.datagrams.load(Ordering::SeqCst)
    }

    pub fn logins(&self) -> usize {
        self.counts.logins.load(Ordering::SeqCst)
    }

    pub fn silence(&self, silent: bool) {
        self.counts.silent.store(silent, Ordering::SeqCst);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(front: UdpSocket, back: UdpSocket, counts: Arc<Counts>) {
    let (mut there, mut here) = ([0u8; 2048], [0u8; 2048]);
    let mut client = None;
    loop {
        tokio::select! {
            biased;
            Ok((n, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                counts.datagrams.fetch_add(1, Ordering::SeqCst);
                // IPMI 2.0, table 13-8: authentication type 06h (RMCP+), payload type 12h (RAKP message 1).
                if n > 5 && there[4] == 0x06 && there[5] & 0x3f == 0x12 {
                    counts.logins.fetch_add(1, Ordering::SeqCst);
                }
                if !counts.silent.load(Ordering::SeqCst) {
                    let _nobody_there = back.send(&there[..n]).await;
                }
            }
            Ok(n) = back.recv(&mut here) => {
                if let Some(client) = client.filter(|_| !counts.silent.load(Ordering::SeqCst)) {
                    let _nobody_there = front.send_to(&here[..n], client).await;
                }
            }
            else => tokio::task::yield_now().await,
        }
    }
}
