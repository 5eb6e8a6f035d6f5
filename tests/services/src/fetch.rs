//! The jars of a service, fetched once by Maven into the ignored folder.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::home;

/// What is to be fetched.
pub(crate) struct Jars {
    /// Name and version: the folder it lies in.
    pub(crate) name: &'static str,
    /// The project whose dependencies it is.
    pub(crate) pom: &'static str,
    /// The variable that names a running service instead.
    pub(crate) variable: &'static str,
}

impl Jars {
    /// The class path entry (`folder/*`), fetched if need be. Two processes may ask at once.
    pub(crate) fn class_path(&self) -> Result<String> {
        self.needs("java", "-version")?;
        let folder = home::cache()?.join(self.name);
        if !folder.exists() {
            let _one_at_a_time = home::lock("fetch.lock")?;
            if !folder.exists() {
                self.fetch(&folder)?;
            }
        }
        Ok(format!("{}/*", folder.display()))
    }

    fn fetch(&self, folder: &Path) -> Result<()> {
        self.needs("mvn", "--version")?;
        let work = tempfile::tempdir_in(home::cache()?)?;
        let pom = work.path().join("pom.xml");
        fs::write(&pom, self.pom)?;
        let jars = work.path().join("jars");
        let out = Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(&pom)
            .arg(repository_argument()?)
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", jars.display()))
            .output()
            .context("cannot run mvn")?;
        ensure!(
            out.status.success(),
            "Maven could not fetch {}: {}{}",
            self.name,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        // The rename is what makes it exist: a fetch that was killed half way leaves nothing.
        fs::rename(&jars, folder).with_context(|| format!("cannot create {}", folder.display()))
    }

    fn needs(&self, program: &str, question: &str) -> Result<()> {
        match Command::new(program).arg(question).output() {
            Ok(out) if out.status.success() => Ok(()),
            Ok(out) => bail!(
                "{program} does not run: {}",
                String::from_utf8_lossy(&out.stderr)
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "{program} is missing: install Java 17 and Maven (Debian: apt-get install \
                 openjdk-17-jre-headless maven), or name a running service in {}",
                self.variable
            ),
            Err(error) => Err(error).with_context(|| format!("cannot run {program}")),
        }
    }
}

/// Maven's own store of what it fetched: the user's where there is one, else beside our jars.
fn repository_argument() -> Result<String> {
    let own = env::var_os("HOME").map(|home| PathBuf::from(home).join(".m2"));
    let repository = match own {
        Some(own) if own.exists() => own.join("repository"),
        _ => home::cache()?.join("maven"),
    };
    Ok(format!("-Dmaven.repo.local={}", repository.display()))
}
