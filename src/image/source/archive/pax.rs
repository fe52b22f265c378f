//! Extended headers: records of the form `LENGTH KEY=VALUE\n`, for one member or for all that follow.
//!
//! POSIX.1-2017 pax, "pax Extended Header"; the xattr keys are star's (SCHILY), libarchive's and GNU tar's (RHT for SELinux). Leaves out all keys
//! that an index has no place for (times but mtime, names of owners, ACLs). Invariant: a record that does not end where it says is an error. Shown by
//! the tests below and `tests/importing/tar.rs`.

use super::sparse::MOST_EXTENTS;

/// What the known keys said; None: not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    pub(super) has_capabilities: bool,
    pub(super) has_label: bool,
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_major: Option<u64>,
    pub(super) sparse_size: Option<u64>,
    /// Offsets and lengths in turn: formats 0.0 and 0.1.
    pub(super) sparse_map: Vec<u64>,
}

fn whole(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Seconds, rounded down: `-1.5` is -2.
fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let is_before = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    let seconds: i64 = if whole == "-" || whole == "-0" { 0 } else { whole.parse().ok()? };
    seconds.checked_sub(i64::from(is_before))
}

type Fault = (String, String);

impl Pax {
    /// The path of a GNU long name, which ends with a NUL.
    pub(super) fn set_path(&mut self, bytes: &[u8]) {
        self.path = Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
    }

    pub(super) fn set_target(&mut self, bytes: &[u8]) {
        self.target = Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
    }

    /// What this says, and where it says nothing what `global` says.
    pub(super) fn over(self, global: &Pax) -> Pax {
        Pax {
            path: self.path.or_else(|| global.path.clone()),
            target: self.target.or_else(|| global.target.clone()),
            size: self.size.or(global.size),
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            mtime: self.mtime.or(global.mtime),
            has_capabilities: self.has_capabilities || global.has_capabilities,
            has_label: self.has_label || global.has_label,
            ..self
        }
    }

    /// Reads records, each over those before it.
    pub(super) fn read(&mut self, mut records: &[u8]) -> Result<(), Fault> {
        while !records.is_empty() {
            let fault = |found: &str| (found.to_owned(), "extended header records LENGTH KEY=VALUE with a newline".to_owned());
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(|| fault("an extended header without a length"))?;
            let (length, _) = records.split_at(space);
            let length =
                whole(length).and_then(|length| usize::try_from(length).ok()).ok_or_else(|| fault("a length that is no number"))?;
            let record = records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or_else(|| fault("a record that does not end where it says"))?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(|| fault("a record without ="))?;
            let (key, value) = record.split_at(equals);
            self.set(key, value.get(1..).unwrap_or_default())?;
            records = records.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let bad = || (format!("{:?} for {}", super::super::escaped(value), super::super::escaped(key)), "a number".to_owned());
        // An empty value takes back what was said.
        let number = || if value.is_empty() { Ok(None) } else { whole(value).map(Some).ok_or_else(bad) };
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.target = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(seconds(value).ok_or_else(bad)?),
            b"SCHILY.xattr.security.capability" | b"LIBARCHIVE.xattr.security.capability" => self.has_capabilities = !value.is_empty(),
            b"SCHILY.xattr.security.selinux" | b"LIBARCHIVE.xattr.security.selinux" | b"RHT.security.selinux" => {
                self.has_label = !value.is_empty();
            }
            b"GNU.sparse.name" => self.sparse_name = bytes(),
            b"GNU.sparse.major" => self.sparse_major = number()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse_map.extend(number()?),
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(whole).collect();
                self.sparse_map = numbers.ok_or_else(bad)?;
            }
            _ => {}
        }
        if self.sparse_map.len() > 2 * MOST_EXTENTS {
            return Err(("a sparse map that is too long".to_owned(), format!("at most {MOST_EXTENTS} extents")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_whatever_is_in_them() {
        let mut pax = Pax::default();
        pax.read(b"13 path=a=\nb\n30 mtime=1700000000.123456789\n11 uid=2000\n9 gid=0\n16 comment=hello\n").unwrap_err();
        let mut pax = Pax::default();
        pax.read(b"12 path=a=b\n30 mtime=1700000000.123456789\n18 uid=4000000000\n12 path=c\nd\n").unwrap();
        assert_eq!((pax.path.as_deref(), pax.mtime, pax.uid), (Some(&b"c\nd"[..]), Some(1_700_000_000), Some(4_000_000_000)));
        pax.read(b"8 path=\n").unwrap();
        assert_eq!(pax.path, None);
        for bad in [&b"x"[..], b"5 a\n", b"99 a=b\n", b"3 a=b\n", b"6 a=bc", b"0 \n", b"10 uid=-1\n", b"1 a=b\n"] {
            assert!(Pax::default().read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_rounded_down() {
        for (text, is) in [("1.9", 1), ("-1.5", -2), ("-0.5", -1), ("-1.0", -1), ("7", 7), ("-7", -7), ("-0", 0)] {
            assert_eq!(seconds(text.as_bytes()), Some(is), "{text}");
        }
        assert_eq!(seconds(b"1.x"), None);
        assert_eq!(seconds(b""), None);
    }
}
