//! What a module says of itself: the section `.modinfo` of its ELF file (elf(5)), words of the form `name=value` with a NUL after each.
//!
//! Leaves out: everything else of ELF. Invariant: a file that is not what it says gives nothing, and never an error or a panic: the kernel will say
//! what is wrong with it. Shown by the tests below, with modules of this machine where it has any.

/// The values of a name, in their order.
pub(crate) fn values<'a>(module: &'a [u8], name: &str) -> Vec<&'a str> {
    let section = section(module, b".modinfo").unwrap_or_default();
    let words = section.split(|octet| *octet == 0).filter_map(|word| std::str::from_utf8(word).ok());
    words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// Whether a module uses a symbol of the kernel, by the names that its file has.
pub(crate) fn names_symbol(module: &[u8], symbol: &str) -> bool {
    section(module, b".strtab").is_some_and(|names| names.split(|octet| *octet == 0).any(|name| name == symbol.as_bytes()))
}

/// Of either class and either byte order.
struct Elf<'a> {
    file: &'a [u8],
    is_64: bool,
    is_little: bool,
}

/// Where a section's header says that it is.
struct Header {
    name: usize,
    offset: usize,
    size: usize,
}

impl Elf<'_> {
    fn number(&self, at: usize, length: usize) -> Option<usize> {
        let octets = self.file.get(at..at.checked_add(length)?)?;
        let join = |sum: u64, octet: &u8| sum << 8 | u64::from(*octet);
        let number = if self.is_little { octets.iter().rev().fold(0, join) } else { octets.iter().fold(0, join) };
        usize::try_from(number).ok()
    }

    /// Offsets of Elf64_Ehdr and Elf64_Shdr, else of Elf32_Ehdr and Elf32_Shdr.
    fn header(&self, index: usize) -> Option<Header> {
        let (table, entry) =
            if self.is_64 { (self.number(40, 8)?, self.number(58, 2)?) } else { (self.number(32, 4)?, self.number(46, 2)?) };
        let at = table.checked_add(index.checked_mul(entry)?)?;
        let (offset, size, word) = if self.is_64 { (24, 32, 8) } else { (16, 20, 4) };
        let number = |offset: usize, length| self.number(at.checked_add(offset)?, length);
        Some(Header { name: number(0, 4)?, offset: number(offset, word)?, size: number(size, word)? })
    }

    fn sections(&self) -> Option<(usize, usize)> {
        if self.is_64 { Some((self.number(60, 2)?, self.number(62, 2)?)) } else { Some((self.number(48, 2)?, self.number(50, 2)?)) }
    }
}

fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (class, order) = (file.get(4)?, file.get(5)?);
    let elf = Elf { file: file.starts_with(b"\x7fELF").then_some(file)?, is_64: *class == 2, is_little: *order == 1 };
    let (count, names) = elf.sections()?;
    let content = |header: &Header| file.get(header.offset..header.offset.checked_add(header.size)?);
    let names = content(&elf.header(names)?)?;
    (0..count).find_map(|index| {
        let header = elf.header(index)?;
        let its = names.get(header.name..)?;
        (its.strip_prefix(name)?.first() == Some(&0)).then(|| content(&header))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One section of names, one of what is said, of each class and byte order.
    fn module(is_64: bool, is_little: bool) -> Vec<u8> {
        let number = |value: usize, length: usize| -> Vec<u8> {
            let octets = (value as u64).to_le_bytes()[..length].to_vec();
            if is_little { octets } else { octets.into_iter().rev().collect() }
        };
        let (head, entry, word) = if is_64 { (64, 64, 8) } else { (52, 40, 4) };
        let names = b"\0.modinfo\0.shstrtab\0";
        let said = b"license=GPL\0firmware=a/b.bin\0firmwares=no\0firmware=c.bin\0";
        let mut file = [b"\x7fELF", &[if is_64 { 2 } else { 1 }, if is_little { 1 } else { 2 }][..]].concat();
        file.resize(head, 0);
        let mut put = |at: usize, value, length| file[at..at + length].copy_from_slice(&number(value, length));
        let at_names = head + 2 * entry;
        if is_64 {
            put(40, head, 8);
            [(58, entry), (60, 2), (62, 1)].into_iter().for_each(|(at, value)| put(at, value, 2));
        } else {
            put(32, head, 4);
            [(46, entry), (48, 2), (50, 1)].into_iter().for_each(|(at, value)| put(at, value, 2));
        }
        for (name, offset, size) in [(1, at_names + names.len(), said.len()), (10, at_names, names.len())] {
            let mut header = vec![0; entry];
            let (at_offset, at_size) = if is_64 { (24, 32) } else { (16, 20) };
            header[0..4].copy_from_slice(&number(name, 4));
            header[at_offset..at_offset + word].copy_from_slice(&number(offset, word));
            header[at_size..at_size + word].copy_from_slice(&number(size, word));
            file.extend(header);
        }
        file.extend(names);
        file.extend(said);
        file
    }

    #[test]
    fn firmware_is_named_in_every_kind_of_elf() {
        for (is_64, is_little) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(values(&module(is_64, is_little), "firmware"), ["a/b.bin", "c.bin"], "{is_64} {is_little}");
        }
    }

    #[test]
    fn what_is_cut_or_changed_gives_less_and_never_panics() {
        let whole = module(true, true);
        for length in 0..whole.len() {
            values(&whole[..length], "firmware");
        }
        for at in 0..200 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                values(&changed, "firmware");
            }
        }
        assert!(values(b"no module", "firmware").is_empty());
    }
}
