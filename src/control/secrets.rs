//! From a Secret to a login.
//!
//! Lines `key=value` are read as a POSIX shell reads assignments, but for expansion: there is none. Leaves out: who may try a login where
//! (`drivers::credentials`), and when a file is read (`logins`). Invariants: a file is regular and small, or it is not read; reading one never
//! holds up who waits for it longer than said; no fault quotes a value. Shown by the tests below.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, FileType, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::limits;
use crate::model::secret::{BadProtocol, BmcLogin, Hidden, PrivProtocol, SecretSpec, SnmpLogin};
use crate::model::switch::SnmpVersion;

pub(crate) type Values = BTreeMap<String, Hidden>;

/// Why a Secret gives no login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSecret {
    #[error("secret {secret} has no `{key}`")]
    Missing { secret: String, key: &'static str },
    #[error(
        "secret {secret} has no `privProtocol` and `privPassword`: without them (authNoPriv) all that the switch is asked and told can be read on \
         the way; add them, or say `insecure: true` in the switch's `snmp` to show that you know"
    )]
    NotEncrypted { secret: String },
    #[error("secret {secret}: {key}: {why}")]
    Bad { secret: String, key: &'static str, why: String },
    #[error("secret {secret}: {place} cannot be read: {why}")]
    Source { secret: String, place: String, why: String },
    /// `key` is empty where the line has none.
    #[error("secret {secret}: {place}, line {line}{}{key}: {why}", if .key.is_empty() { "" } else { ", " })]
    Line { secret: String, place: String, line: usize, key: String, why: &'static str },
}

/// The values of a Secret, read from where it says, now. May wait for a file system for ever: the controller's loop reads files by
/// `file_values`.
pub(crate) fn values(name: &str, secret: &SecretSpec) -> Result<Values, BadSecret> {
    let Some(from) = &secret.from else { return Ok(secret.string_data.clone()) };
    let unreadable = |place: &str, why: String| BadSecret::Source { secret: name.to_owned(), place: place.to_owned(), why };
    match (&from.file, &from.env) {
        (Some(file), _) => read(name, file),
        (None, Some(env)) => {
            let text = std::env::var(env).map_err(|_| unreadable(env, "no such environment variable".to_owned()))?;
            parse(name, env, &Zeroizing::new(text))
        }
        (None, None) => Err(unreadable("from", "it names neither file nor env".to_owned())),
    }
}

// ---- files -----------------------------------------------------------------------------------------------------------------

/// Reads that have not come back, of the whole process: a file system that hangs costs one thread for each Secret, however often it is tried.
static UNDER_WAY: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// What a Secret's file holds, on a thread of its own and within `limits::SECRET_READ_WITHIN`.
pub(crate) async fn file_values(name: &str, file: &str) -> Result<Values, BadSecret> {
    let unreadable = |why: String| BadSecret::Source { secret: name.to_owned(), place: file.to_owned(), why };
    let key = (name.to_owned(), file.to_owned());
    if !UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
        return Err(unreadable("an earlier attempt has not come back yet".to_owned()));
    }
    let (done, result) = oneshot::channel();
    let work = {
        let key = key.clone();
        move || {
            let result = read(&key.0, &key.1);
            UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // Nobody waits any more: it took too long.
            let _late = done.send(result);
        }
    };
    // Not one of the runtime's threads: the process could not end before the file system answers.
    if let Err(error) = std::thread::Builder::new().name("secret".to_owned()).spawn(work) {
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        return Err(unreadable(error.to_string()));
    }
    match tokio::time::timeout(limits::SECRET_READ_WITHIN, result).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(unreadable("the attempt was cut off".to_owned())),
        Err(_) => Err(unreadable(format!("no answer within {} s", limits::SECRET_READ_WITHIN.as_secs()))),
    }
}

fn read(name: &str, file: &str) -> Result<Values, BadSecret> {
    let unreadable = |why: String| BadSecret::Source { secret: name.to_owned(), place: file.to_owned(), why };
    let bytes = bytes(file).map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))?;
    parse(name, file, text)
}

/// Looks before it opens (to open a device may do something), does not wait in `open`, and looks again at what was opened.
fn bytes(file: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    regular(std::fs::metadata(file).map_err(|e| e.to_string())?.file_type())?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(file);
    let opened: File = opened.map_err(|e| e.to_string())?;
    regular(opened.metadata().map_err(|e| e.to_string())?.file_type())?;
    // All at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limits::SECRET_BYTES + 1));
    opened.take(limits::SECRET_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() > limits::SECRET_BYTES {
        return Err(format!("it has more than {} KiB", limits::SECRET_BYTES >> 10));
    }
    Ok(bytes)
}

fn regular(kind: FileType) -> Result<(), String> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something else",
    };
    Err(format!("it is {what}, not a regular file"))
}

// ---- lines -----------------------------------------------------------------------------------------------------------------

/// Spaces around `=` are taken away as well, which a shell does not understand and people write.
fn parse(name: &str, place: &str, text: &str) -> Result<Values, BadSecret> {
    let mut values = Values::new();
    for (number, line) in text.split('\n').enumerate() {
        // A byte order mark stands at the head of each file that was put together.
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |key: &str, why: &'static str| BadSecret::Line {
            secret: name.to_owned(),
            place: place.to_owned(),
            line: number + 1,
            key: key.to_owned(),
            why,
        };
        let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        let assignment = exported.unwrap_or(line).trim_start();
        // What stands before the `=` is told only where it is a name: it may be a piece of a password.
        let found = assignment.split_once('=').map(|(key, value)| (key.trim_end(), value)).filter(|(key, _)| is_name(key));
        let Some((key, value)) = found else {
            return Err(match assignment.split_once(':').map(|(key, _)| known_as(key.trim())) {
                Some(Some(key)) => bad(key, "found `key: value`, expected `key=value`"),
                Some(None) | None => bad("", "expected key=value"),
            });
        };
        if let Some(meant) = known_as(key).filter(|meant| *meant != key) {
            return Err(bad(meant, "the key is written in another way, expected it exactly so"));
        }
        values.insert(key.to_owned(), Hidden::new(unquoted(value.trim_start()).map_err(|why| bad(key, why))?));
    }
    Ok(values)
}

/// The keys of logins.
const KEYS: [&str; 8] = ["username", "password", "kg", "community", "authProtocol", "authPassword", "privProtocol", "privPassword"];

/// Which of the keys this is, in whatever case and with whatever between its words.
fn known_as(key: &str) -> Option<&'static str> {
    let letters = |text: &str| text.chars().filter(|c| !matches!(c, '_' | '-' | '.')).collect::<String>().to_ascii_lowercase();
    KEYS.into_iter().find(|known| letters(known) == letters(key))
}

fn is_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// A value as a shell takes it (POSIX, 2.2 Quoting), without expansion: `$` and a backquote stand for themselves.
fn unquoted(value: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match c {
            '\'' => loop {
                match rest.next() {
                    Some('\'') => break,
                    Some(c) => out.push(c),
                    None => return Err("a single quote is not closed in this line"),
                }
            },
            '"' => double_quoted(&mut rest, &mut out)?,
            '\\' => return Err("a backslash outside quotes means something to a shell; put the value in single quotes"),
            ' ' | '\t' => {
                let rest = rest.as_str().trim_start();
                if rest.is_empty() || rest.starts_with('#') {
                    break;
                }
                return Err("a space outside quotes ends the value; put the value in single quotes");
            }
            ';' | '&' | '|' | '<' | '>' | '(' | ')' => {
                return Err("one of ; & | < > ( ) outside quotes means something to a shell; put the value in single quotes");
            }
            c => out.push(c),
        }
    }
    if out.chars().any(char::is_control) { Err("the value has a control character") } else { Ok(out) }
}

/// Up to the closing quote. A backslash stands for itself, but before these four.
fn double_quoted(rest: &mut std::str::Chars<'_>, out: &mut String) -> Result<(), &'static str> {
    const OPEN: &str = "a double quote is not closed in this line";
    loop {
        match rest.next().ok_or(OPEN)? {
            '"' => return Ok(()),
            '\\' => match rest.next().ok_or(OPEN)? {
                c @ ('"' | '\\' | '$' | '`') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
}

// ---- logins ----------------------------------------------------------------------------------------------------------------

fn needed(name: &str, values: &Values, key: &'static str) -> Result<Hidden, BadSecret> {
    values.get(key).cloned().ok_or(BadSecret::Missing { secret: name.to_owned(), key })
}

pub(crate) fn bmc_login(name: &str, values: &Values) -> Result<BmcLogin, BadSecret> {
    let username = needed(name, values, "username")?.reveal().to_owned();
    Ok(BmcLogin { username, password: needed(name, values, "password")?, kg: values.get("kg").cloned() })
}

/// `insecure`: the switch's manifest says that what goes over the wire may be read there.
pub(crate) fn snmp_login(name: &str, version: SnmpVersion, insecure: bool, values: &Values) -> Result<SnmpLogin, BadSecret> {
    let get = |key| needed(name, values, key);
    let bad = |key: &'static str| move |e: BadProtocol| BadSecret::Bad { secret: name.to_owned(), key, why: e.to_string() };
    let encrypts = ["privProtocol", "privPassword"].iter().any(|key| values.contains_key(*key));
    match version {
        SnmpVersion::V3 if !encrypts && !insecure => Err(BadSecret::NotEncrypted { secret: name.to_owned() }),
        SnmpVersion::V3 if !encrypts => Ok(SnmpLogin::V3 {
            username: get("username")?.reveal().to_owned(),
            auth: get("authProtocol")?.reveal().parse().map_err(bad("authProtocol"))?,
            auth_password: get("authPassword")?,
            privacy: PrivProtocol::None,
            priv_password: Hidden::new(String::new()),
        }),
        SnmpVersion::V2c => Ok(SnmpLogin::V2c { community: get("community")? }),
        SnmpVersion::V3 => Ok(SnmpLogin::V3 {
            username: get("username")?.reveal().to_owned(),
            auth: get("authProtocol")?.reveal().parse().map_err(bad("authProtocol"))?,
            auth_password: get("authPassword")?,
            privacy: get("privProtocol")?.reveal().parse().map_err(bad("privProtocol"))?,
            priv_password: get("privPassword")?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn without_encryption_only_where_the_switch_says_that_it_is_insecure() {
        let all = "username=joe\nauthProtocol=SHA-256\nauthPassword=authpass123\nprivProtocol=AES\nprivPassword=privpass123\n";
        let some = |lines: usize| parse("s", "/etc/s", &all.split_inclusive('\n').take(lines).collect::<String>()).unwrap();
        let privacy = |lines, insecure| match snmp_login("s", SnmpVersion::V3, insecure, &some(lines)) {
            Ok(SnmpLogin::V3 { privacy, .. }) => Ok(privacy),
            Ok(SnmpLogin::V2c { .. }) => Err("v2c".to_owned()),
            Err(bad) => Err(bad.to_string()),
        };
        let refused = privacy(3, false).unwrap_err();
        assert!(refused.contains("no `privProtocol`") && refused.contains("`insecure: true`"), "{refused}");
        assert_eq!(
            (privacy(3, true), privacy(5, false), privacy(5, true)),
            (Ok(PrivProtocol::None), Ok(PrivProtocol::Aes128), Ok(PrivProtocol::Aes128))
        );
        assert!(privacy(4, true).unwrap_err().contains("privPassword"), "half of it is forgotten, not left out");
    }

    fn one(text: &str) -> Result<String, String> {
        let values = parse("s", "/etc/s", text).map_err(|e| e.to_string())?;
        Ok(values.get("password").map_or_else(String::new, |v| v.reveal().to_owned()))
    }

    #[test]
    fn lines_are_read_as_a_shell_reads_them() {
        for (text, value) in [
            ("password=secret", "secret"),
            ("\u{feff}password=secret\r\n", "secret"),
            ("# a comment\n\n  export\tpassword=secret  \n", "secret"),
            ("password='it is \"so\" \\ #1'", "it is \"so\" \\ #1"),
            ("password=\"a \\\"b\\\" \\\\ \\n $HOME `x` 'c'\"", "a \"b\" \\ \\n $HOME `x` 'c'"),
            ("password='a'\"b\"c", "abc"),
            ("password=a#b # the site's", "a#b"),
            ("password=pa$word=", "pa$word="),
            ("password = secret", "secret"),
            ("password=''", ""),
            ("password=", ""),
            ("password=old\npassword=new", "new"),
            ("exported=1\npassword=exportedx", "exportedx"),
        ] {
            assert_eq!(one(text), Ok(value.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_a_shell_reads_in_another_way_is_refused_by_line_and_key_and_never_quoted() {
        for (text, line, word) in [
            ("username=ADMIN\npassword='hunter2", "line 2, password", "not closed"),
            ("password=\"hunter2\\\"", "line 1, password", "not closed"),
            ("password=hunter2 hunter2", "line 1, password", "space"),
            ("password=hunter2\\x", "line 1, password", "backslash"),
            ("password=hunter2&x", "line 1, password", "single quotes"),
            ("password='hunter2'\nhunter2", "line 2:", "key=value"),
            ("hunter2!=x", "line 1:", "key=value"),
            ("username=a\npassword: hunter2", "line 2, password", "`key=value`"),
            ("hunter2: x", "line 1:", "key=value"),
            ("PASSWORD=hunter2", "line 1, password", "exactly so"),
            ("export Auth_Password=hunter2", "line 1, authPassword", "exactly so"),
            ("password=hunter2\rusername=x", "line 1, password", "control"),
        ] {
            let said = one(text).unwrap_err();
            assert!(said.contains(line) && said.contains(word) && said.contains("/etc/s"), "{text:?}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[tokio::test]
    async fn only_a_small_regular_file_is_read_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("large"), vec![b'#'; limits::SECRET_BYTES + 1]).unwrap();
        std::fs::write(path("full"), [vec![b'#'; limits::SECRET_BYTES - 10], b"\npassword=".to_vec()].concat()).unwrap();
        std::fs::write(path("binary"), [0xff, 0xfe]).unwrap();
        for (file, word) in [
            (path("fifo"), "a FIFO"),
            (path("socket"), "a socket"),
            (path("large"), "64 KiB"),
            (path("binary"), "UTF-8"),
            (path("none"), "No such file"),
            (path(""), "a directory"),
            ("/dev/zero".to_owned(), "a device"),
        ] {
            let said = file_values("s", &file).await.map(|_| ()).unwrap_err().to_string();
            assert!(said.contains(word), "{file}: {said}");
        }
        assert!(file_values("s", &path("full")).await.is_ok());
    }

    /// What hangs is a key in `UNDER_WAY`: as if a file system had not answered.
    #[tokio::test]
    async fn one_read_of_a_secret_is_under_way_at_most() {
        let key = ("hangs".to_owned(), "/etc/hostname".to_owned());
        UNDER_WAY.lock().unwrap().insert(key.clone());
        let said = file_values("hangs", "/etc/hostname").await.map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("earlier attempt"), "{said}");
        UNDER_WAY.lock().unwrap().remove(&key);
    }
}
