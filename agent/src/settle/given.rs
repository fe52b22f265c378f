//! Files that the controller says a system has: written last, so that they win over everything else that a start writes.
//!
//! Leaves out: what they are for. Invariants: a file is one of its own afterwards, with the owner and mode that are meant from the moment on at which
//! its content can be read; a path says where it leads. Its content is never said. Shown by the tests below and `tests/guests.py`.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use embody_protocol::File;

use super::{SettleError, files};

/// sshd(8) and ssh(1) want it to be its owner's alone.
const SSH: &str = ".ssh";

#[derive(Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

/// Below `root`, which is `/` but in tests.
pub(super) fn write_all(root: &Path, all: &[File]) -> Result<(), SettleError> {
    for file in all {
        let path = place(root, &file.path)?;
        let wrong = |what, name: &str| SettleError::NoSuch { path: file.path.clone(), what, name: name.escape_debug().take(80).collect() };
        let owner = Owner {
            user: id(root, "etc/passwd", &file.owner).ok_or_else(|| wrong("user", &file.owner))?,
            group: id(root, "etc/group", &file.group).ok_or_else(|| wrong("group", &file.group))?,
        };
        write(&path, file, owner).map_err(files::at(&file.path))?;
    }
    Ok(())
}

fn place(root: &Path, path: &str) -> Result<PathBuf, SettleError> {
    let is_plain = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let names_file = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
    let below = Path::new(path).strip_prefix("/").ok().filter(|below| is_plain && names_file && below.components().next().is_some());
    let wrong = || SettleError::Path(path.escape_debug().take(200).collect());
    below.map(|below| root.join(below)).ok_or_else(wrong)
}

/// passwd(5) and group(5): the name first, the number third.
fn id(root: &Path, table: &str, name: &str) -> Option<u32> {
    if name.is_empty() || name == "root" {
        return Some(0);
    }
    let text = fs::read_to_string(root.join(table)).ok()?;
    let mut rows = text.lines().map(|line| line.split(':'));
    rows.find_map(|mut row| if row.next() == Some(name) { row.nth(1)?.parse().ok() } else { None })
}

fn write(path: &Path, file: &File, owner: Owner) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        directories(parent, owner)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    new.write_all(file.content.as_bytes())?;
    // In this order: a change of the owner takes setuid away.
    std::os::unix::fs::fchown(&new, Some(owner.user), Some(owner.group))?;
    new.set_permissions(Permissions::from_mode(file.mode & 0o7777))
}

/// Those that are missing: root's, 0755, whatever the umask.
fn directories(path: &Path, owner: Owner) -> io::Result<()> {
    if fs::metadata(path).is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        directories(parent, owner)?;
    }
    let is_ssh = path.file_name().is_some_and(|name| name == SSH);
    let mode = if is_ssh { 0o700 } else { 0o755 };
    DirBuilder::new().mode(0o700).create(path)?;
    if is_ssh {
        chown(path, Some(owner.user), Some(owner.group))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\nwww-data:x:33:34::/:\nbroken\nodd:x:y:\n").unwrap();
        fs::write(root.path().join("etc/group"), "root:x:0:\nwww-data:x:33:a,b\n").unwrap();
        root
    }

    fn file(path: &str, mode: u32, owner: &str, group: &str) -> File {
        File { path: path.to_owned(), content: "new".to_owned(), mode, owner: owner.to_owned(), group: group.to_owned() }
    }

    #[test]
    fn a_path_says_where_it_leads() {
        for wrong in ["", "/", "etc/x", "/etc/../x", "../x", "/etc/", "/a\0b", "./x"] {
            let said = place(Path::new("/r"), wrong).unwrap_err().to_string();
            assert!(said.contains(&format!("`{}`", wrong.escape_debug())), "{said}");
        }
        assert_eq!(place(Path::new("/r"), "/etc//x").unwrap(), Path::new("/r/etc/x"));
    }

    #[test]
    fn owners_are_those_of_the_new_root() {
        let root = root();
        assert_eq!(id(root.path(), "etc/passwd", "www-data"), Some(33));
        assert_eq!((id(root.path(), "etc/passwd", ""), id(root.path(), "etc/group", "root")), (Some(0), Some(0)));
        let said = write_all(root.path(), &[file("/etc/x", 0o644, "nobody", "")]).unwrap_err().to_string();
        assert_eq!(said, "/etc/x cannot have the user `nobody`: the root has none of this name");
        let said = write_all(root.path(), &[file("/etc/x", 0o644, "", "odd")]).unwrap_err().to_string();
        assert_eq!(said, "/etc/x cannot have the group `odd`: the root has none of this name");
        assert_eq!(id(root.path(), "etc/passwd", "odd"), None);
        assert!(!root.path().join("etc/x").exists());
    }

    #[test]
    fn a_file_is_one_of_its_own_with_its_mode_and_owner() {
        let root = root();
        let elsewhere = root.path().join("elsewhere");
        fs::write(&elsewhere, "as it was").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.path().join("etc/linked")).unwrap();
        let is_root = fs::metadata(&elsewhere).unwrap().uid() == 0;
        let user = if is_root { "www-data" } else { "" };
        let all = [file("/etc/linked", 0o4750, user, ""), file("/home/w/.ssh/authorized_keys", 0o600, user, user)];
        if !is_root {
            eprintln!("left out: other owners need root");
            return;
        }
        write_all(root.path(), &all).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "as it was");
        let about = |path: &str| {
            let about = fs::symlink_metadata(root.path().join(path)).unwrap();
            (about.mode(), about.uid(), about.gid())
        };
        assert_eq!(about("etc/linked"), (0o104_750, 33, 0));
        assert_eq!(about("home/w"), (0o040_755, 0, 0));
        assert_eq!(about("home/w/.ssh"), (0o040_700, 33, 33));
        assert_eq!(about("home/w/.ssh/authorized_keys"), (0o100_600, 33, 33));
        assert!(write_all(root.path(), &[file("/home/w", 0o644, "", "")]).unwrap_err().to_string().starts_with("/home/w of the root"));
    }
}
