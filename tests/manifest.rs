//! Manifests from outside: a golden diagnostic for every code, the examples without any, secrets that never show, and no text that
//! makes the loader panic or hang. `EMBODY_BLESS=1` writes the golden files anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use embody::testing::cli::output;
use embody::testing::limits;
use embody::testing::manifest::codes::CODES;
use embody::testing::manifest::{self, Content, Diagnostic, Loaded, Source, schema, yaml};
use embody::testing::model::{Kind, Object, Spec};

const GOLDEN: &str = "tests/golden/manifest";

fn shared(loaded: Loaded) -> Vec<Arc<Object>> {
    loaded.objects.into_iter().map(Arc::new).collect()
}

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
        "foreign-file" => {
            let text = std::fs::read_to_string(format!("{GOLDEN}/{code}.yaml")).unwrap();
            vec![Source::text("foreign-file.yaml", text).found()]
        }
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

const HEAD: &str = "apiVersion: embody.dev/v1alpha1\n";

fn network(name: &str, spec: &str) -> String {
    format!("---\n{HEAD}kind: Network\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

fn server(name: &str, bmc: &str, nics: &str) -> String {
    let bmc = format!("{{ address: {bmc}, secretRef: {{ name: bmc }} }}");
    format!("---\n{HEAD}kind: Server\nmetadata: {{ name: {name} }}\nspec: {{ bmc: {bmc}, nics: [{nics}] }}\n")
}

const SECRET: &str =
    "---\napiVersion: embody.dev/v1alpha1\nkind: Secret\nmetadata: { name: bmc }\nstringData: { username: ADMIN, password: s3cr3t }\n";

#[test]
fn all_faults_of_one_document_are_reported_at_once() {
    let loaded = load(&network("Web", "{ vlan: 5000, role: storrage, subnet: 10.1.20.0/24, gateway: 10.9.9.9, colour: red }"));
    let mut found = codes(&loaded.diagnostics);
    found.sort_unstable();
    assert_eq!(found, ["bad-name", "bad-value", "bad-vlan", "unknown-field"], "{}", loaded.render(false));
    let loaded = load(&network("web", "{ vlan: 12, role: storrage, subnet: 10.1.20.0/24, gateway: 10.9.9.9 }"));
    assert_eq!(codes(&loaded.diagnostics), ["bad-value", "gateway-outside-subnet"], "{}", loaded.render(false));
}

#[test]
fn one_bmc_under_two_spellings_of_its_address_is_one() {
    let nics = |n: u8| format!("{{ name: nic1, mac: \"02:00:00:00:00:0{n}\" }}");
    for (one, other) in [("192.0.2.9", "'[::ffff:192.0.2.9]:623'"), ("'[2001:db8::1]'", "'[2001:DB8:0::1]:623'")] {
        let text = [server("a", one, &nics(1)), server("b", other, &nics(2))].concat();
        assert!(codes(&load(&text).diagnostics).contains(&"bmc-address-twice"), "{one} {other}: {:?}", codes(&load(&text).diagnostics));
    }
}

#[test]
fn an_object_with_a_fault_still_exists_for_others_and_is_judged_with_them() {
    let one = server("a", "192.0.2.1", "{ name: n1, mac: \"02:00:00:00:00:01\", colour: red }");
    let two = server("b", "192.0.2.1", "{ name: n1, mac: \"02:00:00:00:00:01\" }");
    let persona =
        format!("---\n{HEAD}kind: Persona\nmetadata: {{ name: p }}\nspec: {{ os: {{ family: linux }}, root: {{ disk: {{}}, ram: 7 }} }}\n");
    let binding = format!("---\n{HEAD}kind: Binding\nmetadata: {{ name: x }}\nspec: {{ persona: p, target: {{ server: a }} }}\n");
    let loaded = load(&format!("{SECRET}{one}{two}{persona}{binding}"));
    let mut found = codes(&loaded.diagnostics);
    found.sort_unstable();
    assert_eq!(found, ["bmc-address-twice", "mac-twice", "unknown-field", "wrong-type"], "{}", loaded.render(false));
    assert!(loaded.objects.iter().all(|o| o.name().as_str() != "a"));
    // A document that does not parse hides what it holds: no reference to a name in it is called unknown.
    let loaded = load(&format!("{SECRET}{two}{binding}---\nname: p\nname: a\n  b: c\n"));
    assert_eq!(codes(&loaded.diagnostics), ["yaml-syntax"], "{}", loaded.render(false));
}

#[test]
fn a_limit_of_nothing_and_a_range_that_is_none_are_refused_where_they_stand() {
    let policy = |limits: &str| format!("{HEAD}kind: Policy\nmetadata: {{ name: default }}\nspec: {{ limits: {{ {limits} }} }}\n");
    let rollout = |rollout: &str| {
        let spec = format!("os: {{ family: linux }}, root: {{ disk: {{}} }}, rollout: {{ {rollout} }}");
        format!("{HEAD}kind: Persona\nmetadata: {{ name: p }}\nspec: {{ {spec} }}\n")
    };
    let ports = |ports: &str| {
        let snmp = "snmp: { version: v3, secretRef: { name: snmp } }";
        format!("{HEAD}kind: Switch\nmetadata: {{ name: tor }}\nspec: {{ address: 192.0.2.1, {snmp}, manage: {{ ports: [{ports}] }} }}\n")
    };
    for (text, found, hint) in [
        (policy("maxPowerChanges: { atOnce: 0 }"), "found 0, expected at least 1", "`correct: observe`"),
        (policy("maxPowerChanges: { perMinute: 0 }"), "found 0, expected at least 1", "`embody pause --all --reason"),
        (policy("maxPortWrites: { atOnce: 0 }"), "found 0, expected at least 1", "`embody pause --all --reason"),
        (policy("maxPortWrites: { perMinute: 0 }"), "found 0, expected at least 1", "`embody pause --all --reason"),
        (policy("maxPortWrites: { perSwitch: 0 }"), "found 0, expected at least 1", "`embody pause --all --reason"),
        (policy("maxUnavailable: 0"), "found 0, expected at least 1", "`embody pause --all --reason"),
        (rollout("maxUnavailable: 0"), "found 0, expected at least 1", "leave `rollout` out"),
        (rollout("maxUnavailable: 0%"), "found 0%, expected at least 1", "leave `rollout` out"),
        (rollout("pauseAfter: 0"), "found 0, expected at least 1", "leave `rollout` out"),
        (ports("Gi1/0/24-1"), "found 24 to 1, expected the lower number first", "`Gi1/0/24-1-1`"),
        (ports("port1-4, port8-1"), "found 8 to 1, expected the lower number first", "`port8-1-1`"),
        (ports("Gi1/0/1-99999999"), "found 1 to 99999999, expected at most 1024 ports", "Gi1/0/1-24"),
        (ports("Gi1/0/1-99999999999999999999"), "expected at most 1024 ports", "Gi1/0/1-24"),
    ] {
        let loaded = manifest::load(&[Source::text("test.yaml", text)], &[]);
        let faults: Vec<&Diagnostic> = loaded.diagnostics.iter().filter(|d| d.code == "bad-value").collect();
        let shown = loaded.render(false);
        assert!(faults.len() == 1 && shown.contains("test.yaml:4:") && shown.contains(found) && shown.contains(hint), "{shown}");
    }
    // These have a word that lifts them: a person approves.
    for text in [
        policy("maxAffectedByChange: { count: 0, percent: 0 }, maxDeletes: 0, maxUnavailable: 0%, stopIfDrifted: 0"),
        ports("qsfpplus2-1-1"),
    ] {
        assert!(load(&text).diagnostics.iter().all(|d| d.code != "bad-value"), "{}", load(&text).render(false));
    }
}

/// The examples with two bindings changed: personas swapped between two servers.
#[test]
fn swapping_two_personas_is_legal() {
    let before = shared(manifest::load(&examples(), &[]));
    let mut changed: Vec<Object> = Vec::new();
    for (binding, server) in [("apache", "r640-02"), ("sql", "dl360-01")] {
        let mut object = before.iter().find(|o| o.kind() == Kind::Binding && o.name().as_str() == binding).unwrap().as_ref().clone();
        let Spec::Binding(spec) = &mut object.spec else { unreachable!() };
        spec.target.server = Some(server.parse().unwrap());
        changed.push(object);
    }
    assert_eq!(manifest::check(&changed, &before), []);
    let half = manifest::check(&changed[..1], &before);
    assert_eq!(codes(&half), ["server-bound-twice"]);
    let line = half[0].line();
    assert!(line.starts_with("Binding/apache spec.target.server: the server `r640-02` is bound twice"), "{line}");
    assert!(line.contains("also `sql` at Binding/sql spec.target.server"), "{line}");
}

#[test]
fn files_are_laid_over_what_exists() {
    let before = shared(load(&format!("{SECRET}{}", server("a", "192.0.2.1", "{ name: n1, mac: \"02:00:00:00:00:01\" }"))));
    assert_eq!(before.len(), 2);
    let source = |text: String| [Source::text("more.yaml", text)];
    let clash = manifest::load(&source(server("b", "192.0.2.1", "")), &before);
    assert_eq!(codes(&clash.diagnostics), ["bmc-address-twice"]);
    let shown = clash.render(false);
    assert!(shown.contains("--> more.yaml:5:") && shown.contains("= also `a` at Server/a spec.bmc.address"), "{shown}");
    let replaced = manifest::load(&source(server("a", "192.0.2.9", "")), &before);
    assert!(replaced.diagnostics.is_empty(), "{}", replaced.render(false));
    // A fault between objects that are not changed is not told to who changes something else.
    let mut broken = before.clone();
    broken.extend(shared(load(&server("b", "192.0.2.1", ""))));
    assert_eq!(broken.len(), 3);
    assert!(manifest::load(&source(network("web", "{ vlan: 7 }")), &broken).diagnostics.is_empty());
}

#[test]
fn values_of_secrets_never_show() {
    let canary = "hunter2";
    let secret = |rest: &str| format!("{HEAD}kind: Secret\nmetadata: {{ name: s }}\n{rest}");
    let switch = |snmp: &str| format!("{HEAD}kind: Switch\nmetadata: {{ name: t }}\nspec:\n  address: not an address\n  snmp: {snmp}\n");
    for text in [
        secret("stringData: hunter2\n"),
        secret("stringData: [hunter2]\n"),
        secret("stringData: {password:\"hunter2\"}\n"),
        secret("stringData: { hunter2, hunter2 }\n"),
        secret("data: { hunter2, hunter2 }\n"),
        switch("{ version: v3, community:\"hunter2\", password:\"hunter2\", secretRef: { name: s } }"),
        secret("stringData: { password: [hunter2] }\n"),
        secret("stringData:\n  password: hunter2: x\n"),
        secret("stringData:\n  password: |\n    hunter2\n\thunter2\n"),
        secret("stringData:\n  password: 'hunter2\n"),
        secret("stringData:\n  username: *hunter2\n  password: hunter2\n"),
        secret("stringdata: { password: hunter2 }\n"),
        secret("spec: { password: hunter2 }\n"),
        secret("data:\n  password: hunter2\nfrom: hunter2\n"),
        secret("stringData:\n  - hunter2\n"),
        secret("stringData: { authPassword: hunter2, privPassword: hunter2, authProtocol: hunter2 }\n")
            + &format!("---\n{}", switch("{ version: v3, secretRef: { name: s } }")),
        r#"{"kind": "Secret", "stringData": {"password": "hunter2"}, "metadata": {"name": "S"}, "apiVersion": "v1"}"#.to_owned(),
        switch("{ version: v4, community: hunter2, secretRef: { name: s } }"),
        switch("{ community: hunter2, authPassword: hunter2, version: v4 }"),
        switch("\n    version: v3\n    snmpCommunityPassword: >\n      hunter2\n     hunter2: x"),
    ] {
        let loaded = load(&text);
        assert!(loaded.has_errors(), "{text}");
        let lines: String = loaded.diagnostics.iter().map(Diagnostic::line).collect();
        for shown in [loaded.render(false), loaded.render(true), lines] {
            assert!(!shown.contains(canary), "{text}\nshows\n{shown}");
        }
    }
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let loaded =
        load(&format!("{HEAD}kind: Network\nmetadata: {{ name: \"a\\e[31mb\\u202ec\" }}\nspec: {{ vlan: 1, \"\\x1b]0;x\\a\": 2 }}\n"));
    let shown = loaded.render(false);
    assert_eq!(codes(&loaded.diagnostics), ["bad-name", "unknown-field"], "{shown}");
    assert!(shown.contains("\\u{1b}[31mb\\u{202e}c"), "{shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{shown:?}");
}

/// YAML 1.1 ends lines at more characters than editors do: counted so, a place is in the document behind, which may be a Secret.
#[test]
fn lines_are_those_of_an_editor() {
    let network = ["apiVersion: embody.dev/v1alpha1", "kind: Network", "metadata:", "  name: web", "spec:", "  vlan: 5000"];
    let secret = format!("---\n{HEAD}kind: Secret\nstringData: {{ password: '\n hunter2' }}\nmetadata: {{ name: s }}\n");
    for (ends, line, next, column) in
        [("\r", 1, 1, 83), ("\u{85}", 1, 1, 83), ("\u{2028}", 1, 1, 83), ("\u{2029}", 1, 1, 83), ("\r\n", 6, 7, 9), ("\n", 6, 7, 9)]
    {
        for (text, code, at) in [
            (format!("{}\n{secret}", network.join(ends)), "bad-vlan", (line, column)),
            // So near to a Secret nothing of the line is shown, and the caret stands where that is said.
            (format!("{}{ends}- x\n{secret}", network.join(ends)), "yaml-syntax", (next, if next == 1 { 13 } else { 1 })),
        ] {
            let loaded = load(&text);
            let shown = loaded.render(false);
            let spot = loaded.diagnostics[0].place.as_ref().and_then(|place| place.spot.as_ref()).unwrap();
            assert_eq!((codes(&loaded.diagnostics), (spot.line, spot.column)), (vec![code], at), "{text:?}\n{shown}");
            assert!(!shown.contains("hunter2"), "{text:?}\n{shown}");
        }
    }
}

#[test]
fn what_is_no_fault() {
    for (text, objects) in [
        ("", 0),
        ("# only a comment\n---\n\n--- # another\n...\n", 0),
        ("\u{feff}---\r\napiVersion: embody.dev/v1alpha1\r\nkind: Network\r\nmetadata:\r\n  name: web\r\nspec:\r\n  vlan: 7\r\n", 1),
        ("%YAML 1.2\n---\napiVersion: embody.dev/v1alpha1\nkind: Network\nmetadata: {name: web}\nspec: {vlan: 7}\nstatus: {x: 1}\n", 1),
        ("{\"apiVersion\": \"embody.dev/v1alpha1\", \"kind\": \"Network\", \"metadata\": {\"name\": \"web\"}, \"spec\": {\"vlan\": 7}}", 1),
    ] {
        let loaded = load(text);
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
        assert_eq!(loaded.objects.len(), objects, "{text}");
    }
    let item = |n: &str, vlan: &str| {
        format!("  - apiVersion: embody.dev/v1alpha1\n    kind: Network\n    metadata: {{ name: {n} }}\n    spec: {{ vlan: {vlan} }}\n")
    };
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{}{}", item("a", "7"), item("b", "0"));
    let loaded = load(&list);
    assert_eq!((loaded.objects.len(), codes(&loaded.diagnostics)), (1, vec!["bad-vlan"]));
    assert!(loaded.render(false).contains("test.yaml:11:19"), "{}", loaded.render(false));
}

#[test]
fn bombs_are_refused_before_they_are_read() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let before = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![before; 9].join(", ")));
    }
    for (text, code) in [
        (bomb, "alias-refused"),
        ("[".repeat(limits::MANIFEST_BYTES), "too-deep"),
        ("{a: ".repeat(200_000), "too-deep"),
        ("- ".repeat(500_000), "too-deep"),
        ((0..1_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect(), "too-deep"),
        ("x".repeat(limits::MANIFEST_BYTES + 1), "file-too-large"),
    ] {
        let loaded = load(&text);
        assert_eq!(codes(&loaded.diagnostics), [code]);
        assert!(loaded.render(false).len() < 1_000);
    }
    // Outcome once, however many there are: each poll at a place costs a walk.
    let many = load(&"x: on\n---\n".repeat(60_000));
    assert_eq!(codes(&many.diagnostics).iter().filter(|c| **c == "too-many-objects").count(), 1);
    let flood = load(&"on: [on, off]\nvlan: x\n---\n".repeat(2_000));
    assert!(flood.has_errors() && flood.render(false).len() < 200_000);
}

/// YAML 1.2.2, 5.2: before each document; and behind a marker, where files were joined.
#[test]
fn a_byte_order_mark_may_begin_any_document() {
    let (a, b) = (network("a", "{ vlan: 2 }"), network("b", "{ vlan: 3 }"));
    for text in [
        format!("\u{feff}{a}---\n\u{feff}{b}"),
        format!("{a}\u{feff}---\n{b}"),
        format!("{a}...\n\u{feff}{b}"),
        format!("{a}\u{feff}--- # b\n{b}"),
    ] {
        let loaded = load(&text);
        assert!(!loaded.has_errors() && loaded.objects.len() == 2, "{text:?}: {}", loaded.render(false));
    }
    let wrong = load(&format!("{a}---\n\u{feff}{}", b.replace("vlan: 3", "vlan: 5000")));
    assert!(wrong.render(false).contains("test.yaml:11:"), "{}", wrong.render(false));
}

#[test]
fn labels_are_what_can_be_seen() {
    let labelled = |label: &str| load(&network("a", "{ vlan: 2 }").replace("name: a", &format!("name: a, labels: {{ {label} }}")));
    for label in [
        "x: \"a\\nb\"",
        "\"x\\e[2J\": y",
        "x: \"\\u202eb\"",
        "x: \"a\\u2028b\"",
        "\"x\\u061c\": y",
        "a b: y",
        "\"-a\": y",
        "a/b/c: y",
        "A_/b: y",
    ] {
        let loaded = labelled(label);
        assert_eq!(codes(&loaded.diagnostics), ["bad-value"], "{label}: {}", loaded.render(false));
        assert!(loaded.diagnostics[0].line().starts_with("test.yaml:"), "{}", loaded.diagnostics[0].line());
    }
    assert!(!labelled("rack: r7, x.example/y: \"Öl 1→2\"").has_errors());
}

#[test]
fn directories_are_read_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("b.yaml", &network("b", "{ vlan: 2 }"));
    write("a.yml", &network("a", "{ vlan: 1 }"));
    write("notes.txt", "not: [yaml");
    write("sub/c.yaml", &network("c", "{ vlan: 3 }"));
    write(".git/d.yaml", "not: [yaml");
    let names = |recursive| {
        manifest::load(&manifest::read(&[dir.path()], recursive), &[]).objects.iter().map(|o| o.name().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(false), ["a", "b"]);
    assert_eq!(names(true), ["a", "b", "c"]);
    let missing = manifest::read(&[dir.path().join("none.yaml"), dir.path().join(".git/objects")], false);
    assert!(missing.iter().all(|s| matches!(s.content, Content::Unreadable { .. })));
    assert_eq!(codes(&manifest::load(&missing, &[]).diagnostics), ["file-unreadable", "file-unreadable"]);
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let empty = manifest::load(&manifest::read(&[dir.path().join("empty")], true), &[]);
    assert!(empty.has_errors(), "an empty directory is not an empty desired state");
}

#[test]
fn yaml_that_is_written_reads_back_and_misleads_nobody() {
    for object in manifest::load(&examples(), &[]).objects {
        let text = output::yaml(&object.to_json());
        let back = manifest::load(&[Source::text("back.yaml", text.as_str())], &[]);
        assert!(!back.diagnostics.iter().any(|d| d.severity == manifest::Severity::Warning), "{text}");
        assert_eq!(back.objects, [object], "{text}");
    }
    let words = serde_json::json!({ "on": "on", "list": ["NO", "n", { "yes": "Off", "x": ["y"] }], "mac": "12:34:56:12:34:56",
        "text": "on\nkey: off\n- no\n", "plain": "onto", "quoted: key": "yes", "number": 7, "deep": { "more": { "t": "a\n\non: on" }, "z": "no" } });
    let text = output::yaml(&words);
    for quoted in [
        r#""on": "on""#,
        r#"- "NO""#,
        r#"- "n""#,
        r#""yes": "Off""#,
        r#"- "y""#,
        r#"mac: "12:34:56:12:34:56""#,
        "plain: onto",
        r#"": "yes""#,
        r#"z: "no""#,
    ] {
        assert!(text.contains(quoted), "{quoted} in\n{text}");
    }
    assert_eq!(yaml::documents(&text)[0].parse().unwrap().to_json(), words, "{text}");
}

#[test]
fn explain_tells_fields_words_and_codes() {
    let port = schema::explain("Server.spec.nics.port").unwrap();
    assert!(
        port.contains("KIND:     Server") && port.contains("FIELD:    port <string>") && port.contains("as the switch names it"),
        "{port}"
    );
    let spec = schema::explain("server.spec").unwrap();
    assert!(spec.contains("bmc <Object> -required-") && spec.contains("nics <[]Object>"), "{spec}");
    let mode = schema::explain("Binding.spec.correct").unwrap();
    assert!(mode.contains("observe") && mode.contains("Show the plan, and wait for a person.") && mode.contains("power <enum>"), "{mode}");
    let secret = schema::explain("secrets").unwrap();
    assert!(secret.contains("stringData <map[string]string>"), "{secret}");
    let many = schema::explain("Server.spec.nics.manyMacs").unwrap();
    assert!(many.contains("manyMacs <boolean>") && many.contains("cable to a switch"), "{many}");
    let unknown = schema::explain("Server.spec.nisc").unwrap_err();
    assert_eq!(unknown.to_string(), "there is no `Server.spec.nisc`: did you mean `nics`?");
    assert!(schema::explain("port-wired-twise").unwrap_err().to_string().contains("port-wired-twice"));
}

#[test]
fn a_nic_of_many_addresses_says_so_in_one_word() {
    let server = |word: &str| {
        format!(
            "apiVersion: embody.dev/v1alpha1\nkind: Server\nmetadata: {{name: a}}\nspec: {{bmc: {{address: 192.0.2.1, secretRef: {{name: s}}}}, \
             nics: [{{name: nic1, mac: '02:00:00:00:00:01', {word}}}]}}\n"
        )
    };
    for (word, code) in [("manyMacs: true", None), ("manyMacs: yes", Some("boolean-word")), ("manyMACs: true", Some("unknown-field"))] {
        let found = load(&server(word)).diagnostics;
        let about = |code: &str| codes(&found).contains(&code);
        assert!(
            code.map_or(!about("unknown-field") && !about("boolean-word") && !about("wrong-type"), about),
            "{word}: {:?}",
            codes(&found)
        );
    }
}

#[test]
fn a_request_is_judged_by_paths() {
    let json = serde_json::json!({ "apiVersion": "embody.dev/v1alpha1", "kind": "Server", "metadata": { "name": "web-1" },
        "spec": { "bmc": { "address": "192.0.2.1", "secretRef": { "name": "bmc" }, "pasword": "x" }, "nics": [{ "name": "a", "mac": "x" }] } });
    let lines: Vec<String> = manifest::object(&json).unwrap_err().iter().map(Diagnostic::line).collect();
    assert_eq!(
        lines,
        [
            "Server/web-1 spec.bmc.pasword: a Server has no field `spec.bmc.pasword`: unknown field (hint: the fields here are `address`, `cipherSuites`, `privilege`, `protocol`, `secretRef`, `via`) [unknown-field]",
            "Server/web-1 spec.nics[0].mac: `spec.nics[0].mac` is not the MAC address of a NIC: found `x`, expected a MAC address such as \"00:17:a4:77:00:01\" [bad-mac]",
        ]
    );
    for object in manifest::load(&examples(), &[]).objects {
        assert_eq!(manifest::object(&object.to_json()), Ok(object));
    }
}

/// Every field of the model says what it is, or `explain` would be silent about it.
#[test]
fn every_field_has_a_description() {
    fn walk(path: &str, silent: &mut Vec<String>) {
        let Ok(page) = schema::explain(path) else { return };
        if !page.contains("DESCRIPTION:") {
            silent.push(path.to_owned());
        }
        for field in page.split("FIELDS:\n").nth(1).unwrap_or_default().lines().filter(|l| l.starts_with("  ") && !l.starts_with("    ")) {
            walk(&format!("{path}.{}", field.trim().split(' ').next().unwrap()), silent);
        }
    }
    let mut silent = Vec::new();
    for kind in embody::testing::model::kind::KINDS {
        walk(kind.singular(), &mut silent);
    }
    assert!(silent.is_empty(), "{silent:?}");
    let schema = schema::json_schema();
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), 8);
    let text = schema.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|r| r.split('"').next().unwrap()) {
        assert!(schema.pointer(reference).is_some(), "{reference}");
    }
}

fn mutate(text: &str, edits: &[(usize, u8, char)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, how, with) in edits {
        let at = at % (chars.len() + 1);
        match how % 5 {
            0 if at < chars.len() => drop(chars.remove(at)),
            1 => chars.insert(at, *with),
            2 if at < chars.len() => chars[at] = *with,
            3 => chars.truncate(at.max(20)),
            _ => {
                let line: Vec<char> = chars.iter().skip(at).take(40).copied().collect();
                let to = (at / 2).min(chars.len());
                chars.splice(to..to, line);
            }
        }
    }
    chars.into_iter().collect()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(46), failure_persistence: None, ..Default::default() })]
    #[test]
    fn no_mutation_of_a_file_makes_the_loader_panic_or_tell_a_secret(file in 0..7usize,
        edits in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY, proptest::prop_oneof![
            proptest::char::any(), proptest::sample::select("{}[]:,-'\"|>&*!#%@ \n\t?0".chars().collect::<Vec<_>>())]), 1..6)) {
        let sources = examples();
        let Content::Text(text) = &sources[file % sources.len()].content else { panic!("the examples are texts") };
        // Lines around the faults are shown, so a secret must not be cut in two: it is looked for by its beginning.
        let loaded = load(&mutate(text, &edits));
        let shown = loaded.render(false);
        for at in shown.match_indices("-->").map(|(at, _)| at) {
            proptest::prop_assert!(shown[at..].lines().next().unwrap_or_default().contains("test.yaml"));
        }
        for secret in ["demo-hpe-7Qx2", "demo-dell-4Lm9", "demo-smc-8Rt5", "demo-xcc-3Vk6", "demo-auth-5Hn1", "demo-priv-9Wd3", "demo-community"] {
            proptest::prop_assert!(!shown.contains(secret), "{}", shown);
        }
    }
}
