//! What comes from outside, as it was recorded and bent in many ways: nothing of it makes a parser panic, or break its own word.
//!
//! What is checked is in `embody::testing::fuzz`, which `fuzz/` lets a fuzzer loose on; here it reads `fuzz/corpus`, and what is made of that by
//! bits, octets, lengths, cuts and splices. The same each time: what fails here fails again. Leaves out: what only long fuzzing finds
//! (`tests/run --long`).

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use embody::testing::fuzz::{Entry, TARGETS};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Of each target: a few seconds together, unoptimised.
const MUTATIONS: usize = 2_000;
/// Changes to one input, at most.
const CHANGES: usize = 4;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The inputs of a target, with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let found: Vec<(String, Vec<u8>)> =
        names(&folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect();
    assert!(!found.is_empty(), "{} is empty: nothing would be shown", folder.display());
    found
}

/// What is wrong with it, by the function's own word or by a panic.
fn read(entry: Entry, input: &[u8]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| entry(input))) {
        Ok(Ok(())) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => {
            Some(panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
        }
    }
}

/// One of several ways to bend an input.
fn bend(bytes: &mut Vec<u8>, others: &[(String, Vec<u8>)], random: &mut StdRng) {
    if bytes.is_empty() {
        return bytes.push(random.random());
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..8) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        // Lengths are where these matter.
        2 => bytes[at] = *[0, 1, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xfe, 0xff].choose(random).unwrap(),
        3 => bytes[at] = bytes[at].wrapping_add(if random.random() { 1 } else { 0xff }),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..(at + random.random_range(1..16)).min(bytes.len()))),
        6 => {
            let (from, to) = (at, (at + random.random_range(1..64)).min(bytes.len()));
            let doubled = bytes[from..to].to_vec();
            drop(bytes.splice(at..at, doubled));
        }
        _ => {
            let other = &others.choose(random).unwrap().1;
            if !other.is_empty() {
                let from = random.random_range(0..other.len());
                let part = &other[from..(from + random.random_range(1..64)).min(other.len())];
                let end = (at + random.random_range(0..part.len() + 1)).min(bytes.len());
                drop(bytes.splice(at..end, part.iter().copied()));
            }
        }
    }
}

fn shown(name: &str, what: &str, input: &[u8]) -> String {
    let path = std::env::temp_dir().join("embody-fuzz-failure");
    fs::write(&path, input).unwrap();
    format!("{name}: {what}\nthe input ({} octets) is in {}; once it is mended it belongs into the corpus", input.len(), path.display())
}

fn holds(target: &str) {
    let (_, entry) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let corpus = corpus(target);
    for (name, input) in &corpus {
        if let Some(what) = read(entry, input) {
            panic!("{}", shown(name, &what, input));
        }
    }
    for (number, (name, input)) in corpus.iter().enumerate() {
        let mut random = StdRng::seed_from_u64(number as u64);
        for _ in 0..MUTATIONS.div_ceil(corpus.len()) {
            let mut bent = input.clone();
            for _ in 0..random.random_range(1..=CHANGES) {
                bend(&mut bent, &corpus, &mut random);
            }
            if let Some(what) = read(entry, &bent) {
                panic!("{}", shown(name, &what, &bent));
            }
        }
    }
}

#[test]
fn archives_that_are_imported() {
    holds("archive");
}

#[test]
fn what_a_machine_that_boots_sends() {
    holds("dhcp");
}

#[test]
fn indexes_of_images() {
    holds("index");
}

#[test]
fn what_a_bmc_sends() {
    holds("ipmi");
}

#[test]
fn manifests() {
    holds("manifest");
}

#[test]
fn what_an_nfs_client_sends() {
    holds("nfs");
}

#[test]
fn recordings_of_switches() {
    holds("recording");
}

#[test]
fn what_an_snmp_agent_sends() {
    holds("snmp");
}

#[test]
fn what_a_store_holds() {
    holds("stored");
}

#[test]
fn what_a_start_is_recognised_by() {
    holds("token");
}

#[test]
fn every_target_is_fuzzed() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files = names(&fuzz().join("fuzz_targets")).into_iter().map(|name| name.trim_end_matches(".rs").to_owned()).collect();
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    assert_eq!((&targets, &targets), (&files, &names(&fuzz().join("corpus"))));
    assert!(targets.iter().all(|name| manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\""))), "{manifest}");
}
