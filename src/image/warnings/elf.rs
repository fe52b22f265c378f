//! One section of an ELF file, by name: enough to read what a kernel module says of itself.
//!
//! elf(5). Leaves out 32-bit and big-endian files, which no server that boots by UEFI or PXE has: they have no section here. Invariant: no offset in
//! the file is trusted. Shown by the tests below and in `warnings/tests.rs`.

/// `e_shoff`, `e_shentsize`, `e_shnum`, `e_shstrndx` of Elf64_Ehdr.
const HEADERS_AT: usize = 0x28;
const HEADER_SIZE: usize = 0x3a;
const HEADERS: usize = 0x3c;
const NAMES: usize = 0x3e;

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(N)?)?;
    Some(field.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn part(bytes: &[u8], from: u64, len: u64) -> Option<&[u8]> {
    let from = usize::try_from(from).ok()?;
    bytes.get(from..from.checked_add(usize::try_from(len).ok()?)?)
}

/// The contents of a section; None where there is none or the file is no ELF64 of little-endian order.
pub(super) fn section<'f>(file: &'f [u8], wanted: &[u8]) -> Option<&'f [u8]> {
    // Magic, ELFCLASS64, ELFDATA2LSB.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (at, size) = (number::<8>(file, HEADERS_AT)?, number::<2>(file, HEADER_SIZE)?);
    let count = number::<2>(file, HEADERS)?;
    // Elf64_Shdr has 64 bytes: sh_name at 0, sh_offset at 0x18, sh_size at 0x20.
    let header = |n: u64| part(file, at.checked_add(n.checked_mul(size)?)?, 64);
    let contents = |header: &[u8]| part(file, number::<8>(header, 0x18)?, number::<8>(header, 0x20)?);
    let names = contents(header(number::<2>(file, NAMES)?)?)?;
    (0..count).find_map(|n| {
        let header = header(n)?;
        let name = names.get(usize::try_from(number::<4>(header, 0)?).ok()?..)?.split(|byte| *byte == 0).next()?;
        if name == wanted { contents(header) } else { None }
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file with a `.modinfo` and the section of names.
    pub(in super::super) fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file.extend_from_slice(names);
        file.extend_from_slice(modinfo);
        let at = file.len() as u64;
        for (name, from, len) in [(0u32, 0, 0), (1, 64, names.len()), (11, 64 + names.len(), modinfo.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(from as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file[HEADERS_AT..HEADERS_AT + 8].copy_from_slice(&at.to_le_bytes());
        file[HEADER_SIZE] = 64;
        file[HEADERS] = 3;
        file[NAMES] = 1;
        file
    }

    #[test]
    fn a_section_is_found_and_nothing_is_trusted() {
        let file = module(b"license=GPL\0firmware=a.fw\0");
        assert_eq!(section(&file, b".modinfo"), Some(&b"license=GPL\0firmware=a.fw\0"[..]));
        assert_eq!(section(&file, b".text"), None);
        for cut in 0..file.len() {
            let _ = section(&file[..cut], b".modinfo");
        }
        for at in 0..file.len() {
            let mut odd = file.clone();
            odd[at] = 0xff;
            let _ = section(&odd, b".modinfo");
        }
    }
}
