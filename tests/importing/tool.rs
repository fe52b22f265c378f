//! The inside by hand, as a program of its own: what an ordinary user imports, lists, shows and exports.
//!
//! It is this test program, started once more by a script of `bench`. What libtest prints comes first on stdout, so that the two are exchanged there:
//! results are written to stderr, what goes wrong to stdout. Leaves out everything that only the product has. Invariant: an error names all of its
//! causes, and ends with code 1.

use std::env;
use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process;

use embody::testing::image::digest::Digest;
use embody::testing::image::export::{export_dir, export_tar};
use embody::testing::image::generalise::Steps;
use embody::testing::image::source::Source;
use embody::testing::image::store::Objects;
use embody::testing::image::{Options, import};

use super::bench::{self, ARGUMENTS};

fn options(arguments: &[&str]) -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    let mut rest = arguments;
    loop {
        rest = match rest {
            [] => return Ok(options),
            ["--as-is", after @ ..] => {
                options.steps = Steps::none();
                after
            }
            ["--arch", arch, after @ ..] => {
                options.select.arch = (*arch).to_owned();
                after
            }
            ["--ref", tag, after @ ..] => {
                options.select.reference = Some((*tag).to_owned());
                after
            }
            [other, ..] => return Err(format!("{other:?} is no option").into()),
        };
    }
}

fn run(arguments: &[&str], mut out: impl Write) -> Result<(), Box<dyn Error>> {
    let [store, command, rest @ ..] = arguments else { return Err("expected a store and a command".into()) };
    let objects = Objects::at(Path::new(store))?;
    match (*command, rest) {
        ("import", [source, rest @ ..]) => {
            let packed = Path::new(store).join("tmp").join("packed");
            let source = match source.split_once(':') {
                Some(("dir", path)) => {
                    let (source, told) = bench::packed(Path::new(path), &packed)?;
                    told.iter().for_each(|warning| println!("warning: {warning}"));
                    source
                }
                Some(("tar", path)) => Source::Tar(path.into()),
                Some(("oci", path)) => Source::Oci(path.into()),
                _ => return Err(format!("{source:?} is no source").into()),
            };
            let imported = import(&source, &options(rest)?, &objects)?;
            for warning in &imported.warnings {
                println!("warning: {warning}");
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&imported)?)?;
        }
        ("list", []) => objects.indexes()?.iter().try_for_each(|digest| writeln!(out, "{digest}"))?,
        ("show", [digest]) => objects.index(&digest.parse()?)?.write_to(&mut out)?,
        ("export-dir", [digest, dir]) => {
            let digest: Digest = digest.parse()?;
            let exported = export_dir(&objects.index(&digest)?, &digest, &objects, Path::new(dir))?;
            writeln!(out, "{}", serde_json::to_string_pretty(&exported)?)?;
        }
        ("export-tar", [digest]) => drop(export_tar(&objects.index(&digest.parse()?)?, &objects, &mut out)?),
        _ => return Err(format!("{command:?} is no command").into()),
    }
    Ok(out.flush()?)
}

/// Does nothing unless a script of `bench` started it.
#[test]
fn the_tool() {
    let Ok(arguments) = env::var(ARGUMENTS) else { return };
    let arguments: Vec<&str> = arguments.lines().collect();
    let ended = run(&arguments, BufWriter::with_capacity(1 << 20, io::stderr().lock()));
    if let Err(error) = &ended {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text += &format!(": {inner}");
            cause = inner.source();
        }
        println!("{text}");
    }
    process::exit(i32::from(ended.is_err()));
}
