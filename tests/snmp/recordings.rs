//! Recordings of real switches, served by our agent, and walked whole by our manager.
//!
//! They lie outside the repository: in the folder that `EMBODY_RECORDINGS` names, else in `../shared/recordings`.

use std::path::PathBuf;

use embody::testing::drivers::switch::snmp::{Agent, Binding, Oid};
use embody::testing::sim::agent::{Access, SimAgent, Table};
use embody::testing::sim::mib::Mib;

use crate::peer::{PATIENT, Simulated, manager, oid, v2c};

fn recordings() -> Vec<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/recordings");
    let folder = std::env::var_os("EMBODY_RECORDINGS").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIP: no recordings in {}", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "snmprec")).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no recording", folder.display());
    paths
}

#[tokio::test]
async fn every_recording_is_walked_whole() {
    for path in recordings() {
        let bytes = std::fs::read(&path).unwrap();
        let mut table = Table::parse(&String::from_utf8_lossy(&bytes)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let simulated = Simulated::start(SimAgent::new(Box::new(table.clone()), 1).with_community("public", Access::Read)).await;
        let mut agent = manager(simulated.port, v2c("public"), PATIENT);
        let walked = agent.walk(&[oid("1.0"), oid("1.2"), oid("1.3")], 0).await.unwrap();
        let mut rows: Vec<Binding> = Vec::new();
        let mut at = Oid(vec![0, 0]);
        while let Some((oid, value)) = table.next(&at) {
            at = oid.clone();
            rows.push((oid, value));
        }
        eprintln!("{}: {} rows", path.display(), rows.len());
        assert!(rows.len() > 300, "{}", path.display());
        let walked: Vec<Binding> = walked.into_iter().flat_map(|column| column.rows).collect();
        assert_eq!(walked, rows, "{}", path.display());
    }
}
