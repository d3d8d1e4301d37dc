//! The lock, the wait queues and the recovery from deaths, in every order of events that loom finds within bounds.
//! `ci/models.sh` runs them; `docs/decisions/0007-models.md` tells what they cover and what they would catch.
//!
//! All threads share one [`Segment`], whose cells are the model's words. A thread that is a participant of its own has a
//! slot of its own, and where deaths matter also a [`Participant`] with tokens.

mod death;
mod exclusion;
mod hurry;
mod queue;
mod recovery;
mod unlocked;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::model::Builder;

use super::layout::{Kind, SLOT_SIZE, SLOT_TABLE, at};
use super::participants::{self, Participant};
use super::{Change, Segment};
use crate::lock::{Held, Refused, Until};
use crate::mapping::Mapping;
use crate::sys::guard::Fault;
use crate::sys::model::{self, Bell, SLOTS};

/// How a model is gone through.
#[derive(Clone, Copy)]
struct Bounds {
    bell: Bell,
    /// How many of a thread's sleeps end at their bounds, at the beginning and after each burial.
    timeouts: u32,
    /// How often a thread may be stopped in favour of another where it could go on.
    preemptions: usize,
}

/// Runs `model` in every order of events within `bounds`. It is given the slots that have no owner yet.
fn check(bounds: Bounds, model: impl Fn(Arc<Segment>) + Send + Sync + 'static) {
    let segment = Arc::new(segment());
    let mut builder = Builder::new();
    builder.preemption_bound =
        Some(bounds.preemptions + std::env::var("PLUS").map_or(0, |p| p.parse::<usize>().unwrap()));
    // More than any run has that comes to an end.
    builder.max_branches = 3_000;
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model::begin(words(), &[at::LOCK_QUEUE, at::CHANGE_QUEUE], bounds.bell, bounds.timeouts);
        model(Arc::clone(&segment));
        model::end();
    });
    println!("{} runs", runs.load(Ordering::Relaxed));
}

/// Runs `check` for a death at the first step, the second and so on, until none happens any more.
fn at_each_step(check: impl Fn(u32)) {
    for step in 1.. {
        model::STRUCK.store(false, Ordering::Relaxed);
        check(step);
        if !model::STRUCK.load(Ordering::Relaxed) {
            assert!(step > 1, "somebody dies");
            return;
        }
    }
}

fn segment() -> Segment {
    let (bytes, size, capacity) = Segment::birth(None, Kind::REGION, 4096, 4096).unwrap();
    assert_eq!(size, capacity);
    let map = Mapping::anonymous(size).unwrap();
    map.write_at(0, &bytes).unwrap();
    Segment::adopt(map, Kind::REGION).unwrap()
}

fn words() -> Vec<(usize, usize)> {
    let mut words = vec![(at::LOCK, 8), (at::DIRTY, 4), (at::OCCUPIED, 8), (at::VERSION, 8)];
    for queue in [at::LOCK_QUEUE, at::CHANGE_QUEUE] {
        words.extend([(queue + at::QUEUE_SEQ, 4), (queue + at::QUEUE_FLAG, 4), (queue + at::QUEUE_SLEEPERS, 8)]);
    }
    for slot in 0..SLOTS {
        let base = SLOT_TABLE + slot * SLOT_SIZE;
        words.extend([(base + at::SLOT_STATE, 4), (base + at::SLOT_READERS, 4)]);
        words.extend([(base + at::SLOT_PROCESS, 4), (base + at::SLOT_SINCE, 8)]);
    }
    words
}

/// What the lock protects: two numbers that are equal whenever nobody is changing them. Loom fails a model in which one
/// thread reads or writes one while another writes it, or without having seen what was written before.
struct Data {
    a: UnsafeCell<u32>,
    b: UnsafeCell<u32>,
}

// SAFETY: loom checks every access.
unsafe impl Sync for Data {}
// SAFETY: they are numbers.
unsafe impl Send for Data {}

impl Data {
    fn new() -> Arc<Data> {
        Arc::new(Data { a: UnsafeCell::new(0), b: UnsafeCell::new(0) })
    }

    /// Both numbers.
    fn read(&self) -> (u32, u32) {
        // SAFETY: loom has checked that nobody writes at the same time.
        let a = self.a.with(|a| unsafe { *a });
        // SAFETY: as above.
        let b = self.b.with(|b| unsafe { *b });
        (a, b)
    }

    fn set_first(&self, value: u32) {
        // SAFETY: loom has checked that nobody else is there at the same time.
        self.a.with_mut(|a| unsafe { *a = value });
    }

    fn set_second(&self, value: u32) {
        // SAFETY: as above.
        self.b.with_mut(|b| unsafe { *b = value });
    }

    /// What a reader does who has the lock.
    fn look(&self) {
        let (a, b) = self.read();
        assert_eq!(a, b, "a change half made, and no poison");
    }

    /// What a writer does who has the lock.
    fn change(&self) {
        self.look();
        let next = self.read().0 + 1;
        self.set_first(next);
        self.set_second(next);
    }
}

/// Nobody dies.
fn nobody(_slot: usize) -> crate::Result<bool> {
    Ok(false)
}

/// Marks these slots as used, as attaching does.
fn occupy(segment: &Segment, slots: impl IntoIterator<Item = usize>) {
    for slot in slots {
        segment.lock.slots().set_occupied(slot, true).unwrap();
    }
}

/// Takes the write lock as slot `me`, changes the data, and gives it up.
fn write(segment: &Segment, me: usize, data: &Data) {
    let held = segment.lock.write(me, Until::Forever, &nobody).unwrap();
    assert!(!held.poisoned);
    data.change();
    segment.write_unlock(me, Change::None).unwrap();
}

/// Takes a read lock as slot `me`, looks at the data, and gives it up.
fn read(segment: &Segment, me: usize, data: &Data) {
    let held = segment.lock.read(me, Until::Forever, &nobody).unwrap();
    assert!(!held.poisoned);
    data.look();
    segment.lock.unlock_read(me).unwrap();
}

/// A thread of process and slot `number`.
fn process(number: usize, body: impl FnOnce() + 'static) -> loom::thread::JoinHandle<()> {
    loom::thread::spawn(move || {
        model::become_process(number, None);
        body();
    })
}
