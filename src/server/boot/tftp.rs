//! TFTP (RFC 1350, with the options of RFC 2348, 2349 and 7440): the loaders, and nothing else; the protocol is async-tftp's.
//!
//! One server for each address that is ours on a network over which machines boot, so that a transfer comes from the address that it was asked of.
//! Invariant: no file but the loaders is read, and no more transfers run at a time than `limits` says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_tftp::packet::Error;
use async_tftp::server::{Handler, TftpServerBuilder};
use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::Desk;
use super::http::LOADERS;
use super::network::interfaces;
use crate::control::timeline::Stage;
use crate::limits;

/// RFC 1350, section 4 (IANA: tftp).
const PORT: u16 = 69;
/// Firmware asks for a window of 4 or 8 of 1,468 octets; more is a burst that its buffers drop.
const WINDOW: u16 = 16;
const CONDITION: &str = "TftpServed";
/// How often it is looked which addresses there are.
const LOOKS: Duration = Duration::from_secs(2);

/// Serves until the process ends, at the addresses that there are.
pub(super) async fn serve(desk: Desk) {
    let mut at: BTreeMap<Ipv4Addr, JoinHandle<()>> = BTreeMap::new();
    let running = Running::default();
    loop {
        let Some(wanted) = wanted(&desk) else {
            // Whoever acts here next finds what there was.
            tokio::time::sleep(LOOKS).await;
            continue;
        };
        at.retain(|address, task| {
            let stays = wanted.contains(address) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        let mut refused = None;
        for address in wanted {
            if at.contains_key(&address) {
                continue;
            }
            match start(&desk, address, &running) {
                Ok(task) => drop(at.insert(address, task)),
                Err(error) => {
                    let hint = super::of_ports(&error);
                    refused = Some((
                        hint.0,
                        format!("UDP port {PORT} of {address} cannot be used: {error}; machines that boot by PXE get no loader{}", hint.1),
                    ));
                }
            }
        }
        if !at.is_empty() {
            desk.loaders_are_there();
        }
        match refused {
            Some((reason, message)) => desk.condition(CONDITION, false, reason, message),
            None if !at.is_empty() => desk.condition(CONDITION, true, "Listening", format!("on UDP port {PORT}")),
            None => {}
        }
        tokio::time::sleep(LOOKS).await;
    }
}

/// Our addresses on networks over which machines boot.
fn wanted(desk: &Desk) -> Option<BTreeSet<Ipv4Addr>> {
    let view = desk.shared.view.borrow().clone()?;
    if view.networks.is_empty() {
        return Some(BTreeSet::new());
    }
    let all = interfaces::look().ok()?;
    let ours = all.iter().flat_map(|interface| &interface.v4).map(ipnet::Ipv4Net::addr);
    Some(ours.filter(|address| view.network_of(*address).is_some()).collect())
}

fn start(desk: &Desk, address: Ipv4Addr, running: &Running) -> io::Result<JoinHandle<()>> {
    let socket = std::net::UdpSocket::bind(SocketAddr::from((address, PORT)))?;
    let loaders = Loaders { desk: desk.clone(), running: Arc::clone(running) };
    let builder = TftpServerBuilder::with_handler(loaders).std_socket(socket).map_err(io::Error::other)?;
    let builder = builder.timeout(Duration::from_secs(2)).max_send_retries(10).window_size_limit(WINDOW);
    Ok(tokio::spawn(async move {
        if let Ok(server) = builder.build().await
            && let Err(error) = server.serve().await
        {
            tracing::warn!(error = %error, "TFTP ended; it begins again");
        }
    }))
}

struct Loaders {
    desk: Desk,
    running: Running,
}

/// Transfers on their way, by whom they are to.
type Running = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// Its place among them; given back when it is dropped.
struct Place {
    to: IpAddr,
    running: Running,
}

impl Place {
    fn take(running: &Running, to: IpAddr) -> Option<Place> {
        let mut by = running.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = by.values().sum();
        let of_it = by.entry(to).or_default();
        if all >= limits::TFTP_TRANSFERS || *of_it >= limits::TFTP_OF_ONE {
            return None;
        }
        *of_it += 1;
        drop(by);
        Some(Place { to, running: Arc::clone(running) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_it) = by.get_mut(&self.to) {
            *of_it -= 1;
        }
        by.retain(|_, of_it| *of_it > 0);
    }
}

/// A loader in memory, on its way to one machine.
struct Transfer {
    rest: Bytes,
    _place: Place,
}

impl AsyncRead for Transfer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let most = into.len().min(self.rest.len());
        let part = self.rest.split_to(most);
        into.iter_mut().zip(part.iter()).for_each(|(to, from)| *to = *from);
        Poll::Ready(Ok(most))
    }
}

/// Nothing is ever written.
struct Never;

impl AsyncWrite for Never {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Handler for Loaders {
    type Reader = Transfer;
    type Writer = Never;

    async fn read_req_open(&mut self, client: &SocketAddr, path: &Path) -> Result<(Transfer, Option<u64>), Error> {
        let name = path.to_str().unwrap_or_default().trim_start_matches('/');
        // Some firmware adds what was in the field of the file beyond its end.
        let name = name.trim_end_matches(|c: char| !c.is_ascii_graphic());
        let Some(name) = LOADERS.into_iter().find(|loader| *loader == name) else { return Err(Error::FileNotFound) };
        let Some(place) = Place::take(&self.running, client.ip().to_canonical()) else {
            return Err(Error::Msg("too many transfers at a time, ask again".to_owned()));
        };
        let mut transfer = Transfer { rest: Bytes::new(), _place: place };
        // A few hundred kilobytes, in the page cache after the first one.
        let read = std::fs::read(self.desk.options.loaders.join(name)).map_err(|_| {
            self.desk.loaders_are_there();
            Error::FileNotFound
        })?;
        transfer.rest = Bytes::from(read);
        if let Some(server) = self.desk.server_at(client.ip()) {
            self.desk.saw(&server, Stage::Loader, &format!("{name} by TFTP"));
        }
        let size = transfer.rest.len() as u64;
        Ok((transfer, Some(size)))
    }

    async fn write_req_open(&mut self, _: &SocketAddr, _: &Path, _: Option<u64>) -> Result<Never, Error> {
        Err(Error::PermissionDenied)
    }
}
