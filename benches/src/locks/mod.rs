//! The region's lock, beside locks that do not survive the death of who holds them.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod turns;

#[cfg(target_os = "linux")]
pub(crate) use linux::{FLAG, answer};

use std::hint::black_box;
use std::io;

use mmf::{Error, Name, Region};
use mmf_cli::measure::{Pair, pairs, repeated};
use parking_lot::RwLock;

use crate::Effort;
use crate::report::{Row, Table};

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let name = Name::local(format!("mmf-benches-{}", std::process::id()))?;
    let region = Region::create_new(&name, 1 << 20)?;
    let lock = RwLock::new(0_u64);
    // A handle takes its place with its first lock.
    drop(region.write().map_err(Error::from)?);
    let write =
        pairs(effort.plan, repeated(|| drop(black_box(&region).write())), repeated(|| drop(black_box(&lock).write())));
    let read =
        pairs(effort.plan, repeated(|| drop(black_box(&region).read())), repeated(|| drop(black_box(&lock).read())));
    let both = pairs(
        effort.plan,
        repeated(|| {
            drop(black_box(&region).read());
            drop(black_box(&region).write());
        }),
        repeated(|| {
            drop(black_box(&lock).read());
            drop(black_box(&lock).write());
        }),
    );
    #[allow(unused_mut, reason = "Linux has more rows")]
    let mut tables = vec![Table {
        title: "Uncontended locks",
        other: "`parking_lot::RwLock`",
        rows: vec![
            times("write lock and unlock", write, Some((1.5, "at most 1.5 times as long"))),
            times("read lock and unlock", read, Some((2.5, "at most 2.5 times as long"))),
            times("read lock and unlock, write lock and unlock, in turns", both, None),
        ],
        notes: UNWANTED,
    }];
    #[cfg(target_os = "linux")]
    tables.extend(linux::run(effort)?);
    Ok(tables)
}

/// How many times as long ours takes.
fn times(what: impl Into<String>, pair: Pair, target: Option<(f64, &'static str)>) -> Row {
    let times = 1.0 / pair.speed;
    let row = Row { ratio: format!("{times:.2} times as long"), ..Row::speed(what, pair) };
    match target {
        Some((most, text)) => row.target(text, times <= most),
        None => row,
    }
}

const UNWANTED: &str = "mmf's lock is in memory that other processes may have open, names its holder, survives the holder's\n\
    death, refuses to be taken twice by one thread, and is reached through a guard against lost pages.\n\
    parking_lot's lock belongs to one process.";
