//! What loom's models run on: shared words, a parker, liveness tokens and a clock, whose every
//! order of events loom goes through; and processes that die at a given step.
//!
//! A process is one of loom's threads, or several with the same number. A *step* is what others can
//! see: a change of a word, a call for a token, an unpark. From the step at which a process dies on
//! nothing it does has any effect, and its loads fail, so that its code comes to an end.
//! [`end_process`] then gives back its tokens, as the system does.
//!
//! Time is each thread's own, since loom does not know that a clock that all share makes them depend on each other: it moves
//! by the bound of each sleep. A thread's first sleeps, as many as the model says, end at their bounds, however little others
//! do meanwhile. Later ones have none, so that a lost wake-up is a deadlock, which loom finds; but after each burial the count
//! begins anew, since a dead process wakes nobody.

pub(crate) mod dict_memory;
mod liveness_token;
mod lock_uses;
mod lock_words;
pub(crate) mod memory;
mod parker;

pub(crate) use loom::sync::atomic::fence;

pub(crate) use liveness_token::LivenessTokens;
pub(crate) use lock_uses::{check_of_lock, use_lock, uses_of_lock};
pub(crate) use lock_words::peek;
pub(crate) use parker::{ParkToken, Parker};

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::guard::Fault;

/// Whether this is loom's.
pub(crate) const IS_MODEL: bool = true;

/// How those who sleep are woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParkerKind {
    /// All who sleep on the word, if it is still as they knew it: as `futex` does.
    Futex,
    /// The threads of a slot, by an event that remembers one wake-up: as on Windows.
    Event,
}

/// What a load may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loads {
    /// Whatever the orderings allow.
    Old,
    /// What is there, as an exchange does, but for words that are stored to without one: loom would take what a load puts back
    /// for a store of its own, in no order with others. Loom forgets the loads of other threads behind a load of the same thread, and so does
    /// not try all orders with what comes after; exchanges it keeps apart.
    Latest,
}

/// Slots that a model has.
pub(crate) const MODEL_SLOTS: usize = 4;

/// What a model runs on.
pub(crate) struct ModelConfig {
    /// Where each handle has the shared memory.
    pub(crate) bases: Vec<usize>,
    /// How much of it, from each base on, has words.
    pub(crate) shared_len: usize,
    /// The words that may change: their offsets and widths in bytes. All others are as the mapping has them.
    pub(crate) words: Vec<(usize, usize)>,
    /// Those of them that are stored to without an exchange.
    pub(crate) stored_to: Vec<usize>,
    /// Those of them that are slept on.
    pub(crate) slept_on: Vec<usize>,
    pub(crate) parker: ParkerKind,
    pub(crate) loads: Loads,
    /// Whether an exchange has a fence behind it. Without, it hands on only what its word does.
    pub(crate) fences: bool,
    /// What lies behind the header, where a model uses it.
    pub(crate) memory: Option<dict_memory::DictMemory>,
    /// How many of a thread's sleeps end at their bounds.
    pub(crate) timeouts: u32,
    /// Whether threads tell which locks they use. Without, no handle checks what it holds.
    pub(crate) uses: bool,
}

/// The shared things of one run of a model.
struct ModelState {
    words: lock_words::State,
    parker: parker::State,
    tokens: liveness_token::State,
    memory: Option<dict_memory::State>,
    uses: Option<lock_uses::State>,
    timeouts: u32,
}

thread_local! {
    // All of loom's threads run on one of the system's.
    static MODEL_STATE: RefCell<Option<Rc<ModelState>>> = const { RefCell::new(None) };
    /// A bit for each process that died at a step.
    static DEAD_PROCESSES: Cell<usize> = const { Cell::new(0) };
}

/// One thread's part.
#[derive(Default)]
struct ThreadState {
    process: Cell<usize>,
    /// Whose event it sleeps on.
    slot: Cell<usize>,
    /// Steps until it dies.
    left: Cell<Option<u32>>,
    dead: Cell<bool>,
    time: Cell<Duration>,
    /// Sleeps since time was last told to pass, and how often it was.
    sleeps: Cell<u32>,
    lapses: Cell<u32>,
    /// Where it tells which locks it uses.
    record: Cell<Option<usize>>,
}

loom::thread_local! {
    static THREAD_STATE: ThreadState = ThreadState::default();
}

/// Begins a run.
pub(crate) fn begin(config: &ModelConfig) {
    let model_state = ModelState {
        words: lock_words::State::new(config),
        parker: parker::State::new(config),
        tokens: liveness_token::State::default(),
        memory: config.memory.as_ref().map(dict_memory::State::new),
        uses: config.uses.then(lock_uses::State::default),
        timeouts: config.timeouts,
    };
    MODEL_STATE.with(|cell| cell.replace(Some(Rc::new(model_state))));
}

/// Ends the run, while loom still knows of it.
pub(crate) fn end() {
    MODEL_STATE.with(|cell| cell.replace(None));
}

fn model_state() -> Rc<ModelState> {
    try_model_state().expect("a model begins with `begin`")
}

/// `None` where no run is under way.
fn try_model_state() -> Option<Rc<ModelState>> {
    MODEL_STATE.with(|model_state| model_state.borrow().clone())
}

fn me<R>(ask: impl FnOnce(&ThreadState) -> R) -> R {
    THREAD_STATE.with(ask)
}

/// This thread is one of that process from now on, which has the slot of that number unless it takes another, and dies at its
/// step `dies_at`, counted from 1.
pub(crate) fn become_process(number: usize, dies_at: Option<u32>) {
    me(|me| {
        me.process.set(number);
        me.slot.set(number);
        me.left.set(dies_at);
        me.dead.set(false);
    });
}

pub(crate) fn is_dead() -> bool {
    me(|me| me.dead.get())
}

/// Whether that process died at a step, in any run since somebody asked.
pub(crate) fn has_died(process: usize) -> bool {
    DEAD_PROCESSES.take() >> process & 1 != 0
}

/// The system gives back what this thread's process had.
pub(crate) fn end_process() {
    me(|me| me.dead.set(true));
    liveness_token::release_all(me(|me| me.process.get()));
    time_passes();
}

/// From now on a stranger keeps the tokens of the dead from being had exclusively, so that reapers share them.
pub(crate) fn share_tokens() {
    model_state().tokens.share();
}

/// More time than any sleep takes.
pub(crate) fn time_passes() {
    model_state().parker.lapse();
}

/// Before something that others can see.
pub(crate) fn step() -> Result<(), Fault> {
    me(|me| {
        if me.left.get() == Some(1) {
            me.dead.set(true);
            DEAD_PROCESSES.set(DEAD_PROCESSES.get() | 1 << me.process.get());
        }
        me.left.set(me.left.get().map(|left| left.saturating_sub(1)));
    });
    step_unseen()
}

/// Before something that others cannot see.
fn step_unseen() -> Result<(), Fault> {
    if is_dead() { Err(Fault) } else { Ok(()) }
}

pub(crate) fn now() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now) + me(|me| me.time.get())
}
