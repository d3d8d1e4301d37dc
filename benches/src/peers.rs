//! Other crates, where they do the same work.

use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use mmf::{Mapping, Name};
use mmf_cli::measure::{Pair, pairs, repeated, size};
use shared_memory::{Shmem, ShmemConf};

use crate::Effort;
use crate::report::{Row, Table};

/// Where files are memory. memmap2 leaves names to its caller.
const MEMORY: &str = "/dev/shm";

const SIZE: usize = 64 << 10;

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let id = format!("mmf-benches-{}", std::process::id());
    let name = Name::local(&id)?;
    let mut rows = vec![Row::speed("create, map and drop, shared_memory", create_conf(effort, &name, &id)?)];
    rows.push(Row::speed("open, map and drop, shared_memory", open_conf(effort, &name, &id)?));
    if Path::new(MEMORY).is_dir() {
        let path = Path::new(MEMORY).join(&id);
        rows.push(Row::speed("create, map and drop, memmap2 and files", create_file(effort, &name, &path)?));
        rows.push(Row::speed("open, map and drop, memmap2 and files", open_file(effort, &name, &path)?));
    }
    let mut copies = Vec::new();
    for len in [64, 4 << 10, 256 << 10, 16 << 20] {
        let (read, write) = copy_memmap2(effort, len)?;
        copies.push(Row::speed(format!("read {}, memmap2", size(len)), read));
        copies.push(Row::speed(format!("write {}, memmap2", size(len)), write));
        let (read, write) = copy_shared_memory(effort, len, &id)?;
        copies.push(Row::speed(format!("read {}, shared_memory", size(len)), read));
        copies.push(Row::speed(format!("write {}, shared_memory", size(len)), write));
    }
    Ok(vec![
        Table { title: "Other crates: named memory of 64 KiB", other: "the other", rows, notes: NAMED },
        Table { title: "Other crates: copies", other: "the other", rows: copies, notes: COPIES },
    ])
}

fn conf(id: &str, size: usize) -> ShmemConf {
    ShmemConf::new().os_id(id).size(size)
}

fn made(id: &str, size: usize) -> io::Result<Shmem> {
    conf(id, size).create().map_err(io::Error::other)
}

fn create_conf(effort: Effort, name: &Name, id: &str) -> io::Result<Pair> {
    drop(Mapping::create_new(name, SIZE as u64)?);
    drop(made(id, SIZE)?);
    Ok(pairs(
        effort.plan,
        repeated(|| drop(black_box(Mapping::create_new(name, SIZE as u64)))),
        repeated(|| drop(black_box(conf(id, SIZE).create()))),
    ))
}

fn open_conf(effort: Effort, name: &Name, id: &str) -> io::Result<Pair> {
    let (_ours, _theirs) = (Mapping::create_new(name, SIZE as u64)?, made(id, SIZE)?);
    drop(Mapping::open(name)?);
    drop(ShmemConf::new().os_id(id).open().map_err(io::Error::other)?);
    Ok(pairs(
        effort.plan,
        repeated(|| drop(black_box(Mapping::open(name)))),
        repeated(|| drop(black_box(ShmemConf::new().os_id(id).open()))),
    ))
}

/// A file in memory that is removed again.
struct Object(PathBuf);

impl Object {
    fn create(path: &Path) -> io::Result<(Object, MmapMut)> {
        let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let object = Object(path.to_owned());
        file.set_len(SIZE as u64)?;
        // SAFETY: nobody else knows this file, and it does not become shorter.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        Ok((object, map))
    }

    fn open(path: &Path) -> io::Result<MmapMut> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        // SAFETY: nobody else knows this file, and it does not become shorter.
        unsafe { MmapMut::map_mut(&file) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn create_file(effort: Effort, name: &Name, path: &Path) -> io::Result<Pair> {
    drop(Object::create(path)?);
    Ok(pairs(
        effort.plan,
        repeated(|| drop(black_box(Mapping::create_new(name, SIZE as u64)))),
        repeated(|| drop(black_box(Object::create(path)))),
    ))
}

fn open_file(effort: Effort, name: &Name, path: &Path) -> io::Result<Pair> {
    let (_ours, _theirs) = (Mapping::create_new(name, SIZE as u64)?, Object::create(path)?);
    drop(Object::open(path)?);
    Ok(pairs(
        effort.plan,
        repeated(|| drop(black_box(Mapping::open(name)))),
        repeated(|| drop(black_box(Object::open(path)))),
    ))
}

fn copy_memmap2(effort: Effort, len: usize) -> io::Result<(Pair, Pair)> {
    let map = Mapping::options().size(len as u64).prefault(true).anonymous()?;
    let mut theirs = MmapMut::map_anon(len)?;
    theirs.fill(1);
    copy(effort, &map, &mut theirs)
}

fn copy_shared_memory(effort: Effort, len: usize, id: &str) -> io::Result<(Pair, Pair)> {
    let map = Mapping::options().size(len as u64).prefault(true).anonymous()?;
    let mut theirs = made(id, len)?;
    // SAFETY: no other process has this object open, and nothing else here uses its bytes.
    let theirs = unsafe { theirs.as_slice_mut() };
    theirs.fill(1);
    // Some systems round sizes up to pages.
    copy(effort, &map, &mut theirs[..len])
}

/// Out and in.
fn copy(effort: Effort, map: &Mapping, theirs: &mut [u8]) -> io::Result<(Pair, Pair)> {
    let len = theirs.len();
    let mut buffer = vec![1; len];
    map.write_at(0, &buffer)?;
    let mut other = buffer.clone();
    let read = pairs(
        effort.plan,
        repeated(|| {
            let _ = black_box(map.read_at(0, &mut buffer[..black_box(len)]));
        }),
        repeated(|| {
            let len = black_box(len);
            other[..len].copy_from_slice(&black_box(&*theirs)[..len]);
            black_box(&mut other);
        }),
    );
    let write = pairs(
        effort.plan,
        repeated(|| {
            let _ = black_box(map.write_at(0, &buffer[..black_box(len)]));
        }),
        repeated(|| {
            let len = black_box(len);
            black_box(&mut *theirs)[..len].copy_from_slice(&other[..len]);
            black_box(&mut *theirs);
        }),
    );
    Ok((read, write))
}

const NAMED: &str = "Only mmf does this: it allocates the memory at creation (a full `/dev/shm` is an error, not a later\n\
    death), completes the object before it gets its name, keeps it alive with a lock, sweeps what dead\n\
    processes left, checks directory, owner and permissions, and removes the name with its last holder.\n\
    Objects of shared_memory stay if their creator is killed, and are gone for new openers when it ends.\n\
    memmap2 has no names; its caller creates a file in `/dev/shm` and removes it.";

const COPIES: &str = "The others copy through slices, which Rust forbids for bytes that another process may write\n\
    meanwhile, and the process dies if a page is gone. memmap2's mapping is private memory of one\n\
    process here.";
