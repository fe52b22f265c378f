//! DHCP packets as they arrive: the payload of one.
//!
//! What reads is answered in each way that there is: the answer is no longer than a frame, reads by the same codec, is to the same client, gives no
//! address but one of the range or the machine's own, and no boot file to who asked for none.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::hold;
use crate::boot::dhcp::{Decision, Place, Serves, boot_server, decide};
use crate::boot::view::{BootNetwork, Machine, View};
use crate::boot::wire::{Firmware, Packet, Reply};
use crate::model::network::Boot;
use crate::model::server::Loader;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);

pub fn dhcp(bytes: &[u8]) -> Result<(), String> {
    let Ok(packet) = Packet::parse(bytes) else { return Ok(()) };
    let range = "10.7.0.100-10.7.0.199".parse().ok();
    let boot = Boot { range, ..Boot::default() };
    let (Ok(name), Ok(subnet)) = ("n".parse(), "10.7.0.0/24".parse()) else { return Ok(()) };
    let network = BootNetwork { name, subnet, router: None, quarantine: false, boot };
    let mut known = View::default();
    known.networks = Arc::new(vec![network.clone()]);
    let strange = known.clone();
    let machine = Machine {
        server: network.name.clone(),
        boots_over: None,
        parked: None,
        standing: None,
        smbios: None,
        run: None,
        loader: Loader::Auto,
    };
    known.insert(packet.mac, machine);
    for view in [&known, &strange] {
        for serves in [Serves::Nothing, Serves::Proxy, Serves::Reservations, Serves::Full] {
            let place = Place { network: &network, serves, own: OWN, base: "http://10.7.0.1", chained: false };
            match decide(&packet, &place, view, &|_, lease| lease.is_none()) {
                Decision::Answer(reply) | Decision::Lease { reply, .. } => answered(&packet, &reply, serves)?,
                Decision::Nothing(_) | Decision::Declined(_) => {}
            }
            if let Some(reply) = boot_server(&packet, &place, view) {
                answered(&packet, &reply, Serves::Proxy)?;
            }
        }
    }
    Ok(())
}

fn answered(packet: &Packet, reply: &Reply, serves: Serves) -> Result<(), String> {
    hold(packet.is_request && serves != Serves::Nothing, || format!("what nobody asked is answered: {packet:?}"))?;
    let bytes = packet.answer(reply).map_err(|why| format!("an answer to {packet:?} cannot be written: {why}"))?;
    hold((300..=1_500).contains(&bytes.len()), || format!("{} octets answer {packet:?}", bytes.len()))?;
    let read = Packet::parse(&bytes).map_err(|why| format!("the answer to {packet:?} does not read: {why}"))?;
    let same =
        (read.is_request, read.mac, read.giaddr, read.kind, read.server) == (false, packet.mac, packet.giaddr, reply.kind, Some(OWN));
    hold(same, || format!("{read:?} answers {packet:?}"))?;
    let given = read.yiaddr;
    let good = given.is_unspecified() || (serves != Serves::Proxy && given.octets()[3] >= 100 && given.octets()[3] <= 199);
    hold(good, || format!("{given} is given to {packet:?}"))?;
    let wants = packet.firmware != Firmware::None || packet.ipxe.is_some();
    hold(wants || reply.file.is_none(), || format!("a boot file for {packet:?}"))
}
