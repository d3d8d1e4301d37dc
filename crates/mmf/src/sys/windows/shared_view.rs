//! One view of a section for many ends: to map is the dearest part of opening memory, and so is done once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::view::Mapped;
use crate::error::Result;
use crate::types::Access;

/// The view from a section's start on, with its access, by which it is made, measured and grown, and which those have who
/// map it.
pub(super) struct SharedView(Mutex<State>);

enum State {
    Wanted,
    Here(Arc<Mapped>),
    /// It would be of no use, or in the way.
    Never,
}

impl SharedView {
    pub(super) fn new(access: Access) -> SharedView {
        // What this process has copied on write tells nothing about the section.
        SharedView(Mutex::new(if access == Access::CopyOnWrite { State::Never } else { State::Wanted }))
    }

    pub(super) fn of(view: Arc<Mapped>) -> SharedView {
        SharedView(Mutex::new(State::Here(view)))
    }

    /// The view, mapped now if it is wanted; of any length.
    pub(super) fn get(&self, map: impl FnOnce() -> Result<Mapped>) -> Result<Option<Arc<Mapped>>> {
        let mut state = self.state();
        if matches!(*state, State::Wanted) {
            *state = State::Here(Arc::new(map()?));
        }
        Ok(match &*state {
            State::Here(view) => Some(view.clone()),
            State::Wanted | State::Never => None,
        })
    }

    /// A view of `len` bytes at least: the one that is there if it is, and not so much longer as to matter, or else a new one.
    pub(super) fn of_len(
        &self,
        len: usize,
        granule: usize,
        map: impl FnOnce() -> Result<Mapped>,
    ) -> Result<Arc<Mapped>> {
        // What it is too long costs addresses, of which only a process of 64 bits has enough.
        let most = if usize::BITS == 64 { usize::MAX } else { len.saturating_add(granule) };
        let mut state = self.state();
        if let State::Here(view) = &*state {
            if (len..=most).contains(&view.len()) {
                return Ok(view.clone());
            }
        }
        // Given up before another is mapped, which it may leave no room for.
        *state = State::Never;
        let view = Arc::new(map()?);
        *state = State::Here(view.clone());
        Ok(view)
    }

    /// Gives up the view, unless somebody else has it: it may lie where another is to be.
    pub(super) fn give_up(&self) {
        *self.state() = State::Never;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No panic leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
