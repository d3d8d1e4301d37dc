//! What takes two processes, or the C library's mutex.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mmf::{Error, Region};
use mmf_cli::measure::{Pair, Plan, pairs, repeated, size};
use mmf_cli::transport::{line, say};
use parking_lot::RwLock;

use super::times;
use super::turns::{Mutex, Shared, Way};
use crate::Effort;
use crate::consumer::CORE;
use crate::machine;
use crate::report::Table;

/// What the other process is started with, before the name of what both have open.
pub(crate) const FLAG: &str = "--take-turns";

/// In the other process: does what it is told until its standard input ends.
pub(crate) fn answer(name: &str) -> io::Result<()> {
    machine::pin(CORE);
    let shared = Shared::open(name)?;
    for order in io::stdin().lock().lines() {
        let order = order?;
        let mut words = order.split(' ').map(|word| word.parse::<u64>().map_err(io::Error::other));
        let mut word = || words.next().unwrap_or_else(|| Err(io::Error::other("an order has two numbers")));
        let way = usize::try_from(word()?).ok().and_then(|number| Way::ALL.get(number).copied());
        let way = way.ok_or_else(|| io::Error::other("an order that nobody knows"))?;
        shared.play(way, word()?, false, || say("there"))?;
        say("done")?;
    }
    Ok(())
}

/// This process's side.
struct Game {
    shared: Shared,
    child: Child,
    output: BufReader<ChildStdout>,
    /// What went wrong in a measurement, where it cannot be told.
    failure: Option<io::Error>,
}

impl Drop for Game {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Game {
    fn start() -> io::Result<Game> {
        let name = format!("mmf-benches-turns-{}", std::process::id());
        let shared = Shared::create(&name)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([FLAG, &name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = mmf_cli::transport::child_output(&mut child)?;
        Ok(Game { shared, child, output, failure: None })
    }

    fn tell(&mut self, way: Way, rounds: u64) -> io::Result<()> {
        let number = Way::ALL.iter().position(|known| *known == way).unwrap_or(0);
        let mut input = self.child.stdin.as_ref().ok_or_else(|| io::Error::other("the child has no input"))?;
        writeln!(input, "{number} {rounds}")?;
        self.hear("there")
    }

    fn hear(&mut self, word: &str) -> io::Result<()> {
        match line(&mut self.output)? {
            said if said == word => Ok(()),
            said => Err(io::Error::other(format!("the other process said `{said}` instead of `{word}`"))),
        }
    }

    fn pass(&mut self, way: Way, rounds: u64) -> io::Result<Duration> {
        self.tell(way, rounds)?;
        let took = self.shared.play(way, rounds, true, || Ok(()))?;
        self.hear("done")?;
        Ok(took)
    }

    /// The time of so many read locks while the other process takes them as well.
    fn read_beside(&mut self, times: u64) -> io::Result<Duration> {
        self.shared.stop()?.store(false, Ordering::Relaxed);
        self.tell(Way::Reads, 0)?;
        let region = &self.shared.region;
        let took = repeated(|| drop(black_box(region).read()))(times);
        self.shared.stop()?.store(true, Ordering::Relaxed);
        self.hear("done")?;
        Ok(took)
    }

    /// What a measurement took, or long enough for it to end if it failed.
    fn note(&mut self, took: io::Result<Duration>) -> Duration {
        took.unwrap_or_else(|error| {
            self.failure.get_or_insert(error);
            Duration::from_secs(1)
        })
    }
}

/// The time of so many read locks while another thread takes them as well.
fn read_beside_thread(lock: &RwLock<u64>, times: u64) -> Duration {
    let (there, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            machine::pin(CORE);
            while !stop.load(Ordering::Relaxed) {
                there.store(true, Ordering::Relaxed);
                for _ in 0..1000 {
                    drop(black_box(lock).read());
                }
            }
        });
        while !there.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let took = repeated(|| drop(black_box(lock).read()))(times);
        stop.store(true, Ordering::Relaxed);
        took
    })
}

pub(super) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let game = RefCell::new(Game::start()?);
    let beside = |ours: Way, theirs: Way| {
        pairs(effort.plan, |times| turns(&game, ours, times), |times| turns(&game, theirs, times))
    };
    let blocking = beside(Way::Changes, Way::Futex);
    let awake = beside(Way::Version, Way::Atomics);
    let lock = RwLock::new(0);
    let reading = pairs(
        effort.plan,
        |times| {
            let mut game = game.borrow_mut();
            let took = game.read_beside(times);
            game.note(took)
        },
        |times| read_beside_thread(&lock, times),
    );
    let mut game = game.into_inner();
    if let Some(error) = game.failure.take() {
        return Err(error);
    }
    let two = Table {
        title: "Two processes",
        other: "the other",
        rows: vec![
            times(
                "read lock and unlock while another process does the same; beside two threads with `parking_lot`",
                reading,
                Some((1.0, "no slower")),
            ),
            times(
                "a turn there and back, asleep: `write`, `wait_changed`; beside futex",
                blocking,
                Some((1.2, "at most 1.2 times as long")),
            ),
            times(
                "a turn there and back, awake: `write`, `version`; beside an atomic word",
                awake,
                Some((2.5, "at most 2.5 times as long")),
            ),
        ],
        notes: TWO,
    };
    let mut rows = Vec::new();
    for (len, most, text) in [
        (64, 1.5, "at most 1.5 times as long"),
        (4 << 10, 1.1, "at most 1.1 times as long"),
        (64 << 10, 1.1, "at most 1.1 times as long"),
        (1 << 20, 1.1, "at most 1.1 times as long"),
    ] {
        let (write, read) = beside_mutex(effort.plan, &game.shared.region, len)?;
        rows.push(times(format!("write {}", size(len)), write, Some((most, text))));
        rows.push(times(format!("read {}", size(len)), read, Some((most, text))));
    }
    Ok(vec![two, Table { title: "Bytes under a lock", other: "robust mutex and `memcpy`", rows, notes: UNDER }])
}

fn turns(game: &RefCell<Game>, way: Way, rounds: u64) -> Duration {
    let mut game = game.borrow_mut();
    let took = game.pass(way, rounds);
    game.note(took)
}

/// The region's bytes under its lock, and bytes under a mutex.
fn beside_mutex(plan: Plan, region: &Region, len: usize) -> io::Result<(Pair, Pair)> {
    let mutex = Mutex::new(len)?;
    let bytes = mutex.bytes()?;
    let (mut buffer, mut other) = (vec![1; len], vec![1; len]);
    // Checked here, once: in the loops below a failure would be quick.
    region.write().map_err(Error::from)?.write_at(0, &buffer)?;
    mutex.locked(|| ())?;
    let write = pairs(
        plan,
        repeated(|| {
            if let Ok(mut guard) = black_box(region).write() {
                let _ = black_box(guard.write_at(0, &buffer[..black_box(len)]));
            }
        }),
        repeated(|| {
            let _ = black_box(mutex.locked(|| {
                let len = black_box(len);
                // SAFETY: both have `len` bytes, and are different memory; the mutex keeps others out.
                unsafe { ptr::copy_nonoverlapping(other.as_ptr(), black_box(bytes), len) };
            }));
        }),
    );
    let read = pairs(
        plan,
        repeated(|| {
            if let Ok(guard) = black_box(region).read() {
                let _ = black_box(guard.read_at(0, &mut buffer[..black_box(len)]));
            }
        }),
        repeated(|| {
            let _ = black_box(mutex.locked(|| {
                let len = black_box(len);
                // SAFETY: as above.
                unsafe { ptr::copy_nonoverlapping(black_box(bytes), other.as_mut_ptr(), len) };
            }));
        }),
    );
    Ok((write, read))
}

const TWO: &str = "Each process keeps to a core. mmf passes a turn by a write to the region, which takes the lock,\n\
    marks a change begun and complete, and wakes sleepers. The other side uses one store, and\n\
    `FUTEX_WAKE` and `FUTEX_WAIT` around it. The times of reading are those of the measuring process.";

const UNDER: &str = "The mutex is the C library's, shared between processes and robust (`PTHREAD_MUTEX_ROBUST`), in\n\
    memory without a name. It excludes readers from each other, reports a dead holder, and has no\n\
    version, length, default timeout or guard. The locks are uncontended.";
