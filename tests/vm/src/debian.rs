//! This module takes packages of Debian without installing them: apt resolves, downloads and
//! verifies into the build tree, `dpkg-deb` unpacks. It needs no root, no chroot, and leaves the
//! machine's own packages alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::output;

/// Name of the release that QEMU, kernel and tools are taken from, whatever release the machine
/// runs.
pub(crate) const RELEASE: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Name of the variable that names the Debian mirror to use where apt's own sources name none
/// (Ubuntu, say).
const MIRROR_VARIABLE: &str = "MANIFOLD_DEBIAN_MIRROR";

/// An apt of our own with package lists of [`RELEASE`] and its backports.
#[derive(Debug)]
pub(crate) struct Archive {
    config: PathBuf,
}

impl Archive {
    /// Sets up `dir` and fetches the package lists.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        for tool in ["apt-get", "dpkg-deb"] {
            if Command::new(tool).arg("--version").output().is_err() {
                bail!(
                    "{tool} not found: the VM tests prepare themselves on Debian and its relatives \
                     only"
                );
            }
        }
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} not found: install the package debian-archive-keyring");
        }
        for sub in ["preferences.d", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let mirror = mirror()?;
        let sources: String = ["", "-backports"]
            .map(|suffix| format!("deb [signed-by={KEYRING}] {mirror} {RELEASE}{suffix} main\n"))
            .concat();
        fs::write(dir.join("sources.list"), sources)?;
        fs::write(dir.join("status"), "")?;
        // The machine's own apt.conf.d still applies: it may name a proxy.
        let here = dir.display();
        let config = dir.join("apt.conf");
        fs::write(
            &config,
            format!(
                "Dir::Etc::sourcelist \"{here}/sources.list\";\n\
                 Dir::Etc::sourceparts \"-\";\n\
                 Dir::Etc::preferences \"-\";\n\
                 Dir::Etc::preferencesparts \"{here}/preferences.d\";\n\
                 Dir::State \"{here}/state\";\n\
                 Dir::State::status \"{here}/status\";\n\
                 Dir::Cache \"{here}/cache\";\n\
                 Dir::Log \"{here}\";\n\
                 APT::Architecture \"amd64\";\n\
                 APT::Architectures {{ \"amd64\"; }};\n\
                 APT::Install-Recommends \"false\";\n\
                 APT::Sandbox::User \"\";\n\
                 APT::Update::Post-Invoke {{ }};\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::Retries \"3\";\n\
                 Debug::NoLocking \"true\";\n"
            ),
        )?;
        let archive = Self { config };
        output(archive.apt("apt-get").args(["-q", "update"]))
            .context("cannot fetch the package lists")?;
        Ok(archive)
    }

    fn apt(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Unpacks `packages` and all they depend on into `root`. `suite` prefers another suite, such
    /// as backports.
    pub(crate) fn unpack(&self, packages: &[&str], suite: Option<&str>, root: &Path) -> Result<()> {
        let archives = root.join(".archives");
        fs::create_dir_all(archives.join("partial"))?;
        let mut install = self.apt("apt-get");
        install.args(["-q", "-y", "--download-only"]);
        install.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
        if let Some(suite) = suite {
            install.args(["-t", suite]);
        }
        output(install.arg("install").args(packages))
            .with_context(|| format!("cannot download {}", packages.join(", ")))?;
        // The folders make a merged /usr, as the packages expect to find it.
        for dir in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(root.join("usr").join(dir))?;
            std::os::unix::fs::symlink(Path::new("usr").join(dir), root.join(dir))?;
        }
        unpack_all(&archives, root)?;
        fs::remove_dir_all(&archives)?;
        Ok(())
    }

    /// Unpacks the one package that the metapackage `package` stands for, without what it depends
    /// on.
    pub(crate) fn unpack_target_of(&self, package: &str, root: &Path) -> Result<()> {
        let depends = output(self.apt("apt-cache").args(["depends", "--important", package]))?;
        let target = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .with_context(|| format!("{package} depends on nothing"))?;
        let archives = root.join(".archives");
        fs::create_dir_all(&archives)?;
        output(self.apt("apt-get").current_dir(&archives).args(["-q", "download", target]))
            .with_context(|| format!("cannot download {target}"))?;
        unpack_all(&archives, root)?;
        fs::remove_dir_all(&archives)?;
        Ok(())
    }
}

fn unpack_all(archives: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(root))?;
        }
    }
    Ok(())
}

/// Returns the Debian mirror of the machine's own apt sources.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL) $(RELEASE) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    choose_mirror(&targets).with_context(|| {
        format!("apt's sources name no Debian mirror: name one in the variable {MIRROR_VARIABLE}")
    })
}

/// Picks the first repository of Debian itself; its label is unknown before the first `apt-get
/// update`.
fn choose_mirror(targets: &str) -> Option<String> {
    let rows = || targets.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    rows()
        .find(|row| row.first() == Some(&"Debian"))
        .or_else(|| {
            rows().find(|row| {
                row.last().is_some_and(|uri| uri.trim_end_matches('/').ends_with("/debian"))
            })
        })
        .and_then(|row| row.last().map(|uri| (*uri).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::choose_mirror;

    #[test]
    fn mirror_is_debian_itself_not_security_or_a_third_party() {
        let known = "Debian-Security stable-security http://a/debian-security/\n\
                     Other stable http://b/debian/\n\
                     Debian stable http://c/mirror/\n";
        assert_eq!(choose_mirror(known).as_deref(), Some("http://c/mirror/"));
        let before_update =
            " stable-security http://a/debian-security/\n stable http://d/debian/\n";
        assert_eq!(choose_mirror(before_update).as_deref(), Some("http://d/debian/"));
        assert_eq!(choose_mirror("Ubuntu noble http://e/ubuntu/\n"), None);
        assert_eq!(choose_mirror(""), None);
    }
}
