//! What happens to a simulated rack, and when: read from a file. Leaves out: doing it (`sim::rack`).
//!
//! Invariant: with the same file, rack and seed the same things happen. Shown by its own tests.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;
use serde::Deserialize;

use super::rack::Act;
use crate::model::{Name, Period, Vlan};

/// One line of the file: `{ at: 30s, silence: { percent: 5, for: 10m } }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// From the start of the rack.
    at: Period,
    #[serde(default)]
    silence: Option<Silence>,
    #[serde(default)]
    button: Option<Button>,
    #[serde(default)]
    port: Option<Port>,
}

/// BMCs that hear nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Silence {
    #[serde(default)]
    server: Option<Name>,
    /// Of all servers, chosen by the seed: 0 to 100.
    #[serde(default)]
    percent: Option<f64>,
    #[serde(rename = "for")]
    lasts: Period,
}

/// Somebody at a front panel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Button {
    server: Name,
}

/// Somebody at a switch's console: up, untagged in this VLAN.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    switch: Name,
    port: String,
    vlan: Vlan,
}

/// In the order of their times. `Err`: what does not read, where, and what was expected.
pub(crate) fn read(text: &str, servers: &[Name], seed: u64) -> Result<Vec<(Duration, Act)>, String> {
    let lines: Vec<Line> = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    let mut luck = StdRng::seed_from_u64(seed);
    let mut out = Vec::new();
    for (n, line) in lines.into_iter().enumerate() {
        let entry = n.saturating_add(1);
        let acts = match (line.silence, line.button, line.port) {
            (Some(silence), None, None) => silenced(silence, servers, &mut luck).map_err(|why| format!("entry {entry}: {why}"))?,
            (None, Some(Button { server }), None) => vec![Act::Button { server }],
            (None, None, Some(Port { switch, port, vlan })) => vec![Act::Port { switch, port, vlan }],
            _ => return Err(format!("entry {entry}: expected one of `silence`, `button` and `port`")),
        };
        out.extend(acts.into_iter().map(|act| (line.at.0, act)));
    }
    out.sort_by_key(|(at, _)| *at);
    Ok(out)
}

fn silenced(silence: Silence, servers: &[Name], luck: &mut StdRng) -> Result<Vec<Act>, String> {
    let seconds = silence.lasts.0.as_secs();
    let named: Vec<Name> = match (silence.server, silence.percent) {
        (Some(server), None) => vec![server],
        (None, Some(percent)) if (0.0..=100.0).contains(&percent) => {
            // A part of how many there are: it fits.
            let count = (servers.len() as f64 * percent / 100.0).round() as usize;
            index::sample(luck, servers.len(), count).iter().filter_map(|n| servers.get(n)).cloned().collect()
        }
        (None, Some(percent)) => return Err(format!("found `percent: {percent}`, expected 0 to 100")),
        (Some(_), Some(_)) | (None, None) => return Err("expected one of `server` and `percent` in `silence`".to_owned()),
    };
    Ok(named.into_iter().map(|server| Act::Silence { server, seconds }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Vec<Name> {
        (0..40).map(|n| format!("s{n}").parse().unwrap()).collect()
    }

    #[test]
    fn a_file_is_a_course_of_acts_the_same_for_each_seed() {
        let text = "- { at: 1m, button: { server: s1 } }\n- { at: 10s, silence: { percent: 5, for: 2m } }\n- { at: 5s, port: { switch: t, port: p1, vlan: 7 } }\n";
        let acts = read(text, &servers(), 3).unwrap();
        assert_eq!(acts.iter().map(|(at, _)| at.as_secs()).collect::<Vec<_>>(), [5, 10, 10, 60]);
        assert_eq!(acts, read(text, &servers(), 3).unwrap());
        assert_ne!(acts, read(text, &servers(), 4).unwrap());
    }

    #[test]
    fn what_does_not_read_says_where() {
        for (text, part) in [
            ("- { at: 10s }", "entry 1: expected one of `silence`, `button` and `port`"),
            ("- { at: 10s, silence: { for: 1m } }", "entry 1: expected one of `server` and `percent`"),
            ("- { at: 10s, silence: { percent: 300, for: 1m } }", "expected 0 to 100"),
            ("- { at: soon, button: { server: s1 } }", "expected a period"),
            ("- { at: 10s, knob: { server: s1 } }", "unknown field `knob`"),
        ] {
            let why = read(text, &servers(), 1).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
