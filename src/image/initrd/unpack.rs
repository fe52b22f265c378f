//! Modules and firmware as the kernel takes them: unpacked.
//!
//! Leaves out: formats that no distribution packs its modules with. Invariant: no more than `LIMIT` comes out of a file, however small it is. Shown by
//! the tests below.

use std::io::{self, Read};

/// The largest module of a distribution has some 5 MiB, the largest firmware of a card some 20.
const LIMIT: u64 = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

impl Packed {
    /// In the order in which the kernel looks for firmware (drivers/base/firmware_loader).
    pub(crate) const FIRMWARE: [Self; 3] = [Self::Plain, Self::Zstd, Self::Xz];
    const ALL: [Self; 4] = [Self::Plain, Self::Gzip, Self::Xz, Self::Zstd];

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
        }
    }

    /// A name without its suffix, and what that says.
    pub(crate) fn of(path: &str) -> (&str, Self) {
        let packed = Self::ALL.into_iter().skip(1).find_map(|packed| Some((path.strip_suffix(packed.suffix())?, packed)));
        packed.unwrap_or((path, Self::Plain))
    }

    pub(crate) fn unpack(self, octets: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(octets),
            Self::Gzip => all(flate2::read::MultiGzDecoder::new(octets.as_slice())),
            Self::Xz => all(liblzma::bufread::XzDecoder::new_multi_decoder(octets.as_slice())),
            Self::Zstd => all(zstd::Decoder::new(octets.as_slice())?),
        }
    }
}

fn all(packed: impl Read) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    packed.take(LIMIT + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {LIMIT} octets come out of it")));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// The programs that packed the modules of distributions are the judges.
    #[test]
    fn what_others_packed_is_unpacked() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let cases: [(&[&str], Packed); 4] = [
            (&["gzip", "-n", "-9"], Packed::Gzip),
            (&["xz", "--check=crc32", "--lzma2=dict=1MiB"], Packed::Xz),
            (&["xz", "--check=sha256", "-T2", "--block-size=100000"], Packed::Xz),
            (&["zstd", "-q", "-19"], Packed::Zstd),
        ];
        for (command, packed) in cases {
            let mut child =
                Command::new(command[0]).args(&command[1..]).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            let given = plain.clone();
            let writer = std::thread::spawn(move || input.write_all(&given).unwrap());
            let output = child.wait_with_output().unwrap().stdout;
            writer.join().unwrap();
            assert!(packed.unpack(output.clone()).unwrap() == plain, "{command:?}");
            let half = output[..output.len() / 2].to_vec();
            assert!(packed.unpack(half).is_err(), "{command:?}: half of it is an error");
        }
    }

    #[test]
    fn a_bomb_is_an_error() {
        let bomb = zstd::encode_all(io::repeat(0).take(LIMIT + 2), 1).unwrap();
        assert!(bomb.len() < 100_000);
        assert_eq!(Packed::Zstd.unpack(bomb).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_suffix_says_how_it_is_packed() {
        assert_eq!(Packed::of("a/b.ko.xz"), ("a/b.ko", Packed::Xz));
        assert_eq!(Packed::of("a/b.ko"), ("a/b.ko", Packed::Plain));
    }
}
