//! Death at random in a dict: processes that use it in every way, and one that kills them, a kill a
//! millisecond.

mod model;
mod worker;

pub use worker::dict_worker;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Dict, Name};

use super::worker::Random;
use super::{Torture, Worker, left_behind};
use crate::{DEADLINE, TempDir, unique_name, wire};
use model::{Sheet, WRITERS};

/// The least that a dict has: full now and then, and soon through all of its space.
const CAPACITY: u64 = 1 << 20;
/// Kills between one dict and the next.
const GENERATION: u64 = 128;
/// Processes that only read.
const READERS: usize = 4;
/// The longest time in one call.
const STALL: Duration = Duration::from_secs(5);

struct Run {
    sheet: Sheet,
    base: String,
    dir: TempDir,
    dict: Dict,
    /// The one before, which everybody has left, or will soon.
    old: Option<Dict>,
    generation: u64,
    workers: Vec<Worker>,
    spares: Receiver<Worker>,
    ended: Arc<AtomicBool>,
    random: Random,
    kills: u64,
    busy: u64,
    done: (u64, Instant),
}

impl Torture {
    /// As [`run`](Torture::run), with a dict. The number of processes is its own.
    ///
    /// The binary must play the role [`dict_worker`] by that name.
    ///
    /// # Panics
    ///
    /// If the system refuses to start processes.
    #[must_use]
    pub fn run_dict(&self) -> bool {
        let mut run = Run::start();
        let began = Instant::now();
        while run.kills < self.kills && began.elapsed() < self.limit && run.sheet.get(model::VIOLATIONS) < 100 {
            let tick = Instant::now();
            run.kill_one();
            thread::sleep(self.pace.saturating_sub(tick.elapsed()));
        }
        let time = began.elapsed();
        run.end();
        run.report(time);
        run.sheet.get(model::VIOLATIONS) == 0
    }
}

impl Run {
    fn start() -> Run {
        let base = unique_name("dicts");
        let dir = TempDir::new();
        let sheet_name = format!("{base}-sheet");
        let sheet = Sheet::create(&Name::local(&sheet_name).expect("a name"));
        let dict = create(&base, &dir, 0);
        let (send, spares) = mpsc::sync_channel(4);
        let args = [sheet_name, base.clone(), dir.path().display().to_string()];
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        thread::spawn(move || {
            while !until.load(Ordering::SeqCst) && send.send(super::spawn("dict_worker", &args, 0)).is_ok() {}
        });
        let mut run = Run {
            sheet,
            base,
            dir,
            dict,
            old: None,
            generation: 0,
            workers: Vec::new(),
            spares,
            ended,
            random: Random::new(),
            kills: 0,
            busy: 0,
            done: (0, Instant::now()),
        };
        for number in 0..WRITERS + READERS {
            let worker = run.spare(number);
            run.workers.push(worker);
        }
        run
    }

    /// One that has begun to work as this number.
    fn spare(&self, number: usize) -> Worker {
        let mut worker = self.spares.recv_timeout(DEADLINE).expect("a process can be started");
        let line = format!("{}{number}\n", char::from(wire::LINE));
        worker.stdin.write_all(line.as_bytes()).expect("a worker that waits for its number");
        worker
    }

    fn kill_one(&mut self) {
        // Mostly those who write.
        let most = if self.random.below(4) == 0 { WRITERS + READERS } else { WRITERS };
        let number = self.random.below(most);
        let worker = &mut self.workers[number];
        if let Ok(Some(status)) = worker.child.try_wait() {
            self.sheet.complain(&format!("a worker ended by itself with {status}"));
        }
        worker.child.kill().expect("a child can be killed");
        worker.child.wait().expect("a killed child ends");
        self.busy += self.sheet.get(Sheet::busy(number));
        self.sheet.set(Sheet::busy(number), 0);
        self.kills += 1;
        self.workers[number] = self.spare(number);
        if self.kills % GENERATION == 0 {
            self.next_generation();
        }
        let done = self.sheet.get(model::READS) + self.sheet.get(model::WRITES);
        if done != self.done.0 {
            self.done = (done, Instant::now());
        } else if self.done.1.elapsed() > STALL {
            self.done.1 = Instant::now();
            self.sheet.complain("no process has done anything for seconds");
        }
    }

    fn next_generation(&mut self) {
        let next = self.generation + 1;
        self.sheet.clear_sheet(next);
        let dict = std::mem::replace(&mut self.dict, create(&self.base, &self.dir, next));
        if let Some(old) = self.old.replace(dict) {
            self.check(&old, self.generation - 1);
        }
        self.generation = next;
        self.sheet.set(model::GENERATION, next);
    }

    /// Checks that the dict is whole and can be used, whichever process died in it.
    fn check(&self, dict: &Dict, generation: u64) {
        // In case a process is still in it.
        self.sheet.count(Sheet::clearings(generation, model::KILLER)[0]);
        let uses = || {
            let entries = dict.snapshot(|all| Ok((all.entries()?.len(), dict.len()?)))?;
            if entries.0 != entries.1 {
                self.sheet.complain(&format!("{} entries where {} are counted", entries.0, entries.1));
            }
            let report = dict.check()?;
            if !report.is_whole() {
                self.sheet.complain(&format!("it is damaged: {:?}", report.problems));
            }
            // All of its space can be had again.
            dict.clear()?;
            dict.flush()?;
            dict.flush()?;
            dict.set_bytes(model::LARGE, &vec![1; usize::try_from(CAPACITY / 4).unwrap_or(0)])?;
            dict.set_bytes(model::LARGE, &vec![2; usize::try_from(CAPACITY / 4).unwrap_or(0)])?;
            dict.remove(model::LARGE)
        };
        match uses() {
            Ok(true) => {}
            other => self.sheet.complain(&format!("in the end a dict is of no use: {other:?}")),
        }
    }

    fn end(&mut self) {
        self.sheet.set(model::STOP, 1);
        for worker in &mut self.workers {
            let since = Instant::now();
            let status = loop {
                match worker.child.try_wait() {
                    Ok(Some(status)) => break Some(status),
                    Ok(None) if since.elapsed() < DEADLINE => thread::sleep(Duration::from_millis(1)),
                    _ => break None,
                }
            };
            if !status.is_some_and(|status| status.success()) {
                self.sheet.complain(&format!("a worker did not end well: {status:?}"));
                let _ = worker.child.kill();
                let _ = worker.child.wait();
            }
        }
        if let Some(old) = self.old.take() {
            self.check(&old, self.generation - 1);
        }
        self.check(&self.dict, self.generation);
        // With the last handle the last dict goes too.
        let last = self.generation / 2 * 2 + 2;
        self.dict = create(&self.base, &self.dir, last);
        let own = [format!("{}-sheet", self.base), format!("{}-{last}", self.base)];
        for name in left_behind(&format!("{}-", self.base)) {
            if !own.iter().any(|own| name.ends_with(own)) {
                self.sheet.complain(&format!("{name} is left behind"));
            }
        }
    }

    fn report(&self, time: Duration) {
        let count = |word| self.sheet.get(word);
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        println!(
            "{} kills of {WRITERS} writers and {READERS} readers in {time:.1?} ({:.0} a second), {} of them within a call, \
             {build} build",
            self.kills,
            self.kills as f64 / time.as_secs_f64(),
            self.busy
        );
        println!(
            "changes that the dead had begun: {} done, {} not; {} dicts",
            count(model::REDONE),
            count(model::HALF_DONE),
            self.generation + 1
        );
        println!(
            "{} sets, {} removals, {} transactions, {} flushes, {} clearings, {} refused for want of room",
            count(model::WRITES),
            count(model::REMOVALS),
            count(model::TRANSACTIONS),
            count(model::FLUSHES),
            count(model::CLEARS),
            count(model::FULL)
        );
        println!(
            "{} reads, {} snapshots, {} scans ({} gave up), {} changes watched ({} times behind)",
            count(model::READS),
            count(model::SNAPSHOTS),
            count(model::SCANS),
            count(model::CONTENDED),
            count(model::CHANGES),
            count(model::MISSED)
        );
        println!("longest call: {:.3?}", Duration::from_nanos(count(model::LONGEST_NS)));
        println!("{} violations", count(model::VIOLATIONS));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let end = |worker: &mut Worker| {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        };
        self.workers.iter_mut().for_each(end);
        // Until the thread that starts them is done: this process must not end while it starts one.
        while let Ok(mut spare) = self.spares.recv() {
            end(&mut spare);
        }
    }
}

fn create(base: &str, dir: &TempDir, generation: u64) -> Dict {
    Dict::create_new(worker::place(base, dir.path(), generation), CAPACITY).expect("a new dict")
}
