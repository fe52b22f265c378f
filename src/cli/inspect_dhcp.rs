//! `embody inspect dhcp`: the lines that a DHCP server of one's own needs, so that machines boot by `embody` without its addresses.
//!
//! Leaves out: that server. Invariant: the lines are whole for BIOS PXE, UEFI PXE, UEFI HTTP boot and iPXE, and name what `server::boot` serves.
//! Shown by `tests/boot/inspected.rs`, where dnsmasq with exactly these lines boots a client.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::failure::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    Dnsmasq,
    Kea,
}

#[derive(Args)]
pub(crate) struct DhcpArgs {
    /// Where machines reach embody's boot services: http://ADDRESS or http://ADDRESS:PORT
    #[arg(value_name = "URL")]
    url: String,
    /// For which server
    #[arg(long, value_enum, default_value = "dnsmasq")]
    of: Server,
}

pub(super) fn lines(args: &DhcpArgs) -> Result<String, Failure> {
    let url = args.url.trim_end_matches('/');
    let address = url
        .strip_prefix("http://")
        .map(|rest| rest.split(':').next().unwrap_or(rest))
        .filter(|host| host.parse::<std::net::Ipv4Addr>().is_ok());
    let Some(address) = address else {
        return Err(Failure::usage(format!(
            "found `{}`, expected http:// and an IPv4 address: http://10.1.10.5 or http://10.1.10.5:8080",
            args.url
        )));
    };
    Ok(match args.of {
        Server::Dnsmasq => dnsmasq(url, address),
        Server::Kea => kea(url, address),
    })
}

/// dnsmasq(8): tags by vendor class, architecture (RFC 4578, 2.1) and user class.
fn dnsmasq(url: &str, address: &str) -> String {
    format!(
        "# An iPXE, in the firmware or ours, gets the script.\n\
         dhcp-match=set:ipxe,175\n\
         dhcp-userclass=set:ipxe,iPXE\n\
         dhcp-vendorclass=set:http,HTTPClient\n\
         dhcp-match=set:efi,option:client-arch,7\n\
         dhcp-match=set:efi,option:client-arch,9\n\
         dhcp-boot=tag:ipxe,{url}/boot.ipxe\n\
         # UEFI HTTP boot: the loader by HTTP, and its class in the answer.\n\
         dhcp-option-force=tag:http,tag:!ipxe,60,HTTPClient\n\
         dhcp-boot=tag:http,tag:!ipxe,{url}/loader/snponly.efi\n\
         # PXE: the loader by TFTP from embody.\n\
         dhcp-boot=tag:efi,tag:!http,tag:!ipxe,snponly.efi,,{address}\n\
         dhcp-boot=tag:!efi,tag:!http,tag:!ipxe,undionly.kpxe,,{address}\n\
         # iPXE does not wait for a proxy.\n\
         dhcp-option-force=tag:ipxe,175,8:1:1\n"
    )
}

/// Kea's client classes (Kea administrator's guide, "Client Classification"), for its `Dhcp4` object.
fn kea(url: &str, address: &str) -> String {
    const IPXE: &str = "substring(option[77].hex,0,4) == 'iPXE' or option[175].exists";
    let class = |name: &str, test: &str, file: &str, more: Value| {
        let mut class = json!({ "name": name, "test": format!("{test} and not ({IPXE})"), "boot-file-name": file, "next-server": address });
        class.as_object_mut().into_iter().for_each(|class| class.extend(more.as_object().cloned().unwrap_or_default()));
        class
    };
    let is = |class: &str| format!("substring(option[60].hex,0,{}) == '{class}'", class.len());
    let (pxe, http) = (is("PXEClient"), is("HTTPClient"));
    let said = json!({ "option-data": [{ "name": "vendor-class-identifier", "data": "HTTPClient", "always-send": true }] });
    let efi = format!("(option[93].hex == 0x0007 or option[93].hex == 0x0009) and {pxe}");
    let classes = [
        json!({ "name": "embody-ipxe", "test": IPXE, "boot-file-name": format!("{url}/boot.ipxe"), "next-server": address }),
        class("embody-http", &http, &format!("{url}/loader/snponly.efi"), said),
        class("embody-efi", &efi, "snponly.efi", json!({})),
        class("embody-bios", &format!("option[93].hex == 0x0000 and {pxe}"), "undionly.kpxe", json!({})),
    ];
    format!("{}\n", serde_json::to_string_pretty(&json!({ "client-classes": classes })).unwrap_or_default())
}
