//! The files of a persona: where they lie, and what stands in their templates.
//!
//! Leaves out: whether a Secret has the key (`lint::secrets`, and the plan). Invariant: what is taken can be written by the agent, but for the names of
//! users, which the image alone knows. Shown by `tests/manifest.rs`.

use std::collections::BTreeMap;

use super::codes;
use super::fault::{At, Fault, did_you_mean, listed, steps};
use crate::limits;
use crate::model::PersonaSpec;
use crate::model::file::{ADDRESS, PersonaFile, VARIABLES, fill};

/// The kernel's own: nothing is kept there.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

pub(super) fn faults(item: usize, spec: &PersonaSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    if spec.files.is_empty() {
        return faults;
    }
    if spec.root.image.is_none() {
        let fault = Fault::error(codes::BAD_FILE, At::key(item, steps!["spec", "files"]), "files need a root that is an image");
        faults.push(fault.label("nobody would write them").hint("say `root: { image: { name: … } }`, or put them into the root"));
    }
    let octets: usize = spec.files.iter().filter_map(|file| file.content.as_ref()).map(String::len).sum();
    if spec.files.len() > limits::PERSONA_FILES || octets > limits::PERSONA_FILES_BYTES {
        let message =
            format!("files beside the image are at most {}, with {} KiB in all", limits::PERSONA_FILES, limits::PERSONA_FILES_BYTES >> 10);
        let fault = Fault::error(codes::BAD_FILE, At::key(item, steps!["spec", "files"]), message);
        faults.push(fault.label(format!("found {}, with {octets} octets", spec.files.len())).hint("what is larger belongs into the image"));
    }
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, file) in spec.files.iter().enumerate() {
        let at = |field: &'static str| At::value(item, steps!["spec", "files", index, field]);
        if let Some(why) = no_path(&file.path) {
            let fault = Fault::error(codes::BAD_FILE, at("path"), "no file can lie here");
            faults.push(fault.label(why).hint("expected a path from `/` without `..`, such as /etc/motd"));
        }
        match first.get(file.path.as_str()) {
            Some(earlier) => {
                let fault = Fault::error(codes::BAD_FILE, at("path"), format!("`{}` is there twice", super::diagnostic::shown(&file.path)));
                faults.push(fault.label("again here").also("first", At::value(item, steps!["spec", "files", *earlier, "path"])));
            }
            None => drop(first.insert(&file.path, index)),
        }
        let inside = |other: &PersonaFile| file.path.strip_prefix(&other.path).is_some_and(|rest| rest.starts_with('/'));
        if let Some(other) = spec.files.iter().position(inside) {
            let fault = Fault::error(codes::BAD_FILE, at("path"), "a file cannot lie in another one").label("in a file");
            faults.push(fault.also("the other", At::value(item, steps!["spec", "files", other, "path"])));
        }
        for (field, name) in [("owner", &file.owner), ("group", &file.group)] {
            if name.as_ref().is_some_and(|name| !is_user(name)) {
                let fault = Fault::error(
                    codes::BAD_FILE,
                    at(field),
                    format!("this is no name of a {}", if field == "owner" { "user" } else { "group" }),
                );
                faults.push(
                    fault
                        .label("expected a name that the image has, such as www-data")
                        .hint("numbers are not taken: the image says whose they are"),
                );
            }
        }
        faults.extend(content(item, index, file, spec));
    }
    faults
}

/// useradd(8): letters, digits, `_`, `-` and `.`, at most 32, and no number.
fn is_user(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    (1..=32).contains(&name.len()) && name.bytes().all(good) && !name.bytes().all(|b| b.is_ascii_digit())
}

fn no_path(path: &str) -> Option<&'static str> {
    let is_below = |of: &str| path == of || path.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'));
    match path {
        _ if !path.starts_with('/') => Some("it does not begin with `/`"),
        _ if path.len() < 2 || path.ends_with('/') => Some("it ends with `/`"),
        _ if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) => Some("it has an empty part, `.` or `..`"),
        // PATH_MAX of Linux.
        // NAME_MAX of Linux.
        _ if path.split('/').any(|part| part.len() > 255) => Some("a part of it has more than 255 octets"),
        _ if path.len() >= 4096 || path.chars().any(char::is_control) => Some("it is too long, or has a control character"),
        _ if KERNELS.into_iter().any(is_below) => Some("it is the kernel's"),
        _ => None,
    }
}

fn content(item: usize, index: usize, file: &PersonaFile, spec: &PersonaSpec) -> Option<Fault> {
    let given = [("content", file.content.is_some()), ("secretRef", file.secret_ref.is_some())].into_iter().filter(|(_, is)| *is).count();
    if given != 1 {
        let fault = Fault::error(codes::BAD_FILE, At::value(item, steps!["spec", "files", index]), "a file has one of content, secretRef");
        return Some(fault.label(if given == 0 { "found neither" } else { "found both" }));
    }
    if !file.template {
        return None;
    }
    let Some(text) = &file.content else {
        let fault =
            Fault::error(codes::BAD_FILE, At::key(item, steps!["spec", "files", index, "template"]), "a value of a Secret is no template");
        return Some(fault.label("leave this out"));
    };
    let nics: Vec<String> = spec.nics.iter().map(|nic| format!("{ADDRESS}{}", nic.name)).collect();
    let known: Vec<&str> = VARIABLES.into_iter().chain(nics.iter().map(String::as_str)).collect();
    let wrong = fill(text, |name| known.contains(&name).then(String::new)).err()?;
    let at = At::value(item, steps!["spec", "files", index, "content"]);
    let fault = Fault::error(codes::BAD_FILE, at, format!("`{}` is no variable of a template", super::diagnostic::shown(wrong)));
    let hint = did_you_mean(wrong, known.iter().copied()).map(|meant| format!("did you mean `${{{meant}}}`?"));
    Some(fault.label("in this template").hint(hint.unwrap_or_else(|| format!("expected ${{…}} with {}, or `$$` for `$`", listed(known)))))
}
