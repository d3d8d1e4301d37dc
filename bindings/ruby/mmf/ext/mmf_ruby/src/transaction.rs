//! The transactions and snapshots of `Mmf::Dict`: Ruby's block runs with Ruby's lock, and what
//! waits for the dict's lock runs without.

use std::sync::atomic::Ordering;

use magnus::error::{ErrorType, Tag};
use magnus::r_hash::ForEach;
use magnus::{Error, RClass, RHash, RString, Ruby, Value, method, prelude::*};
use mmf::Encoding;

use crate::dict::{RubyDict, attempt, is_taken};
use crate::error;
use crate::options::{Deadline, Patience};

impl RubyDict {
    /// `native_transaction(timeout, changes) { }`: the block fills `changes`, with keys that have
    /// their new value as `Dict.encode` gives it, or nil to be removed. They are made if it ends,
    /// also by `break` and `return`; not if it ends by an exception or `throw`.
    fn transaction(ruby: &Ruby, this: &Self, deadline: Deadline, changes: RHash) -> Result<Value, Error> {
        let dict = this.get(ruby)?;
        let process = std::process::id();
        let mut outcome = None;
        let done = mmf_gvl::wait(ruby, |cancel| {
            loop {
                let result = dict.transaction(|transaction| {
                    // SAFETY: this is the body of `wait`, and the only call in it.
                    let (result, steps) = unsafe { mmf_gvl::locked(ruby, |ruby| block(ruby, process, changes)) };
                    outcome = Some(result);
                    let Some(steps) = steps else {
                        transaction.abort();
                        return Ok(());
                    };
                    for (key, value) in steps {
                        match value {
                            Some(bytes) => transaction.set_encoded(&key, Encoding::MessagePack, &bytes)?,
                            None => drop(transaction.remove(&key)?),
                        }
                    }
                    Ok(())
                });
                match &result {
                    Err(error) if outcome.is_none() && is_taken(error) && !deadline.is_over() => {}
                    _ => return Some(result),
                }
                if cancel.load(Ordering::Relaxed) {
                    return None;
                }
            }
        })?;
        done.map_err(|error| error::raise(ruby, error))?;
        outcome.unwrap_or_else(|| Ok(ruby.qnil().as_value()))
    }

    /// `native_snapshot(timeout) { }`
    fn snapshot(ruby: &Ruby, this: &Self, patience: Patience) -> Result<Value, Error> {
        let dict = this.get(ruby)?;
        let mut outcome = None;
        attempt(ruby, &dict, patience.deadline(), |dict| {
            dict.snapshot(|_| {
                // SAFETY: this is the body of the `wait` in `attempt`, and the only call in it.
                outcome = Some(unsafe { mmf_gvl::locked(ruby, |ruby| ruby.yield_values::<(), Value>(())) });
                Ok(())
            })
        })?;
        outcome.unwrap_or_else(|| Ok(ruby.qnil().as_value()))
    }
}

type Steps = Vec<(String, Option<Vec<u8>>)>;

/// What the block gave, and what is to be changed then.
fn block(ruby: &Ruby, process: u32, changes: RHash) -> (Result<Value, Error>, Option<Steps>) {
    let result = ruby.yield_values::<(), Value>(());
    let is_kept = match &result {
        Ok(_) => true,
        Err(error) => matches!(error.error_type(), ErrorType::Jump(Tag::Break | Tag::Return)),
    };
    if !is_kept {
        return (result, None);
    }
    if std::process::id() != process {
        let text = "a forked child has left its parent's transaction";
        return (Err(error::new(ruby, "InvalidArgumentError", text)), None);
    }
    let mut steps = Vec::new();
    let collected = changes.foreach(|key: String, value: Option<RString>| {
        steps.push((key, value.map(crate::bytes)));
        Ok(ForEach::Continue)
    });
    match collected {
        Ok(()) => (result, Some(steps)),
        Err(error) => (Err(error), None),
    }
}

pub(crate) fn define(class: RClass) -> Result<(), Error> {
    class.define_method("native_transaction", method!(RubyDict::transaction, 2))?;
    class.define_method("native_snapshot", method!(RubyDict::snapshot, 1))
}
