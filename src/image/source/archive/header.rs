//! One header block of 512 bytes: v7, ustar and GNU.
//!
//! Leaves out extended headers (`pax`) and the meaning of sparse maps (`sparse`). Invariant: a block whose checksum is wrong is no header. Shown by
//! the tests below and `tests/importing/tar.rs`.

use super::MemberKind;

/// Fields by offset and length: POSIX.1-2017 pax, "ustar Header Block"; GNU tar manual, `struct oldgnu_header`.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const MTIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const TYPE: usize = 156;
const TARGET: (usize, usize) = (157, 100);
const MAGIC: (usize, usize) = (257, 6);
const MAJOR: (usize, usize) = (329, 8);
const MINOR: (usize, usize) = (337, 8);
const PREFIX: (usize, usize) = (345, 155);

#[derive(Debug)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) mode: u16,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) type_flag: u8,
    pub(super) device: (u32, u32),
    /// The whole block, for the sparse map in it.
    pub(super) block: [u8; 512],
}

pub(super) fn field(block: &[u8], (from, len): (usize, usize)) -> &[u8] {
    block.get(from..from + len).unwrap_or_default()
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits, or (GNU) a big-endian number whose first bit is set. None where it is neither.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(*first) - 0x100 };
        return i64::try_from(rest.iter().try_fold(start, |n, byte| n.checked_mul(256)?.checked_add(i128::from(*byte)))?).ok();
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0i64, |n, digit| match digit {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// The sum of all bytes, the checksum's own as spaces; some old archivers took bytes as signed.
fn checksums(block: &[u8; 512]) -> [i64; 2] {
    let own = CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1;
    let bytes = block.iter().enumerate().map(|(at, byte)| if own.contains(&at) { b' ' } else { *byte });
    bytes.fold([0, 0], |[plain, signed], byte| [plain + i64::from(byte), signed + i64::from(byte.cast_signed())])
}

impl Header {
    /// What was found and what was expected, where it is none.
    pub(super) fn parse(block: &[u8; 512]) -> Result<Header, (String, String)> {
        let sums = checksums(block);
        match number(field(block, CHECKSUM)) {
            Some(sum) if sums.contains(&sum) => {}
            found => {
                let found = found.map_or("no checksum".to_owned(), |sum| format!("the checksum {sum}"));
                return Err((found, format!("a tar header, whose checksum is {}", sums.first().copied().unwrap_or_default())));
            }
        }
        let get = |what: &str, at| number(field(block, at)).ok_or_else(|| (format!("a {what} that is no number"), "a number".to_owned()));
        let size = u64::try_from(get("size", SIZE)?).map_err(|_| ("a negative size".to_owned(), "at least 0".to_owned()))?;
        let type_flag = block.get(TYPE).copied().unwrap_or_default();
        let mut path = until_nul(field(block, NAME)).to_vec();
        let prefix = until_nul(field(block, PREFIX));
        // GNU's magic is "ustar " and it has other fields where the prefix would be.
        if field(block, MAGIC) == b"ustar\0" && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let device = |at| match type_flag {
            b'3' | b'4' => get("device number", at).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            _ => Ok(0),
        };
        Ok(Header {
            path,
            target: until_nul(field(block, TARGET)).to_vec(),
            mode: u16::try_from(get("mode", MODE)? & 0o7777).unwrap_or_default(),
            uid: get("uid", UID)?,
            gid: get("gid", GID)?,
            size,
            mtime: get("mtime", MTIME)?,
            type_flag,
            device: (device(MAJOR)?, device(MINOR)?),
            block: *block,
        })
    }

    /// Whether bytes follow. Links and directories have none, whatever size some archivers write (GNU tar: "links 0 size on tape").
    pub(super) fn has_contents(&self) -> bool {
        !matches!(self.type_flag, b'1'..=b'6')
    }

    pub(super) fn kind(&self, path: &[u8]) -> Option<MemberKind> {
        Some(match self.type_flag {
            // In v7 archives a directory is a file whose name ends with a slash.
            b'0' | 0 if path.ends_with(b"/") => MemberKind::Directory,
            b'0' | 0 | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::Link,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::Char,
            b'4' => MemberKind::Block,
            // D: GNU's incremental archives list a directory's names as its contents.
            b'5' | b'D' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_kinds() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   1750 \0"), Some(0o1750));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]), Some(-256));
        assert_eq!(number(&[0xbf; 12]), None, "more than 63 bits");
        assert_eq!(number(b"0009\0"), None);
        assert_eq!(number(b"-1\0"), None);
    }

    #[test]
    fn a_wrong_checksum_is_no_header() {
        let error = Header::parse(&[b'a'; 512]).unwrap_err();
        assert!(error.1.starts_with("a tar header"), "{error:?}");
    }
}
