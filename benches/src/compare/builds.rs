//! Turns the words OLD and NEW of the command line into executables.
//!
//! | word | executable |
//! | --- | --- |
//! | path of a file | the file itself |
//! | path of a directory | the tree in it, built as it is, with changes that are not committed |
//! | anything else | the git revision of that name, built |
//!
//! To build a tree:
//!
//! 1. The tree is put together in `benches/target/compare/source`: its own files, but `benches` and
//!    the library of `mmf-cli` from the repository around the current directory. Both
//!    builds then measure the same rows in the same way with the same effort, and differ in the
//!    library alone.
//! 2. The key is a hash of these files, the compiler and its flags. If an executable of this key
//!    exists, it is used.
//! 3. Otherwise cargo builds the tree. The path is the same for every tree, since the compiler
//!    derives names of symbols, and the linker the places of functions, from it. Trees of the same
//!    content give the same executable.
//! 4. If the current benchmarks do not compile with the library, the tree's own benchmarks are
//!    built.
//! 5. The executable is kept in `benches/target/compare/KEY`; the tree is removed.
//!
//! A lock keeps two comparisons from building at the same time.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::rows::{self, GROUPS_FLAG};

/// What every tree takes from the current repository.
const MEASURING: [&str; 2] = ["benches", "crates/mmf-cli/src"];

/// What the executable consists of.
const COMPILED: [&str; 5] = ["benches", "crates/mmf-cli/src", "crates/mmf", "Cargo.toml", "Cargo.lock"];

/// An executable to start.
pub(super) struct Build {
    /// The word of the command line.
    pub(super) given: String,
    /// The full id of the commit, if the word was a revision.
    pub(super) commit: Option<String>,
    pub(super) executable: PathBuf,
    /// The groups that it has.
    pub(super) groups: Vec<String>,
    /// Whether the rows are measured by the tree's own benchmarks.
    pub(super) own_benches: bool,
}

/// What a word of the command line stands for.
#[derive(Debug, PartialEq)]
enum Word {
    Executable(PathBuf),
    /// The top of a tree.
    Tree(PathBuf),
    Commit(String),
}

/// Finds or makes the executable that a word stands for. `here` is a directory of the current
/// repository.
pub(super) fn find(word: &str, here: &Path) -> io::Result<Build> {
    let kind = Word::of(word, here)?;
    let commit = if let Word::Commit(id) = &kind { Some(id.clone()) } else { None };
    let (executable, own_benches) = match &kind {
        Word::Executable(path) => (path.clone(), false),
        kind => Yard::open(here)?.executable(word, kind)?,
    };
    let groups = groups(&executable)?.ok_or_else(|| {
        let from = if own_benches { "this revision's own benchmarks do" } else { "it does" };
        failure(format!(
            "cannot compare `{word}`: {from} not print rows; give the git revision of a library that the current \
             benchmarks compile with, and it is built with them"
        ))
    })?;
    Ok(Build { given: word.to_owned(), commit, executable, groups, own_benches })
}

/// The groups of an executable; `None` if it does not print rows.
fn groups(executable: &Path) -> io::Result<Option<Vec<String>>> {
    let output = Command::new(executable).arg(GROUPS_FLAG).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map_err(|error| failure(format!("cannot start {}: {error}", executable.display())))?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
        .map(|text| text.and_then(|text| rows::parse_groups(&text)))
}

impl Word {
    fn of(word: &str, here: &Path) -> io::Result<Word> {
        let path = &here.join(word);
        if path.is_file() {
            return Ok(Word::Executable(path.canonicalize()?));
        }
        if path.is_dir() {
            return Ok(Word::Tree(top(path)?));
        }
        let id = git(here, &["rev-parse", "--verify", "--quiet", "--end-of-options"], [format!("{word}^{{commit}}")]);
        match id.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) {
            Ok(id) if !id.is_empty() => Ok(Word::Commit(id)),
            _ => Err(failure(format!(
                "cannot find `{word}`: it is neither a file, nor a directory, nor a git revision of the repository \
                 around the current directory"
            ))),
        }
    }
}

/// The top of the git tree around a directory.
fn top(directory: &Path) -> io::Result<PathBuf> {
    let output = git(directory, &["rev-parse", "--show-toplevel"], [] as [&str; 0])?;
    let top = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if top.join("benches/Cargo.toml").is_file() {
        return Ok(top);
    }
    Err(failure(format!("cannot build {}: it has no benches/Cargo.toml; go to a tree of mmf", top.display())))
}

/// The directory in which trees are built, locked.
struct Yard {
    /// The repository around the current directory.
    top: PathBuf,
    place: PathBuf,
    _lock: File,
}

impl Yard {
    fn open(here: &Path) -> io::Result<Yard> {
        let top = top(here)?;
        let place = top.join("benches/target/compare");
        fs::create_dir_all(&place)?;
        let lock = lock(&place.join("lock"))?;
        Ok(Yard { top, place, _lock: lock })
    }

    fn source(&self) -> PathBuf {
        self.place.join("source")
    }

    /// The executable of a tree, and whether it has the tree's own benchmarks.
    fn executable(&self, word: &str, kind: &Word) -> io::Result<(PathBuf, bool)> {
        let built = self.build(word, kind, true).and_then(|path| match path {
            Some(path) => Ok((path, false)),
            None => {
                eprintln!("compare: the current benchmarks do not compile with `{word}`; trying its own");
                let path = self.build(word, kind, false)?;
                path.map(|path| (path, true)).ok_or_else(|| {
                    failure(format!("cannot build `{word}`: neither the current benchmarks nor its own compile"))
                })
            }
        });
        remove(&self.source())?;
        built
    }

    /// Builds a tree, with the current benchmarks or its own; `None` if it does not compile.
    fn build(&self, word: &str, kind: &Word, current: bool) -> io::Result<Option<PathBuf>> {
        let source = self.source();
        remove(&source)?;
        fs::create_dir_all(&source)?;
        match kind {
            Word::Commit(id) => self.check_out(id)?,
            Word::Tree(tree) => copy(tree, &source, &[])?,
            Word::Executable(_) => {}
        }
        if current && *kind != Word::Tree(self.top.clone()) {
            for part in MEASURING {
                remove(&source.join(part))?;
            }
            copy(&self.top, &source, &MEASURING)?;
        }
        let kept = self.place.join(key(&source)?);
        let executable = kept.join(format!("mmf-benches{}", std::env::consts::EXE_SUFFIX));
        if executable.is_file() {
            return Ok(Some(executable));
        }
        eprintln!("compare: building `{word}`");
        let target = self.place.join("target");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--release", "--bin", "mmf-benches", "--manifest-path"]);
        command.arg(source.join("benches/Cargo.toml")).arg("--target-dir").arg(&target);
        // The same way of compiling for every comparison.
        command.env("CARGO_INCREMENTAL", "0").env_remove("CARGO_BUILD_TARGET").current_dir(&source);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().map_err(|error| failure(format!("cannot start cargo: {error}")))?;
        if !status.success() {
            return Ok(None);
        }
        fs::create_dir_all(&kept)?;
        // Complete before it has its name.
        let partial = kept.join("partial");
        fs::copy(target.join("release/mmf-benches").with_extension(std::env::consts::EXE_EXTENSION), &partial)?;
        fs::rename(&partial, &executable)?;
        Ok(Some(executable))
    }

    /// Writes the files of a commit, without a change to the repository.
    fn check_out(&self, id: &str) -> io::Result<()> {
        let index = self.place.join("index");
        remove(&index)?;
        let mut prefix = self.source().into_os_string();
        prefix.push("/");
        let prefix = [OsStr::new("--prefix="), &prefix].into_iter().collect::<std::ffi::OsString>();
        let run = |args: &[&OsStr]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(&self.top).args(args).env("GIT_INDEX_FILE", &index);
            succeed(command)
        };
        run(&["read-tree", id].map(OsStr::new))?;
        run(&[OsStr::new("checkout-index"), OsStr::new("--all"), &prefix])?;
        remove(&index)
    }
}

/// Opens a file that one comparison at a time has open. Waits for another one.
fn lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 0);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open as long as `file`.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            eprintln!("compare: waiting for the builds of another comparison");
            // SAFETY: the descriptor is open as long as `file`.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(file)
}

/// Copies the files of a tree that git knows or would add; those below `parts` alone if there are
/// any.
fn copy(from: &Path, to: &Path, parts: &[&str]) -> io::Result<()> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"];
    let output = git(from, &list, parts)?;
    for name in output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        // Git knows files too that were removed.
        if let Ok(true) = from.join(&name).symlink_metadata().map(|file| file.is_file()) {
            let target = to.join(&name);
            fs::create_dir_all(target.parent().unwrap_or(to))?;
            fs::copy(from.join(&name), target)?;
        }
    }
    Ok(())
}

/// A name for everything that the executable depends on.
fn key(source: &Path) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut version = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    version.arg("-vV").current_dir(source);
    succeed(version)?.stdout.hash(&mut hasher);
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        std::env::var_os(variable).hash(&mut hasher);
    }
    let mut files = BTreeSet::new();
    for part in COMPILED {
        list(&source.join(part), &mut files)?;
    }
    for file in files {
        file.strip_prefix(source).unwrap_or(&file).hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Adds the file, or all files of the directory.
fn list(path: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            list(&entry?.path(), files)?;
        }
    } else if path.is_file() {
        files.insert(path.to_owned());
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn git<T: AsRef<OsStr>>(directory: &Path, args: &[&str], more: impl IntoIterator<Item = T>) -> io::Result<Output> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(args).args(more);
    succeed(command)
}

/// Runs a command. Fails with what it said if it failed.
fn succeed(mut command: Command) -> io::Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| failure(format!("cannot start {program}: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(failure(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn failure(text: String) -> io::Error {
    io::Error::other(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("mmf-benches-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a new directory");
            Scratch(path)
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_word_is_a_path_first() {
        let (scratch, here) = (Scratch::new("word"), Path::new("."));
        scratch.write("HEAD", "");
        let path = scratch.0.join("HEAD");
        let expected = Word::Executable(path.canonicalize().expect("it exists"));
        assert_eq!(Word::of(&path.to_string_lossy(), here).expect("a file"), expected);
        let error = Word::of("no-such-revision", here).expect_err("neither a path nor a revision");
        assert!(error.to_string().starts_with("cannot find `no-such-revision`"), "{error}");
        // An option is not passed to git as one.
        assert!(Word::of("--all", here).is_err());
    }

    #[test]
    fn the_key_depends_on_what_is_compiled_alone() {
        let scratch = Scratch::new("key");
        scratch.write("crates/mmf/src/lib.rs", "a");
        scratch.write("Cargo.toml", "b");
        let first = key(&scratch.0).expect("a key");
        scratch.write("docs/design.md", "c");
        assert_eq!(key(&scratch.0).expect("a key"), first);
        scratch.write("crates/mmf/src/lib.rs", "d");
        let second = key(&scratch.0).expect("a key");
        assert_ne!(second, first);
        scratch.write("crates/mmf/src/other.rs", "");
        assert_ne!(key(&scratch.0).expect("a key"), second);
    }

    #[test]
    fn an_executable_without_rows_is_refused() {
        let program = if cfg!(windows) { "C:\\windows\\system32\\hostname.exe" } else { "/bin/true" };
        let error = find(program, Path::new(".")).err().expect("it prints no rows").to_string();
        assert!(error.starts_with("cannot compare `"), "{error}");
    }

    /// A repository with a library of one function and benchmarks of one group.
    impl Scratch {
        fn git(&self, args: &[&str]) {
            let identity = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"];
            git(&self.0, &identity, args).expect("git succeeds");
        }

        fn library(&self, function: &str) {
            self.write("crates/mmf/src/lib.rs", &format!("pub fn {function}() -> u32 {{ 7 }}"));
        }

        fn benches(&self, group: &str, function: &str) {
            let format = rows::FORMAT;
            let main = format!("fn main() {{ println!(\"{format}\\n{group}\"); assert_eq!(mmf::{function}(), 7) }}");
            self.write("benches/src/main.rs", &main);
        }

        fn commit(&self, tag: &str) {
            self.git(&["add", "--all"]);
            self.git(&["commit", "--quiet", "-m", tag]);
            self.git(&["tag", tag]);
        }
    }

    #[test]
    fn a_revision_is_built_with_the_current_benchmarks_where_they_compile() {
        let scratch = Scratch::new("build");
        let package = |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
        scratch.write(".gitignore", "target/\nCargo.lock\n");
        scratch.write("Cargo.toml", "[workspace]\nmembers = [\"crates/mmf\"]\n");
        scratch.write("crates/mmf/Cargo.toml", &package("mmf"));
        scratch.write("crates/mmf-cli/src/measure.rs", "");
        let dependency = "[dependencies]\nmmf = { path = \"../crates/mmf\" }\n[workspace]\n";
        scratch.write("benches/Cargo.toml", &(package("mmf-benches") + dependency));
        scratch.git(&["init", "--quiet"]);
        scratch.library("first");
        scratch.benches("old", "first");
        scratch.commit("same");
        scratch.library("second");
        scratch.benches("own", "second");
        scratch.commit("other");
        scratch.write("benches/src/main.rs", "fn main() {}");
        scratch.commit("silent");
        // Not committed.
        scratch.library("first");
        scratch.benches("current", "first");

        let same = find("same", &scratch.0).expect("it compiles");
        assert_eq!((&*same.groups, same.own_benches), (&["current".to_owned()][..], false));
        assert_eq!(same.commit.map(|id| id.len()), Some(40));
        let tree = find(".", &scratch.0).expect("it compiles");
        assert_eq!((tree.executable, tree.commit), (same.executable, None), "the same files are built once");
        let other = find("other", &scratch.0).expect("its own benchmarks compile");
        assert_eq!((&*other.groups, other.own_benches), (&["own".to_owned()][..], true));
        let error = find("silent", &scratch.0).err().expect("it prints no rows").to_string();
        assert!(error.starts_with("cannot compare `silent`: this revision's own"), "{error}");
        assert!(!scratch.0.join("benches/target/compare/source").exists());
        let changes = git(&scratch.0, &["status", "--porcelain"], [] as [&str; 0]).expect("git succeeds").stdout;
        let changes = String::from_utf8_lossy(&changes).into_owned();
        assert_eq!(changes, " M benches/src/main.rs\n M crates/mmf/src/lib.rs\n", "the repository is as it was");
    }
}
