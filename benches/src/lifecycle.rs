//! What an object costs before and after its use: creating, opening and flushing.
//!
//! Each operation includes the drop of its handle; creating a file includes its removal. The files
//! lie in memory where the system has `/dev/shm`, so that no disk is measured. The other side is a
//! plain file there, mapped by `memmap2`.

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use mmf::{Dict, Error, Mapping, Name, Region, Source};
use mmf_cli::measure::{pairs, repeated};

use crate::Effort;
use crate::report::{Row, Table};

/// The size of each object.
const SIZE: u64 = 1 << 20;

const KEY: &str = "a key of sixteen";

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let files = Directory::new()?;
    let other = "`memmap2`, a file";
    Ok(vec![
        Table { title: "Create and drop", other, rows: create(effort, &files)?, notes: CREATE },
        Table { title: "Open and drop", other, rows: open(effort, &files)?, notes: OPEN },
        Table { title: "Flush", other, rows: flush(effort, &files)?, notes: FLUSH },
    ])
}

/// Measures `ours` beside `theirs`, and fails if a call of either failed.
fn row(
    effort: Effort,
    what: &str,
    ours: impl FnMut() -> io::Result<()>,
    theirs: impl FnMut() -> io::Result<()>,
) -> io::Result<Row> {
    let (mut failure, mut other_failure) = (None, None);
    let pair =
        pairs(effort.plan, repeated(keep_error(ours, &mut failure)), repeated(keep_error(theirs, &mut other_failure)));
    match failure.or(other_failure) {
        Some(error) => Err(error),
        None => Ok(Row::speed(what, pair)),
    }
}

fn keep_error(mut call: impl FnMut() -> io::Result<()>, failure: &mut Option<io::Error>) -> impl FnMut() {
    move || {
        if let Err(error) = call() {
            *failure = Some(error);
        }
    }
}

/// Drops a handle where the compiler cannot remove its making.
fn drop_handle<T, E: Into<io::Error>>(handle: Result<T, E>) -> io::Result<()> {
    handle.map(|handle| drop(black_box(handle))).map_err(Into::into)
}

/// The sources of objects of one table.
struct Sources {
    mapping: Source,
    region: Source,
    dict: Source,
}

impl Sources {
    fn named() -> io::Result<Sources> {
        let name = |what: &str| Name::local(format!("mmf-benches-{what}-{}", std::process::id())).map(Source::from);
        Ok(Sources { mapping: name("mapping")?, region: name("region")?, dict: name("dict")? })
    }

    fn files(files: &Directory) -> Sources {
        let file = |what: &str| Source::from(files.path(what));
        Sources { mapping: file("mapping"), region: file("region"), dict: file("dict") }
    }
}

fn create(effort: Effort, files: &Directory) -> io::Result<Vec<Row>> {
    let plain = files.path("plain");
    let theirs = || {
        drop_handle(create_plain(&plain))?;
        fs::remove_file(&plain)
    };
    let mut rows = Vec::new();
    for (how, sources) in [("named", Sources::named()?), ("a file", Sources::files(files))] {
        let Sources { mapping, region, dict } = &sources;
        let ours = || drop_handle(Mapping::create_new(mapping, SIZE)).and_then(|()| remove(mapping));
        rows.push(row(effort, &format!("`Mapping`, {how}"), ours, theirs)?);
        let ours = || drop_handle(Region::create_new(region, SIZE)).and_then(|()| remove(region));
        rows.push(row(effort, &format!("`Region`, {how}"), ours, theirs)?);
        let ours = || drop_handle(Dict::create_new(dict, SIZE)).and_then(|()| remove(dict));
        rows.push(row(effort, &format!("`Dict`, {how}"), ours, theirs)?);
    }
    Ok(rows)
}

/// Removes a file. The name of an object went with its last handle.
fn remove(source: &Source) -> io::Result<()> {
    if let Source::File(path) = source { fs::remove_file(path) } else { Ok(()) }
}

fn open(effort: Effort, files: &Directory) -> io::Result<Vec<Row>> {
    let plain = files.path("plain");
    drop(create_plain(&plain)?);
    let theirs = || drop_handle(open_plain(&plain));
    let mut rows = Vec::new();
    for (how, sources) in [("named", Sources::named()?), ("a file", Sources::files(files))] {
        let Sources { mapping, region, dict } = &sources;
        let handles =
            (Mapping::create_new(mapping, SIZE)?, Region::create_new(region, SIZE)?, Dict::create_new(dict, SIZE)?);
        handles.2.set_bytes(KEY, &[7; 64])?;
        // A name lives as long as a handle. A file is opened while no handle of it exists.
        let _held = (how == "named").then_some(handles);
        rows.push(row(effort, &format!("`Mapping`, {how}"), || drop_handle(Mapping::open(mapping)), theirs)?);
        rows.push(row(effort, &format!("`Region`, {how}"), || drop_handle(Region::open(region)), theirs)?);
        let ours = || drop_handle(Region::open(region)?.write().map_err(Error::from));
        rows.push(row(effort, &format!("`Region`, {how}, with its first write lock"), ours, theirs)?);
        rows.push(row(effort, &format!("`Dict`, {how}"), || drop_handle(Dict::open(dict)), theirs)?);
        let ours = || drop_handle(Dict::open(dict)?.get_bytes(KEY));
        rows.push(row(effort, &format!("`Dict`, {how}, with its first get"), ours, theirs)?);
        let ours = || drop_handle(Dict::open(dict)?.set_bytes(KEY, &[7; 64]));
        rows.push(row(effort, &format!("`Dict`, {how}, with its first set"), ours, theirs)?);
    }
    for source in [&Sources::files(files).mapping, &Sources::files(files).region, &Sources::files(files).dict] {
        remove(source)?;
    }
    Ok(rows)
}

fn flush(effort: Effort, files: &Directory) -> io::Result<Vec<Row>> {
    let mut plain = create_plain(&files.path("flushed"))?;
    let sources = Sources::files(files);
    let dict = Dict::create_new(&sources.dict, SIZE)?;
    let region = Region::create_new(&sources.region, SIZE)?;
    let mut theirs = || {
        plain[0] = plain[0].wrapping_add(1);
        plain.flush()
    };
    dict.set_bytes(KEY, &[7; 64])?;
    dict.flush()?;
    let mut rows = vec![row(effort, "`Dict::flush` of an unchanged dict", || Ok(dict.flush()?), &mut theirs)?];
    let ours = || {
        dict.set_bytes(KEY, &[7; 64])?;
        Ok(dict.flush()?)
    };
    rows.push(row(effort, "`set_bytes` of 64 B and `Dict::flush`", ours, &mut theirs)?);
    let ours = || {
        for nth in 0..100_u64 {
            dict.set_bytes(&format!("{nth:016x}"), &[7; 64])?;
        }
        Ok(dict.flush()?)
    };
    rows.push(row(effort, "`set_bytes` of 100 values and `Dict::flush`", ours, &mut theirs)?);
    let ours = || {
        region.write().map_err(Error::from)?.write_at(0, &[7; 64])?;
        Ok(region.sync()?)
    };
    rows.push(row(effort, "`write_at` of 64 B and `Region::sync`", ours, &mut theirs)?);
    Ok(rows)
}

fn create_plain(path: &Path) -> io::Result<MmapMut> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    file.set_len(SIZE)?;
    // SAFETY: no other process uses this file, and it does not become shorter.
    unsafe { MmapMut::map_mut(&file) }
}

fn open_plain(path: &Path) -> io::Result<MmapMut> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // SAFETY: no other process uses this file, and it does not become shorter.
    unsafe { MmapMut::map_mut(&file) }
}

/// A directory of this process, removed with all of its files when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Directory> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("mmf-benches-lifecycle-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Directory(path))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CREATE: &str =
    "Objects of 1 MiB. The other side creates, maps and removes a file of 1 MiB without a header, a lock or a check.";

const OPEN: &str =
    "Named objects are open in this process already; files are not. The other side opens and maps a file.";

const FLUSH: &str = "Files of 1 MiB in memory, so that the system calls are measured and no disk. The other side changes one byte and\n\
    calls `msync` for its whole mapping.";
