//! A rack, or ten, that asks at once; and a range that is too small.

use super::site::{MACS, Plan, Site, end, is_missing, of};

const CLIENTS: usize = 1_000;

fn mac(n: usize) -> String {
    format!("02:00:00:01:{:02x}:{:02x}", n >> 8, n & 255)
}

/// Two thirds of the crowd are NICs of servers.
fn known() -> String {
    let macs: Vec<String> = (0..CLIENTS).filter(|n| n % 3 != 2).map(mac).collect();
    let server = |(n, macs): (usize, &[String])| {
        let nics: Vec<String> = macs.iter().enumerate().map(|(i, mac)| format!("{{ name: nic{i}, mac: \"{mac}\" }}")).collect();
        format!(
            "---\napiVersion: embody.dev/v1alpha1\nkind: Server\nmetadata: {{ name: many-{n} }}\nspec: {{ bmc: {{ address: \"127.64.2.{}:6230\", secretRef: \
             {{ name: bmc }} }}, nics: [ {} ] }}\n",
            n + 1,
            nics.join(", ")
        )
    };
    macs.chunks(32).enumerate().map(server).collect()
}

fn resident(id: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_thousand_machines_at_once_get_an_address_each() {
    if is_missing() {
        return;
    }
    let more = known();
    let boot = "range: 10.7.4.0-10.7.11.255";
    let mut site = Site::with(Plan { boot, subnet: "10.7.0.0/20", more: &more, ..Plan::default() }).await;
    site.gives().await;
    let id = site.controller.process().id();
    let before = resident(id, "VmRSS");
    let mut least = f64::MAX;
    for round in ["first", "again"] {
        let words = format!("crowd eth0 --as uefi --clients {CLIENTS} --seconds 60 --mac {} --retry 2,4,8,16", mac(0));
        let steps = site.client(&words).await;
        let crowd = end(&steps);
        assert_eq!(crowd["result"], "all", "{crowd}");
        assert!(crowd["addresses"] == CLIENTS && crowd["duplicates"].as_array().unwrap().is_empty() && crowd["naks"] == 0, "{crowd}");
        println!(
            "{round}: offers {}, acks {}, leases {}, sent again {}",
            crowd["offer_s"], crowd["ack_s"], crowd["lease_s"], crowd["again"]
        );
        least = least.min(crowd["lease_s"]["longest"].as_f64().unwrap());
    }
    let (now, most) = (resident(id, "VmRSS"), resident(id, "VmHWM"));
    println!("resident: {before} MiB before, {now} MiB afterwards, {most} MiB at most");
    assert!(most < before + 200, "{before} {most}");
    assert!(least < 30.0, "{least}");
    let leases = site.controller.run(&["get", "leases"]).await;
    assert_eq!(leases.lines().filter(|line| line.contains("02:00:00:01:")).count(), CLIENTS);
    assert!(leases.contains("many-0") && !leases.contains("10.7.0.1 "), "{leases}");
    let rows = site.controller.run(&["get", "discovered"]).await;
    assert_eq!(rows.lines().filter(|line| line.contains("02:00:00:01:")).count(), CLIENTS / 3);
}

#[tokio::test]
async fn a_range_that_is_full_is_said() {
    if is_missing() {
        return;
    }
    let site = Site::start("range: 10.7.0.100-10.7.0.101").await;
    site.gives().await;
    for n in [1, 2] {
        let steps = site.client(&format!("boot eth0 --as plain --mac 02:00:00:00:09:0{n} --retry 1,2,3")).await;
        assert_eq!(end(&steps)["result"], "leased", "{steps:#?}");
    }
    for mac in ["02:00:00:00:09:03", MACS[0]] {
        let steps = site.client(&format!("boot eth0 --as uefi --mac {mac} --retry 1,1")).await;
        assert!(end(&steps)["result"] == "no-offer" && of(&steps, "offer").is_empty(), "{steps:#?}");
    }
    let events = site.controller.run(&["events"]).await;
    assert!(events.contains("RangeIsFull") && events.contains("10.7.0.100-10.7.0.101"), "{events}");
    let rows = site.controller.run(&["get", "discovered"]).await;
    let row = rows.lines().find(|line| line.contains("02:00:00:00:09:03")).unwrap_or_else(|| panic!("{rows}"));
    assert!(row.contains("range is full"), "{rows}");
    // Who has one keeps it.
    let steps = site.client("boot eth0 --as plain --mac 02:00:00:00:09:01 --retry 1,2,3").await;
    assert_eq!(end(&steps)["result"], "leased", "{steps:#?}");
}
