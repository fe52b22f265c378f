//! Whether anybody else gives addresses on a network: by questions of ours, and by what is heard of others'.
//!
//! Leaves out: sockets. Invariant: unknown means wait: no address is given before it was asked for a while and nobody answered, nor for an hour after
//! somebody was heard. Where nothing is asked, or no answer would be heard, there is no silence.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::boot::dhcp::Serves;
use crate::boot::view::BootNetwork;
use crate::model::network::BootMode;

/// How often it is asked while nobody was heard, and afterwards.
const FIRST_PROBES: Duration = Duration::from_secs(2);
const PROBES: Duration = Duration::from_secs(15);
/// dnsmasq pings an address for 3 s before it offers it.
const SILENCE: Duration = Duration::from_secs(6);
/// After one was heard: it may be away for maintenance, and has given addresses that we do not know.
const HEARD_FOR: Duration = Duration::from_secs(3_600);
/// After a client named one, that itself is silent: our own questions find it until then, if it is there.
const NAMED_FOR: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
pub(super) struct Listening {
    /// Since when it is asked, with ears for the answers.
    since: Option<Instant>,
    probe_at: Instant,
    /// Who, and until when nothing is given for it.
    heard: Option<(Ipv4Addr, Instant)>,
}

impl Listening {
    pub(super) fn begin(now: Instant) -> Listening {
        Listening { since: None, probe_at: now, heard: None }
    }

    pub(super) fn probe_at(&self) -> Instant {
        self.probe_at
    }

    pub(super) fn probed(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.probe_at = now + if self.is_quiet(now) { PROBES } else { FIRST_PROBES };
    }

    /// Nothing was asked: what nobody says now means nothing.
    pub(super) fn deaf(&mut self, now: Instant) {
        self.since = None;
        self.probe_at = now + FIRST_PROBES;
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= SILENCE)
    }

    /// Another server was heard. Whether that is news.
    pub(super) fn heard(&mut self, server: Ipv4Addr, now: Instant) -> bool {
        self.is_there(server, now + HEARD_FOR, now)
    }

    /// A client has named another server: anybody can say so.
    pub(super) fn named(&mut self, server: Ipv4Addr, now: Instant) -> bool {
        self.is_there(server, now + NAMED_FOR, now)
    }

    fn is_there(&mut self, server: Ipv4Addr, until: Instant, now: Instant) -> bool {
        let before = self.heard.filter(|(_, until)| *until > now);
        if before.is_none_or(|(_, before)| before < until) {
            self.heard = Some((server, until));
        }
        before.is_none()
    }

    pub(super) fn foreign(&self, now: Instant) -> Option<Ipv4Addr> {
        self.heard.filter(|(_, until)| *until > now).map(|(server, _)| server)
    }

    /// What is served on a network that this is heard on; `relayed`: behind a relay nothing is heard.
    pub(super) fn serves(&self, network: &BootNetwork, relayed: bool, now: Instant) -> Serves {
        let has_range = network.boot.range.is_some();
        match network.boot.mode {
            BootMode::Proxy => Serves::Proxy,
            BootMode::Reservations => Serves::Reservations,
            BootMode::Full if has_range => Serves::Full,
            BootMode::Auto if relayed || !has_range || self.foreign(now).is_some() => Serves::Proxy,
            BootMode::Auto if !self.is_quiet(now) => Serves::Nothing,
            BootMode::Auto => Serves::Full,
            BootMode::Full => Serves::Proxy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(mode: &str, range: bool) -> BootNetwork {
        let range = if range { serde_json::json!("10.0.0.10-10.0.0.20") } else { serde_json::Value::Null };
        let boot = serde_json::from_value(serde_json::json!({ "mode": mode, "range": range })).unwrap();
        BootNetwork { name: "n".parse().unwrap(), subnet: "10.0.0.0/24".parse().unwrap(), router: None, quarantine: false, boot }
    }

    #[test]
    fn auto_is_full_after_a_silence_alone_and_proxy_for_an_hour_after_anybody_was_heard() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut listening = Listening::begin(begun);
        let (auto, full) = (network("auto", true), network("full", true));
        // Not asked yet.
        assert_eq!(listening.serves(&auto, false, at(60)), Serves::Nothing);
        listening.probed(at(0));
        assert_eq!(listening.serves(&auto, false, at(5)), Serves::Nothing);
        assert_eq!(listening.serves(&full, false, at(0)), Serves::Full);
        assert_eq!(listening.serves(&auto, false, at(6)), Serves::Full);
        assert_eq!(listening.serves(&auto, true, at(6)), Serves::Proxy);
        assert_eq!(listening.serves(&network("auto", false), false, at(6)), Serves::Proxy);
        assert_eq!(listening.serves(&network("reservations", false), true, at(6)), Serves::Reservations);
        // Nothing was heard since nothing could be.
        listening.deaf(at(20));
        assert_eq!(listening.serves(&auto, false, at(30)), Serves::Nothing);
        listening.probed(at(40));
        assert_eq!(listening.serves(&auto, false, at(46)), Serves::Full);
        assert!(listening.heard(Ipv4Addr::new(10, 0, 0, 2), at(100)) && !listening.heard(Ipv4Addr::new(10, 0, 0, 2), at(101)));
        assert_eq!(listening.serves(&auto, false, at(3_700)), Serves::Proxy);
        assert_eq!(listening.serves(&full, false, at(3_700)), Serves::Full);
        assert_eq!(listening.serves(&auto, false, at(3_702)), Serves::Full);
        // What a client says alone is believed for as long as it takes to ask.
        assert!(listening.named(Ipv4Addr::new(10, 0, 0, 3), at(4_000)));
        assert_eq!(listening.serves(&auto, false, at(4_299)), Serves::Proxy);
        assert_eq!(listening.serves(&auto, false, at(4_300)), Serves::Full);
        assert!(listening.heard(Ipv4Addr::new(10, 0, 0, 3), at(5_000)) && !listening.named(Ipv4Addr::new(10, 0, 0, 3), at(5_001)));
        assert_eq!(listening.serves(&auto, false, at(8_599)), Serves::Proxy);
    }
}
