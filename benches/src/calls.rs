//! Single operations.

use std::hint::black_box;
use std::io;

use mmf::{Mapping, Name};
use mmf_cli::measure::{pairs, repeated, size, time};
use mmf_cli::pairs as operations;

use crate::Effort;
use crate::report::{Figure, Row, Table};

pub(crate) fn atomics(effort: Effort) -> io::Result<Vec<Table>> {
    let map = Mapping::options().size(4096).prefault(true).anonymous()?;
    let load = operations::load(effort.plan, &map)?;
    let add = operations::fetch_add(effort.plan, &map)?;
    Ok(vec![Table {
        title: "Atomic operations, 64 bits",
        other: "`AtomicU64`",
        rows: vec![
            Row::more("`load`, acquire", load).target("at most 2 ns more", load.more <= 2.0),
            Row::more("`fetch_add`, acquire and release", add).target("at most 2 ns more", add.more <= 2.0),
        ],
        notes: "The other side checks neither bounds nor alignment, and the process dies if a page is gone.",
    }])
}

/// Windows counts page tables of what is reserved against the commit limit, so less is asked of it.
const RESERVE: u64 = if cfg!(windows) { 64 << 30 } else { 1 << 40 };

pub(crate) fn reserve(effort: Effort) -> io::Result<Vec<Table>> {
    let name = Name::local(format!("mmf-benches-{}", std::process::id()))?;
    let large = || Mapping::options().size(4096).reserve(RESERVE).clone();
    let (unnamed, named) = (large(), large());
    drop(unnamed.anonymous()?);
    drop(named.create_new(&name)?);
    let unnamed = pairs(
        effort.plan,
        repeated(|| drop(black_box(unnamed.anonymous()))),
        repeated(|| drop(black_box(Mapping::anonymous(4096)))),
    );
    let named = pairs(
        effort.plan,
        repeated(|| drop(black_box(named.create_new(&name)))),
        repeated(|| drop(black_box(Mapping::create_new(&name, 4096)))),
    );
    let row = |what: &str, pair: mmf_cli::measure::Pair| {
        let times = 1.0 / pair.speed;
        let what = format!("{what}, {} reserved", size(usize::try_from(RESERVE).unwrap_or(usize::MAX)));
        let row = Row::speed(what, pair).target("at most 3 times as long", times <= 3.0);
        let row = row.without_control();
        Row { ratio: format!("{times:.2} times as long"), ..row }
    };
    Ok(vec![Table {
        title: "Reserve, map and drop",
        other: "mmf, 4 KiB",
        rows: vec![row("without a name", unnamed), row("named", named)],
        notes: "Both are mmf: one page that can grow far, and one page that cannot grow.",
    }])
}

pub(crate) fn fault(effort: Effort) -> io::Result<Vec<Table>> {
    let row = match operations::fault(effort.plan) {
        Ok(took) => Row {
            what: "`read_at` of a page that its file lost".to_owned(),
            ours: time(took),
            theirs: "the process dies".to_owned(),
            ratio: String::new(),
            target: Some(("at most 10 µs", took <= 10_000.0)),
            figure: Some(Figure::time("`read_at` of a page that its file lost", took, None)),
        },
        Err(error) => Row {
            what: "`read_at` of a page that its file lost".to_owned(),
            ours: format!("not here: {error}"),
            theirs: String::new(),
            ratio: String::new(),
            target: None,
            figure: None,
        },
    };
    Ok(vec![Table {
        title: "A fault caught",
        other: "without guard",
        rows: vec![row],
        notes: "From the call to the error, which names the object, the offset and what may have happened.",
    }])
}
