//! Beside winmmf, which has named memory with a lock on Windows.

use std::hint::black_box;
use std::io;
use std::num::NonZeroUsize;

use mmf::{Error, Name, Region};
use mmf_cli::measure::{Pair, pairs, repeated, size};
use winmmf::{MMFResult, MemoryMappedFile, Mmf, Namespace, RWLock};

use crate::Effort;
use crate::report::{Row, Table};

type Other = MemoryMappedFile<RWLock<'static>>;

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let mut objects = Vec::new();
    for len in [64 << 10, 16 << 20] {
        let both = Both::named(len)?;
        objects.push(row("create and drop", len, both.create(effort)?));
        objects.push(row("open and drop", len, both.open(effort)?));
        objects.push(row("create, write all, read all and drop", len, both.whole(effort)?));
    }
    let both = Both::named(1 << 20)?;
    let (ours, theirs) = (both.ours()?, both.theirs().map_err(io::Error::other)?);
    let mut bytes = Vec::new();
    for len in [64, 4 << 10, 1 << 20] {
        let [mut data, mut other] = [vec![5; len], vec![5; len]];
        write(&ours, &data)?;
        theirs.write(&other[..]).map_err(io::Error::other)?;
        let pair = pairs(
            effort.plan,
            repeated(|| drop(black_box(write(black_box(&ours), black_box(&data))))),
            repeated(|| drop(black_box(black_box(&theirs).write(black_box(&other[..]))))),
        );
        bytes.push(row("write", len, pair));
        read(&ours, &mut data)?;
        theirs.read_to_buf(&mut other, len).map_err(io::Error::other)?;
        let pair = pairs(
            effort.plan,
            repeated(|| drop(black_box(read(black_box(&ours), black_box(&mut data))))),
            repeated(|| drop(black_box(black_box(&theirs).read_to_buf(black_box(&mut other), black_box(len))))),
        );
        bytes.push(row("read", len, pair));
    }
    let other = "winmmf 0.6.2";
    Ok(vec![
        Table { title: "winmmf: named memory", other, rows: objects, notes: OBJECTS },
        Table { title: "winmmf: bytes under the lock", other, rows: bytes, notes: BYTES },
    ])
}

fn row(what: &str, len: usize, pair: Pair) -> Row {
    Row::speed(format!("{what}, {}", size(len)), pair).target("ahead", pair.speed > 1.0)
}

fn write(region: &Region, data: &[u8]) -> Result<(), Error> {
    region.write().map_err(Error::from)?.write_at(0, data)
}

fn read(region: &Region, data: &mut [u8]) -> Result<(), Error> {
    region.read().map_err(Error::from)?.read_at(0, data)
}

/// What both sides are to make or open.
struct Both {
    name: Name,
    id: String,
    len: NonZeroUsize,
}

impl Both {
    fn named(len: usize) -> io::Result<Both> {
        let id = format!("mmf-benches-{}", std::process::id());
        let len = NonZeroUsize::new(len).ok_or_else(|| io::Error::other("nothing to measure"))?;
        Ok(Both { name: Name::local(&id)?, id: id + "-winmmf", len })
    }

    fn ours(&self) -> Result<Region, Error> {
        Region::create_new(&self.name, self.len.get() as u64)
    }

    fn theirs(&self) -> MMFResult<Other> {
        // Ours has small pages too.
        Other::new(self.len, self.id.as_str(), Namespace::LOCAL, Some(false))
    }

    fn create(&self, effort: Effort) -> io::Result<Pair> {
        drop(self.ours()?);
        drop(self.theirs().map_err(io::Error::other)?);
        Ok(pairs(effort.plan, repeated(|| drop(black_box(self.ours()))), repeated(|| drop(black_box(self.theirs())))))
    }

    fn open(&self, effort: Effort) -> io::Result<Pair> {
        let (_ours, _theirs) = (self.ours()?, self.theirs().map_err(io::Error::other)?);
        let theirs = || Other::open_write(self.len, &self.id, Namespace::LOCAL, Some(false));
        drop(Region::open(&self.name)?);
        drop(theirs().map_err(io::Error::other)?);
        Ok(pairs(
            effort.plan,
            repeated(|| drop(black_box(Region::open(&self.name)))),
            repeated(|| drop(black_box(theirs()))),
        ))
    }

    /// One whole life of an object, in which the pages are touched that a creation alone may leave alone.
    fn whole(&self, effort: Effort) -> io::Result<Pair> {
        let len = self.len.get();
        let [mut data, mut other] = [vec![5; len], vec![5; len]];
        let mut ours = || {
            let region = self.ours()?;
            write(&region, &data)?;
            read(&region, &mut data)
        };
        let mut theirs = || {
            let map = self.theirs()?;
            map.write(&other[..])?;
            map.read_to_buf(&mut other, len)
        };
        ours()?;
        theirs().map_err(io::Error::other)?;
        Ok(pairs(effort.plan, repeated(|| drop(black_box(ours()))), repeated(|| drop(black_box(theirs())))))
    }
}

const OBJECTS: &str = "winmmf writes zeros over all of the object when it creates it, from a buffer that it makes for that. mmf makes a header, a table\n\
    of participants and the object's rights, and checks all of it when it opens.";

const BYTES: &str = "Each call takes the lock, copies and releases it: `Region::write` and `write_at`, `Region::read` and\n\
    `read_at`; `write` and `read_to_buf` with room in the buffer. winmmf's lock is one word of flags and\n\
    a count. It never waits, and stays taken after its holder is killed. It has no length of the\n\
    contents, no version and no guard against lost pages. The locks are uncontended.";
