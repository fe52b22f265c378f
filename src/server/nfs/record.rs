//! Records of a stream (RFC 5531, section 11): one call each, in one or more fragments.
//!
//! Leaves out: what is in them. Invariant: what is held of one connection grows with what has arrived and not with what was claimed, and ends at the
//! largest record. Shown by the tests at the end and by `tests/nfs/hostile.rs`.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::server::nfs::limits::Limits;
use crate::server::nfs::rpc::LAST_FRAGMENT;

/// Read at a time: some thirty calls.
const ROOM: usize = 4 << 10;
/// Fragments of one record. Linux, libnfs and the BSDs send one.
const FRAGMENTS: usize = 16;
/// A buffer that a large record has made larger than this is not kept.
const KEPT: usize = 4 * ROOM;

/// Why there are no more records.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// At the end of a record.
    #[error("the peer has closed the connection")]
    Closed,
    #[error("a record of more than {most} octets or {FRAGMENTS} fragments; the largest call that is answered has fewer")]
    TooLarge { most: usize },
    #[error("silent for {0:?}")]
    Silent(Duration),
    #[error("a call was begun and not finished within {0:?}")]
    Slow(Duration),
    #[error("the connection broke")]
    Broken(#[from] io::Error),
}

pub(crate) struct Records<R> {
    from: R,
    arrived: BytesMut,
    /// Of the present record, earlier fragments.
    earlier: BytesMut,
    fragments: usize,
    any: bool,
    limits: Limits,
}

impl<R: AsyncRead + Unpin> Records<R> {
    pub(crate) fn of(from: R, limits: &Limits) -> Records<R> {
        Records { from, arrived: BytesMut::new(), earlier: BytesMut::new(), fragments: 0, any: false, limits: limits.clone() }
    }

    pub(crate) async fn next(&mut self) -> Result<Bytes, End> {
        let mut begun = None;
        loop {
            if let Some(record) = self.complete()? {
                self.any = true;
                return Ok(record);
            }
            let now = Instant::now();
            let within = self.limits.record_within;
            let (deadline, end) = if self.arrived.is_empty() && self.fragments == 0 {
                let idle = if self.any { self.limits.idle } else { within };
                (now + idle, End::Silent(idle))
            } else {
                (*begun.get_or_insert(now) + within, End::Slow(within))
            };
            if self.arrived.is_empty() && self.arrived.capacity() > KEPT {
                self.arrived = BytesMut::new();
            }
            self.arrived.reserve(ROOM);
            let read = timeout_at(deadline, self.from.read_buf(&mut self.arrived)).await;
            match read {
                Err(_elapsed) => return Err(end),
                Ok(Err(error)) => return Err(End::Broken(error)),
                Ok(Ok(0)) if self.arrived.is_empty() && self.fragments == 0 => return Err(End::Closed),
                Ok(Ok(0)) => return Err(End::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// A whole record, of what has arrived.
    fn complete(&mut self) -> Result<Option<Bytes>, End> {
        let too_large = End::TooLarge { most: self.limits.record };
        loop {
            let Some(mark) = self.arrived.first_chunk().map(|mark| u32::from_be_bytes(*mark)) else { return Ok(None) };
            let Ok(length) = usize::try_from(mark & !LAST_FRAGMENT) else { return Err(too_large) };
            if self.earlier.len().saturating_add(length) > self.limits.record || self.fragments >= FRAGMENTS {
                return Err(too_large);
            }
            if self.arrived.len() - 4 < length {
                return Ok(None);
            }
            self.arrived.advance(4);
            let fragment = self.arrived.split_to(length);
            let last = mark & LAST_FRAGMENT != 0;
            if last && self.fragments == 0 {
                return Ok(Some(fragment.freeze()));
            }
            self.earlier.extend_from_slice(&fragment);
            self.fragments += 1;
            if last {
                self.fragments = 0;
                return Ok(Some(std::mem::take(&mut self.earlier).freeze()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    /// All records of what comes in these pieces, and why there are no more.
    fn read(pieces: &[Vec<u8>], record: usize) -> (Vec<Bytes>, End) {
        runtime().block_on(async {
            let (mut to, from) = tokio::io::duplex(64);
            let mut records = Records::of(from, &Limits { record, ..Limits::default() });
            let write = async {
                for piece in pieces {
                    if to.write_all(piece).await.is_err() {
                        break;
                    }
                }
                drop(to);
            };
            let read = async move {
                let mut all = Vec::new();
                loop {
                    match records.next().await {
                        Ok(record) => all.push(record),
                        Err(end) => return (all, end),
                    }
                    assert!(records.arrived.capacity() <= 2 * (records.limits.record + ROOM) + KEPT);
                }
            };
            tokio::join!(write, read).1
        })
    }

    fn fragment(bytes: &[u8], last: bool) -> Vec<u8> {
        let mark = bytes.len() as u32 | if last { LAST_FRAGMENT } else { 0 };
        [&mark.to_be_bytes(), bytes].concat()
    }

    #[test]
    fn fragments_make_one_record() {
        let (all, end) = read(&[fragment(b"abc", false), fragment(b"", false), fragment(b"def", true), fragment(b"g", true)], 100);
        assert_eq!(all, ["abcdef", "g"]);
        assert!(matches!(end, End::Closed), "{end}");
    }

    #[test]
    fn what_is_too_large_or_never_ends_is_not_waited_for() {
        for pieces in [vec![0x80, 0, 0, 101], vec![0xff; 4], fragment(&[0; 60], false).repeat(2), fragment(b"", false).repeat(20)] {
            let (all, end) = read(&[pieces], 100);
            assert!(all.is_empty() && matches!(end, End::TooLarge { .. }), "{end}");
        }
        let (_, end) = read(&[fragment(b"abc", true)[..5].to_vec()], 100);
        assert!(matches!(end, End::Broken(_)), "{end}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_comes_an_octet_at_a_time_is_not_waited_for() {
        let limits = Limits::default();
        let (mut to, from) = tokio::io::duplex(64);
        let mut records = Records::of(from, &limits);
        let began = Instant::now();
        let drip = async {
            loop {
                to.write_all(&[0]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(9)).await;
            }
        };
        let end = tokio::select! {
            biased;
            end = records.next() => end.unwrap_err(),
            () = drip => unreachable!(),
        };
        assert!(matches!(end, End::Slow(_)) && began.elapsed() <= limits.record_within + Duration::from_secs(1), "{end}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_call_comes_soon_and_later_ones_have_hours() {
        let limits = Limits::default();
        let (mut to, from) = tokio::io::duplex(64);
        let mut records = Records::of(from, &limits);
        to.write_all(&fragment(b"abc", true)).await.unwrap();
        records.next().await.unwrap();
        let began = Instant::now();
        assert!(matches!(records.next().await, Err(End::Silent(_))));
        assert!(began.elapsed() >= limits.idle);
        let (_to, from) = tokio::io::duplex(64);
        let began = Instant::now();
        assert!(matches!(Records::of(from, &limits).next().await, Err(End::Silent(_))));
        assert!(began.elapsed() <= limits.record_within + Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn records_are_what_was_sent_however_it_is_cut(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(1_usize..200, 1..40),
        ) {
            let mut stream: Vec<u8> = sent.iter().flat_map(|bytes| {
                let (first, second) = bytes.split_at(bytes.len() / 3);
                [fragment(first, false), fragment(second, true)].concat()
            }).collect();
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if stream.is_empty() { break }
                pieces.push(stream.drain(..(*cut).min(stream.len())).collect());
            }
            let (all, end) = read(&pieces, 300);
            prop_assert_eq!(all, sent);
            prop_assert!(matches!(end, End::Closed));
        }

        #[test]
        fn noise_ends(noise in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let (all, _) = read(&[noise], 500);
            prop_assert!(all.iter().all(|record| record.len() <= 500));
        }
    }
}
