//! Replacing, linking, following and taking away.

use super::*;

fn item(node: Node<'static>) -> Item {
    let mode = if matches!(node, Node::Symlink { .. }) { 0o777 } else { 0o644 };
    Item::new(Attributes { mode, uid: 0, gid: 0, mtime: 0, node })
}

fn file(text: &str) -> Item {
    item(Node::File { size: text.len() as u64, digest: super::super::digest::Digest::of(text.as_bytes()) })
}

fn dir() -> Item {
    item(Node::Directory)
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.slots.keys().map(|path| escaped(path)).collect()
}

fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::new(Limits::default());
    for path in paths {
        let what = if path.ends_with('/') { dir() } else { file(path) };
        tree.insert(path.as_bytes(), what).unwrap();
    }
    tree
}

#[test]
fn missing_parents_are_made_and_the_last_entry_wins() {
    let mut t = tree(&["./a/b/c", "/x/", "x/y"]);
    assert_eq!(paths(&t), ["/", "/a", "/a/b", "/a/b/c", "/x", "/x/y"]);
    t.insert(b"x", dir()).unwrap();
    assert!(t.get(b"/x/y").is_some(), "a directory over a directory keeps what is in it");
    t.insert(b"x", file("now a file")).unwrap();
    assert_eq!(paths(&t), ["/", "/a", "/a/b", "/a/b/c", "/x"]);
    t.insert(b"x", file("second")).unwrap();
    assert_eq!(t.get(b"/x"), Some(&file("second")));
    assert!(t.index().is_ok());
}

#[test]
fn nothing_leads_out() {
    let mut t = tree(&[]);
    for bad in ["../x", "a/../../x", "a/..", ".."] {
        assert!(matches!(t.insert(bad.as_bytes(), file("")), Err(TreeError::Outside { .. })), "{bad}");
    }
    assert!(t.is_empty());
    t.insert(b"up", item(symlink(b"../../../etc"))).unwrap();
    t.insert(b"up/passwd", file("")).unwrap();
    assert_eq!(paths(&t), ["/", "/etc", "/etc/passwd", "/up"]);
    assert!(matches!(t.link(b"/y", b"../z"), Err(TreeError::Outside { .. })));
    let long = vec![b'a'; PATH_LONGEST + 1];
    assert!(matches!(t.insert(&long, dir()), Err(TreeError::Entry { .. })));
}

#[test]
fn a_symlink_as_parent_is_followed_within_the_tree() {
    let mut t = tree(&["usr/lib/"]);
    t.insert(b"lib", item(symlink(b"usr/lib"))).unwrap();
    t.insert(b"abs", item(symlink(b"/lib/deep"))).unwrap();
    t.insert(b"lib/x", file("x")).unwrap();
    t.insert(b"abs/y", file("y")).unwrap();
    assert_eq!(paths(&t), ["/", "/abs", "/lib", "/usr", "/usr/lib", "/usr/lib/deep", "/usr/lib/deep/y", "/usr/lib/x"]);
    assert_eq!(t.resolve(b"/abs/y").unwrap().0, b"/usr/lib/deep/y");
    t.insert(b"loop", item(symlink(b"loop"))).unwrap();
    assert!(matches!(t.insert(b"loop/z", file("")), Err(TreeError::Loop { .. })));
    assert!(t.resolve(b"/loop").is_none());
    t.insert(b"f", file("")).unwrap();
    assert!(matches!(t.insert(b"f/z", file("")), Err(TreeError::ParentIsNoDirectory { .. })));
    // A directory replaces a symlink, as tar does it.
    t.insert(b"lib", dir()).unwrap();
    assert!(t.is_directory(b"/lib") && t.get(b"/usr/lib/x").is_some());
}

#[test]
fn hard_links_share_what_they_named_when_made() {
    let mut t = tree(&["b", "d/"]);
    t.link(b"a", b"./b").unwrap();
    t.link(b"c", b"/a").unwrap();
    let index = t.index().unwrap();
    let text = String::from_utf8(index.format()).unwrap();
    assert!(text.contains("/a\nh /a /b\nh /a /c\n"), "{text}");
    t.insert(b"b", file("other")).unwrap();
    assert_eq!(t.get(b"/a"), Some(&file("b")), "the old contents stay under the other names");
    for (path, target) in [("e", "nowhere"), ("e", "d"), ("e", "/")] {
        assert!(matches!(t.link(path.as_bytes(), target.as_bytes()), Err(TreeError::LinkWithoutTarget { .. })), "{target}");
    }
    t.insert(b"s", item(symlink(b"a"))).unwrap();
    t.link(b"s2", b"s").unwrap();
    assert!(matches!(t.get(b"/s2").unwrap().attributes.node, Node::Symlink { .. }));
    assert!(t.index().is_ok(), "a further name of a symlink is a symlink");
}

#[test]
fn whiteouts_take_away_only_what_is_below() {
    let mut t = tree(&["a/one", "a/two/deep", "a!/x", "gone", "b/c/d"]);
    t.next_layer();
    t.insert(b"a/new", file("new")).unwrap();
    t.opaque(b"a").unwrap();
    t.insert(b"a/after", file("after")).unwrap();
    t.whiteout(b"gone").unwrap();
    t.whiteout(b"never/was").unwrap();
    t.insert(b"b/c", file("now a file")).unwrap();
    t.whiteout(b"b/c").unwrap();
    assert_eq!(paths(&t), ["/", "/a", "/a!", "/a!/x", "/a/after", "/a/new", "/b", "/b/c"]);
    t.next_layer();
    t.opaque(b".").unwrap();
    assert_eq!(paths(&t), ["/"]);
}

#[test]
fn a_directory_is_listed_without_what_is_deeper() {
    let t = tree(&["d/a/x", "d/a-b", "d/a0", "d/b/y/z", "e"]);
    let names = |dir: &[u8]| t.list(dir).map(|(path, _)| escaped(path)).collect::<Vec<_>>();
    assert_eq!(names(b"/d"), ["/d/a", "/d/a-b", "/d/a0", "/d/b"]);
    assert_eq!(names(b"/"), ["/d", "/e"]);
    assert!(names(b"/e").is_empty() && names(b"/none").is_empty());
    assert_eq!(t.walk(b"/d").count(), 7);
}

#[test]
fn entries_are_bounded() {
    let mut t = Tree::new(Limits { entries: 10, bytes: 0 });
    let result = (0..20).try_for_each(|n| t.insert(b"same", file(&n.to_string())));
    assert_eq!(result, Err(TreeError::TooManyEntries { most: 10 }), "replaced ones are counted as well");
    let mut t = Tree::new(Limits { entries: 10, bytes: 0 });
    t.insert(b"f", file("")).unwrap();
    let result = (0..20).try_for_each(|n| t.link(n.to_string().as_bytes(), b"f"));
    assert_eq!(result, Err(TreeError::TooManyEntries { most: 10 }));
}
