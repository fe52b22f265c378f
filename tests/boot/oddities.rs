//! Packets as no client should send them: the server lives, and does not answer what deserves no answer.

use super::site::{AUTO, Site, end, is_missing, of};

/// What no sound client can have meant as a question, by the names of `pxe.py odd`; `-`: all that begin so.
const NO_ANSWER: [&str; 19] = [
    "empty",
    "one-octet",
    "short-",
    "no-options-236",
    "cookie-",
    "zeros-300",
    "ones-300",
    "pads-only",
    "message-type-missing",
    "message-type-empty",
    "message-type-0",
    "message-type-2",
    "message-type-5",
    "op-",
    "hlen-",
    "htype-",
    "chaddr-",
    "udp-checksum-wrong",
    "to-port-",
];

#[tokio::test]
async fn malformed_packets_are_survived_and_not_answered() {
    if is_missing() {
        return;
    }
    let site = Site::start(AUTO).await;
    site.gives().await;
    let steps = site.client("odd eth0 --wait 0.2").await;
    let last = end(&steps);
    assert!(last["result"] == "alive" && last["before"] == true, "{last}");
    println!("{} of {} odd packets were answered: {}", last["answered"].as_array().unwrap().len(), last["kinds"], last["answered"]);
    let is_told = |name: &str| NO_ANSWER.iter().any(|no| if no.ends_with('-') { name.starts_with(no) } else { name == *no });
    for step in of(&steps, "odd") {
        let name = step["name"].as_str().unwrap();
        assert!(!is_told(name) || step["answered"] == false, "{name} was answered: {step}");
    }
    let answers: Vec<_> = of(&steps, "odd").iter().flat_map(|s| s["answers"].as_array().unwrap().clone()).collect();
    assert!(answers.iter().all(|a| a["problems"].as_array().is_none_or(Vec::is_empty)), "an answer is malformed itself: {answers:#?}");
    let said = site.controller.log();
    assert!(!said.contains("panicked"), "{said}");
    site.controller.run(&["get", "discovered"]).await;
}
