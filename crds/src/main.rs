//! Writes the CustomResourceDefinitions: `crds OURS READ [--check]`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crds::yaml::{self, File};

const USAGE: &str = "usage: crds DIRECTORY-OF-OURS DIRECTORY-OF-THOSE-READ [--check]";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [ours, read] => run(ours, read, write),
        [ours, read, "--check"] => run(ours, read, check),
        _ => Err(Failure::Usage),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = io::Write::write_all(&mut io::stderr(), format!("{failure}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{USAGE}")]
    Usage,
    #[error(transparent)]
    Yaml(#[from] yaml::YamlError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: not what the types say; run `make crds`")]
    Stale { path: PathBuf },
}

fn run(
    ours: &str,
    read: &str,
    each: fn(&Path, &[File]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    each(Path::new(ours), &yaml::files(&yaml::owned())?)?;
    each(Path::new(read), &yaml::files(&yaml::read())?)
}

fn write(directory: &Path, files: &[File]) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(at(directory))?;
    for stray in strays(directory, files)? {
        fs::remove_file(&stray).map_err(at(&stray))?;
    }
    files.iter().try_for_each(|file| {
        let path = directory.join(&file.name);
        fs::write(&path, &file.yaml).map_err(at(&path))
    })
}

fn check(directory: &Path, files: &[File]) -> Result<(), Failure> {
    for file in files {
        let path = directory.join(&file.name);
        if fs::read_to_string(&path).map_err(at(&path))? != file.yaml {
            return Err(Failure::Stale { path });
        }
    }
    match strays(directory, files)?.into_iter().next() {
        Some(path) => Err(Failure::Stale { path }),
        None => Ok(()),
    }
}

/// YAML files that no definition makes any more.
fn strays(directory: &Path, files: &[File]) -> Result<Vec<PathBuf>, Failure> {
    let mut strays = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml");
        if yaml && !files.iter().any(|file| path.ends_with(&file.name)) {
            strays.push(path);
        }
    }
    Ok(strays)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::Io { path, source }
}
