//! What a test must not leave behind.

use std::thread;
#[cfg(unix)]
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{parent, peer};

/// Checks that what ran since it was made left nothing behind: no file in `/dev/shm` that bears a
/// [unique name](crate::unique_name) of this process or its peers, no mapping of one, no child process, and no
/// new open descriptor.
///
/// It judges a whole process, so it works in a peer only, where no other test runs beside it.
///
/// | | Linux | other Unix | Windows |
/// | --- | --- | --- | --- |
/// | files in shared memory | by name | not checked: cannot be listed | not checked: die with their handles |
/// | mappings | by name | not checked | not checked |
/// | child processes | all | peers | peers |
/// | descriptors | each one | each one | not checked: Wine cannot count handles; but what is open keeps its [`TempDir`](crate::TempDir) |
///
/// # Examples
///
/// ```no_run
/// testkit::peers! { story }
///
/// fn story(_: &[&str]) {
///     let check = testkit::LeakCheck::start();
///     let name = testkit::unique_name("frames");
///     // What may leak.
///     check.finish();
/// }
///
/// #[test]
/// fn nothing_leaks() {
///     testkit::Peer::spawn("story", &[]).finish();
/// }
/// # fn main() {}
/// ```
#[derive(Debug)]
#[must_use = "it checks when it is dropped"]
pub struct LeakCheck {
    /// The names that are made from now on have this in common.
    #[cfg(target_os = "linux")]
    family: String,
    #[cfg(unix)]
    before: Open,
}

impl LeakCheck {
    /// Notes what is open now.
    ///
    /// # Panics
    ///
    /// In a process that is no peer.
    pub fn start() -> LeakCheck {
        assert!(peer::is_one(), "other tests may run in this process: check for leaks in a peer");
        LeakCheck {
            #[cfg(target_os = "linux")]
            family: crate::names::found_family(),
            #[cfg(unix)]
            before: Open::now(),
        }
    }

    /// Checks; dropping does the same.
    ///
    /// # Panics
    ///
    /// If something was left behind, with a list of it.
    pub fn finish(self) {}

    fn leaks(&self) -> Vec<String> {
        let mut leaks = parent::live();
        #[cfg(unix)]
        leaks.extend(self.before.more_now());
        #[cfg(target_os = "linux")]
        {
            linux::files_named(Path::new("/dev/shm"), &self.family, &mut leaks);
            linux::mappings_named(&self.family, &mut leaks);
            linux::children(&mut leaks);
        }
        leaks
    }
}

impl Drop for LeakCheck {
    fn drop(&mut self) {
        // A test that fails already leaves things behind with good reason.
        if thread::panicking() {
            return;
        }
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "left behind:\n{}", leaks.join("\n"));
    }
}

/// The open descriptors, with what each refers to.
#[cfg(unix)]
#[derive(Debug)]
struct Open(Vec<(OsString, PathBuf)>);

#[cfg(unix)]
impl Open {
    fn now() -> Open {
        let dir = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
        let names: io::Result<Vec<_>> =
            fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut names = names.unwrap_or_else(|error| panic!("cannot list {dir}: {error}"));
        // The descriptor that listed them is among them, and closed by now.
        names.retain(|name| Path::new(dir).join(name).symlink_metadata().is_ok());
        // Only Linux tells what they are; elsewhere their numbers must do.
        Open(
            names
                .into_iter()
                .map(|name| (name.clone(), fs::read_link(Path::new(dir).join(name)).unwrap_or_default()))
                .collect(),
        )
    }

    fn more_now(&self) -> Vec<String> {
        let now = Open::now();
        let new = now.0.iter().filter(|open| !self.0.contains(open));
        new.map(|(number, target)| format!("descriptor {} {}", number.to_string_lossy(), target.display())).collect()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{Path, fs, io};

    pub(super) fn files_named(dir: &Path, part: &str, found: &mut Vec<String>) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            // Another user's, or gone since it was listed.
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) => return,
            Err(error) => panic!("cannot list {}: {error}", dir.display()),
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().contains(part) {
                found.push(format!("file {}", path.display()));
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                files_named(&path, part, found);
            }
        }
    }

    pub(super) fn mappings_named(part: &str, found: &mut Vec<String>) {
        let maps = fs::read_to_string("/proc/self/maps").expect("the list of mappings");
        found.extend(maps.lines().filter(|line| line.contains(part)).map(|line| format!("mapping {line}")));
    }

    pub(super) fn children(found: &mut Vec<String>) {
        let own = std::process::id().to_string();
        for entry in fs::read_dir("/proc").expect("the list of processes").flatten() {
            // A process may end while it is looked at, and most entries are no processes.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // "id (name) state parent ...", where the name may hold anything (proc_pid_stat(5)).
            let Some((head, tail)) = stat.rsplit_once(')') else { continue };
            if tail.split_whitespace().nth(1) == Some(&own) {
                found.push(format!("child process {head})"));
            }
        }
    }
}
