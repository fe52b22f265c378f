//! The little of HTTP/1.1 (RFC 9112) that a start needs: a file or the rest of one, and words to the controller.
//!
//! Leaves out: names (addresses only), redirects, transfer codings, kept connections. Invariants: nothing waits longer than its timeout for the next
//! byte, words and their answer are over within `WORDS_WITHIN`, and no more than `HEAD_BYTES` of a head and `MESSAGE_BYTES` of words is held; where a key
//! is named, nothing is sent to a server that does not show it. Shown by the tests below, with a server that breaks off, and by those of `tls`.

use std::io::{self, BufRead, BufReader, Read, Take, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use embody_protocol::MESSAGE_BYTES;

use crate::tls::{self, Key};

/// For a connection, and for each next byte: a server that is gone says nothing at all.
const SILENCE: Duration = Duration::from_secs(20);
/// For a few words to a controller that may be away: a start goes on without it.
const WORDS_SILENCE: Duration = Duration::from_secs(5);
/// For an answer that the controller may have to ask a switch for first.
const ANSWER_SILENCE: Duration = Duration::from_secs(20);
const WORDS_WITHIN: Duration = Duration::from_secs(60);
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("`{0}` is not a URL of the form http://ADDRESS[:PORT]/PATH")]
    Url(String),
    #[error("no connection to {at}")]
    Connect { at: SocketAddr, source: io::Error },
    #[error("no TLS connection to {at}")]
    Handshake { at: SocketAddr, source: io::Error },
    #[error("{at} is not whom the command line names: the SHA-256 of its public key is {found}, expected {expected}")]
    Key { at: SocketAddr, found: Key, expected: Key },
    #[error("{at} broke off")]
    BrokeOff { at: SocketAddr, source: io::Error },
    #[error("{at} answered something that is not HTTP/1.1: {what}")]
    NotHttp { at: SocketAddr, what: String },
    #[error("{at} gives another file: {what}")]
    Another { at: SocketAddr, what: String },
    #[error("{at} answered {status}, expected {expected}")]
    Status { at: SocketAddr, status: u16, expected: &'static str },
}

impl HttpError {
    /// Whether asking again may help: another answer is not to be had from a server that says that there is nothing.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Url(_) | Self::Another { .. } | Self::Key { .. } => false,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::Connect { .. } | Self::Handshake { .. } | Self::BrokeOff { .. } | Self::NotHttp { .. } => true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    at: SocketAddr,
    path: String,
    /// Of whom is asked over TLS; nothing: plain HTTP.
    key: Option<Key>,
}

impl Url {
    /// Asked over TLS, of whoever shows this key.
    pub fn of_key(at: SocketAddr, path: String, key: Key) -> Self {
        Self { at, path, key: Some(key) }
    }

    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Url(text.chars().take(200).collect());
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let at = match host.parse() {
            Ok(at) => at,
            Err(_) => SocketAddr::new(host.trim_matches(['[', ']']).parse::<IpAddr>().map_err(|_| wrong())?, 80),
        };
        if path.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(wrong());
        }
        Ok(Self { at, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() }, key: None })
    }
}

/// The octets of a connection. Reading ends at `until`, however little comes at a time.
pub struct Wire {
    stream: TcpStream,
    until: Option<Instant>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.until.is_some_and(|until| Instant::now() > until) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.stream.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

pub enum Stream {
    Plain(Wire),
    Secure(Box<tls::Secure>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }
}

impl Stream {
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(wire) => wire.write_all(octets),
            Self::Secure(secure) => secure.write_all(octets).and_then(|()| secure.flush()),
        }
    }
}

/// A status, and what is left of the answer.
struct Answer {
    status: u16,
    length: Option<u64>,
    range: Option<String>,
    body: BufReader<Stream>,
}

/// The status of an answer to words. Its body is not read.
pub fn post(url: &Url, words: &str, kind: &str) -> Result<u16, HttpError> {
    let head = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", words.len());
    ask(url, "POST", &head, words.as_bytes(), WORDS_SILENCE, Some(WORDS_WITHIN)).map(|answer| answer.status)
}

/// The status of what is at a URL.
pub fn status(url: &Url) -> Result<u16, HttpError> {
    ask(url, "GET", "", &[], WORDS_SILENCE, Some(WORDS_WITHIN)).map(|answer| answer.status)
}

/// What is answered to words; anything but 200 is an error.
pub fn post_for_answer(url: &Url, words: &str, kind: &str) -> Result<Vec<u8>, HttpError> {
    let at = url.at;
    let head = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", words.len());
    let mut answer = ask(url, "POST", &head, words.as_bytes(), ANSWER_SILENCE, Some(WORDS_WITHIN))?;
    if answer.status != 200 {
        return Err(HttpError::Status { at, status: answer.status, expected: "200" });
    }
    let length = answer.length.filter(|length| *length <= MESSAGE_BYTES as u64);
    let length = length.ok_or_else(|| HttpError::NotHttp { at, what: format!("no Content-Length up to {MESSAGE_BYTES}") })?;
    let mut body = Vec::new();
    let read = answer.body.by_ref().take(length).read_to_end(&mut body);
    let source = match read {
        Ok(read) if read as u64 == length => return Ok(body),
        Ok(_) => io::ErrorKind::UnexpectedEof.into(),
        Err(source) => source,
    };
    Err(HttpError::BrokeOff { at, source })
}

/// What is at a URL from an octet on: `size` octets in all.
pub fn get(url: &Url, from: u64, size: u64) -> Result<Take<BufReader<Stream>>, HttpError> {
    let range = if from > 0 { format!("Range: bytes={from}-\r\n") } else { String::new() };
    let mut answer = ask(url, "GET", &range, &[], SILENCE, None)?;
    let not_http = |what: String| HttpError::NotHttp { at: url.at, what };
    let begins = match answer.status {
        200 => 0,
        206 => {
            let range = answer.range.as_deref().unwrap_or_default();
            let begins = range.strip_prefix("bytes ").and_then(|range| range.split('-').next()?.trim().parse().ok());
            begins.filter(|at| *at == from).ok_or_else(|| not_http(format!("Content-Range `{range}`, expected one from {from}")))?
        }
        status => return Err(HttpError::Status { at: url.at, status, expected: "200 or 206" }),
    };
    let length = size.checked_sub(begins);
    if answer.length.is_none() || answer.length != length {
        let found = answer.length.map_or_else(|| "no Content-Length".to_owned(), |length| format!("Content-Length {length}"));
        return Err(HttpError::Another { at: url.at, what: format!("{found}, expected {} of {size} octets", length.unwrap_or_default()) });
    }
    // A server that does not know ranges sends it all again.
    let skipped = io::copy(&mut answer.body.by_ref().take(from - begins), &mut io::sink());
    match skipped {
        Ok(skipped) if skipped == from - begins => Ok(answer.body.take(size - from)),
        Ok(_) => Err(HttpError::BrokeOff { at: url.at, source: io::ErrorKind::UnexpectedEof.into() }),
        Err(source) => Err(HttpError::BrokeOff { at: url.at, source }),
    }
}

fn ask(url: &Url, method: &str, head: &str, body: &[u8], silence: Duration, within: Option<Duration>) -> Result<Answer, HttpError> {
    let at = url.at;
    let until = within.map(|within| Instant::now() + within);
    let stream = TcpStream::connect_timeout(&at, silence).map_err(|source| HttpError::Connect { at, source })?;
    let mut question = format!(
        "{method} {} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: embody-agent/{}\r\nConnection: close\r\n{head}\r\n",
        url.path,
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes();
    question.extend(body);
    let broke_off = |source| HttpError::BrokeOff { at, source };
    stream.set_read_timeout(Some(silence)).map_err(broke_off)?;
    stream.set_write_timeout(Some(silence)).map_err(broke_off)?;
    let wire = Wire { stream, until };
    let mut stream = match url.key {
        None => Stream::Plain(wire),
        Some(key) => Stream::Secure(Box::new(tls::connect(at, wire, key)?)),
    };
    stream.send(&question).map_err(broke_off)?;
    answer(at, BufReader::with_capacity(64 << 10, stream))
}

fn answer(at: SocketAddr, mut body: BufReader<Stream>) -> Result<Answer, HttpError> {
    let not_http = |what: &str| HttpError::NotHttp { at, what: what.to_owned() };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let room = HEAD_BYTES.saturating_sub(head.len());
        let read = body.by_ref().take(room as u64).read_until(b'\n', &mut head).map_err(|source| HttpError::BrokeOff { at, source })?;
        if read == 0 {
            return Err(not_http(if room == 0 { "a head without end" } else { "a head that ends in the middle" }));
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(&head).map_err(|error| not_http(&error.to_string()))?;
    let status = parsed.code.ok_or_else(|| not_http("no status"))?;
    let header = |name: &str| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    // Only where a body is read does it matter how it is sent.
    let length = header("content-length").and_then(|length| length.parse().ok()).filter(|_| header("transfer-encoding").is_none());
    Ok(Answer { status, length, range: header("content-range").map(str::to_owned), body })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one connection after the other with these octets, and returns what was asked.
    fn server(answers: Vec<Vec<u8>>) -> (Url, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/a/file", listener.local_addr().unwrap())).unwrap();
        let asked = thread::spawn(move || {
            let answered = answers.into_iter().map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    reader.read_line(&mut head).unwrap();
                }
                stream.write_all(&answer).unwrap();
                head
            });
            answered.collect()
        });
        (url, asked)
    }

    fn read(url: &Url, from: u64, size: u64) -> Result<Vec<u8>, HttpError> {
        let mut all = Vec::new();
        get(url, from, size)?.read_to_end(&mut all).unwrap();
        Ok(all)
    }

    #[test]
    fn urls() {
        assert_eq!(Url::parse("http://10.0.0.1").unwrap(), Url { at: "10.0.0.1:80".parse().unwrap(), path: "/".to_owned(), key: None });
        assert_eq!(
            Url::parse("http://[::1]:8080/a?b").unwrap(),
            Url { at: "[::1]:8080".parse().unwrap(), path: "/a?b".to_owned(), key: None }
        );
        for wrong in ["https://10.0.0.1/", "http://name/", "http://10.0.0.1/a b", "http://10.0.0.1/a\r\nX: y", "10.0.0.1"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_rest_of_a_file_is_asked_for_and_taken_however_the_server_gives_it() {
        let ranged = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-4/5\r\ncontent-length: 3\r\n\r\ncde".to_vec();
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde".to_vec();
        let (url, asked) = server(vec![ranged, whole.clone(), whole]);
        assert_eq!(read(&url, 2, 5).unwrap(), b"cde");
        assert_eq!(read(&url, 2, 5).unwrap(), b"cde", "from a server that knows no ranges");
        assert_eq!(read(&url, 0, 5).unwrap(), b"abcde");
        let asked = asked.join().unwrap();
        assert!(asked[0].starts_with("GET /a/file HTTP/1.1\r\n") && asked[0].contains("\r\nRange: bytes=2-\r\n"), "{}", asked[0]);
        assert!(!asked[2].contains("Range"));
    }

    #[test]
    fn what_is_not_the_file_is_refused() {
        let other_size = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef".to_vec();
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n".to_vec();
        let other_range = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-4/5\r\nContent-Length: 4\r\n\r\nbcde".to_vec();
        let endless = vec![b'a'; HEAD_BYTES * 2];
        let (url, _) = server(vec![other_size, chunked, other_range, endless, b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec()]);
        let said: Vec<String> = (0..5).map(|_| read(&url, 2, 5).unwrap_err().to_string()).collect();
        assert!(said[0].contains("Content-Length 6, expected 5 of 5"), "{said:?}");
        assert!(said[1].contains("no Content-Length") && said[2].contains("expected one from 2"), "{said:?}");
        assert!(said[3].contains("a head without end") && said[4].contains("answered 404, expected 200 or 206"), "{said:?}");
    }

    #[test]
    fn a_server_that_says_little_at_a_time_does_not_hold_words_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap().0.write_all(b"a").unwrap();
        let mut wire = Wire { stream, until: Some(Instant::now() + SILENCE) };
        assert_eq!(wire.read(&mut [0]).unwrap(), 1);
        wire.until = Instant::now().checked_sub(Duration::from_millis(1));
        assert_eq!(wire.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn nobody_there_may_pass_and_nothing_there_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        drop(listener);
        assert!(post(&url, "", "text/plain").unwrap_err().may_pass());
        let at = url.at;
        assert!(
            !HttpError::Status { at, status: 404, expected: "" }.may_pass()
                && HttpError::Status { at, status: 503, expected: "" }.may_pass()
        );
    }
}
