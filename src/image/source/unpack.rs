//! Takes the compression off a stream, told by its first bytes: gzip, zstd, xz or none.
//!
//! Leaves out bzip2, lz4 and others: they are refused by name. Invariant: a decoder's memory is bounded whatever the stream asks for. Shown by
//! `tests/importing/tar.rs`.

use std::io::{self, BufRead, BufReader, Read};

use super::SourceError;

/// What `xz -9` needs is 65 MiB (man xz); a stream may ask for 4 GiB.
const XZ_MEMORY: u64 = 128 * 1024 * 1024;
/// The decoder's own default is 27 as well (zstd.h, ZSTD_WINDOWLOG_LIMIT_DEFAULT): 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 256 * 1024;
/// More than the longest magic.
const HEAD: usize = 8;

pub(super) type Stream<'r> = Box<dyn Read + 'r>;

/// What a stream is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
}

/// By its first bytes; `Err` names one that is not supported.
pub(super) fn packing(head: &[u8]) -> Result<Packing, &'static str> {
    match head {
        // RFC 1952 2.3.1
        [0x1f, 0x8b, ..] => Ok(Packing::Gzip),
        // RFC 8878 3.1.1, and a skippable frame before it, 3.1.2
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Packing::Zstd),
        // The .xz File Format 1.2.1, 2.1.1.1
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Packing::Xz),
        [b'B', b'Z', b'h', ..] => Err("bzip2"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Err("lz4"),
        [b'P', b'K', 3, 4, ..] => Err("zip"),
        [b'L', b'Z', b'I', b'P', ..] => Err("lzip"),
        [0x5d, 0, 0, ..] => Err("lzma"),
        [b'h', b's', b'q', b's', ..] => Err("squashfs"),
        _ => Ok(Packing::Plain),
    }
}

/// Reads as many bytes as there are, up to the length of a magic.
pub(super) fn head(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The stream without its compression.
pub(super) fn unpacked<'r>(mut reader: impl Read + 'r, what: &str) -> Result<(Packing, Stream<'r>), SourceError> {
    let error = |source| SourceError::Read { what: what.to_owned(), at: 0, source };
    let head = head(&mut reader).map_err(error)?;
    let packing = packing(&head).map_err(|found| SourceError::Format {
        what: what.to_owned(),
        at: 0,
        found: found.to_owned(),
        expected: "tar, plain or packed with gzip, zstd or xz".to_owned(),
    })?;
    let buffered = BufReader::with_capacity(BUFFER, io::Cursor::new(head).chain(reader));
    Ok((packing, decoder(packing, buffered).map_err(error)?))
}

/// A decoder for a packing that is known.
pub(super) fn decoder<'r>(packing: Packing, buffered: impl BufRead + 'r) -> io::Result<Stream<'r>> {
    Ok(match packing {
        Packing::Plain => Box::new(buffered),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Packing::Xz => {
            // As xz does it: streams one after the other are one.
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, stream))
        }
    })
}

/// Whole contents, unpacked, of something small such as a kernel module; None where they do not unpack or are larger than `most`.
pub(crate) fn unpack_small(packed: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let decoder = decoder(packing(packed).ok()?, packed).ok()?;
    decoder.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}
