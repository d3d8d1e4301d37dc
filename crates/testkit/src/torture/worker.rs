//! A process that is tortured: it does everything that a region can do, at random, and checks all
//! that it sees.

use std::time::{Duration, Instant};

use mmf::{Access, Error, ErrorKind, LockError, Name, ReadGuard, Region, WriteGuard};

use super::content;
use super::counters::{self, Counters, State, Waits};
use crate::peer;

/// The longest wait for a lock. Under Wine, one server wakes all waiters, and on a busy machine
/// they wait for that server.
pub(super) const STALL: Duration = Duration::from_secs(if cfg!(windows) { 8 } else { 1 });

pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Random {
        Random((counters::nanoseconds() ^ (u64::from(std::process::id()) << 40)) | 1)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % end as u64).unwrap_or(0)
    }
}

/// The role: arguments are the counters's name and what regions' names begin with; the one line it
/// hears is its number.
pub fn worker(args: &[&str]) {
    // Nothing is open before: a spare that is never needed leaves nothing behind.
    let Some(number) = peer::hear() else { return };
    let counters = Counters::open(args[0]);
    let me = number.parse().expect("a number");
    let mut worker = Worker { counters, base: args[1].to_owned(), me, random: Random::new() };
    worker.run();
}

/// The region of a generation.
pub(super) fn name(base: &str, generation: u64) -> Name {
    Name::local(format!("{base}-{generation}")).expect("a name")
}

struct Worker {
    counters: Counters,
    base: String,
    me: usize,
    random: Random,
}

/// What a worker has open.
struct Open {
    generation: u64,
    name: Name,
    region: Region,
    /// A read-only handle, opened when first used.
    reader: Option<Region>,
}

impl Worker {
    fn run(&mut self) {
        while self.counters.get(counters::STOP) == 0 {
            let generation = self.counters.get(counters::GENERATION);
            let name = name(&self.base, generation);
            match Region::open(&name) {
                Ok(region) => {
                    let mut open = Open { generation, name, region, reader: None };
                    self.live(&mut open);
                    self.counters.count(counters::REOPENED);
                }
                // A new one has begun meanwhile.
                Err(_) if self.counters.get(counters::GENERATION) != generation => {}
                Err(error) => self.counters.complain(&format!("cannot open: {error}")),
            }
        }
    }

    /// Works with one handle until it is to be opened anew.
    fn live(&mut self, open: &mut Open) {
        while self.counters.get(counters::GENERATION) == open.generation && self.counters.get(counters::STOP) == 0 {
            match self.random.below(64) {
                0 => return,
                1..=4 => self.wait_for_change(open),
                5..=9 => self.glance(open),
                10..=23 => self.write(open),
                24..=26 => self.try_it(open),
                _ => self.read(open),
            }
        }
    }

    fn read(&mut self, open: &Open) {
        let floor = self.counters.floor(open.generation);
        let (guard, poisoned) = match self.locked(|| open.region.read()) {
            Some(locked) => locked,
            None => return,
        };
        self.counters.say(self.me, State::Reads);
        self.look(open, &guard, poisoned, floor);
        drop(guard);
        self.counters.say(self.me, State::Out);
        self.counters.count(counters::READS);
    }

    /// What holds under a read lock.
    fn look(&mut self, open: &Open, guard: &ReadGuard<'_>, poisoned: bool, floor: u64) {
        let Some(bytes) = self.must(guard.to_vec(), "read") else { return };
        if self.random.below(8) == 0 {
            self.dawdle();
        }
        let Some(again) = self.must(guard.to_vec(), "read again") else { return };
        if again != bytes {
            self.counters.complain("a writer wrote while a reader was inside");
        } else if !poisoned {
            self.judge(open, &bytes, floor, "a reader");
        }
    }

    /// Whole contents, not older than what was seen before.
    fn judge(&self, open: &Open, bytes: &[u8], floor: u64, who: &str) -> Option<u64> {
        match content::check(bytes) {
            Ok(counter) if counter >= floor => {
                self.counters.raise_floor(open.generation, counter);
                Some(counter)
            }
            Ok(counter) => {
                self.counters.complain(&format!("{who} sees {counter} where {floor} was there before"));
                None
            }
            Err(what) => {
                self.counters.complain(&format!("{who} sees without a report of poison: {what}"));
                None
            }
        }
    }

    fn write(&mut self, open: &Open) {
        let floor = self.counters.floor(open.generation);
        let Some((guard, poisoned)) = self.locked(|| open.region.write()) else { return };
        self.change(open, guard, poisoned, floor);
        self.counters.say(self.me, State::Out);
        self.counters.count(counters::WRITES);
    }

    /// Replaces the contents, in one of several ways, with a canary inside for as long as it takes.
    fn change(&mut self, open: &Open, mut guard: WriteGuard<'_>, poisoned: bool, floor: u64) {
        self.counters.say(self.me, State::Writes);
        let Some(old) = self.must(guard.to_vec(), "read") else { return };
        let counter = if poisoned {
            content::check(&old).unwrap_or(0).max(self.counters.floor(open.generation))
        } else {
            let Some(counter) = self.judge(open, &old, floor, "a writer") else { return };
            counter
        } + 1;
        let canary = u64::from(std::process::id());
        let len = match self.random.below(256) {
            0 => usize::try_from(open.region.capacity()).unwrap_or(0),
            1..=8 => content::HEAD + self.random.below(1 << 14),
            _ => content::HEAD + self.random.below(400),
        };
        let bytes = content::make(canary, counter, len);
        let written = self.fill(&mut guard, &bytes);
        if self.must(written, "write").is_none() {
            return;
        }
        if len > old.len() && len > 1 << 14 {
            self.counters.count(counters::GROWN);
        }
        if self.random.below(4) == 0 {
            self.dawdle();
        }
        if self.must(guard.get::<u64>(0), "read") != Some(canary) {
            self.counters.complain("two writers at once");
        }
        self.must(guard.put(0, 0_u64), "write");
        if poisoned {
            // Under the lock: who declares it good afterwards might hide what the next writer's
            // death left.
            self.must(open.region.clear_poison(), "clear the poison");
            self.counters.count(counters::RECOVERIES);
        }
        drop(guard);
        self.counters.raise_floor(open.generation, counter);
    }

    fn fill(&mut self, guard: &mut WriteGuard<'_>, bytes: &[u8]) -> mmf::Result<()> {
        match self.random.below(4) {
            0 => guard.set(bytes),
            1 => {
                guard.write_at(0, &bytes[..8])?;
                guard.resize(bytes.len())?;
                let middle = self.random.below(bytes.len());
                guard.write_at(middle, &bytes[middle..])?;
                guard.write_at(0, &bytes[..middle])
            }
            2 => {
                guard.write_at(0, &bytes[..8])?;
                guard.resize(8)?;
                bytes[8..].chunks(96).enumerate().try_for_each(|(n, chunk)| guard.write_at(8 + n * 96, chunk))
            }
            _ => {
                guard.resize(0)?;
                std::io::Write::write_all(&mut guard.writer(), bytes).map_err(|error| match error.downcast::<Error>() {
                    Ok(error) => error,
                    Err(other) => panic!("{other}"),
                })
            }
        }
    }

    /// Locks that do not wait, or hardly.
    fn try_it(&mut self, open: &Open) {
        let floor = self.counters.floor(open.generation);
        self.counters.say(self.me, State::Wants);
        let short = Duration::from_micros(self.random.below(3000) as u64);
        let refused = match self.random.below(4) {
            0 => self.tried(open.region.try_read()).map(|(guard, poison)| {
                self.counters.say(self.me, State::Reads);
                self.look(open, &guard, poison, floor);
            }),
            1 => self.tried(open.region.read_for(short)).map(|(guard, poison)| {
                self.counters.say(self.me, State::Reads);
                self.look(open, &guard, poison, floor);
            }),
            2 => self.tried(open.region.try_write()).map(|(guard, poison)| self.change(open, guard, poison, floor)),
            _ => {
                self.tried(open.region.write_for(short)).map(|(guard, poison)| self.change(open, guard, poison, floor))
            }
        };
        if refused.is_none() {
            self.counters.count(counters::REFUSED);
        }
        self.counters.say(self.me, State::Out);
    }

    fn tried<G>(&self, result: Result<G, LockError<G>>) -> Option<(G, bool)> {
        match result {
            Ok(guard) => Some((guard, false)),
            Err(LockError::Poisoned(guard)) => {
                self.counters.count(counters::POISONS);
                Some((guard, true))
            }
            Err(LockError::Failed(error)) => {
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Timeout { .. }) {
                    self.counters.complain(&format!("trying: {error}"));
                }
                None
            }
        }
    }

    /// Reads without a lock.
    fn glance(&mut self, open: &mut Open) {
        if open.reader.is_none() {
            let options = Region::options().access(Access::ReadOnly).timeout(Some(Duration::from_millis(5)));
            match options.open(&open.name) {
                Ok(region) => open.reader = Some(region),
                Err(error) => return self.counters.complain(&format!("cannot open for reading: {error}")),
            }
        }
        let floor = self.counters.floor(open.generation);
        let Some(reader) = &open.reader else { return };
        match reader.to_vec() {
            Ok(bytes) => {
                self.judge(open, &bytes, floor, "a reader without a lock");
                self.counters.count(counters::UNLOCKED_READS);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Contended | ErrorKind::Poisoned) => {
                self.counters.count(counters::CONTENDED);
            }
            Err(error) => self.counters.complain(&format!("reading without a lock: {error}")),
        }
    }

    fn wait_for_change(&mut self, open: &Open) {
        let Some(since) = self.must(open.region.version(), "examine") else { return };
        let deadline = Instant::now() + Duration::from_micros(self.random.below(3000) as u64);
        match open.region.wait_changed(since, deadline) {
            Ok(version) if version > since => self.counters.count(counters::CHANGES),
            Ok(version) => self.counters.complain(&format!("the version went from {since} to {version}")),
            Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) => {}
            Err(error) => self.counters.complain(&format!("waiting for a change: {error}")),
        }
    }

    /// A lock that must come, and how long it took.
    fn locked<G>(&self, lock: impl FnOnce() -> Result<G, LockError<G>>) -> Option<(G, bool)> {
        let deaths = self.counters.get(counters::DEATHS);
        self.counters.say(self.me, State::Wants);
        let began = counters::nanoseconds();
        let locked = lock();
        let now = counters::nanoseconds();
        let waited = now.saturating_sub(began);
        self.counters.waited(Waits::All, waited);
        if self.counters.get(counters::DEATHS) != deaths {
            let released = self.counters.get(counters::RELEASED).max(began);
            self.counters.waited(Waits::AfterDeath, now.saturating_sub(released));
        }
        if u128::from(waited) > STALL.as_nanos() {
            self.counters.complain(&format!("waited {:?} for a lock", Duration::from_nanos(waited)));
        }
        let locked = self.tried(locked);
        if locked.is_none() {
            self.counters.complain("got no lock");
        }
        locked
    }

    fn must<T>(&self, result: mmf::Result<T>, doing: &str) -> Option<T> {
        result.map_err(|error| self.counters.complain(&format!("to {doing}: {error}"))).ok()
    }

    /// Stays where it is for a while, so that death finds it there.
    fn dawdle(&mut self) {
        match self.random.below(8) {
            0 => std::thread::sleep(Duration::from_micros(self.random.below(500) as u64)),
            1 => std::thread::yield_now(),
            _ => (0..self.random.below(2000)).for_each(|_| std::hint::spin_loop()),
        }
    }
}
