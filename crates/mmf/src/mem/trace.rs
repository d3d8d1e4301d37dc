//! The traced form, in tests: records every store to a mapping and every sync of it by this thread,
//! in their order, and makes syncs fail.

use std::cell::RefCell;
use std::io;
use std::ops::Range;

use crate::error::{Error, Result};

/// A recorded operation.
#[derive(Clone, Debug)]
pub(crate) enum TraceEvent {
    Stored {
        offset: usize,
        bytes: Vec<u8>,
    },
    Synced(Range<usize>),
    /// A sync failed. For each dirty page: the bytes that the disk has, and whether memory has them
    /// from then on.
    Failed(Vec<RevertedPage>),
}

/// A page that the system marks clean although its write failed.
#[derive(Clone, Debug)]
pub(crate) struct RevertedPage {
    pub(crate) offset: usize,
    pub(crate) on_disk: Vec<u8>,
    /// Whether the system has dropped the page, and read it from the disk again.
    pub(crate) was_read_again: bool,
}

/// Decides for each sync whether it fails, from the operations before it.
pub(crate) type SyncFailureHook = Box<dyn FnMut(&[TraceEvent]) -> Option<Vec<RevertedPage>>>;

/// The size of the stores that a copy is recorded as, since a power cut may leave a part of it.
const STORE_CHUNK: usize = 64;

thread_local! {
    static EVENTS: RefCell<Option<Vec<TraceEvent>>> = const { RefCell::new(None) };
    static DISK: RefCell<Option<SyncFailureHook>> = const { RefCell::new(None) };
}

/// Starts to record the operations of this thread.
pub(crate) fn start() {
    EVENTS.with(|events| *events.borrow_mut() = Some(Vec::new()));
}

/// Sets the hook that decides which syncs of this thread fail.
pub(crate) fn set_disk(disk: Option<SyncFailureHook>) {
    DISK.with(|place| *place.borrow_mut() = disk);
}

/// Returns the number of recorded operations.
pub(crate) fn len() -> usize {
    EVENTS.with(|events| events.borrow().as_ref().map_or(0, Vec::len))
}

/// Stops recording, and returns the recorded operations.
pub(crate) fn stop() -> Vec<TraceEvent> {
    EVENTS.with(|events| events.borrow_mut().take().unwrap_or_default())
}

/// Records words that were stored one by one.
pub(super) fn words(offset: usize, words: &[u64]) {
    words.iter().zip(0..).for_each(|(word, nth)| stored(offset + 8 * nth, &word.to_le_bytes()));
}

/// Records the first `done` of pairs of an offset and a word.
pub(super) fn pairs(pairs: &[[u64; 2]], done: usize) {
    for [offset, word] in &pairs[..done] {
        words(usize::try_from(*offset).unwrap(), &[*word]);
    }
}

/// Records bytes that were copied or set.
pub(super) fn bytes(offset: usize, bytes: impl FnOnce() -> Vec<u8>) {
    if EVENTS.with(|events| events.borrow().is_some()) {
        stored(offset, &bytes());
    }
}

fn stored(offset: usize, bytes: &[u8]) {
    EVENTS.with(|events| {
        if let Some(events) = &mut *events.borrow_mut() {
            for (nth, bytes) in bytes.chunks(STORE_CHUNK).enumerate() {
                events.push(TraceEvent::Stored { offset: offset + STORE_CHUNK * nth, bytes: bytes.to_vec() });
            }
        }
    });
}

/// Runs `sync`, which syncs the range, and records its success. If the hook decides that this sync
/// fails, returns an error in its place.
pub(crate) fn sync(range: Range<usize>, sync: impl FnOnce() -> Result<()>) -> Result<()> {
    before_sync()?;
    sync()?;
    EVENTS.with(|events| {
        if let Some(events) = &mut *events.borrow_mut() {
            events.push(TraceEvent::Synced(range));
        }
    });
    Ok(())
}

/// Returns an error if the hook decides that the next sync fails.
fn before_sync() -> Result<()> {
    let lost = DISK.with(|disk| {
        let mut disk = disk.borrow_mut();
        let disk = disk.as_mut()?;
        EVENTS.with(|events| disk(events.borrow().as_deref().unwrap_or_default()))
    });
    let Some(lost) = lost else { return Ok(()) };
    EVENTS.with(|events| {
        if let Some(events) = &mut *events.borrow_mut() {
            events.push(TraceEvent::Failed(lost));
        }
    });
    Err(Error::system("sync", io::Error::other("a disk that fails, for a test")))
}
