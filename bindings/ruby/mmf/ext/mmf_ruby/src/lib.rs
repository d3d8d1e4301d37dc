//! What Ruby needs of `mmf`: a class for each of its types, which `lib/mmf` gives its manners.

#![allow(missing_docs, reason = "all that is public is what `init` makes for Ruby")]

mod attribute;
mod changes;
mod dict;
mod error;
mod guard;
mod key;
mod mapping;
mod options;
mod region;
mod transaction;
mod value;

use magnus::{Error, RModule, RString, Ruby, prelude::*};

/// A copy, since Ruby may move or change the string while somebody waits without its lock.
fn bytes(text: RString) -> Vec<u8> {
    // SAFETY: nothing here changes or frees the string while it is copied.
    unsafe { text.as_slice() }.to_vec()
}

fn module(ruby: &Ruby) -> Result<RModule, Error> {
    ruby.class_object().const_get("Mmf")
}

#[magnus::init]
fn init(ruby: &Ruby) -> Result<(), Error> {
    let module = module(ruby)?;
    mapping::define(ruby, module)?;
    region::define(ruby, module)?;
    guard::define(ruby, module)?;
    dict::define(ruby, module)
}
