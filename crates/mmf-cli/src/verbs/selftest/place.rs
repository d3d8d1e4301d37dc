//! Names and files of this run, which are removed afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mmf::{Name, Scope};

use super::Verdict;
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::system;

pub(super) struct Place(Arc<Leftovers>);

struct Leftovers {
    unique: String,
    dir: PathBuf,
}

impl Place {
    pub(super) fn new() -> Result<Place> {
        let unique = format!("mmf-selftest-{}", std::process::id());
        let dir = std::env::temp_dir().join(&unique);
        match std::fs::create_dir(&dir) {
            Ok(()) => Ok(Place(Arc::new(Leftovers { unique, dir }))),
            Err(error) => Err(Failure::io("create", dir.display(), error)),
        }
    }

    /// Ends the program on Ctrl-C as the shell expects it, but not before cleaning up.
    pub(super) fn clean_up_on_interrupt(&self) -> Result<()> {
        let leftovers = Arc::clone(&self.0);
        system::on_interrupt(move |_| {
            leftovers.remove();
            std::process::exit(INTERRUPTED);
        })
        .map_err(|error| Failure::io("listen for", "interrupts", error))
    }

    pub(super) fn name(&self, scope: Scope, purpose: &str) -> Verdict<Name> {
        Ok(Name::new(scope, format!("{}-{purpose}", self.0.unique))?)
    }

    /// The one exact name of a run: where the system keeps such names, it must be known what to
    /// remove.
    pub(super) fn exact(&self) -> Verdict<Name> {
        Ok(self.0.exact()?)
    }

    pub(super) fn file(&self, purpose: &str) -> PathBuf {
        Path::join(&self.0.dir, purpose)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Leftovers {
    fn exact(&self) -> mmf::Result<Name> {
        Name::exact(system::exact_name(&self.unique))
    }

    /// Errors are ignored: an object may be gone already, and nothing else can be done for the
    /// others.
    fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.dir);
        let _ = self.exact().and_then(|name| name.unlink());
    }
}
