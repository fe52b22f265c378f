//! XDR (RFC 4506), as far as these protocols use it: words, double words, and opaque octets.
//!
//! Leaves out: types (each procedure reads its own). Invariant: reading allocates nothing and gives no more than is there, whatever length was
//! claimed. Shown by the tests at the end and by `tests/nfs/hostile.rs`.

/// What was read is not what the protocol says: too short, too long, or another value than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the arguments of a call are not as the protocol says")]
pub(crate) struct Garbled;

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// So many octets, which must be there.
    pub(crate) fn fixed(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Garbled)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Garbled> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Garbled)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*taken))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Garbled> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Garbled)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*taken))
    }

    /// Octets with their length before them and zeros after them (RFC 4506, section 4.10).
    pub(crate) fn opaque(&mut self, most: usize) -> Result<&'a [u8], Garbled> {
        let length = usize::try_from(self.u32()?).map_err(|_| Garbled)?;
        if length > most {
            return Err(Garbled);
        }
        let taken = self.fixed(length)?;
        self.fixed(padding(length))?;
        Ok(taken)
    }
}

/// Octets that are missing to a multiple of four.
pub(crate) const fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(bytes) }
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Writer {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Writer {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Writer {
        self.u32(u32::from(value))
    }

    pub(crate) fn opaque(&mut self, bytes: &[u8]) -> &mut Writer {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len() + padding(bytes.len()), 0);
        self
    }

    /// Ends a chain of these where nothing is to be returned.
    pub(crate) fn end(&self) {}

    /// The same, of the results of a procedure whose arguments were in order.
    pub(crate) fn done(&self) -> Result<(), Garbled> {
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all after so many octets.
    pub(crate) fn cut(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.u32(7).u64(1 << 40).bool(true).opaque(b"abcde").opaque(b"");
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 4 + 8 + 4 + 4 + 8 + 4);
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u32(), reader.u64(), reader.u32()), (Ok(7), Ok(1 << 40), Ok(1)));
        assert_eq!((reader.opaque(5), reader.opaque(0)), (Ok(&b"abcde"[..]), Ok(&b""[..])));
        assert_eq!(reader.u32(), Err(Garbled));
    }

    #[test]
    fn a_length_that_was_only_claimed_gives_nothing() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4][..], &[0, 0, 0, 5, 1, 2, 3, 4], &[0, 0, 0, 3, 1, 2, 3], &[0, 0]] {
            assert_eq!(Reader::new(bytes).opaque(usize::MAX), Err(Garbled));
        }
    }
}
