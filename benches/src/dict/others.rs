//! What other processes take part in, opening, and memory.

use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mmf::{Dict, ErrorKind, Mapping, Name, Watched};
use mmf_cli::measure::{Pair, median, size, time};
use mmf_cli::transport::say;
use rustix::thread::futex;
use rustix::time::{ClockId, clock_gettime};

use super::Child;
use super::keys::{self, Keys};
use super::record::Record;
use super::sides::{Dir, missing};
use crate::consumer::CORE;
use crate::machine;
use crate::report::{Figure, Row, Table};

pub(super) fn run(record: &mut Record) -> io::Result<Vec<Table>> {
    Ok(vec![
        Table { title: "Dict: two processes read", other: "one alone", rows: vec![readers(record)?], notes: READERS },
        Table { title: "Dict: opening", other: "a dict of 1 MiB", rows: opening(record)?, notes: OPENING },
        Table { title: "Dict: memory", other: "", rows: vec![memory(record)?], notes: MEMORY },
        Table { title: "Dict: a change seen", other: "futex", rows: vec![watching(record)?], notes: WATCHING },
    ])
}

fn name(what: &str) -> io::Result<Name> {
    Ok(Name::local(format!("mmf-benches-{what}-{}", std::process::id()))?)
}

/// Entries of what two processes read.
const READ: usize = 100_000;

fn readers(record: &mut Record) -> io::Result<Row> {
    let name = name("readers")?;
    let dict = Dict::create_new(&name, 64 << 20)?;
    for nth in 0..READ {
        dict.set_bytes(&keys::name(nth), &[7; 64])?;
    }
    let mut peers = Vec::new();
    for core in ["0", "1"] {
        peers.push(Child::start(&["--dict-read", name.as_str(), core])?);
    }
    let rate = |peers: &mut [Child]| -> io::Result<f64> {
        let line = format!("{}\n", record.effort.stretch.as_micros());
        for peer in &mut *peers {
            peer.0.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(line.as_bytes())?;
        }
        let mut sum = 0.0;
        for peer in peers {
            sum += peer.line()?.trim().parse::<f64>().map_err(io::Error::other)?;
        }
        Ok(sum)
    };
    let (mut both, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..record.effort.rounds {
        both.push(rate(&mut peers)?);
        alone.push(rate(&mut peers[..1])?);
    }
    let ratio = median(both.iter().zip(&alone).map(|(both, alone)| both / alone).collect());
    let (both, alone) = (median(both), median(alone));
    let millions = |rate: f64| format!("{:.1} million a second", rate / 1e6);
    let what = format!("`get_into` 64 B, {READ} entries");
    Ok(Row {
        figure: Some(Figure::time(&what, 1e9 / both, None)),
        what,
        ours: millions(both),
        theirs: millions(alone),
        ratio: format!("{ratio:.2} x as many"),
        target: Some(("at least 1.8 x", ratio >= 1.8)),
    })
}

/// Reads for as long as each line says, and says how often a second.
pub(super) fn read(name: &str, core: &str) -> io::Result<()> {
    machine::pin(core.parse().map_err(io::Error::other)?);
    let dict = Dict::open(Name::local(name)?)?;
    let keys = Keys::new(READ);
    let mut buffer = Vec::new();
    say("ready")?;
    for line in io::stdin().lines() {
        let wanted = Duration::from_micros(line?.trim().parse().map_err(io::Error::other)?);
        let (began, mut times) = (Instant::now(), 0_u64);
        while began.elapsed() < wanted {
            for _ in 0..1000 {
                dict.get_into(keys.next(), &mut buffer)?.ok_or_else(missing)?;
                black_box(&mut buffer);
            }
            times += 1000;
        }
        say(&format!("{}", times as f64 / began.elapsed().as_secs_f64()))?;
    }
    Ok(())
}

/// Fills a file with so many entries of about a kilobyte.
fn filled(path: &Path, capacity: u64, entries: usize) -> io::Result<()> {
    let dict = Dict::create_new(path, capacity)?;
    let value = vec![7; 900];
    for nth in 0..entries {
        dict.set_bytes(&keys::name(nth), &value)?;
    }
    Ok(())
}

fn opening(record: &mut Record) -> io::Result<Vec<Row>> {
    let dir = Dir::new(&std::env::temp_dir(), "open")?;
    let (small, large) = (dir.0.join("small"), dir.0.join("large"));
    let entries = record.effort.large_entries;
    let capacity = (entries as u64 * 1074).next_multiple_of(1 << 20);
    filled(&small, 1 << 20, 500)?;
    filled(&large, capacity, entries)?;
    let label = format!("{}, {entries} entries", size(usize::try_from(capacity).unwrap_or(usize::MAX)));
    // Up to the first value, so that nothing is put off.
    let open = |path: &Path| -> io::Result<()> {
        let dict = Dict::open(path)?;
        dict.get_bytes(&keys::name(7))?.map(drop).ok_or_else(missing)
    };
    let what = format!("open and get, {label}");
    let whole = record.compare(&what, "1 MiB", 1.0, || open(&large), || open(&small))?;

    let killed = |path: &Path| -> io::Result<f64> {
        let writer = Child::start(&["--dict-write", &path.to_string_lossy()])?;
        drop(writer);
        let began = Instant::now();
        let dict = Dict::open(path)?;
        dict.set_bytes(&keys::name(7), &[7; 900])?;
        Ok(began.elapsed().as_secs_f64() * 1e9)
    };
    let (mut larges, mut smalls) = (Vec::new(), Vec::new());
    for _ in 0..record.effort.rounds {
        larges.push(killed(&large)?);
        smalls.push(killed(&small)?);
    }
    let after = format!("open and set after a killed writer, {label}");
    let dead = record.keep(&after, "1 MiB", &larges, &smalls);
    let row = |what: String, pair: Pair| Row {
        ratio: format!("+{}", time(pair.more.max(0.0))),
        ..Row::speed(what, pair).target("at most 1 ms more", pair.more <= 1e6).without_control()
    };
    Ok(vec![row(what, whole), row(after, dead)])
}

/// Sets keys until it is killed.
pub(super) fn write(file: &str) -> io::Result<()> {
    machine::pin(CORE);
    let dict = Dict::open(Path::new(file))?;
    let mut said = false;
    for nth in (0..400).cycle() {
        dict.set_bytes(&keys::name(nth), &[7; 900])?;
        if !said {
            say("ready")?;
            said = true;
        }
    }
    Ok(())
}

fn memory(record: &mut Record) -> io::Result<Row> {
    let dict = Dict::create_new(name("memory")?, record.effort.memory)?;
    let mut entries = 0_usize;
    loop {
        match dict.set_bytes(&keys::name(entries), &[7; 8]) {
            Ok(_) => entries += 1,
            Err(error) if matches!(error.kind(), ErrorKind::Full) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let each = dict.capacity() as f64 / entries as f64;
    let what =
        format!("a key of 16 B and a value of 8 B, {} full", size(usize::try_from(dict.capacity()).unwrap_or(0)));
    Ok(Row {
        figure: Some(Figure { name: what.clone(), unit: "B", ours: each, theirs: None }),
        what,
        ours: format!("{each:.1} B an entry, {entries} entries"),
        theirs: String::new(),
        ratio: String::new(),
        target: Some(("at most 96 B", each <= 96.0)),
    })
}

/// Where the word that is slept on, and those for the times, stand.
const WORD: usize = 0;
const WATCHED: usize = 64;
const WOKEN: usize = 128;

fn watching(record: &mut Record) -> io::Result<Row> {
    let (name, stamps_name) = (name("watched")?, name("stamps")?);
    let dict = Dict::create_new(&name, 1 << 20)?;
    let stamps = Mapping::create_new(&stamps_name, 4096)?;
    let word = word(&stamps)?;
    let _watcher = Child::start(&["--dict-watch", name.as_str(), stamps_name.as_str()])?;
    let _waiter = Child::start(&["--futex-wait", stamps_name.as_str()])?;
    let round = |at: usize, wake: &dyn Fn() -> io::Result<()>| -> io::Result<f64> {
        stamps.store(at, 0_u64, Ordering::Release)?;
        // Until whoever waits sleeps again.
        let asleep = Instant::now() + Duration::from_micros(200);
        while Instant::now() < asleep {
            std::hint::spin_loop();
        }
        let began = now();
        wake()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match stamps.load::<u64>(at, Ordering::Acquire)? {
                0 if Instant::now() > deadline => return Err(io::Error::other("nobody woke up")),
                0 => std::hint::spin_loop(),
                woken => return Ok(woken.saturating_sub(began) as f64),
            }
        }
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..record.effort.rounds * 40 {
        ours.push(round(WATCHED, &|| Ok(dict.set_bytes("watched", &[7; 8]).map(drop)?))?);
        theirs.push(round(WOKEN, &|| {
            word.fetch_add(1, Ordering::Release);
            Ok(futex::wake(word, futex::Flags::empty(), 1).map(drop)?)
        })?);
    }
    let pair = record.keep("a change seen by a blocked process", "futex", &ours, &theirs);
    let times = 1.0 / pair.speed;
    let row = Row::speed("from before the set until the watcher has the change", pair);
    Ok(Row { ratio: format!("{times:.2} times as long"), ..row }.target("at most 1.5 times", times <= 1.5))
}

/// Notes when it sees a change, until it is killed.
pub(super) fn watch(name: &str, stamps: &str) -> io::Result<()> {
    machine::pin(CORE);
    let dict = Dict::open(Name::local(name)?)?;
    let stamps = Mapping::open(Name::local(stamps)?)?;
    let changes = dict.watch(Watched::Key("watched".to_owned()))?;
    say("ready")?;
    for change in changes {
        black_box(change?);
        stamps.store(WATCHED, now(), Ordering::Release)?;
    }
    Ok(())
}

/// Notes when it is woken, until it is killed.
pub(super) fn wait(stamps: &str) -> io::Result<()> {
    machine::pin(CORE);
    let stamps = Mapping::open(Name::local(stamps)?)?;
    let word = word(&stamps)?;
    let mut seen = word.load(Ordering::Acquire);
    say("ready")?;
    loop {
        match futex::wait(word, futex::Flags::empty(), seen, None) {
            Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let word = word.load(Ordering::Acquire);
        if word != seen {
            seen = word;
            stamps.store(WOKEN, now(), Ordering::Release)?;
        }
    }
}

fn word(stamps: &Mapping) -> io::Result<&AtomicU32> {
    let word = stamps.as_mut_ptr()?.wrapping_add(WORD).cast();
    // SAFETY: the mapping begins on a page, is longer than a word, is not made shorter, and lives as long as the reference;
    // all who use this word use it as an atomic one.
    Ok(unsafe { AtomicU32::from_ptr(word) })
}

/// A time that all processes agree on, in nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

const READERS: &str = "Each process on a core of its own. In turns: both, one alone.";

const OPENING: &str = "Files, in the system's cache. After a killed writer: a process that sets keys without a pause is\n\
    killed, and the time is that of opening and of the first set, which completes the dead writer's\n\
    change.";

const MEMORY: &str = "The whole capacity, including the dict's own tables, divided by the number of entries that fit.";

const WATCHING: &str = "From the set, or the wake-up, in one process until the other process, which slept on another core,\n\
    reads the clock. The other side is a word that is changed, and a wake-up by the system call.";
