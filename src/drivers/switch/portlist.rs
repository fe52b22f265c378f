//! Sets of ports and of VLANs as switches write them: bit strings of four numberings, and two kinds of text.
//!
//! Leaves out: whose set it is. Invariant: a changed set is as long as it was (or longer, where our bit lay beyond its end) and differs
//! from what was read in the one bit that was meant, or there is no changed set (`one_bit_and_no_other_changes`).

use std::collections::BTreeSet;

/// How an agent writes a PortList (Q-BRIDGE-MIB::PortList, RFC 4363).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As the MIB says: the most significant bit of the first octet is the lowest port.
    Bits,
    /// As one big-endian number: the least significant bit of the last octet is port 1 (D-Link DES-3000 series).
    BitsFromEnd,
    /// Decimal text, `0,4097,4099` (Junos).
    Decimal,
    /// The octets of `Bits` as text, `ff 80` (SONiC); a lone `0` is the empty set.
    HexText,
}

/// The numbers in a set; the lowest that the numbering knows is `first`.
pub(crate) fn members(form: Form, octets: &[u8], first: u32) -> BTreeSet<u32> {
    match form {
        Form::Bits => bits(octets, first),
        Form::BitsFromEnd => bits(&octets.iter().rev().map(|o| o.reverse_bits()).collect::<Vec<u8>>(), first),
        Form::Decimal => text(octets).split(',').filter_map(|n| n.trim().parse().ok()).collect(),
        Form::HexText => {
            let words: Vec<u8> = text(octets).split_whitespace().filter_map(|w| u8::from_str_radix(w, 16).ok()).collect();
            bits(&words, first)
        }
    }
}

/// Whether a number is in a set.
pub(crate) fn has(form: Form, octets: &[u8], first: u32, number: u32) -> bool {
    let at = number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
    match (form, at) {
        (Form::Decimal | Form::HexText, _) => members(form, octets, first).contains(&number),
        (Form::Bits | Form::BitsFromEnd, None) => false,
        (Form::Bits, Some(at)) => octets.get(at / 8).is_some_and(|octet| octet & (0x80 >> (at % 8)) != 0),
        (Form::BitsFromEnd, Some(at)) => octets.iter().rev().nth(at / 8).is_some_and(|octet| octet & (1 << (at % 8)) != 0),
    }
}

/// The same set with one number in it or not. Nothing where this form cannot be written, or where the number is below the first one.
pub(crate) fn with(form: Form, octets: &[u8], first: u32, number: u32, present: bool) -> Option<Vec<u8>> {
    let from_end = match form {
        Form::Bits => false,
        Form::BitsFromEnd => true,
        Form::Decimal | Form::HexText => return None,
    };
    let at = usize::try_from(number.checked_sub(first)?).ok()?;
    let mut changed = octets.to_vec();
    if changed.len() <= at / 8 {
        if !present {
            return Some(changed);
        }
        let missing = at / 8 + 1 - changed.len();
        let place = if from_end { 0 } else { changed.len() };
        changed.splice(place..place, std::iter::repeat_n(0, missing));
    }
    let (octet, mask) = if from_end { (changed.len() - 1 - at / 8, 1 << (at % 8)) } else { (at / 8, 0x80 >> (at % 8)) };
    if present {
        changed[octet] |= mask;
    } else {
        changed[octet] &= !mask;
    }
    only_ours_differs(form, octets, &changed, first, number).then_some(changed)
}

/// Whether `new` keeps the length of `old` at least, and differs from it in nothing but `number`.
pub(crate) fn only_ours_differs(form: Form, old: &[u8], new: &[u8], first: u32, number: u32) -> bool {
    let at = number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
    let from_end = |octets: &[u8]| -> Vec<u8> { octets.iter().rev().map(|o| o.reverse_bits()).collect() };
    new.len() >= old.len()
        && match form {
            Form::Bits => are_alike_but(old, new, at),
            Form::BitsFromEnd => are_alike_but(&from_end(old), &from_end(new), at),
            Form::Decimal | Form::HexText => {
                members(form, old, first).symmetric_difference(&members(form, new, first)).all(|n| *n == number)
            }
        }
}

/// Whether two lists, of which the second is not shorter, are the same but for one bit: what lies beyond the end is not set.
fn are_alike_but(old: &[u8], new: &[u8], bit: Option<usize>) -> bool {
    let ours = |place: usize| bit.filter(|bit| bit / 8 == place).map_or(0, |bit| 0x80u8 >> (bit % 8));
    let old = old.iter().chain(std::iter::repeat(&0));
    new.iter().zip(old).enumerate().all(|(place, (new, old))| (new ^ old) & !ours(place) == 0)
}

fn bits(octets: &[u8], first: u32) -> BTreeSet<u32> {
    let set = |octet: u8| (0..8u32).filter(move |bit| octet & (0x80 >> bit) != 0);
    (first..).step_by(8).zip(octets).flat_map(|(start, octet)| set(*octet).map(move |bit| start.saturating_add(bit))).collect()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
        numbers.into_iter().collect()
    }

    #[test]
    fn one_number_is_in_a_set_or_not() {
        for form in [Form::Bits, Form::BitsFromEnd, Form::HexText] {
            let octets: &[u8] = if form == Form::HexText { b"a1 00 07" } else { &[0xa1, 0x00, 0x07] };
            for first in [0, 1, 5] {
                let all = members(form, octets, first);
                (0..40).for_each(|n| assert_eq!(has(form, octets, first, n), all.contains(&n), "{form:?} {first} {n}"));
            }
        }
        assert!(has(Form::Decimal, b"0,4097", 1, 4097) && !has(Form::Decimal, b"0,4097", 1, 97));
    }

    #[test]
    fn the_numberings() {
        assert_eq!(members(Form::Bits, &[0xe0, 0x01], 1), set([1, 2, 3, 16]));
        assert_eq!(members(Form::Bits, &[0xe0], 0), set([0, 1, 2]));
        assert_eq!(members(Form::Bits, &[], 1), set([]));
        assert_eq!(members(Form::BitsFromEnd, &[0x00, 0x03, 0x00, 0x00, 0x01], 1), set([1, 25, 26]));
        assert_eq!(members(Form::Decimal, b"0,4097,4099", 1), set([0, 4097, 4099]));
        assert_eq!(members(Form::Decimal, b"", 1), set([]));
        assert_eq!(members(Form::HexText, b"f8 80 ", 0), set([0, 1, 2, 3, 4, 8]));
        assert_eq!(members(Form::HexText, b"0", 0), set([]));
    }

    #[test]
    fn one_bit_and_no_other_changes() {
        for form in [Form::Bits, Form::BitsFromEnd] {
            for length in 0..4usize {
                for number in 1..=40u32 {
                    for fill in [0x00u8, 0xff, 0xa5] {
                        let old = vec![fill; length];
                        for present in [true, false] {
                            let new = with(form, &old, 1, number, present).unwrap();
                            assert!(new.len() >= old.len());
                            let mut wanted = members(form, &old, 1);
                            if present {
                                wanted.insert(number)
                            } else {
                                wanted.remove(&number)
                            };
                            assert_eq!(members(form, &new, 1), wanted);
                        }
                    }
                }
            }
        }
        assert_eq!(with(Form::Bits, &[0], 1, 0, true), None, "there is no port 0 where the first is 1");
        assert_eq!(with(Form::Decimal, b"1", 1, 2, true), None);
    }

    #[test]
    fn a_foreign_bit_is_seen() {
        assert!(only_ours_differs(Form::Bits, &[0x80, 0], &[0xc0, 0], 1, 2));
        assert!(!only_ours_differs(Form::Bits, &[0x80, 0], &[0xe0, 0], 1, 2));
        assert!(!only_ours_differs(Form::Bits, &[0x80, 0], &[0xc0], 1, 2), "never shorter");
    }
}
