//! The index: one text for a tree, nothing else parses, and what is in memory agrees with it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use embody::testing::image::digest::Digest;
use embody::testing::image::index::{Attributes, Builder, Child, Index, Inode, Node};
use embody::testing::image::tree::{Item, Limits, Tree};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn sample() -> String {
    format!(
        "embody-index 1\nd 755 0 0 1700000000 /\nd 755 0 0 -5 /a\nf 4755 0 4294967295 1 0 {EMPTY} /a-b\nh /a-b /a/link\nl 777 1 2 3 ../t\\040x /a/s\n\
         c 666 0 0 0 1,3 /null\nb 660 0 6 0 8,1 /sda\np 600 0 0 0 /\\303\\244\\134\ns 0 0 0 0 /\\377\n"
    )
}

#[test]
fn what_is_in_memory_agrees_with_the_text() {
    let text = sample();
    let index = Index::parse(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(index.format()).unwrap(), text);
    let at = |path: &str| index.find(path.as_bytes()).unwrap();
    assert_eq!((at("/"), at("/a").number(), at("/a-b").number()), (Inode::ROOT, 2, 3));
    assert_eq!(at("/a/link"), at("/a-b"));
    assert_eq!(index.nlink(at("/a-b")), Some(2));
    assert_eq!((index.nlink(Inode::ROOT), index.nlink(at("/a"))), (Some(3), Some(2)));
    assert_eq!(index.attributes(Inode::new(4)), None, "the position of a link is of no node");
    assert_eq!(index.attributes(Inode::new(0)), None);
    assert_eq!(index.attributes(Inode::new(10)), None);
    assert_eq!(index.attributes(at("/a")).unwrap().mtime, -5);
    assert_eq!(index.attributes(at("/a/s")).unwrap().node, Node::Symlink { target: Cow::Borrowed(b"../t x") });
    assert_eq!(index.parent(at("/a/s")), Some(at("/a")));
    assert_eq!(index.parent(Inode::ROOT), Some(Inode::ROOT));
    assert_eq!(index.lookup(at("/a"), b"s"), index.find(b"/a/s"));
    assert_eq!((index.lookup(at("/a-b"), b"s"), index.find(b"/a/none"), index.find(b"a")), (None, None, None));
    assert_eq!(index.path(at("/a/s")), b"/a/s");
    assert_eq!(index.total_bytes(), 0);
}

#[test]
fn cookies_go_on_where_they_ended() {
    let index = Index::parse(sample().as_bytes()).unwrap();
    let all: Vec<_> = index.children(Inode::ROOT, 0).unwrap().collect();
    let names: Vec<&[u8]> = all.iter().map(|child| child.name).collect();
    assert_eq!(names, [&b"a"[..], b"a-b", b"null", b"sda", "ä\\".as_bytes(), b"\xff"]);
    assert!(all.iter().all(|child| child.cookie >= 3));
    for (at, child) in all.iter().enumerate() {
        let rest: Vec<_> = index.children(Inode::ROOT, child.cookie).unwrap().collect();
        assert_eq!(rest, all[at + 1..]);
    }
    assert_eq!(index.children(Inode::ROOT, 2).unwrap().count(), all.len());
    assert!(index.children(index.find(b"/null").unwrap(), 0).is_none());
}

#[test]
fn what_is_not_canonical_is_refused_with_its_line() {
    let with = |line: &str| format!("embody-index 1\nd 755 0 0 0 /\n{line}\n");
    let file = |path: &str| format!("f 644 0 0 0 0 {EMPTY} {path}");
    let long = "x".repeat(256);
    let other = EMPTY.replace('e', "d");
    for (line, says) in [
        ("", "fields"),
        ("d 755 0 0 0  /a", "fields"),
        ("x 755 0 0 0 /a", "fields"),
        ("d 0755 0 0 0 /a", "mode"),
        ("d 10000 0 0 0 /a", "mode"),
        ("d 8 0 0 0 /a", "mode"),
        ("d 755 00 0 0 /a", "uid"),
        ("d 755 0 4294967296 0 /a", "gid"),
        ("d 755 0 -1 0 /a", "gid"),
        ("d 755 0 0 -0 /a", "mtime"),
        ("d 755 0 0 +1 /a", "mtime"),
        ("d 755 0 0 0 a", "begins with /"),
        ("d 755 0 0 0 //a", "empty, . or .."),
        ("d 755 0 0 0 /a/", "empty, . or .."),
        ("d 755 0 0 0 /..", "empty, . or .."),
        ("d 755 0 0 0 /a\\000", "NUL"),
        ("d 755 0 0 0 /\\141", "octal digits"),
        ("d 755 0 0 0 /\\477", "octal digits"),
        ("d 755 0 0 0 /\\40", "octal digits"),
        ("d 755 0 0 0 /ä", "octal digits"),
        ("d 755 0 0 0 /", "once"),
        ("d 755 0 0 0 /a/b", "as a directory before it"),
        (&format!("d 755 0 0 0 /{long}"), "at most 255"),
        (&file("/a").replace(EMPTY, &EMPTY.to_uppercase()), "digest"),
        (&file("/a").replace(" 0 e3", " 9223372036854775808 e3"), "2^63"),
        (&format!("{}\n{}", file("/b"), file("/a")), "order"),
        (&format!("{}\n{}", file("/a"), file("/a")), "order"),
        (&format!("{}\n{}", file("/a"), file("/a/b")), "as a directory before it"),
        (&format!("{}\n{}", file("/a"), file("/b").replace(" 0 e3", " 1 e3")), "one size for one digest"),
        (&format!("{}\n{}", file("/b"), "h /a /c"), "first path of a file"),
        (&format!("{}\nh /b /c", file("/b").replace(EMPTY, &other).replace("/b", "/d")), "order"),
        ("d 755 0 0 0 /d\nh /d /e", "first path of a file"),
        ("l 755 0 0 0 t /a", "777"),
        ("l 777 0 0 0  /a", "target"),
        ("c 666 0 0 0 1 /a", "major,minor"),
        ("c 666 0 0 0 4096,0 /a", "at most 4095"),
        ("c 666 0 0 0 01,3 /a", "major number"),
    ] {
        let error = Index::parse(with(line).as_bytes()).unwrap_err();
        assert!(error.to_string().contains(says), "{line:?}: {error}");
        assert!(error.line >= 3, "{line:?}: {error}");
    }
    for text in ["", "embody-index 1", "embody-index 1\n", "embody-index 2\nd 755 0 0 0 /\n", "embody-index 1\nd 755 0 0 0 /"] {
        assert!(Index::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    let deep = format!("embody-index 1\nd 755 0 0 0 /\nd 755 0 0 0 /{}\n", "a/".repeat(2100));
    assert!(Index::parse(deep.as_bytes()).unwrap_err().to_string().contains("at most 4096"));
}

fn node() -> impl Strategy<Value = Node<'static>> {
    let device = || (0u32..4096, 0u32..1 << 20);
    prop_oneof![
        3 => Just(Node::Directory),
        3 => any::<u8>().prop_map(|n| Node::File { size: u64::from(n), digest: Digest::of(&[n]) }),
        1 => prop::collection::vec(1u8..=255, 1..40).prop_map(|target| Node::Symlink { target: Cow::Owned(target) }),
        1 => device().prop_map(|(major, minor)| Node::Char { major, minor }),
        1 => device().prop_map(|(major, minor)| Node::Block { major, minor }),
        1 => Just(Node::Fifo),
        1 => Just(Node::Socket),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(b'-'), Just(b' '), Just(b'\\'), Just(b'0'), Just(b'.'), 1u8..=255];
    prop::collection::vec(byte.prop_filter("no slash", |byte| *byte != b'/'), 1..5)
        .prop_filter("a name", |name| name != b"." && name != b"..")
}

prop_compose! {
    fn attributes()(mode in 0u16..=0o7777, uid: u32, gid: u32, mtime: i64, node in node()) -> Attributes<'static> {
        let mode = if matches!(node, Node::Symlink { .. }) { 0o777 } else { mode };
        Attributes { mode, uid, gid, mtime, node }
    }
}

/// Trees as archives make them: any order, any path, links to what is there.
fn tree() -> impl Strategy<Value = Tree> {
    let entry = (prop::collection::vec(name(), 1..4), attributes(), any::<Option<prop::sample::Index>>());
    prop::collection::vec(entry, 0..40).prop_map(|entries| {
        let mut tree = Tree::new(Limits::default());
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for (names, attributes, link) in entries {
            let path = [b"/", names.join(&b'/').as_slice()].concat();
            match link.filter(|_| !paths.is_empty()) {
                Some(at) => drop(tree.link(&path, at.get(paths.as_slice()).as_slice())),
                None => drop(tree.insert(&path, Item::new(attributes))),
            }
            paths.push(path);
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_survives_its_text(tree in tree()) {
        let index = tree.index().unwrap();
        let text = index.format();
        let parsed = Index::parse(&text).unwrap();
        prop_assert_eq!(parsed.format(), text);
        let entries: Vec<_> = index.entries().collect();
        prop_assert_eq!(&entries, &parsed.entries().collect::<Vec<_>>());
        let mut names: BTreeMap<Inode, u32> = BTreeMap::new();
        for entry in &entries {
            prop_assert_eq!(parsed.find(&entry.path), Some(entry.inode));
            *names.entry(entry.inode).or_default() += 1;
        }
        for (inode, names) in names {
            let is_directory = parsed.attributes(inode).unwrap().node == Node::Directory;
            let children = parsed.children(inode, 0).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
            let inner = |child: &&Child<'_>| parsed.attributes(child.inode).unwrap().node == Node::Directory;
            let expected = if is_directory { 2 + children.iter().filter(inner).count() as u32 } else { names };
            prop_assert_eq!(parsed.nlink(inode), Some(expected));
        }
    }

    #[test]
    fn a_text_that_was_changed_is_refused_or_is_canonical(tree in tree(), at: prop::sample::Index, with: Vec<u8>, cut in 0usize..4) {
        let mut text = tree.index().unwrap().format();
        let at = at.index(text.len());
        text.splice(at..(at + cut).min(text.len()), with);
        if let Ok(index) = Index::parse(&text) {
            prop_assert_eq!(index.format(), text);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, lines in prop::collection::vec("[dflhcbps][ 0-9/a,\\\\.-]{0,40}", 0..8)) {
        let _ = Index::parse(&bytes);
        let text = format!("embody-index 1\nd 755 0 0 0 /\n{}\n", lines.join("\n"));
        if let Ok(index) = Index::parse(text.as_bytes()) {
            prop_assert_eq!(index.format(), text.into_bytes());
        }
    }
}

#[test]
fn many_entries_are_small_and_quick() {
    let mut builder = Builder::default();
    let directory = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0, node: Node::Directory };
    builder.push(b"/", &directory).unwrap();
    for dir in 0..3_000u32 {
        builder.push(format!("/d{dir:05}").as_bytes(), &directory).unwrap();
        for file in 0..99u32 {
            let node = Node::File { size: 1, digest: Digest::of(&(dir * 100 + file).to_le_bytes()) };
            let path = format!("/d{dir:05}/some-file-name-{file:03}");
            builder.push(path.as_bytes(), &Attributes { mode: 0o644, uid: 0, gid: 0, mtime: 0, node }).unwrap();
        }
    }
    let index = builder.finish().unwrap();
    assert_eq!((index.entries_len(), index.total_bytes()), (300_001, 297_000));
    let text = index.format();
    assert!(Index::parse(&text).unwrap().format() == text);
}
