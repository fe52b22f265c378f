//! Who this system is: asked of the controller over TLS before the root is mounted.
//!
//! Leaves out: what becomes of the answer, which `settle` writes. Invariants: the question is said again with the same secret until it is answered,
//! so that a lost answer costs nothing; a refusal ends the start in words; nothing of an answer but the time is used before all of it was
//! understood, and nothing of its files is ever said. Shown by the tests below and `tests/guests.py`.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embody_protocol::{Identity, Question, Secret};
use rustix::rand::GetRandomFlags;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::command_line::{Exchange, WrongParameter, is_hostname, is_machine_id};
use crate::console::{chain, say};
use crate::http::{self, HttpError, Url};
use crate::tls::Key;

const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(10);
const SECRET_BYTES: usize = 16;
/// A clock that is right to this is left alone.
const TIME_DIFFERS: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Parameter(#[from] WrongParameter),
    #[error("the kernel gives no random numbers")]
    Random(#[source] io::Error),
    #[error("the controller does not say who this system is (403): it knows this start by another secret, address or switch port")]
    Refused,
    #[error("the controller does not say who this system is (410): another start of this server is the last one")]
    Superseded,
    #[error("the controller did not say within {seconds} s who this system is")]
    Silent { seconds: u64, source: HttpError },
    #[error("the controller does not say who this system is")]
    Http(#[source] HttpError),
    #[error("the controller says who this system is in words that are not understood, at line {line}, column {column}")]
    Unreadable { line: usize, column: usize },
    #[error("the controller says that the {what} of this system is `{found}`: expected {expected}")]
    Wrong { what: &'static str, found: String, expected: &'static str },
}

/// What a start got, and how it says later that it is the one that got it.
pub struct Known {
    pub secret: String,
    pub identity: Identity,
}

impl Exchange {
    pub fn url(&self, what: &str) -> Url {
        Url::of_key(self.at, format!("{}/{what}", self.path), Key(self.sha256))
    }
}

pub fn ask(exchange: &Exchange, mac: &str, patience: Duration) -> Result<Known, ExchangeError> {
    let secret = secret()?;
    let identity = answered(exchange, &Question { secret: Secret(secret.clone()), mac: mac.to_owned() }, patience)?;
    checked(&identity)?;
    say(&format!("{} said who this system is: {} links, {} files", exchange.at, identity.links.len(), identity.files.len()));
    Ok(Known { secret, identity })
}

fn secret() -> Result<String, ExchangeError> {
    let mut bytes = [0; SECRET_BYTES];
    let mut have = 0;
    while have < SECRET_BYTES {
        let rest = bytes.get_mut(have..).unwrap_or_default();
        match rustix::rand::getrandom(rest, GetRandomFlags::empty()) {
            Ok(length) => have += length,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ExchangeError::Random(error.into())),
        }
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn answered(exchange: &Exchange, question: &Question, patience: Duration) -> Result<Identity, ExchangeError> {
    let url = exchange.url("identity");
    let words = serde_json::to_string(question).unwrap_or_default();
    let begun = Instant::now();
    let mut again = AGAIN_MIN;
    let mut told = String::new();
    loop {
        let error = match http::post_for_answer(&url, &words, "application/json") {
            Ok(answer) => return understood(&answer),
            Err(HttpError::Status { status: 403, .. }) => return Err(ExchangeError::Refused),
            Err(HttpError::Status { status: 410, .. }) => return Err(ExchangeError::Superseded),
            Err(error) if !error.may_pass() => return Err(ExchangeError::Http(error)),
            Err(error) => error,
        };
        if begun.elapsed() + again > patience {
            return Err(ExchangeError::Silent { seconds: begun.elapsed().as_secs(), source: error });
        }
        let trouble = chain(&error);
        if told != trouble {
            say(&format!("who this system is: {trouble}; it is asked again"));
            told = trouble;
        }
        sleep(again);
        again = (again * 2).min(AGAIN_MAX);
    }
}

/// The time first: what fails afterwards is told with the right one.
fn understood(answer: &[u8]) -> Result<Identity, ExchangeError> {
    let read = serde_json::from_slice::<Identity>(answer);
    // Its words would show what stands there, which may be a key.
    let identity = read.map_err(|error| ExchangeError::Unreadable { line: error.line(), column: error.column() })?;
    if let Some(time) = differs(identity.time_ms, SystemTime::now()) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or_default();
        match clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() }) {
            Ok(()) => say(&format!("the clock is set to that of the controller, {seconds} s since 1970")),
            Err(error) => say(&format!("the clock cannot be set: {error}")),
        }
    }
    Ok(identity)
}

/// What the clock is to be set to, if it is to be.
fn differs(time_ms: u64, now: SystemTime) -> Option<Duration> {
    let time = Duration::from_millis(time_ms);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    (time_ms > 0 && now.abs_diff(time) > TIME_DIFFERS).then_some(time)
}

fn checked(identity: &Identity) -> Result<(), ExchangeError> {
    let wrong = |what, found: &str, expected| {
        let found = found.escape_debug().take(80).collect();
        Err(ExchangeError::Wrong { what, found, expected })
    };
    if !identity.hostname.is_empty() && !is_hostname(&identity.hostname) {
        return wrong("hostname", &identity.hostname, "at most 64 letters, digits, hyphens and dots");
    }
    if !identity.machine_id.is_empty() && !is_machine_id(&identity.machine_id) {
        return wrong("machine-id", &identity.machine_id, "32 small hexadecimal digits, not all 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ED25519;

    use super::*;
    use crate::tls::tests::{ok, server};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn asked(answers: Vec<Vec<u8>>) -> (Result<Known, ExchangeError>, Vec<String>) {
        let (at, key, asked) = server(&PKCS_ED25519, answers);
        let exchange = Exchange { at, path: "/run/web-1/T".to_owned(), sha256: key.0 };
        let known = ask(&exchange, "52:54:00:00:00:01", PATIENCE);
        (known, asked.join().unwrap())
    }

    #[test]
    fn a_question_is_said_again_with_the_same_secret() {
        let later = b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec();
        let (known, asked) = asked(vec![later, ok(r#"{"hostname":"web-1","later":1}"#)]);
        let known = known.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((known.identity.hostname.as_str(), known.secret.len()), ("web-1", 32));
        let body = format!("{{\"secret\":\"{}\",\"mac\":\"52:54:00:00:00:01\"}}", known.secret);
        assert!(asked.iter().all(|question| question.ends_with(&body)) && asked.len() == 2, "{asked:?}");
        assert!(asked[0].starts_with("POST /run/web-1/T/identity "), "{asked:?}");
        assert_ne!(secret().unwrap(), secret().unwrap());
    }

    #[test]
    fn refusals_are_words() {
        for (status, words) in [("403 Forbidden", "another secret, address or switch port"), ("410 Gone", "another start of this server")] {
            let (known, _) = asked(vec![format!("HTTP/1.1 {status}\r\n\r\n").into_bytes()]);
            let said = known.err().unwrap().to_string();
            assert!(said.contains(words), "{said}");
        }
        let (known, _) = asked(vec![b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec()]);
        assert!(chain(&known.err().unwrap()).ends_with("answered 404, expected 200"));
    }

    #[test]
    fn what_is_no_identity_is_said_without_what_stands_in_it() {
        let (known, _) = asked(vec![ok(r#"{"files":[{"path":"/k","mode":"hush"}]}"#)]);
        let said = chain(&known.err().unwrap());
        assert!(said.contains("line 1, column") && !said.contains("hush"), "{said}");
        for (wrong, expected) in [(r#"{"hostname":"-a\n"}"#, "hostname of this system is `-a\\n`"), (r#"{"machine_id":"7"}"#, "32 small")] {
            let (known, _) = asked(vec![ok(wrong)]);
            let said = known.err().unwrap().to_string();
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_clock_is_set_only_if_it_is_wrong() {
        let now = UNIX_EPOCH + Duration::from_millis(1_000_000);
        assert_eq!(differs(0, now), None, "not known");
        assert_eq!(differs(1_001_900, now), None);
        assert_eq!(differs(998_100, now), None);
        assert_eq!(differs(2_000_001, now), Some(Duration::from_millis(2_000_001)));
    }
}
