//! Names and directories that no other test uses.

use std::collections::hash_map::RandomState;
use std::env;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;

use crate::lock;

/// The environment variable that hands a family on to peers.
pub(crate) const FAMILY: &str = "TESTKIT_FAMILY";

/// What the names of this process and of its peers have in common.
static CURRENT: LazyLock<Mutex<String>> = LazyLock::new(|| Mutex::new(env::var(FAMILY).unwrap_or_else(|_| random())));

pub(crate) fn family() -> String {
    lock(&CURRENT).clone()
}

/// Names from now on have something in common that none had before.
#[cfg(target_os = "linux")]
pub(crate) fn found_family() -> String {
    let mut current = lock(&CURRENT);
    *current = random();
    current.clone()
}

/// A name that nothing has yet: of letters, digits and hyphens, at most 40 bytes, with the label at its end
/// for people to recognise.
///
/// # Examples
///
/// ```
/// let name = testkit::unique_name("frames");
/// assert!(name.ends_with("-frames"));
/// assert_ne!(name, testkit::unique_name("frames"));
/// ```
///
/// # Panics
///
/// If the label has more than 16 bytes, or others than ASCII letters, digits and hyphens.
#[must_use]
pub fn unique_name(label: &str) -> String {
    // Not the process id, which a test that kills thousands of processes may see again.
    static PROCESS: LazyLock<String> = LazyLock::new(random);
    static COUNT: AtomicU32 = AtomicU32::new(0);

    let fits = label.len() <= 16 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    assert!(fits, "{label:?} is no label: at most 16 ASCII letters, digits and hyphens");
    format!("t{}{}{}-{label}", family(), *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Eight letters and digits.
fn random() -> String {
    // The one source of the system's randomness that std has.
    let mut bits = RandomState::new().hash_one(0);
    let mut text = String::new();
    for _ in 0..8 {
        text.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(bits % 36) as usize]));
        bits /= 36;
    }
    text
}

/// A directory of one's own, removed with all that is in it when dropped.
///
/// # Examples
///
/// ```
/// let dir = testkit::TempDir::new();
/// std::fs::write(dir.join("data"), "bytes").unwrap();
/// ```
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Creates one in the system's directory for temporary files.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "what touches the disk is asked for by name")]
    pub fn new() -> TempDir {
        let path = env::temp_dir().join(unique_name("dir"));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        TempDir(path)
    }

    /// Creates one in memory, below `/dev/shm`.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn in_memory() -> TempDir {
        let path = Path::new("/dev/shm").join(unique_name("dir"));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        TempDir(path)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Windows does not remove what is still mapped or open: then the test forgot to close it.
            Err(error) if !thread::panicking() => panic!("cannot remove {}: {error}", self.0.display()),
            Err(_) => {}
        }
    }
}
