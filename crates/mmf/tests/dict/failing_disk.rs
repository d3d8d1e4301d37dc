//! A disk that cannot take what a dict writes, for a time: which values a later `flush` may
//! confirm.
//!
//! The disk is an ext4 file system without a journal on a loop device. Its sparse backing file lies
//! in a tmpfs that the test fills, so that writes of the disk fail while the file system itself has
//! room. Linux marks a page clean after a failed write, so a later `fsync` succeeds without writing
//! it.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mmf::{Access, Dict, Mapping};
use testkit::TempDir;

use crate::support::system::{mount, own_mounts};

/// A file system whose disk can be full. Its mounts are seen by this thread alone, and end with it.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Disk {
        Disk::with("mkfs.ext4", &["-q", "-F", "-b", "4096", "-O", "^has_journal"], 64 << 20)
    }

    fn with(program: &str, options: &[&str], len: u64) -> Disk {
        own_mounts();
        let disk = Disk { dir: TempDir::new() };
        for place in [disk.backing(), disk.root()] {
            fs::create_dir(place).unwrap();
        }
        let backing = CString::new(disk.backing().as_os_str().as_bytes()).unwrap();
        mount(Some(c"tmpfs"), &backing, Some(c"tmpfs"), 0, "size=8m");
        fs::File::create(disk.image()).unwrap().set_len(len).unwrap();
        // Blocks as large as the pages of the backing file: the driver of loop devices reports a
        // write that ends early as a success.
        run(program, options, &[&disk.image()]);
        disk.mount();
        disk
    }

    fn backing(&self) -> PathBuf {
        self.dir.join("backing")
    }

    fn image(&self) -> PathBuf {
        self.backing().join("image")
    }

    fn filler(&self) -> PathBuf {
        self.backing().join("filler")
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn mount(&self) {
        run("mount", &["-o", "loop"], &[&self.image(), &self.root()]);
    }

    /// Leaves nothing of the file system in memory.
    fn mount_again(&self) {
        run("umount", &[], &[&self.root()]);
        self.mount();
    }

    fn fill(&self) {
        let mut filler = fs::File::create(self.filler()).unwrap();
        for len in [1 << 16, 1 << 12] {
            while filler.write_all(&vec![1; len]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where the test failed with a dict open, the mounts end with the thread.
        for place in [self.root(), self.backing()] {
            let _ = Command::new("umount").arg("--lazy").arg(place).output();
        }
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) {
    let output =
        Command::new(program).args(options).args(paths.iter().map(|path| path.as_os_str())).output().expect(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {:?}: {errors}", paths.iter().map(OsStr::new).collect::<Vec<_>>());
}

fn value(round: usize, nth: usize) -> Vec<u8> {
    (0..1000).map(|at| u8::try_from((at * 7 + nth * 13 + round * 101) % 251).unwrap()).collect()
}

const KEYS: usize = 400;

fn set_all(dict: &Dict, round: usize) {
    for nth in 0..KEYS {
        dict.set_bytes(&format!("key {nth}"), &value(round, nth)).unwrap();
    }
}

/// Asserts that a dict has the values of a round, after all of it has left memory.
fn assert_all(path: &Path, round: usize) {
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let dict = Dict::options().access(access).open(path).unwrap();
        let wrong = (0..KEYS).filter(|nth| {
            !dict.get_bytes(&format!("key {nth}")).is_ok_and(|found| found.as_deref() == Some(&value(round, *nth)[..]))
        });
        assert_eq!(wrong.count(), 0, "of {KEYS} values are wrong, {access:?}");
        let report = dict.check().unwrap();
        assert!(report.is_whole(), "{report:#?}");
    }
}

/// What the disk's space is before a dict is written to it for the first time. ext4 keeps the bytes
/// of a first write that failed in memory alone, whatever is synced later.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Space {
    /// Allocated, but never written.
    New,
    /// Written before.
    Used,
}

/// Writes all of a file, and then takes its blocks from the disk beneath the file system. What is
/// in memory is not touched.
fn use_space(disk: &Disk, path: &Path) {
    let bytes = fs::read(path).unwrap();
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    // Lines such as `0: 0.. 171: 4385.. 4556: 172: last,eof`, in blocks.
    let output = Command::new("filefrag").args(["-v", "-e", "-b1024"]).arg(path).output().unwrap();
    let mut extents = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut fields = line.split(':').map(str::trim);
        let Some(Ok(_)) = fields.next().map(str::parse::<usize>) else { continue };
        let (_, physical, len) = (fields.next(), fields.next().unwrap(), fields.next().unwrap());
        let at: u64 = physical.split("..").next().unwrap().trim().parse().unwrap();
        let (at, len) = (format!("--offset={}KiB", at), format!("--length={len}KiB"));
        run("fallocate", &["--punch-hole", &at, &len], &[&disk.image()]);
        extents += 1;
    }
    assert!(extents > 0, "{output:?}");
}

#[test]
#[ignore = "needs root: mounts a file system of its own"]
fn what_a_flush_after_a_failed_one_confirms_is_on_the_disk() {
    for space in [Space::Used, Space::New] {
        // In a dict that was never flushed before, and in one that was.
        for flushed in [false, true] {
            println!("{space:?} {flushed}");
            let disk = Disk::new();
            let path = disk.root().join("dict");
            let dict = Dict::create_new(path.as_path(), 4 << 20).unwrap();
            if flushed {
                set_all(&dict, 0);
                dict.flush().unwrap();
            } else {
                dict.set_bytes("key 0", b"").unwrap();
            }
            if space == Space::Used {
                // As long as it becomes, with free space; and no sync is needed before the next
                // change.
                dict.set_bytes("large", &vec![0; 2 << 20]).unwrap();
                dict.remove("large").unwrap();
                if flushed {
                    dict.flush().unwrap();
                    dict.set_bytes("key 0", b"").unwrap();
                }
                use_space(&disk, &path);
            }
            disk.fill();
            // The driver may hide a failure behind such a success, but hardly each time.
            let failed = (1..20).find_map(|round| {
                set_all(&dict, round);
                dict.flush().err().map(|error| (round, error))
            });
            let (round, error) = failed.unwrap();
            println!("while it is full, in round {round}: {error}");
            disk.make_room();
            match dict.flush() {
                Ok(()) => drop(dict),
                // It is not confirmed; all of it is there after a repair.
                Err(error) => {
                    println!("with room again: {error}");
                    assert_eq!(space, Space::New);
                    assert!(error.to_string().contains("in memory alone"), "{error}");
                    dict.flush().unwrap_err();
                    drop(dict);
                    let report = Dict::repair(path.as_path()).unwrap();
                    assert!(report.is_whole(), "{report:#?}");
                    Dict::open(path.as_path()).unwrap().flush().unwrap();
                }
            }
            disk.mount_again();
            assert_all(&path, round);
        }
    }
}

#[test]
#[ignore = "needs root: mounts a file system of its own"]
fn what_a_sync_after_a_failed_one_confirms_is_on_the_disk() {
    for space in [Space::Used, Space::New] {
        let disk = Disk::new();
        let path = disk.root().join("bytes");
        // The rest is a hole, larger than the disk, and must stay one.
        let len = if space == Space::Used { 1 << 20 } else { 1 << 30 };
        fs::File::create(&path).unwrap().set_len(len).unwrap();
        let map = Mapping::open(path.as_path()).unwrap();
        map.sync(..).unwrap();
        if space == Space::Used {
            use_space(&disk, &path);
        }
        disk.fill();
        let bytes: Vec<u8> = (0..1 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
        map.write_at(0, &bytes).unwrap();
        map.sync(..).unwrap_err();
        disk.make_room();
        // All of it, although only a part is asked for: the system does not tell which part had
        // failed.
        if let Err(error) = map.sync(..100) {
            assert_eq!(space, Space::New);
            assert!(error.to_string().contains("in memory alone"), "{error}");
            continue;
        }
        drop(map);
        disk.mount_again();
        assert!(Mapping::open(path.as_path()).unwrap().read_to_vec(0, bytes.len()).unwrap() == bytes);
    }
}

/// Has the system write a file's pages, but none of what the file system keeps about the file.
fn write_back(path: &Path) {
    let file = fs::File::open(path).unwrap();
    let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open; the other arguments are numbers.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
}

#[test]
#[ignore = "needs root and mkfs.btrfs: mounts a file system of its own"]
fn bytes_whose_failed_write_left_a_hole_are_written_again() {
    // A file system that gives a file its space only once the write has succeeded.
    let options = ["-q", "-f", "-s", "4096", "-m", "single", "-d", "single"];
    let disk = Disk::with("mkfs.btrfs", &options, 256 << 20);
    let path = disk.root().join("bytes");
    fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let map = Mapping::open(path.as_path()).unwrap();
    map.sync(..).unwrap();
    let bytes: Vec<u8> = (0..1 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    disk.fill();
    map.write_at(0, &bytes).unwrap();
    write_back(&path);
    disk.make_room();
    map.sync(..).unwrap_err();
    map.sync(..).unwrap();
    // The rest stays a hole, which is larger than the disk.
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 8 << 20);
    drop(map);
    disk.mount_again();
    assert!(Mapping::open(path.as_path()).unwrap().read_to_vec(0, bytes.len()).unwrap() == bytes);
}

#[test]
#[ignore = "needs root: mounts a file system of its own"]
fn a_part_of_a_file_is_written_again_where_it_lies_in_the_file() {
    const BEGIN: u64 = (1 << 20) + 100;
    let disk = Disk::new();
    let path = disk.root().join("bytes");
    fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    let map = Mapping::options().part(BEGIN..BEGIN + (1 << 20)).open(path.as_path()).unwrap();
    disk.fill();
    let bytes: Vec<u8> = (0..1 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    map.write_at(0, &bytes).unwrap();
    map.sync(..).unwrap_err();
    disk.make_room();
    // Where ext4 has the bytes in memory alone, and says so, none are lost in silence.
    if let Err(error) = map.sync(..) {
        assert!(error.to_string().contains("in memory alone"), "{error}");
        return;
    }
    drop(map);
    disk.mount_again();
    let found = Mapping::open(path.as_path()).unwrap().read_to_vec((1 << 20) + 100, bytes.len()).unwrap();
    assert!(found == bytes);
}
