//! `Mmf::Dict::Changes`: what a dict tells those who watch it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use magnus::{Error, IntoValue, RClass, Ruby, Value, method, prelude::*};
use mmf::{Change, Changes, Dict, Watched};

use crate::error;
use crate::options::Deadline;

/// Changes as they come. Empty while some thread waits for the next.
#[magnus::wrap(class = "Mmf::Dict::Changes", free_immediately, size)]
pub(crate) struct RubyChanges(RefCell<Option<Watching>>);

struct Watching {
    changes: Changes<'static>,
    /// What the changes borrow from. It comes after them, and so is dropped after them.
    _dict: Arc<Dict>,
}

impl RubyChanges {
    pub(crate) fn watch(ruby: &Ruby, dict: Arc<Dict>, watched: Watched) -> Result<RubyChanges, Error> {
        // SAFETY: what borrows from the dict lies in `Watching` before the `Arc` that keeps it alive and in its place, and so is
        // dropped before it.
        let borrowed: &'static Dict = unsafe { &*Arc::as_ptr(&dict) };
        let changes = borrowed.watch(watched).map_err(|error| error::raise(ruby, error))?;
        Ok(RubyChanges(RefCell::new(Some(Watching { changes, _dict: dict }))))
    }

    /// What happened, the key, the version; nil when the time is over.
    fn next(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<Option<Value>, Error> {
        let Some(mut watching) = this.0.borrow_mut().take() else {
            return Err(error::new(ruby, "InvalidArgumentError", "another thread waits for the next change"));
        };
        let waited = mmf_gvl::wait(ruby, |cancel| {
            loop {
                match watching.changes.next_for(deadline.slice()) {
                    Ok(None) if deadline.is_over() => return Some(Ok(None)),
                    Ok(None) => {}
                    result => return Some(result),
                }
                if cancel.load(Ordering::Relaxed) {
                    return None;
                }
            }
        });
        *this.0.borrow_mut() = Some(watching);
        let change = waited?.map_err(|error| error::raise(ruby, error))?;
        let told = |what: &str, key: Option<String>, version: Option<u64>| {
            Some((ruby.to_symbol(what), key, version).into_value_with(ruby))
        };
        Ok(match change {
            None => None,
            Some(Change::Set { key, version }) => told("set", Some(key), Some(version)),
            Some(Change::Removed { key, version }) => told("removed", Some(key), Some(version)),
            Some(Change::Cleared { version }) => told("cleared", None, Some(version)),
            Some(_) => told("missed", None, None),
        })
    }
}

pub(crate) fn define(ruby: &Ruby, class: RClass) -> Result<(), Error> {
    let changes = class.define_class("Changes", ruby.class_object())?;
    changes.undef_default_alloc_func();
    changes.define_method("next", method!(RubyChanges::next, 1))?;
    Ok(())
}
