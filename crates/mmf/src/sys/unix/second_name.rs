//! Detects whether a further link of an object's file belongs to the object's creator.
//!
//! Some file systems have neither files without names nor a rename that refuses to replace. There,
//! a creator links its file to the object's name, and then removes the temporary name
//! ([`UnpublishedFile::publish`](super::create::UnpublishedFile::publish)). Between these two calls
//! the file has two links, and a process that opens the object waits. A file with any other further
//! link is not an object (see [`super::remove`]), and an opener refuses it at once.
//!
//! Another user can give a link a temporary name too. The owner of the file and root remove such a
//! name, since a creator that has published its file needs it no more. Any other user waits for up
//! to the time of [`BusyRetry`](super::liveness::BusyRetry), 1 s.

use std::os::fd::AsFd;

use rustix::fs::{Dir, Stat};

use super::namespace_dir::{Identity, NamespaceDir, is_temporary};
use super::remove::{discard, is_own};
use super::system;
use crate::error::Result;

/// Number of directory entries searched for a temporary name.
const SEARCHED: usize = 1 << 14;

/// The result of a search for a temporary name.
#[derive(Debug, PartialEq, Eq)]
enum Search {
    Found(String),
    NotThere,
    /// The directory has more than [`SEARCHED`] entries.
    Unknown,
}

/// Returns whether an opener has to wait for the creator of `file_name`, whose file is open as `fd`
/// and has further links by `stat`. Returns `false` if another process made one of the links.
pub(super) fn is_its_creators(dir: &NamespaceDir, file_name: &str, fd: impl AsFd, stat: &Stat) -> Result<bool> {
    match search(dir, file_name, Identity::of(stat))? {
        Search::Found(temporary) => {
            if is_own(stat) || rustix::process::geteuid().is_root() {
                // The creator may have removed it in the meantime.
                let _ = discard(dir, &temporary, Identity::of(stat));
            }
            Ok(true)
        }
        Search::Unknown => Ok(true),
        // A creator that removed its temporary name before the search leaves one link.
        Search::NotThere => Ok(rustix::fs::fstat(fd).map_err(system("open"))?.st_nlink <= 1),
    }
}

fn search(dir: &NamespaceDir, file_name: &str, identity: Identity) -> Result<Search> {
    for (nth, entry) in Dir::read_from(&dir.fd).map_err(system("open"))?.enumerate() {
        let entry = entry.map_err(system("open"))?;
        if nth == SEARCHED {
            return Ok(Search::Unknown);
        }
        let Ok(name) = entry.file_name().to_str() else { continue };
        if is_temporary(name) && name != file_name && dir.holds(name, identity) {
            return Ok(Search::Found(name.to_owned()));
        }
    }
    Ok(Search::NotThere)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use rustix::fs::AtFlags;

    use super::super::liveness::on_wait;
    use super::super::named::{create, open};
    use super::super::namespace_dir::{IfMissing, TEMPORARY, file_name};
    use super::super::object::Object;
    use super::*;
    use crate::error::ErrorKind;
    use crate::name::{Name, Scope};
    use crate::types::Spec;

    fn object(text: &str) -> (Name, String, NamespaceDir, Object) {
        let name = Name::local(format!("second name {text} {}", std::process::id())).unwrap();
        let object = create(&name, &Spec { size: Some(100), ..Spec::default() }).unwrap();
        (name.clone(), file_name(&name), NamespaceDir::open(Scope::Local, IfMissing::Report).unwrap(), object)
    }

    fn link(dir: &NamespaceDir, from: &str, to: &str) {
        rustix::fs::linkat(&dir.fd, from, &dir.fd, to, AtFlags::empty()).unwrap();
    }

    /// Counts the waits of this thread's openers from this call on.
    fn count_waits() -> Rc<Cell<u32>> {
        let waits = Rc::new(Cell::new(0));
        let counted = Rc::clone(&waits);
        on_wait(Some(Box::new(move || counted.set(counted.get() + 1))));
        waits
    }

    #[test]
    fn a_foreign_link_is_refused_without_waiting_for_a_creator() {
        let (name, file, dir, object) = object("foreign");
        let second = format!("foreign-{}", std::process::id());
        link(&dir, &file, &second);
        let waits = count_waits();
        for _ in 0..3 {
            let error = open(&name, &Spec::default()).err().unwrap();
            assert!(matches!(error.kind(), ErrorKind::HardLinked { links: 2 }), "{error}");
        }
        assert_eq!(waits.get(), 0);
        rustix::fs::unlinkat(&dir.fd, &*second, AtFlags::empty()).unwrap();
        drop(open(&name, &Spec::default()).unwrap());
        assert_eq!(waits.get(), 0);
        drop(object);
    }

    #[test]
    fn a_creator_that_has_not_removed_its_temporary_name_yet_is_no_reason_to_refuse_its_object() {
        let (name, file, dir, object) = object("creator");
        let temporary = format!("{TEMPORARY}{}-second-name", std::process::id());
        link(&dir, &file, &temporary);
        let identity = Identity::of(&dir.stat_of(&file).unwrap());
        assert_eq!(search(&dir, &file, identity).unwrap(), Search::Found(temporary.clone()));
        assert_eq!(search(&dir, &temporary, identity).unwrap(), Search::NotThere);
        let waits = count_waits();
        // The owner removes that name, and does not wait for a stopped creator.
        drop(open(&name, &Spec::default()).unwrap());
        assert_eq!(waits.get(), 1);
        assert!(dir.stat_of(&temporary).is_none());
        // With a foreign link beside it, an opener still refuses the file.
        let second = format!("foreign-creator-{}", std::process::id());
        link(&dir, &file, &second);
        link(&dir, &file, &temporary);
        let error = open(&name, &Spec::default()).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::HardLinked { links: 2 }), "{error}");
        rustix::fs::unlinkat(&dir.fd, &*second, AtFlags::empty()).unwrap();
        drop(object);
        assert!(dir.stat_of(&file).is_none() && dir.stat_of(&temporary).is_none());
    }

    #[test]
    fn a_link_that_is_gone_after_the_search_was_the_creators() {
        let (_, file, dir, object) = object("gone");
        let second = format!("gone-{}", std::process::id());
        link(&dir, &file, &second);
        let stat = dir.stat_of(&file).unwrap();
        let look =
            rustix::fs::openat(&dir.fd, &*file, super::super::liveness::SAFE_OPEN, rustix::fs::Mode::empty()).unwrap();
        assert!(!is_its_creators(&dir, &file, &look, &stat).unwrap());
        rustix::fs::unlinkat(&dir.fd, &*second, AtFlags::empty()).unwrap();
        assert!(is_its_creators(&dir, &file, &look, &stat).unwrap());
        drop(object);
    }
}
