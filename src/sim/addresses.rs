//! How machines of the data centre get addresses on the networks over which they boot: by `boot::dhcp` and the published view, as
//! `server::boot::dhcp` gives them.
//!
//! Firmware keeps what it got until its machine begins anew; what runs asks for its own and renews it. On other networks somebody else gives
//! addresses. Leaves out: packets. Invariant: what was offered is known to one process, and lost with it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use dhcproto::v4::DhcpOption;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::centre::{ANSWER_WAIT, ASK_AGAIN, Answers, Centre};
use super::checkers::Host;
use crate::boot::dhcp::{Decision, Place, Serves, Why, decide};
use crate::boot::view::{Lease, View};
use crate::boot::wire::{self, Firmware, Kind, Packet, Reply};
use crate::control::controller::Message;
use crate::model::fact::Admin;
use crate::model::{Mac, Name};
use crate::server::boot::pool::Pool;
use crate::store::LeaseEnd;

/// How long it takes at most until a system sees that its link was down.
const LINK_SEEN: Duration = Duration::from_secs(60);

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Had {
    address: Ipv4Addr,
    network: Name,
}

/// What the process that acts knows of addresses beside the view.
pub(super) struct Desk {
    lease: Arc<LeaseEnd>,
    pool: Pool,
    since: Instant,
}

/// Who asks, and how.
struct Client {
    mac: Mac,
    network: Name,
    firmware: Firmware,
}

/// What came of an exchange.
enum Got {
    Address(Ipv4Addr, Duration),
    Refused,
    Nothing,
}

impl Client {
    fn packet(&self, kind: Kind, requested: Option<Ipv4Addr>, server: Option<Ipv4Addr>) -> Option<Packet> {
        let packet = Packet::parse(&wire::discover(self.mac, 1)).ok()?;
        Some(Packet { kind, firmware: self.firmware, arch: Some(7), requested, server, ..packet })
    }

    fn renews(&self, address: Ipv4Addr) -> Option<Packet> {
        Some(Packet { ciaddr: address, ..self.packet(Kind::Request, None, None)? })
    }
}

impl Centre {
    /// The network of its port, if machines boot over it.
    fn network_of(&self, server: &Name) -> Option<Name> {
        let mac = self.state().machines.get(server)?.mac;
        let objects = self.judge(|judge, _| judge.objects().clone());
        let nic = objects.servers.get(server)?.spec.nics.iter().find(|nic| nic.mac == mac)?;
        let port = nic.port.as_ref()?;
        let view = self.switch(nic.switch.as_ref()?, |sim| sim.views().get(port).cloned())??;
        let vlan = view.ingress.filter(|_| view.admin == Admin::Up)?;
        let mut networks = objects.networks.iter().filter(|(_, held)| held.spec.vlan == vlan && held.spec.boots().next().is_some());
        networks.next().map(|(name, _)| name.clone())
    }

    /// As its firmware does before it asks for a script: the address that it asks from. `Err`: it gets none where it needs one.
    pub(super) async fn looks_for_address(&self, server: &Name, start: u64, answers: &Answers) -> Result<Option<Ipv4Addr>, ()> {
        let network = self.network_of(server);
        let (mac, has) = {
            let mut state = self.state();
            let machine = state.machines.get_mut(server).ok_or(())?;
            if machine.starts.has.as_ref().map(|has| &has.network) != network.as_ref() {
                machine.starts.has = None;
            }
            (machine.asks_as(), machine.starts.has.clone())
        };
        let Some(network) = network else {
            self.judge(|judge, _| judge.uses(server, None));
            return Ok(None);
        };
        if let Some(has) = has {
            return Ok(Some(has.address));
        }
        let client = Client { mac, network, firmware: Firmware::Pxe };
        match self.exchange(&client, answers).await {
            Got::Address(address, _) => Ok(self.has(server, start, &client, Some(address)).then_some(address)),
            Got::Refused | Got::Nothing => {
                self.has(server, start, &client, None);
                Err(())
            }
        }
    }

    /// What runs asks for its own address, and keeps it while it runs.
    pub(super) async fn system_has_address(self: &Arc<Self>, server: &Name, start: u64, answers: &Answers) {
        let mac = self.state().machines.get(server).map(|machine| machine.asks_as());
        let (Some(mac), Some(network)) = (mac, self.network_of(server)) else { return };
        let client = Client { mac, network, firmware: Firmware::None };
        // Its firmware's ends with it.
        self.has(server, start, &client, None);
        let got = self.asks_for_address(server, start, &client, answers).await;
        let (centre, server, answers) = (Arc::clone(self), server.clone(), answers.clone());
        tokio::spawn(async move { centre.keeps_address(&server, start, client, got, &answers).await });
    }

    async fn keeps_address(&self, server: &Name, start: u64, mut client: Client, mut got: Option<(Ipv4Addr, Duration)>, answers: &Answers) {
        loop {
            let Some((address, lasts)) = got else {
                sleep(ASK_AGAIN).await;
                if !self.is_up(server, start) {
                    return;
                }
                // Its port may be in another network by now.
                let Some(network) = self.network_of(server) else { continue };
                client.network = network;
                got = self.asks_for_address(server, start, &client, answers).await;
                continue;
            };
            // RFC 2131, 4.4.5.
            let until = Instant::now() + lasts;
            got = None;
            let renews_at = Instant::now() + lasts / 2;
            while self.is_up(server, start) && Instant::now() < until {
                // A port that is put into another network goes down and up, and a client that sees that begins anew.
                if self.network_of(server).as_ref() != Some(&client.network) {
                    break;
                }
                if Instant::now() < renews_at {
                    sleep(LINK_SEEN).await;
                    continue;
                }
                match self.answered_dhcp(&client, client.renews(address).as_ref(), answers).await {
                    Got::Address(address, lasts) => {
                        got = self.has(server, start, &client, Some(address)).then_some((address, lasts));
                        break;
                    }
                    Got::Refused => break,
                    Got::Nothing => sleep(ASK_AGAIN * 2).await,
                }
            }
            if got.is_none() && !self.has(server, start, &client, None) {
                return;
            }
        }
    }

    async fn asks_for_address(&self, server: &Name, start: u64, client: &Client, answers: &Answers) -> Option<(Ipv4Addr, Duration)> {
        let Got::Address(address, lasts) = self.exchange(client, answers).await else { return None };
        (self.has(server, start, client, Some(address)) && self.is_up(server, start)).then_some((address, lasts))
    }

    /// Uses this from now on, or none; not where the machine has begun anew meanwhile.
    fn has(&self, server: &Name, start: u64, client: &Client, address: Option<Ipv4Addr>) -> bool {
        let now = self.now();
        let mut state = self.state();
        let Some(machine) = state.machines.get_mut(server).filter(|machine| machine.start == start) else { return false };
        let has = address.map(|address| Had { address, network: client.network.clone() });
        if machine.starts.has != has {
            let text = address.map_or("has no address".to_owned(), |address| format!("has address {address} on {}", client.network));
            machine.starts.has = has;
            state.trace.note(now, &[server], text);
        }
        state.judge.uses(server, address);
        if state.judge.violation.is_some() {
            self.broken.notify_one();
        }
        true
    }

    // ---- the exchange -----------------------------------------------------------------------------------------------------

    /// Discover, offer, request, acknowledgement.
    async fn exchange(&self, client: &Client, answers: &Answers) -> Got {
        let offered = match self.reply_to(client.packet(Kind::Discover, None, None).as_ref(), client, answers) {
            Some((_, Decision::Answer(reply))) if reply.kind == Kind::Offer => reply,
            _ => return Got::Nothing,
        };
        // A second between the two, in which others ask.
        sleep(Duration::from_secs(1)).await;
        let request = client.packet(Kind::Request, Some(offered.yiaddr), Some(offered.server));
        self.answered_dhcp(client, request.as_ref(), answers).await
    }

    async fn answered_dhcp(&self, client: &Client, packet: Option<&Packet>, answers: &Answers) -> Got {
        let got = |reply: &Reply| match reply.kind {
            Kind::Ack => Got::Address(reply.yiaddr, lasts(reply)),
            Kind::Nak => Got::Refused,
            _ => Got::Nothing,
        };
        match self.reply_to(packet, client, answers) {
            Some((_, Decision::Answer(reply))) => got(&reply),
            Some((host, Decision::Lease { address, reply })) => {
                let given = timeout(ANSWER_WAIT, self.given(host, client, address, answers)).await;
                given.ok().flatten().map_or(Got::Nothing, |()| got(&reply))
            }
            Some((_, Decision::Nothing(_) | Decision::Declined(_))) | None => Got::Nothing,
        }
    }

    /// What the process that acts says, while its lease holds.
    fn reply_to(&self, packet: Option<&Packet>, client: &Client, answers: &Answers) -> Option<(Host, Decision)> {
        let (packet, (host, lease, shared)) = (packet?, answers.holds.borrow().clone()?);
        let view = shared.view.borrow().clone()?;
        if !lease.holds() || !self.freezer.is_running(host) {
            return None;
        }
        let network = view.networks.iter().find(|network| network.name == client.network)?;
        let (own, now) = (network.subnet.hosts().next()?, Instant::now());
        let place = Place { network, serves: Serves::Full, own, base: "http://192.0.2.1", chained: false };
        let mut desk = self.desk();
        let desk = match &mut *desk {
            Some(known) if Arc::ptr_eq(&known.lease, &lease) => known,
            other => other.insert(Desk { lease, pool: Pool::default(), since: now }),
        };
        desk.pool.heard(client.mac, now);
        let decision = desk.decide(packet, &place, &view, now);
        answers.is_alive(client.mac);
        match &decision {
            Decision::Answer(reply) if reply.kind == Kind::Offer => desk.pool.offer(client.mac, reply.yiaddr, now),
            _ => {}
        }
        Some((host, decision))
    }

    /// Stored, and still to be said.
    async fn given(&self, host: Host, client: &Client, address: Ipv4Addr, answers: &Answers) -> Option<()> {
        let (_, lease, _) = answers.holds.borrow().clone().filter(|(holder, ..)| *holder == host)?;
        let to_controller = answers.controller.borrow().clone()?;
        let (reply, answer) = oneshot::channel();
        let addresses = vec![(address, client.mac, client.network.clone())];
        to_controller.send(Message::Give { addresses, reply }).await.ok()?;
        let stored = answer.await.ok()?.first().copied()?;
        self.freezer.awake(host).await;
        match stored {
            true => lease.holds().then_some(()),
            false => {
                if let Some(desk) = self.desk().as_mut().filter(|desk| Arc::ptr_eq(&desk.lease, &lease)) {
                    desk.pool.decline(address, Instant::now());
                }
                None
            }
        }
    }
}

impl Desk {
    fn decide(&self, packet: &Packet, place: &Place<'_>, view: &View, now: Instant) -> Decision {
        let is_free = |address: Ipv4Addr, lease: Option<&Lease>, reclaims: bool| {
            self.pool.is_free(packet.mac, address, lease, view, reclaims.then_some(self.since), now)
        };
        match decide(packet, place, view, &|address, lease| is_free(address, lease, false)) {
            Decision::Nothing(Why::RangeIsFull) => decide(packet, place, view, &|address, lease| is_free(address, lease, true)),
            decision => decision,
        }
    }
}

/// For how long an address is given.
fn lasts(reply: &Reply) -> Duration {
    let seconds =
        reply.options.iter().find_map(|option| if let DhcpOption::AddressLeaseTime(seconds) = option { Some(*seconds) } else { None });
    Duration::from_secs(seconds.unwrap_or(600).into())
}
