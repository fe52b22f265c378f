//! The address that moves with the lease: whoever holds that has it on an interface, and everything that machines are told names it.
//!
//! Leaves out: how an address is put there (`network::vip`). Invariant: nothing is decided here before the address is there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::{Notify, watch};

use super::Desk;
use super::network::vip::{Claim, Vip, claim};
use crate::server::api::fault::chain;

const CONDITION: &str = "BootAddressHeld";
/// After an address that could not be had: who had it before may be about to let it go.
const AGAIN: Duration = Duration::from_secs(1);

/// Until the process ends.
pub(super) async fn serve(desk: Desk, address: Ipv4Net, interface: Option<String>) {
    let mut lease = desk.lease.clone();
    loop {
        if lease.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let Some(vip) = taken(&desk, address, interface.as_deref()).await else { continue };
        desk.condition(CONDITION, true, "Held", format!("{address} on {}", vip.interface()));
        tracing::info!(address = %address, interface = vip.interface(), "the boot address is here");
        desk.has_address.store(true, Ordering::Release);
        let (stop, stopped) = watch::channel(false);
        let again = Notify::new();
        let ended = tokio::select! {
            biased;
            // Lost, or given back: taken away at once.
            _ = lease.wait_for(Option::is_none) => {
                desk.has_address.store(false, Ordering::Release);
                drop(stop);
                None
            }
            held = vip.hold(&again, stopped) => Some(held),
        };
        desk.has_address.store(false, Ordering::Release);
        match ended {
            Some(Err(error)) => desk.condition(CONDITION, false, "NotHeld", chain(&error)),
            Some(Ok(())) | None => tracing::info!(address = %address, "the boot address is given back"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The address, or a condition and nothing.
async fn taken(desk: &Desk, address: Ipv4Net, interface: Option<&str>) -> Option<Vip> {
    match claim(address, interface).await {
        Ok(Claim::Held(vip)) => return Some(vip),
        Ok(Claim::Conflict { by }) => {
            let by = by.map(|octet| format!("{octet:02x}")).join(":");
            desk.condition(
                CONDITION,
                false,
                "AddressInUse",
                format!("{by} answers for the boot address {address}: nothing is booted until it is free"),
            );
        }
        Err(error) => desk.condition(CONDITION, false, "NotHeld", chain(&error)),
    }
    tokio::time::sleep(AGAIN).await;
    None
}
