//! The way there and back between two processes that watch a word.

use std::hint::spin_loop;
use std::io::{self, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Mapping, Name};

use mmf_cli::measure::{Plan, alone};
use mmf_cli::transport;

/// Where the words are: each in a cache line of its own, two apart since some processors fetch them
/// in twos.
const THERE: usize = 0;
const BACK: usize = 128;

/// How long an answer may take before something is wrong.
const LIMIT: Duration = Duration::from_secs(5);

/// The time there and back, in nanoseconds.
pub(super) fn round_trip(plan: Plan, name: &Name) -> io::Result<f64> {
    let map = Mapping::create_new(name, 4096)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--answer", name.as_str()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = transport::alone(&mut command).spawn()?;
    let ready = child.stdout.take().map(|output| transport::line(&mut BufReader::new(output)));
    let result = match ready {
        Some(Ok(_)) => measure(plan, &map),
        Some(Err(error)) => Err(error),
        None => Err(io::Error::other("the child has no standard output")),
    };
    // The end of its input ends it.
    drop(child.stdin.take());
    if result.is_err() {
        child.kill()?;
    }
    child.wait()?;
    result
}

fn measure(plan: Plan, map: &Mapping) -> io::Result<f64> {
    let mut turn = 0;
    let mut failure = None;
    let time = alone(plan, |times| {
        let began = Instant::now();
        for _ in 0..times {
            if failure.is_some() {
                break;
            }
            turn += 1;
            failure = ask(map, turn).err();
        }
        began.elapsed()
    });
    failure.map_or(Ok(time), Err)
}

fn ask(map: &Mapping, turn: u64) -> io::Result<()> {
    map.store(THERE, turn, Ordering::Release)?;
    let mut watch = Watch::new();
    // Pairs with the store of the answer.
    while map.load::<u64>(BACK, Ordering::Acquire)? != turn {
        if watch.waited() > LIMIT {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other process does not answer"));
        }
    }
    Ok(())
}

/// In the other process: answers each word until its standard input ends.
pub(super) fn answer(name: &str) -> io::Result<()> {
    let map = Mapping::open(Name::local(name)?)?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        end.store(true, Ordering::Relaxed);
    });
    transport::say("ready")?;
    let mut seen = 0;
    let mut watch = Watch::new();
    while !ended.load(Ordering::Relaxed) {
        // Pairs with the store of the question.
        let turn = map.load::<u64>(THERE, Ordering::Acquire)?;
        if turn == seen {
            watch.waited();
        } else {
            map.store(BACK, turn, Ordering::Release)?;
            seen = turn;
            watch = Watch::new();
        }
    }
    Ok(())
}

/// Waits a moment at a time: awake at first, then leaving the processor to others, where the peer
/// may need it.
struct Watch {
    turns: u32,
    began: Option<Instant>,
}

impl Watch {
    fn new() -> Watch {
        Watch { turns: 0, began: None }
    }

    /// How long it has been, once that is worth a look at the clock.
    fn waited(&mut self) -> Duration {
        self.turns = self.turns.saturating_add(1);
        if self.turns < 10_000 {
            spin_loop();
            return Duration::ZERO;
        }
        thread::yield_now();
        self.began.get_or_insert_with(Instant::now).elapsed()
    }
}
