//! What the controller hears of this start: its stages, that the system is up and still is, or in words why not.
//!
//! Leaves out: what the controller does with it. Invariant: a start never fails because its controller cannot be reached; only a hello is said until
//! it is heard. Stages and failures are told plainly, since they may be what an exchange over TLS failed by; what needs the secret of a start is told to
//! whom that was told. Shown by the tests below and `tests/guests.py`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::command_line::{CommandLine, Exchange};
use crate::console::{chain, say};
use crate::http::{self, HttpError, Url};

/// A stage is only told: a controller that is away does not hold a start up for longer.
const STAGE_WITHIN: Duration = Duration::from_secs(10);
/// Before the reboot after a failure (`init::REBOOT_AFTER`).
const FAILED_WITHIN: Duration = Duration::from_secs(20);
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// The controller takes no more characters.
const WORDS: usize = 300;

const NO_CONTENT: u16 = 204;
const GONE: u16 = 410;

/// Where this start is told.
#[derive(Debug, Clone)]
pub enum Run {
    /// Plain HTTP, below this URL.
    Plain(String),
    Secure(Exchange),
}

/// What became of what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Heard,
    /// Another start of this server is its last one.
    Superseded,
    NotHeard,
}

impl Run {
    pub fn new(base: &str) -> Self {
        Self::Plain(base.to_owned())
    }

    pub fn of_this_start() -> Option<Self> {
        CommandLine::of_this_start().run().map(Self::new)
    }

    /// `initrd` or `root`.
    pub fn stage(&self, name: &str) -> Said {
        self.tell(&format!("stage/{name}"), "", "text/plain", Some(STAGE_WITHIN))
    }

    pub fn failed(&self, words: &str) {
        let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
        self.tell("failed", &words, "text/plain; charset=utf-8", Some(FAILED_WITHIN));
    }

    /// What its hello waits for, once: it is told again later anyway.
    pub fn waits(&self, words: &str) {
        let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
        if let Ok(url) = self.url("waits") {
            let _heard = once(&url, "waits", &words, "text/plain; charset=utf-8");
        }
    }

    /// Until it is heard, or is of no use any more.
    pub fn hello(&self, facts: &str) -> Said {
        self.tell("hello", facts, "application/json", None)
    }

    /// Once: whoever says it says it again later anyway.
    pub fn alive(&self, words: &str) -> Result<Said, String> {
        let url = self.url("alive").map_err(|error| chain(&error))?;
        once(&url, "alive", words, "application/json")
    }

    fn url(&self, what: &str) -> Result<Url, HttpError> {
        match self {
            Self::Plain(base) => Url::parse(&format!("{base}/{what}")),
            Self::Secure(exchange) => Ok(exchange.url(what)),
        }
    }

    fn tell(&self, what: &str, words: &str, kind: &str, within: Option<Duration>) -> Said {
        let url = match self.url(what) {
            Ok(url) => url,
            Err(error) => {
                say(&format!("embody.run: {error}"));
                return Said::NotHeard;
            }
        };
        let begun = Instant::now();
        let mut again = AGAIN_MIN;
        let mut told = String::new();
        loop {
            let trouble = match once(&url, what, words, kind) {
                Ok(said) => return said,
                Err(trouble) => trouble,
            };
            if told != trouble {
                say(&format!("{what}: {trouble}; it is told again"));
                told = trouble;
            }
            if within.is_some_and(|within| begun.elapsed() + again > within) {
                say(&format!("{what}: the controller did not hear it"));
                return Said::NotHeard;
            }
            sleep(again);
            again = (again * 2).min(AGAIN_MAX);
        }
    }
}

/// Heard or of no use any more; else in words why it was not heard.
fn once(url: &Url, what: &str, words: &str, kind: &str) -> Result<Said, String> {
    match http::post(url, words, kind) {
        Ok(NO_CONTENT | 200) => Ok(Said::Heard),
        Ok(GONE) => {
            say(&format!("{what}: the controller says that another start of this server is the last one"));
            Ok(Said::Superseded)
        }
        Ok(status) => Err(format!("the controller answered {status}")),
        Err(error) => Err(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn controller(statuses: &'static [&'static str]) -> (Run, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let run = Run::new(&format!("http://{}/run/web-1/T", listener.local_addr().unwrap()));
        let heard = thread::spawn(move || {
            let answered = statuses.iter().map(|status| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 4096];
                let mut length = 0;
                while !asked[..length].windows(4).any(|w| w == b"\r\n\r\n") {
                    length += stream.read(&mut asked[length..]).unwrap();
                }
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
                String::from_utf8_lossy(&asked[..length]).into_owned()
            });
            answered.collect()
        });
        (run, heard)
    }

    #[test]
    fn a_hello_is_said_until_it_is_heard() {
        let (run, heard) = controller(&["503 Service Unavailable", "204 No Content"]);
        assert_eq!(run.hello("{}"), Said::Heard);
        let heard = heard.join().unwrap();
        assert!(heard.len() == 2 && heard[1].starts_with("POST /run/web-1/T/hello HTTP/1.1\r\n") && heard[1].ends_with("{}"), "{heard:?}");
    }

    #[test]
    fn a_start_that_is_not_the_last_one_is_silent_from_then_on() {
        let (run, _) = controller(&["410 Gone"]);
        assert_eq!(run.stage("initrd"), Said::Superseded);
    }

    #[test]
    fn words_are_one_line_of_what_the_controller_takes() {
        let (run, heard) = controller(&["204 No Content"]);
        run.failed(&format!("a\nb{}", "ä".repeat(400)));
        let heard = heard.join().unwrap().remove(0);
        let (_, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(body.starts_with("a b") && body.chars().count() == WORDS, "{body}");
    }
}
