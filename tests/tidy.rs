//! Style that a machine can check: sizes, layers, names, sources of constants, headers. A rule here is one sentence of the design.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 700;
const FUNCTION_LINES: usize = 70;

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                out.push((path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned(), text));
            }
        }
    }
    assert!(out.len() > 5, "no sources under {dir}: this check would be empty");
    out.sort();
    out
}

/// Fails with every offence, not with the first.
fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// The part of a file before its unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

#[test]
fn every_file_says_what_it_is_for() {
    none(
        sources("src")
            .iter()
            .chain(&sources("tests"))
            .filter(|(_, t)| !t.starts_with("//!"))
            .map(|(p, _)| format!("{}: no //! header", p.display()))
            .collect(),
    );
}

#[test]
fn files_and_functions_can_be_seen_at_once() {
    let mut offences = Vec::new();
    for (path, text) in sources("src") {
        let table = text.contains("tidy: table");
        if text.lines().count() > FILE_LINES && !table {
            offences.push(format!("{}: {} lines", path.display(), text.lines().count()));
        }
        let mut begun: Option<(usize, String, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            let word = line.trim_start();
            let starts = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(super) fn ", "pub(super) async fn ", "pub(crate) fn "]
                .iter()
                .any(|s| word.starts_with(s));
            if starts && line.trim_end().ends_with('{') {
                begun = Some((number, indent.clone(), word.to_owned()));
            }
            if let Some((start, at, name)) = &begun
                && line == format!("{at}}}")
            {
                let length = number - start + 1;
                if length > FUNCTION_LINES && !table {
                    offences.push(format!("{}:{}: {length} lines: {name}", path.display(), start + 1));
                }
                begun = None;
            }
        }
    }
    none(offences);
}

#[test]
fn what_decides_does_no_io_and_reads_no_clock() {
    let forbidden = [
        "tokio::",
        "std::net::Udp",
        "std::net::Tcp",
        "std::fs",
        "std::env",
        "Instant::now",
        "SystemTime",
        "tracing::",
        "rand::",
        "HashMap",
    ];
    let pure = |p: &Path| {
        let p = p.to_string_lossy();
        let manifest = p.starts_with("src/manifest/") && p != "src/manifest/source.rs";
        manifest || p.starts_with("src/model/") || p.starts_with("src/plan/") || p.starts_with("src/boot/")
    };
    let mut offences = Vec::new();
    for (path, text) in sources("src").into_iter().filter(|(p, _)| pure(p)) {
        for (number, line) in product(&text).lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            offences.extend(forbidden.iter().filter(|f| line.contains(**f)).map(|f| format!("{}:{}: {f}", path.display(), number + 1)));
        }
    }
    none(offences);
}

#[test]
fn nothing_that_input_reaches_can_panic() {
    let forbidden = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "unsafe "];
    let mut offences = Vec::new();
    // Tests of their own file are tests all the same.
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        for (number, line) in product(&text).lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            offences.extend(forbidden.iter().filter(|f| line.contains(**f)).map(|f| format!("{}:{}: {f}", path.display(), number + 1)));
        }
    }
    none(offences);
}

#[test]
fn every_select_is_biased() {
    let mut offences = Vec::new();
    for (path, text) in sources("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, l)| l.contains("select! {")) {
            if lines.get(number + 1).is_none_or(|l| l.trim() != "biased;") {
                offences.push(format!("{}:{}: select! without biased;", path.display(), number + 1));
            }
        }
    }
    none(offences);
}

#[test]
fn no_type_or_file_has_a_name_that_says_nothing() {
    let empty = ["Manager", "Handler", "Helper", "Util", "Service", "Info", "Base", "Common"];
    let mut offences = Vec::new();
    for (path, text) in sources("src") {
        for (number, line) in text.lines().enumerate() {
            let word = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
            for keyword in ["struct ", "enum ", "trait ", "type "] {
                let Some(name) = word.strip_prefix(keyword).and_then(|n| n.split(|c: char| !c.is_alphanumeric()).next()) else { continue };
                offences.extend(empty.iter().filter(|e| name.ends_with(**e)).map(|_| format!("{}:{}: {name}", path.display(), number + 1)));
            }
        }
    }
    none(offences);
}

#[test]
fn only_the_store_knows_etcd_and_redb() {
    let outside = |p: &Path| !p.starts_with("src/store");
    let uses = |t: &str| t.contains("etcd_client::") || t.contains("redb::");
    none(sources("src").iter().filter(|(p, t)| outside(p) && uses(t)).map(|(p, _)| p.display().to_string()).collect());
}

#[test]
fn only_workers_and_inspect_call_a_driver() {
    let allowed = ["src/control/worker.rs", "src/cli/inspect.rs", "src/testing.rs"];
    let elsewhere = |p: &Path| !allowed.iter().any(|a| p == Path::new(a)) && !p.starts_with("src/drivers") && !p.starts_with("src/sim");
    let calls = |t: &str| product(t).contains(".observe(") || product(t).contains(".execute(");
    none(sources("src").iter().filter(|(p, t)| elsewhere(p) && calls(t)).map(|(p, _)| p.display().to_string()).collect());
}

#[test]
fn an_error_says_its_own_layer_only() {
    let mut offences = Vec::new();
    for (path, text) in sources("src") {
        for (number, line) in text.lines().enumerate().filter(|(_, l)| l.contains("#[error(\"") && l.contains("{source}")) {
            offences.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
        }
    }
    none(offences);
}

#[test]
fn the_test_command_names_every_test() {
    let run = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run")).unwrap();
    let tests = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap().map(|e| e.unwrap().path());
    let is_target = |p: &PathBuf| p.extension().is_some_and(|e| e == "rs") || p.join("main.rs").exists();
    let names: Vec<String> = tests.filter(is_target).map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert!(names.len() > 10, "{names:?}");
    none(names.iter().filter(|n| !run.contains(&format!("--test {n} ")) && !run.contains(&format!("--test {n}\n"))).cloned().collect());
}

#[test]
fn every_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut offences = Vec::new();
    for (path, text) in sources("src").into_iter().chain(sources("agent/src")) {
        // The agent is a package of its own, with tests of its own.
        let own = if path.starts_with("agent") { root.join("agent") } else { root.to_owned() };
        let names = text.split('`').filter(|name| name.starts_with("tests/") && Path::new(name).extension().is_some());
        offences.extend(names.filter(|name| !own.join(name).exists()).map(|name| format!("{}: {name}", path.display())));
    }
    none(offences);
}

/// From the lowest to the highest: each imports only from those before it (and from `limits`, `telemetry`, `clock`).
const LAYERS: [&str; 12] = ["model", "manifest", "plan", "boot", "image", "store", "drivers", "control", "server", "gitops", "sim", "cli"];

#[test]
fn modules_import_only_downwards() {
    let mut offences = Vec::new();
    for (path, text) in sources("src") {
        let Some(own) = LAYERS.iter().position(|l| path.starts_with(format!("src/{l}")) || path == Path::new(&format!("src/{l}.rs")))
        else {
            continue;
        };
        for (number, line) in product(&text).lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            let above =
                LAYERS.iter().skip(own + 1).filter(|l| line.contains(&format!("crate::{l}::")) || line.contains(&format!("crate::{l};")));
            offences.extend(above.map(|l| format!("{}:{}: `{}` is below `{l}`", path.display(), number + 1, LAYERS[own])));
        }
    }
    none(offences);
}

#[test]
fn only_the_gate_holds_a_socket_to_devices() {
    let elsewhere = |p: &Path| p.starts_with("src/drivers") && p != Path::new("src/drivers/gate.rs");
    let sends = |t: &str| product(t).contains("send_to(") || product(t).contains("UdpSocket::bind");
    none(sources("src").iter().filter(|(p, t)| elsewhere(p) && sends(t)).map(|(p, _)| p.display().to_string()).collect());
}

#[test]
fn only_the_simulator_stands_for_the_network() {
    let elsewhere = |p: &Path| !p.starts_with("src/sim");
    none(
        sources("src")
            .iter()
            .filter(|(p, t)| elsewhere(p) && product(t).contains("Network for"))
            .map(|(p, _)| p.display().to_string())
            .collect(),
    );
}
