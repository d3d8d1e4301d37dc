//! The traced form, in tests: records every store to a mapping and every sync of it by this thread,
//! in their order; and makes syncs fail.

use std::cell::RefCell;
use std::io;
use std::ops::Range;

use crate::error::{Error, Result};

/// What was done.
#[derive(Clone, Debug)]
pub(crate) enum TraceEvent {
    Stored {
        offset: usize,
        bytes: Vec<u8>,
    },
    Synced(Range<usize>),
    /// A sync failed. Of each page that was dirty: what the disk has of it, and whether memory has
    /// the same from then on.
    Failed(Vec<RevertedPage>),
}

/// A page that the system takes for clean although its write failed.
#[derive(Clone, Debug)]
pub(crate) struct RevertedPage {
    pub(crate) offset: usize,
    pub(crate) on_disk: Vec<u8>,
    /// The system has dropped the page, and read it from the disk again.
    pub(crate) was_read_again: bool,
}

/// Decides of each sync, from what was done before it, whether it fails.
pub(crate) type SyncFailureHook = Box<dyn FnMut(&[TraceEvent]) -> Option<Vec<RevertedPage>>>;

/// A copy may be seen half done; it counts as stores of so many bytes.
const STORE_CHUNK: usize = 64;

thread_local! {
    static EVENTS: RefCell<Option<Vec<TraceEvent>>> = const { RefCell::new(None) };
    static DISK: RefCell<Option<SyncFailureHook>> = const { RefCell::new(None) };
}

/// From now on all is kept.
pub(crate) fn start() {
    EVENTS.with(|events| *events.borrow_mut() = Some(Vec::new()));
}

/// From now on the disk decides which syncs of this thread fail.
pub(crate) fn set_disk(disk: Option<SyncFailureHook>) {
    DISK.with(|place| *place.borrow_mut() = disk);
}

/// How much has been kept so far.
pub(crate) fn len() -> usize {
    EVENTS.with(|events| events.borrow().as_ref().map_or(0, Vec::len))
}

/// Gives what was kept.
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

/// Runs `sync`, which syncs the range, and records that it succeeded; or fails in its place where
/// the disk has the next sync fail.
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

/// Fails where the disk has the next sync fail.
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
