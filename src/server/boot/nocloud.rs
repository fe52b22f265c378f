//! What cloud-init is told of a system that has no agent of ours: the datasource NoCloud, below the address of its start.
//!
//! Leaves out: whatever is nobody else's to know (this is plain HTTP): keys and files are told to our agent alone (`exchange`). Invariant: it says the same as the
//! identity of that binding. Shown by `tests/boot/nocloud.rs`; the formats: cloud-init's documentation, "NoCloud" and "Networking config Version 2".

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use embody_protocol::{Addressing, Identity, Link};
use serde_json::{Map, Value, json};

use super::Desk;
use super::http::{GONE, later};
use crate::control::controller::Message;

pub(super) async fn told(State(desk): State<Desk>, Path((server, token, what)): Path<(String, String, String)>) -> Response {
    if desk.view().is_none_or(|(view, _)| view.key.is_none()) {
        return later();
    }
    let Some((server, token)) = desk.run_of(&server, &token) else { return GONE.into_response() };
    let Some(identity) = desk.ask(|reply| Message::Describe { server, token, reply }).await else { return later() };
    let Some(identity) = identity else { return GONE.into_response() };
    let text = match what.as_str() {
        // JSON is YAML.
        "meta-data" => meta_data(&identity).to_string(),
        "network-config" => network_config(&identity).to_string(),
        "user-data" => format!("#cloud-config\n{}", user_data()),
        "vendor-data" => String::new(),
        _ => return (StatusCode::NOT_FOUND, "expected meta-data, user-data, vendor-data or network-config\n").into_response(),
    };
    ([(header::CONTENT_TYPE, "text/yaml; charset=utf-8")], text).into_response()
}

fn meta_data(identity: &Identity) -> Value {
    // Another instance is set up anew: this one is the same on whichever machine.
    json!({ "instance-id": identity.machine_id, "local-hostname": identity.hostname })
}

/// What its image says is not undone.
fn user_data() -> Value {
    json!({ "preserve_hostname": false, "manage_etc_hosts": true })
}

fn network_config(identity: &Identity) -> Value {
    let (mut ethernets, mut bonds, mut vlans) = (Map::new(), Map::new(), Map::new());
    for link in &identity.links {
        let own = link.untagged.as_ref().map(addressing).unwrap_or_default();
        if link.bond && !link.boot {
            let mut members = Vec::new();
            for (n, mac) in link.macs.iter().enumerate() {
                members.push(format!("{}-{n}", link.name));
                ethernets.insert(format!("{}-{n}", link.name), json!({ "match": { "macaddress": mac } }));
            }
            let mut bond = own;
            bond.insert("interfaces".to_owned(), json!(members));
            bond.insert(
                "parameters".to_owned(),
                json!({ "mode": "802.3ad", "mii-monitor-interval": 100, "transmit-hash-policy": "layer3+4" }),
            );
            bonds.insert(link.name.clone(), Value::Object(bond));
        } else if let Some(mac) = link.macs.first() {
            ethernets.insert(link.name.clone(), card(link, mac, own));
        }
        for tagged in &link.vlans {
            let mut vlan = addressing(&tagged.addressing);
            vlan.insert("id".to_owned(), json!(tagged.vlan));
            vlan.insert("link".to_owned(), json!(link.name));
            vlans.insert(format!("{}.{}", link.name, tagged.vlan), Value::Object(vlan));
        }
    }
    let mut config = Map::from_iter([("version".to_owned(), json!(2)), ("ethernets".to_owned(), Value::Object(ethernets))]);
    for (kind, of) in [("bonds", bonds), ("vlans", vlans)] {
        if !of.is_empty() {
            config.insert(kind.to_owned(), Value::Object(of));
        }
    }
    Value::Object(config)
}

/// The card that the root is read over is never taken down.
fn card(link: &Link, mac: &str, mut own: Map<String, Value>) -> Value {
    own.insert("match".to_owned(), json!({ "macaddress": mac }));
    if link.boot {
        own.insert("critical".to_owned(), json!(true));
    }
    Value::Object(own)
}

fn addressing(of: &Addressing) -> Map<String, Value> {
    let mut out = Map::new();
    if of.dhcp && of.addresses.is_empty() {
        out.insert("dhcp4".to_owned(), json!(true));
    }
    if !of.addresses.is_empty() {
        out.insert("addresses".to_owned(), json!(of.addresses));
    }
    if let Some(gateway) = of.gateway {
        let to = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        out.insert("routes".to_owned(), json!([{ "to": to, "via": gateway, "metric": of.metric }]));
    }
    if let Some(mtu) = of.mtu {
        out.insert("mtu".to_owned(), json!(mtu));
    }
    if !of.dns.is_empty() {
        let search: Vec<&String> = of.domain.iter().collect();
        out.insert("nameservers".to_owned(), json!({ "addresses": of.dns, "search": search }));
    }
    out
}
