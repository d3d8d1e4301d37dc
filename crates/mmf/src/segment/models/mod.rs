//! The lock, the wait queues and the recovery from deaths, in every order of events that loom finds
//! within bounds. `ci/models.sh` runs them; `docs/decisions/0009-models.md` tells what they cover
//! and what they would catch.
//!
//! Each thread that is a participant of its own has a handle of its own, as a process would have;
//! all handles' cells are the same words of the model. The handles are a region's segments,
//! attached and locked by the code of the library. Only what a thread knows of its own locks is the
//! model's ([`lock_uses`](crate::sys::model)), since loom's threads are not the system's.

mod death;
mod exclusion;
mod forged_holder;
mod queue;
mod recovery;
mod starvation;
mod unlocked;

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::AtomicU32;
use loom::thread::JoinHandle;

use super::layout::{self, at};
use super::participants::{self, AttachedParticipant};
use super::{Acquired, Deadline, ReadLock, WriteLock};
use crate::error::{ErrorKind, Result};
use crate::mapping::Mapping;
use crate::region::change::{RegionState, Segment};
use crate::sys::LivenessTokens;
use crate::sys::model::{self, Loads, MODEL_SLOTS, ModelConfig, ParkerKind};

/// How a model is gone through.
#[derive(Clone, Copy)]
struct Bounds {
    parker: ParkerKind,
    /// How many of a thread's sleeps end at their bounds, at the beginning and after each burial.
    timeouts: u32,
    /// How often a thread may be stopped in favour of another where it could go on.
    preemptions: usize,
}

/// Runs `model` in every order of events within `bounds`. It is given the handles of as many
/// processes as it can have.
fn check(bounds: Bounds, model: impl Fn(&[Arc<Segment>; MODEL_SLOTS]) + Copy + Send + Sync + 'static) {
    check_with(Loads::Old, bounds, false, model);
    check_with(Loads::Latest, bounds, false, model);
}

fn check_with(
    loads: Loads,
    bounds: Bounds,
    uses: bool,
    model: impl Fn(&[Arc<Segment>; MODEL_SLOTS]) + Send + Sync + 'static,
) {
    let handles = handles();
    let config = ModelConfig {
        bases: handles.iter().map(|handle| handle.map.as_ptr().addr()).collect(),
        shared_len: layout::PAYLOAD,
        words: words(),
        stored_to: vec![at::VERSION],
        slept_on: queues(),
        parker: bounds.parker,
        loads,
        fences: true,
        memory: None,
        timeouts: bounds.timeouts,
        uses,
    };
    let mut builder = Builder::new();
    builder.preemption_bound = Some(bounds.preemptions);
    // More than any run has that comes to an end.
    builder.max_branches = 3_000;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    // Never dropped: what a drop would give up has ended with the run that gave it.
    let handles = ManuallyDrop::new(Mutex::new(handles));
    let run = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model::begin(&config);
        let mut handles = handles.lock().unwrap();
        handles.iter_mut().for_each(|handle| forget_run(Arc::get_mut(handle).expect("no thread is left")));
        model(&handles);
        model::end();
    };
    builder.check(run);
    println!("{loads:?}: {} runs", runs.load(Ordering::Relaxed));
}

/// Runs `check` for a death of that process at its first step, its second and so on, until it dies
/// at none any more.
pub(crate) fn at_each_step(process: usize, mut check: impl FnMut(u32)) {
    for step in 1.. {
        check(step);
        if !model::has_died(process) {
            assert!(step > 1, "no process has died");
            return;
        }
    }
}

/// Handles of one segment.
fn handles() -> [Arc<Segment>; MODEL_SLOTS] {
    let (bytes, size, _) = Segment::initial_bytes(None, None, 4096, 4096).unwrap();
    let first = Mapping::anonymous(size).unwrap();
    first.write_at(0, &bytes).unwrap();
    std::array::from_fn(|_| {
        let map = Mapping::options().from_handle(first.handle().try_clone_to_owned().unwrap()).unwrap();
        Arc::new(Segment::from_mapping(map, None, None).unwrap())
    })
}

/// Makes a handle as it was before the last run, in which its process may have died.
fn forget_run(handle: &mut Segment) {
    handle.participant.take();
    handle.changed = AtomicBool::new(false);
}

/// A slot of another group than the first.
const FAR: usize = 64;

/// The words that are slept on.
pub(crate) fn queues() -> Vec<usize> {
    vec![at::LOCK_QUEUE, at::CHANGE_QUEUE]
}

/// The words of the lock and of its queues.
pub(crate) fn words() -> Vec<(usize, usize)> {
    let mut words = vec![(at::LOCK, 8), (at::OCCUPIED, 8), (at::OCCUPIED + 8, 8), (at::VERSION, 8)];
    // `seq`, and the first two words of sleepers.
    for queue in [at::LOCK_QUEUE, at::CHANGE_QUEUE] {
        words.extend([(queue, 4), (queue + 8, 8), (queue + 16, 8)]);
    }
    words.extend((0..MODEL_SLOTS).chain([FAR]).map(|slot| (layout::slot(slot, at::SLOT_READERS), 4)));
    words
}

/// What the lock protects: two numbers that are equal unless a writer is changing them. Loom fails
/// a model in which one thread reads or writes one while another writes it, or without having seen
/// what was written before.
struct Data {
    /// Touched with them: loom tries the orders of what is done to atomics, and then looks what
    /// becomes of the rest. A writer exchanges it, since loom forgets the loads of others behind
    /// one of the same thread.
    probe: AtomicU32,
    a: UnsafeCell<u32>,
    b: UnsafeCell<u32>,
}

// SAFETY: loom checks every access.
unsafe impl Sync for Data {}
// SAFETY: they are numbers.
unsafe impl Send for Data {}

impl Data {
    fn new() -> Arc<Data> {
        Arc::new(Data { probe: AtomicU32::new(0), a: UnsafeCell::new(0), b: UnsafeCell::new(0) })
    }

    /// Both numbers.
    fn read(&self) -> (u32, u32) {
        // SAFETY: loom has checked that no thread writes at the same time.
        let a = self.a.with(|a| unsafe { *a });
        // SAFETY: as above.
        let b = self.b.with(|b| unsafe { *b });
        (a, b)
    }

    fn set_first(&self, value: u32) {
        self.probe.swap(value, Ordering::Relaxed);
        // SAFETY: loom has checked that no other thread accesses it at the same time.
        self.a.with_mut(|a| unsafe { *a = value });
    }

    fn set_second(&self, value: u32) {
        self.probe.swap(value, Ordering::Relaxed);
        // SAFETY: as above.
        self.b.with_mut(|b| unsafe { *b = value });
    }

    /// Reads the data, for a holder of the lock for reading.
    fn look(&self) {
        self.probe.load(Ordering::Relaxed);
        self.check();
    }

    fn check(&self) {
        let (a, b) = self.read();
        assert_eq!(a, b, "a change half made, and no poison");
    }

    /// Changes the data, for a holder of the lock for writing.
    fn change(&self) {
        self.probe.swap(0, Ordering::Relaxed);
        self.check();
        let next = self.read().0 + 1;
        self.set_first(next);
        self.set_second(next);
    }
}

/// Attaches the first handles, each as a process of its own: the slots from 0 on, in this order.
fn attach(handles: &[Arc<Segment>], count: usize) {
    handles[..count].iter().enumerate().for_each(|(slot, handle)| attach_as(handle, slot));
}

/// Attaches a handle, as the process and with the slot of that number.
fn attach_as(segment: &Segment, slot: usize) {
    model::become_process(slot, None);
    if slot < MODEL_SLOTS {
        assert_eq!(segment.participant("model").unwrap().slot(), slot);
    } else {
        // The model has tokens for its first slots only.
        let tokens = LivenessTokens::new(segment.map.object(), &segment.header.id).unwrap();
        let participant = AttachedParticipant::new(tokens, segment.lock.readers().slot_handle(slot).unwrap());
        assert!(segment.participant.set(participant).is_ok());
        segment.lock.readers().set_occupied(slot, true).unwrap();
    }
}

/// The slot of an attached handle.
fn slot_of(segment: &Segment) -> usize {
    segment.participant.get().unwrap().slot()
}

/// As that handle's participant, clears another slot if its participant is dead. Returns whether it
/// was.
fn reap(segment: &Segment, slot: usize) -> bool {
    participants::reap(segment, segment.participant.get().unwrap(), slot).unwrap()
}

fn lock_write(segment: &Segment, until: Deadline) -> Result<(WriteLock<'_, RegionState>, Acquired)> {
    WriteLock::lock(segment, || until, "model", |outcome| outcome)
}

fn lock_read(segment: &Segment, until: Deadline) -> Result<(ReadLock<'_, RegionState>, Acquired)> {
    ReadLock::lock(segment, || until, "model", |outcome| outcome)
}

/// Takes the write lock, changes the data, and gives it up.
fn write(segment: &Segment, data: &Data) {
    let (_lock, acquired) = lock_write(segment, Deadline::Never).unwrap();
    assert!(!acquired.poisoned);
    data.change();
}

/// Takes a read lock, looks at the data, and gives it up.
fn read(segment: &Segment, data: &Data) {
    let (_lock, acquired) = lock_read(segment, Deadline::Never).unwrap();
    assert!(!acquired.poisoned);
    data.look();
}

/// A thread of the process of that number.
fn process(segment: &Arc<Segment>, number: usize, body: impl FnOnce(&Segment) + 'static) -> JoinHandle<()> {
    let segment = Arc::clone(segment);
    loom::thread::spawn(move || {
        model::become_process(number, None);
        body(&segment);
    })
}
