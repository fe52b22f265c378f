//! The text of an index: what is stored, sent and hashed.
//!
//! ```text
//! embody-index 1
//! d 755 0 0 1700000000 /
//! f 4755 0 0 1700000000 35 9f86…0f08 /bin/su
//! h /bin/su /bin/sudo
//! l 777 0 0 1700000000 usr/lib /lib
//! c 666 0 0 1700000000 1,3 /null
//! ```
//!
//! Type, mode (octal), uid, gid, mtime, what only this type has (f: size and sha256; l: target; c and b: major,minor; d, p, s: nothing), path; of a
//! further hard link its first path and its own. One space between fields, one newline after each line, lines in the order of the bytes of paths.
//! Bytes outside printable ASCII, space and backslash are `\ooo`, octal. Leaves out what an index must satisfy (`build`). Invariant: there is one
//! text for an index, `format(parse(t)) == t`. Shown by `tests/importing/index.rs`.

use std::borrow::Cow;
use std::io::{self, Write};

use super::super::digest::Digest;
use super::build::{Builder, Fault};
use super::{Attributes, Index, MOST_TEXT, Node};

const FIRST_LINE: &[u8] = b"embody-index 1";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the index: found {found}, expected {expected}; it is damaged or of another version: import the image again")]
pub struct IndexError {
    pub line: usize,
    pub found: String,
    pub expected: String,
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'\\'
}

/// Bytes of a name or path as the text of an index has them.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if is_plain(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push('\\');
            text.extend([byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| char::from(b'0' + digit)));
        }
    }
    text
}

fn bad(what: &str, field: &[u8], expected: &str) -> Fault {
    let shown = escaped(field.get(..120).unwrap_or(field));
    Fault { found: format!("the {what} {shown:?}"), expected: expected.to_owned() }
}

fn unescaped<'t>(what: &str, field: &'t [u8]) -> Result<Cow<'t, [u8]>, Fault> {
    if field.iter().all(|byte| is_plain(*byte)) && !field.is_empty() {
        return Ok(Cow::Borrowed(field));
    }
    let wrong = || bad(what, field, "printable ASCII, and \\ooo (three octal digits) for every other byte, space and backslash");
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    loop {
        rest = match rest {
            [] => break,
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                let byte = (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0');
                if is_plain(byte) {
                    return Err(wrong());
                }
                bytes.push(byte);
                after
            }
            [byte, after @ ..] if is_plain(*byte) => {
                bytes.push(*byte);
                after
            }
            _ => return Err(wrong()),
        };
    }
    if bytes.is_empty() {
        return Err(wrong());
    }
    Ok(Cow::Owned(bytes))
}

/// A number as it is printed: no sign but a minus, no leading zero.
fn number<T: std::str::FromStr>(what: &str, field: &[u8]) -> Result<T, Fault> {
    let wrong = || bad(what, field, "a decimal number without leading zeros, in its range");
    let digits = field.strip_prefix(b"-").unwrap_or(field);
    let is_zero = digits == b"0" && digits.len() == field.len();
    if !is_zero && !matches!(digits, [b'1'..=b'9', ..]) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

fn mode(field: &[u8]) -> Result<u16, Fault> {
    let wrong = || bad("mode", field, "up to four octal digits without leading zeros");
    let is_octal = field.len() <= 4 && field.iter().all(|digit| matches!(digit, b'0'..=b'7'));
    if !is_octal || field != b"0" && !matches!(field, [b'1'..=b'7', ..]) {
        return Err(wrong());
    }
    std::str::from_utf8(field).ok().and_then(|text| u16::from_str_radix(text, 8).ok()).ok_or_else(wrong)
}

fn device(field: &[u8]) -> Result<(u32, u32), Fault> {
    let comma = field.iter().position(|c| *c == b',').ok_or_else(|| bad("device", field, "major,minor"))?;
    let (major, minor) = field.split_at_checked(comma).unwrap_or_default();
    Ok((number("major number", major)?, number("minor number", minor.get(1..).unwrap_or_default())?))
}

fn push_line(builder: &mut Builder, line: &[u8]) -> Result<(), Fault> {
    let fields: Vec<&[u8]> = line.split(|c| *c == b' ').collect();
    let (kind, mode_, uid, gid, mtime, special, path) = match *fields.as_slice() {
        [b"h", first, path] => return builder.push_link(&unescaped("path", path)?, &unescaped("first path", first)?),
        [kind @ (b"d" | b"p" | b"s"), mode, uid, gid, mtime, path] => (kind, mode, uid, gid, mtime, [&b""[..]; 2], path),
        [kind @ (b"l" | b"c" | b"b"), mode, uid, gid, mtime, one, path] => (kind, mode, uid, gid, mtime, [one, b""], path),
        [kind @ b"f", mode, uid, gid, mtime, size, sha, path] => (kind, mode, uid, gid, mtime, [size, sha], path),
        _ => {
            let expected = "d, p or s with 6 fields, l, c or b with 7, f with 8 or h with 3, one space between fields";
            return Err(bad("line", line, expected));
        }
    };
    let [one, two] = special;
    let node = match kind {
        b"d" => Node::Directory,
        b"p" => Node::Fifo,
        b"s" => Node::Socket,
        b"l" => Node::Symlink { target: unescaped("target", one)? },
        b"f" => {
            let digest = Digest::from_hex(two).ok_or_else(|| bad("digest", two, "64 lower-case hexadecimal digits"))?;
            Node::File { size: number("size", one)?, digest }
        }
        _ => {
            let (major, minor) = device(one)?;
            if kind == b"c" { Node::Char { major, minor } } else { Node::Block { major, minor } }
        }
    };
    let (uid, gid, mtime) = (number("uid", uid)?, number("gid", gid)?, number("mtime", mtime)?);
    builder.push(&unescaped("path", path)?, &Attributes { mode: mode(mode_)?, uid, gid, mtime, node })
}

impl Index {
    /// Takes exactly what `format` gives.
    pub fn parse(text: &[u8]) -> Result<Index, IndexError> {
        let at = |line: usize| move |Fault { found, expected }: Fault| IndexError { line, found, expected };
        let fault = |found: String, expected: &str| Fault { found, expected: expected.to_owned() };
        if text.len() > MOST_TEXT {
            return Err(at(1)(fault(format!("{} bytes", text.len()), &format!("at most {MOST_TEXT}"))));
        }
        let Some(body) = text.strip_suffix(b"\n") else {
            return Err(at(text.split(|c| *c == b'\n').count())(fault("no newline at the end".to_owned(), "a newline after each line")));
        };
        let mut lines = body.split(|c| *c == b'\n');
        let first = lines.next().unwrap_or_default();
        if first != FIRST_LINE {
            return Err(at(1)(bad("line", first, "embody-index 1")));
        }
        let mut builder = Builder::default();
        for (line, text) in (2..).zip(lines) {
            push_line(&mut builder, text).map_err(at(line))?;
        }
        // Line 1 is the heading.
        builder.finish().map_err(|(position, found)| at(position as usize + 1)(found))
    }

    /// The text, line by line.
    pub fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(FIRST_LINE)?;
        to.write_all(b"\n")?;
        for entry in self.entries() {
            let path = escaped(&entry.path);
            if entry.is_link {
                writeln!(to, "h {} {path}", escaped(&self.path(entry.inode)))?;
                continue;
            }
            let Some(Attributes { mode, uid, gid, mtime, node }) = self.attributes(entry.inode) else { continue };
            let meta = format_args!("{mode:o} {uid} {gid} {mtime}");
            match node {
                Node::Directory => writeln!(to, "d {meta} {path}")?,
                Node::Fifo => writeln!(to, "p {meta} {path}")?,
                Node::Socket => writeln!(to, "s {meta} {path}")?,
                Node::File { size, digest } => writeln!(to, "f {meta} {size} {digest} {path}")?,
                Node::Symlink { target } => writeln!(to, "l {meta} {} {path}", escaped(&target))?,
                Node::Char { major, minor } => writeln!(to, "c {meta} {major},{minor} {path}")?,
                Node::Block { major, minor } => writeln!(to, "b {meta} {major},{minor} {path}")?,
            }
        }
        Ok(())
    }

    pub fn format(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // A Vec takes all that is written.
        let _ = self.write_to(&mut text);
        text
    }
}
