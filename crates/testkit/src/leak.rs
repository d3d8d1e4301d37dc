//! What a test must not leave behind.

use std::thread;
use std::time::{Duration, Instant};

use crate::{parent, peer};

/// Checks that what ran since it was made left nothing behind: no file in `/dev/shm` that bears a
/// [unique name](crate::unique_name) of this process or its peers, no new shared mapping, no child
/// process, and no new open descriptor.
///
/// It judges a whole process, so it works in a peer only, where no other test runs beside it.
///
/// | | Linux | other Unix | Windows |
/// | --- | --- | --- | --- |
/// | files in shared memory | by name | not checked: cannot be listed | not checked: die with their handles |
/// | mappings | shared ones | not checked | not checked |
/// | child processes | all | peers | peers |
/// | descriptors | each one | each one | not checked; but an open file keeps its [`TempDir`](crate::TempDir) from going |
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
    before: system::Before,
}

impl LeakCheck {
    /// Notes what is there now.
    ///
    /// # Panics
    ///
    /// In a process that is no peer.
    pub fn start() -> LeakCheck {
        assert!(peer::is_one(), "other tests may run in this process: check for leaks in a peer");
        LeakCheck { before: system::Before::now() }
    }

    /// Checks; dropping does the same.
    ///
    /// # Panics
    ///
    /// If something was left behind, with a list of it.
    pub fn finish(self) {}
}

impl Drop for LeakCheck {
    fn drop(&mut self) {
        // A test that fails already leaves things behind with good reason.
        if thread::panicking() {
            return;
        }
        // Another thread of the test's harness may be within the C library, which opens a file for
        // a moment to count the processors. What is left behind stays.
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let leaks = [parent::live(), self.before.leaks()].concat();
            if leaks.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n{}", leaks.join("\n"));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::io;
    use std::path::Path;

    use super::descriptors::Open;
    use crate::names;

    #[derive(Debug)]
    pub(super) struct Before {
        open: Open,
        shared: Vec<String>,
        /// What the names that are made from now on have in common.
        family: String,
    }

    impl Before {
        pub(super) fn now() -> Before {
            Before { open: Open::in_dir("/proc/self/fd"), shared: shared_mappings(), family: names::found_family() }
        }

        pub(super) fn leaks(&self) -> Vec<String> {
            let mut found = self.open.more_now();
            files_named(Path::new("/dev/shm"), &self.family, &mut found);
            let mappings = shared_mappings().into_iter().filter(|mapping| !self.shared.contains(mapping));
            found.extend(mappings.map(|mapping| format!("mapping {mapping}")));
            children(&mut found);
            found
        }
    }

    fn files_named(dir: &Path, part: &str, found: &mut Vec<String>) {
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

    /// Not by name: a file that was made without one is listed as `#123 (deleted)` also when it has
    /// got one since.
    fn shared_mappings() -> Vec<String> {
        let maps = fs::read_to_string("/proc/self/maps").expect("the list of mappings");
        let shared = |line: &&str| line.split_whitespace().nth(1).is_some_and(|rights| rights.ends_with('s'));
        maps.lines().filter(shared).map(str::to_owned).collect()
    }

    fn children(found: &mut Vec<String>) {
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

#[cfg(all(unix, not(target_os = "linux")))]
mod system {
    use super::descriptors::Open;

    #[derive(Debug)]
    pub(super) struct Before(Open);

    impl Before {
        pub(super) fn now() -> Before {
            Before(Open::in_dir("/dev/fd"))
        }

        pub(super) fn leaks(&self) -> Vec<String> {
            self.0.more_now()
        }
    }
}

#[cfg(windows)]
mod system {
    /// Nothing: names die with their handles, and Wine does not count handles.
    #[derive(Debug)]
    pub(super) struct Before;

    impl Before {
        pub(super) fn now() -> Before {
            Before
        }

        pub(super) fn leaks(&self) -> Vec<String> {
            Vec::new()
        }
    }
}

#[cfg(unix)]
mod descriptors {
    use std::ffi::OsString;
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};

    /// The open descriptors.
    #[derive(Debug)]
    pub(super) struct Open {
        dir: &'static str,
        /// The number of each, and what it refers to where the system tells.
        all: Vec<(OsString, PathBuf)>,
    }

    impl Open {
        /// Those that a directory of the system's lists.
        pub(super) fn in_dir(dir: &'static str) -> Open {
            let names = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
            let names: Vec<OsString> = names.unwrap_or_else(|error: io::Error| panic!("cannot list {dir}: {error}"));
            let all = names
                .into_iter()
                // The one that listed them is among them, and closed by now.
                .filter(|name| Path::new(dir).join(name).symlink_metadata().is_ok())
                .map(|name| (name.clone(), fs::read_link(Path::new(dir).join(name)).unwrap_or_default()))
                .collect();
            Open { dir, all }
        }

        pub(super) fn more_now(&self) -> Vec<String> {
            let now = Open::in_dir(self.dir).all;
            let new = now.iter().filter(|open| !self.all.contains(open));
            new.map(|(number, target)| format!("descriptor {} {}", number.to_string_lossy(), target.display()))
                .collect()
        }
    }
}
