//! The manifests of `examples/`, in the program itself, so that the program alone is a demo. Its Policy is the demo's own: it looks more often.
//!
//! Invariant: every file of `examples/` is here. Shown by the tests below.

use crate::manifest::{self, Source};
use crate::model::{Kind, Object};

use super::super::failure::Failure;

const FILES: &[(&str, &str)] = &[
    ("examples/bindings.yaml", include_str!("../../../examples/bindings.yaml")),
    ("examples/networks.yaml", include_str!("../../../examples/networks.yaml")),
    ("examples/personas.yaml", include_str!("../../../examples/personas.yaml")),
    ("examples/policy.yaml", include_str!("../../../examples/policy.yaml")),
    ("examples/secrets.yaml", include_str!("../../../examples/secrets.yaml")),
    ("examples/servers.yaml", include_str!("../../../examples/servers.yaml")),
    ("examples/switches.yaml", include_str!("../../../examples/switches.yaml")),
];

const POLICY: (&str, &str) = ("policy.yaml", include_str!("policy.yaml"));

/// The server that runs something when the demo begins, so that embody is seen to leave it alone.
pub(super) const FOUND_RUNNING: &str = "r640-02";

fn load(files: &[(&str, &str)]) -> Result<Vec<Object>, Failure> {
    let sources: Vec<Source> = files.iter().map(|(name, text)| Source::text(*name, *text)).collect();
    let loaded = manifest::load(&sources, &[]);
    if loaded.has_errors() { Err(Failure::failed(loaded.render(false))) } else { Ok(loaded.objects) }
}

pub(super) fn objects() -> Result<Vec<Object>, Failure> {
    let mut objects = load(FILES)?;
    objects.retain(|object| object.kind() != Kind::Policy);
    objects.extend(load(&[POLICY])?);
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_in_the_program_and_sound() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut there: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| format!("examples/{}", e.unwrap().file_name().display())).collect();
        there.retain(|file| file.ends_with(".yaml"));
        there.sort();
        assert_eq!(there, FILES.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
        let objects = objects().unwrap();
        assert!(objects.iter().any(|o| o.kind() == Kind::Server && o.name().as_str() == FOUND_RUNNING));
        assert_eq!(objects.iter().filter(|o| o.kind() == Kind::Policy).count(), 1);
    }
}
