//! For tests: every store to a mapping and every sync of it by this thread, in their order.

use std::cell::RefCell;
use std::ops::Range;

/// What was done.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Stored { offset: usize, bytes: Vec<u8> },
    Synced(Range<usize>),
}

/// A copy may be seen half done; it counts as stores of so many bytes.
const PART: usize = 64;

thread_local! {
    static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
}

/// From now on all is kept.
pub(crate) fn start() {
    EVENTS.with(|events| *events.borrow_mut() = Some(Vec::new()));
}

/// How much has been kept so far.
pub(crate) fn len() -> usize {
    EVENTS.with(|events| events.borrow().as_ref().map_or(0, Vec::len))
}

/// Gives what was kept.
pub(crate) fn stop() -> Vec<Event> {
    EVENTS.with(|events| events.borrow_mut().take().unwrap_or_default())
}

pub(super) fn stored(offset: usize, bytes: &[u8]) {
    EVENTS.with(|events| {
        if let Some(events) = &mut *events.borrow_mut() {
            for (nth, bytes) in bytes.chunks(PART).enumerate() {
                events.push(Event::Stored { offset: offset + PART * nth, bytes: bytes.to_vec() });
            }
        }
    });
}

pub(super) fn synced(range: Range<usize>) {
    EVENTS.with(|events| {
        if let Some(events) = &mut *events.borrow_mut() {
            events.push(Event::Synced(range));
        }
    });
}
