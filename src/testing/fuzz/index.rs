//! Indexes of images: the text that another controller sends, or a disk gives back.
//!
//! The input is the text. What reads is written as the same octets, and what is in memory agrees with itself: every path is found, names lead to their
//! parents, cookies go on where they ended.

use std::collections::BTreeMap;

use super::hold;
use crate::image::index::{Index, Inode, Node};

pub fn index(bytes: &[u8]) -> Result<(), String> {
    let index = match Index::parse(bytes) {
        Ok(index) => index,
        Err(wrong) => {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            let said = !wrong.found.is_empty() && !wrong.expected.is_empty();
            return hold(said && (1..=lines).contains(&wrong.line), || format!("of {lines} lines: {wrong}"));
        }
    };
    hold(index.format() == bytes, || format!("it is written as {:?}", String::from_utf8_lossy(&index.format())))?;
    let mut names: BTreeMap<Inode, u32> = BTreeMap::new();
    for entry in index.entries() {
        let shown = || String::from_utf8_lossy(&entry.path).into_owned();
        hold(index.find(&entry.path) == Some(entry.inode), || format!("{} is not found", shown()))?;
        hold(entry.is_link || index.path(entry.inode) == entry.path, || format!("{} has another path", shown()))?;
        *names.entry(entry.inode).or_default() += 1;
    }
    hold(names.values().sum::<u32>() as usize == index.entries_len(), || "some entry is not listed".to_owned())?;
    names.into_iter().try_for_each(|(inode, names)| node(&index, inode, names))
}

fn node(index: &Index, inode: Inode, names: u32) -> Result<(), String> {
    let Some(attributes) = index.attributes(inode) else { return Err(format!("{inode:?} has no attributes")) };
    if attributes.node != Node::Directory {
        hold(index.children(inode, 0).is_none(), || format!("{inode:?} is no directory, and has children"))?;
        return hold(index.nlink(inode) == Some(names), || format!("{inode:?} has {names} names, not {:?}", index.nlink(inode)));
    }
    let Some(children) = index.children(inode, 0) else { return Err(format!("the directory {inode:?} has no children")) };
    let children: Vec<_> = children.collect();
    for (at, child) in children.iter().enumerate() {
        hold(index.lookup(inode, child.name) == Some(child.inode), || format!("{:?} in {inode:?} is not found", child.name))?;
        let rest = index.children(inode, child.cookie).map_or(0, Iterator::count);
        hold(rest == children.len() - at - 1, || format!("after {:?} in {inode:?} come {rest}", child.name))?;
        let is_directory = index.attributes(child.inode).is_some_and(|its| its.node == Node::Directory);
        hold(!is_directory || index.parent(child.inode) == Some(inode), || format!("{:?} has another parent", child.name))?;
    }
    Ok(())
}
