use std::hint::black_box;
use std::io;

use mmf::{Name, Region};
use parking_lot::RwLock;

use crate::Effort;
use crate::measure::{Pair, pairs, repeated};
use crate::report::{Row, Table};

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let name = Name::local(format!("mmf-benches-{}", std::process::id()))?;
    let region = Region::create_new(&name, 1 << 20)?;
    let lock = RwLock::new(0_u64);
    drop(region.write().map_err(mmf::Error::from)?);
    let write = pairs(
        effort.plan,
        repeated(|| drop(black_box(&region).write())),
        repeated(|| drop(black_box(&lock).write())),
    );
    let read = pairs(
        effort.plan,
        repeated(|| drop(black_box(&region).read())),
        repeated(|| drop(black_box(&lock).read())),
    );
    let both = pairs(
        effort.plan,
        repeated(|| { drop(black_box(&region).read()); drop(black_box(&region).write()) }),
        repeated(|| { drop(black_box(&lock).read()); drop(black_box(&lock).write()) }),
    );
    let row = |what: &str, pair: Pair, most: f64, target| {
        let times = 1.0 / pair.speed;
        let row = Row::speed(what, pair).target(target, times <= most);
        Row { ratio: format!("{times:.2} times as long"), ..row }
    };
    Ok(vec![Table {
        title: "Locks that nobody else wants",
        other: "`parking_lot::RwLock`",
        rows: vec![
            row("write lock and unlock", write, 1.5, "at most 1.5 times as long"),
            row("read lock and unlock", read, 2.5, "at most 2.5 times as long"),
            row("both", both, 2.5, "at most 2.5 times as long"),
        ],
        notes: "",
    }])
}
