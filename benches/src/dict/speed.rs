//! Getting and setting.

use std::cell::RefCell;
use std::hint::black_box;
use std::io;

use mmf::{Dict, Name};
use mmf_cli::measure::{Pair, size, time};

use super::keys::{self, Keys};
use super::record::{Record, TAIL};
use super::sides::{self, Lmdb, Map, Redis, missing};
use crate::report::{Figure, Row, Table};

/// Sets of a transaction.
const TOGETHER: usize = 100;

/// Everything of one table size and value length.
struct Stores {
    count: usize,
    value: Vec<u8>,
    dict: Dict,
    lmdb: Lmdb,
    ours: Keys,
    theirs: Keys,
}

impl Stores {
    fn fill(count: usize, len: usize) -> io::Result<Stores> {
        let name = Name::local(format!("mmf-benches-dict-{}", std::process::id()))?;
        let room = count * (2 * len + 256) + (64 << 20);
        let dict = Dict::create_new(&name, room as u64)?;
        // A page holds no two values of 4 KiB, and what a transaction replaces is there twice.
        let lmdb = Lmdb::new(3 * room)?;
        let value = vec![7; len];
        let names: Vec<String> = (0..count).map(keys::name).collect();
        for name in &names {
            dict.set_bytes(name, &value)?;
        }
        for names in names.chunks(10_000) {
            lmdb.put(names.iter().map(String::as_str), &value).map_err(io::Error::other)?;
        }
        Ok(Stores { count, value, dict, lmdb, ours: Keys::new(count), theirs: Keys::new(count) })
    }

    fn label(&self, what: &str) -> String {
        format!("{what} {}, {} entries", size(self.value.len()), self.count)
    }

    fn get(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        match self.dict.get_into(self.ours.next(), buffer)? {
            Some(_) if buffer.len() == self.value.len() => Ok(()),
            _ => Err(missing()),
        }
    }

    fn get_theirs(&self, txn: &heed::RoTxn<'_>, buffer: &mut Vec<u8>) -> io::Result<()> {
        let value = self.lmdb.values.get(txn, self.theirs.next()).map_err(io::Error::other)?;
        buffer.clear();
        buffer.extend_from_slice(value.ok_or_else(missing)?);
        black_box(buffer);
        Ok(())
    }

    /// Gets every value once on both sides. Where there are more than are measured, the first touch of a page by whoever lends
    /// this machine its memory would be measured too.
    fn get_all(&self) -> io::Result<()> {
        let txn = self.lmdb.env.read_txn().map_err(io::Error::other)?;
        let mut buffer = Vec::new();
        for _ in 0..self.count {
            self.get(&mut buffer)?;
            self.get_theirs(&txn, &mut buffer)?;
        }
        Ok(())
    }

    fn set(&self) -> Result<(), mmf::Error> {
        self.dict.set_bytes(self.ours.next(), &self.value).map(drop)
    }

    fn put(&self) -> Result<(), io::Error> {
        self.lmdb.put(std::iter::once(self.theirs.next()), &self.value).map_err(io::Error::other)
    }

    fn get_pair(&self, record: &mut Record) -> io::Result<Pair> {
        let txn = self.lmdb.env.read_txn().map_err(io::Error::other)?;
        let (mut buffer, mut other) = (Vec::new(), Vec::new());
        record.compare(
            &self.label("get_into"),
            "LMDB",
            1.0,
            || self.get(&mut buffer),
            || self.get_theirs(&txn, &mut other),
        )
    }

    fn set_pair(&self, record: &mut Record) -> io::Result<Pair> {
        record.compare(&self.label("set_bytes"), "LMDB", 1.0, || self.set(), || self.put())
    }

    fn transaction_pair(&self, record: &mut Record) -> io::Result<Pair> {
        let what = self.label("transaction of 100 sets, each");
        record.compare(
            &what,
            "LMDB",
            TOGETHER as f64,
            || {
                self.dict.transaction(|tx| {
                    for _ in 0..TOGETHER {
                        tx.set_bytes(self.ours.next(), &self.value)?;
                    }
                    Ok(())
                })
            },
            || {
                let keys = (0..TOGETHER).map(|_| self.theirs.next());
                self.lmdb.put(keys, &self.value).map_err(io::Error::other)
            },
        )
    }

    fn map_pairs(&self, record: &mut Record) -> io::Result<(Pair, Pair)> {
        let map = self.map()?;
        let (mut buffer, mut other) = (Vec::new(), Vec::new());
        let get = record.compare(
            &self.label("get_into"),
            "HashMap",
            1.0,
            || self.get(&mut buffer),
            || {
                sides::get(&map, self.theirs.next(), &mut other)?;
                black_box(&mut other);
                Ok::<(), io::Error>(())
            },
        )?;
        let set = record.compare(
            &self.label("set_bytes"),
            "HashMap",
            1.0,
            || self.set(),
            || sides::set(&map, self.theirs.next(), &self.value),
        )?;
        Ok((get, set))
    }

    fn map(&self) -> io::Result<Map> {
        let map = Map::default();
        for nth in 0..self.count {
            sides::set(&map, &keys::name(nth), &self.value)?;
        }
        Ok(map)
    }

    fn redis_pairs(&self, record: &mut Record, redis: Redis) -> io::Result<(Pair, Pair)> {
        let redis = RefCell::new(redis);
        for nth in 0..self.count {
            redis.borrow_mut().set(&keys::name(nth), &self.value)?;
        }
        let (mut buffer, mut other) = (Vec::new(), Vec::new());
        let get = record.compare(
            &self.label("get_into"),
            "Redis",
            1.0,
            || self.get(&mut buffer),
            || redis.borrow_mut().get(self.theirs.next(), &mut other),
        )?;
        let set = record.compare(
            &self.label("set_bytes"),
            "Redis",
            1.0,
            || self.set(),
            || redis.borrow_mut().set(self.theirs.next(), &self.value),
        )?;
        Ok((get, set))
    }

    /// Each call timed for itself.
    fn tails(&self, record: &mut Record, rows: &mut Vec<Row>) -> io::Result<()> {
        let (get, set) = (self.label("get_into"), self.label("set_bytes"));
        let (mut buffer, mut other) = (Vec::new(), Vec::new());
        let ours = record.tail(&get, "mmf", || self.get(&mut buffer))?;
        let txn = self.lmdb.env.read_txn().map_err(io::Error::other)?;
        let theirs = record.tail(&get, "LMDB", || self.get_theirs(&txn, &mut other))?;
        drop(txn);
        tail_rows(rows, &get, ours, theirs);
        let ours = record.tail(&set, "mmf", || self.set())?;
        let theirs = record.tail(&set, "LMDB", || self.put())?;
        tail_rows(rows, &set, ours, theirs);
        let map = self.map()?;
        record.tail(&get, "HashMap", || sides::get(&map, self.theirs.next(), &mut buffer))?;
        record.tail(&set, "HashMap", || sides::set(&map, self.theirs.next(), &self.value))?;
        Ok(())
    }
}

fn tail_rows(rows: &mut Vec<Row>, what: &str, ours: [f64; 4], theirs: [f64; 4]) {
    for ((name, ours), theirs) in TAIL.into_iter().zip(ours).zip(theirs) {
        let what = format!("{what}, {name}");
        let figure = Some(Figure::time(&what, ours, Some(theirs)));
        let (ours, theirs) = (time(ours), time(theirs));
        rows.push(Row { what, ours, theirs, ratio: String::new(), target: None, figure });
    }
}

/// A row that says how many times as long ours takes.
fn longer(what: String, pair: Pair) -> Row {
    let times = 1.0 / pair.speed;
    let row = Row::speed(what, pair).target("at most 2 times as long", times <= 2.0);
    Row { ratio: format!("{times:.2} times as long"), ..row }
}

pub(super) fn run(record: &mut Record) -> io::Result<Vec<Table>> {
    let effort = record.effort;
    let (mut lmdb, mut maps, mut tails, mut redis) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for count in [1_000, 100_000, 1_000_000].into_iter().filter(|count| *count <= effort.entries) {
        let stores = Stores::fill(count, 64)?;
        let get = stores.get_pair(record)?;
        lmdb.push(Row::speed(stores.label("`get_into`"), get).target("at least 5 x", get.speed >= 5.0));
        let set = stores.set_pair(record)?;
        lmdb.push(Row::speed(stores.label("`set_bytes`"), set).target("at least 4 x", set.speed >= 4.0));
        let together = stores.transaction_pair(record)?;
        let what = stores.label("transaction of 100 sets, each");
        lmdb.push(Row::speed(what, together).target("at least 4 x", together.speed >= 4.0));
        let (get, set) = stores.map_pairs(record)?;
        maps.push(longer(stores.label("`get_into`"), get));
        maps.push(longer(stores.label("`set_bytes`"), set));
        if count == 100_000.min(effort.entries) {
            stores.tails(record, &mut tails)?;
            if let Some(server) = Redis::start()? {
                let (get, set) = stores.redis_pairs(record, server)?;
                redis.push(Row::speed(stores.label("`get_into`"), get));
                redis.push(Row::speed(stores.label("`set_bytes`"), set));
            }
        }
    }
    for count in [1_000, 100_000, 1_000_000].into_iter().filter(|count| *count <= effort.entries_of_a_page) {
        let stores = Stores::fill(count, 4096)?;
        stores.get_all()?;
        let get = stores.get_pair(record)?;
        lmdb.push(Row::speed(stores.label("`get_into`"), get).target("at least 1.5 x", get.speed >= 1.5));
        let set = stores.set_pair(record)?;
        lmdb.push(Row::speed(stores.label("`set_bytes`"), set).target("at least 2 x", set.speed >= 2.0));
    }
    let redis_notes = if redis.is_empty() { "`redis-server` is not installed here." } else { REDIS };
    Ok(vec![
        Table { title: "Dict: beside LMDB", other: "LMDB", rows: lmdb, notes: LMDB },
        Table { title: "Dict: beside a map in this process", other: "`RwLock<HashMap>`", rows: maps, notes: MAP },
        Table { title: "Dict: the slowest calls", other: "LMDB", rows: tails, notes: TAILS },
        Table { title: "Dict: beside Redis", other: "Redis", rows: redis, notes: redis_notes },
    ])
}

const LMDB: &str = "Keys of 16 bytes, read in another order than they were inserted. Both sides copy the value out. LMDB\n\
    by `heed` on `/dev/shm`, one read transaction held open; a set is a put and its commit, with NO_SYNC\n\
    and WRITE_MAP. Its readers see one state for as long as they want, and its writers pay for that with\n\
    copied pages.";

const MAP: &str = "`RwLock<HashMap<String, Vec<u8>>>`; a set is `insert` with copies of key and value. No other process\n\
    sees or watches it, and it ends with its process.";

const TAILS: &str = "Each call is timed by itself, including two reads of the clock. The longest times come from the\n\
    system: interrupts, and other processes.";

const REDIS: &str = "On a Unix socket, in a process on the other core, one request at a time, without a disk.";
