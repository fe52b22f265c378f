//! Manifests from outside: a golden diagnostic for every code, the examples without any, secrets that never show, and no text that
//! makes the loader panic or hang. `EMBODY_BLESS=1` writes the golden files anew.

use std::collections::BTreeSet;
use std::path::Path;

use embody::limits;
use embody::manifest::codes::CODES;
use embody::manifest::{self, Content, Diagnostic, Loaded, Source, schema, yaml};
use embody::model::{Kind, Object, Spec};

const GOLDEN: &str = "tests/golden/manifest";

fn load(text: &str) -> Loaded {
    manifest::load(&[Source::text("test.yaml", text)], &[])
}

fn codes(diagnostics: &[Diagnostic]) -> Vec<&'static str> {
    diagnostics.iter().map(|d| d.code).collect()
}

fn examples() -> Vec<Source> {
    manifest::read(&["examples"], false)
}

/// The golden file of a code; what is too large to be kept is made.
fn bad_file(code: &str) -> Vec<Source> {
    match code {
        "file-too-large" => vec![Source::text("file-too-large.yaml", " ".repeat(limits::MANIFEST_BYTES + 1))],
        "too-many-objects" => {
            let one = |i: usize| {
                format!("---\n{{apiVersion: embody.dev/v1alpha1, kind: Network, metadata: {{name: n{i}}}, spec: {{vlan: 2}}}}\n")
            };
            let texts = (0..=limits::MANIFEST_OBJECTS).map(one).collect::<Vec<_>>();
            texts.chunks(9_000).enumerate().map(|(i, c)| Source::text(format!("too-many-objects-{i}.yaml"), c.concat())).collect()
        }
        _ => manifest::read(&[format!("{GOLDEN}/{code}.yaml")], false),
    }
}

#[test]
fn every_code_has_a_golden_test_and_a_paragraph() {
    let mut files: BTreeSet<String> = BTreeSet::new();
    for entry in std::fs::read_dir(GOLDEN).unwrap() {
        files.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    let mut wrong = Vec::new();
    for (code, _) in CODES {
        let loaded = manifest::load(&bad_file(code), &[]);
        let shown = loaded.render(false);
        if codes(&loaded.diagnostics).iter().any(|c| c != code) || loaded.diagnostics.is_empty() {
            wrong.push(format!("{code}: expected this code alone, found\n{shown}"));
        }
        let path = format!("{GOLDEN}/{code}.txt");
        if std::env::var_os("EMBODY_BLESS").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        if golden != shown {
            wrong.push(format!("{code}: expected\n{golden}\nfound\n{shown}"));
        }
        let paragraph = schema::explain(code).unwrap();
        assert!(paragraph.len() > code.len() + 40, "{paragraph}");
        files.remove(&format!("{code}.txt"));
        files.remove(&format!("{code}.yaml"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.is_empty(), "files of no code: {files:?}");
}

#[test]
fn the_examples_load_without_any_diagnostic() {
    let loaded = manifest::load(&examples(), &[]);
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
    let count = |kind| loaded.objects.iter().filter(|o| o.kind() == kind).count();
    assert_eq!((count(Kind::Switch), count(Kind::Server), count(Kind::Policy)), (3, 12, 1));
    assert!(manifest::check(&loaded.objects, &[]).is_empty());
}
