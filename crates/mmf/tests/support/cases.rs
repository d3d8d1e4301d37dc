//! Mappings of every source, and the ways in which tests open them.

use std::fs;
use std::path::PathBuf;

use mmf::{
    Access, ErrorKind, FaultPolicy, Mapping, MappingOptions, Name, OwnedHandle, Result, Scope, Source, page_size,
};
use testkit::{TempDir, unique_name};

use super::remote::Remote;

/// The sources that a mapping can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Global,
    Exact,
    File,
    /// Without a name; the view is the mapping that created it.
    Anonymous,
    /// Without a name; the view is opened through a handle that was passed on.
    Passed,
}

impl Kind {
    /// Returns the kinds that this machine allows: on Windows, `Global` needs a privilege.
    pub(crate) fn all() -> Vec<Kind> {
        let mut kinds = vec![Kind::Local, Kind::Exact, Kind::File, Kind::Anonymous, Kind::Passed];
        match Mapping::create_new(Name::global(unique_name("allowed")).unwrap(), 1) {
            Ok(_) => kinds.push(Kind::Global),
            Err(error) => assert!(cfg!(windows) && *error.kind() == ErrorKind::PermissionDenied, "{error}"),
        }
        kinds
    }

    fn scope(self) -> Option<Scope> {
        match self {
            Kind::Local => Some(Scope::Local),
            Kind::Global => Some(Scope::Global),
            Kind::Exact => Some(Scope::Exact),
            Kind::File | Kind::Anonymous | Kind::Passed => None,
        }
    }

    /// Returns an unused source of this kind, and the directory that must outlive it.
    pub(crate) fn fresh(self) -> Option<(Source, Option<TempDir>)> {
        match self.scope() {
            Some(Scope::Exact) => Some((fresh_exact().into(), None)),
            Some(scope) => Some((Name::new(scope, unique_name("story")).unwrap().into(), None)),
            None if self == Kind::File => {
                let dir = TempDir::new();
                Some((dir.join("file").into(), Some(dir)))
            }
            None => None,
        }
    }

    /// Returns the length of an object of `size` bytes: Windows rounds memory up to whole pages.
    pub(crate) fn length(self, size: usize) -> usize {
        if cfg!(windows) && self != Kind::File { size.next_multiple_of(page_size()) } else { size }
    }
}

/// Returns an unused exact name, as this system spells them.
pub(crate) fn fresh_exact() -> Name {
    let text = unique_name("exact");
    Name::exact(if cfg!(windows) { format!("Local\\{text}") } else { format!("/{text}") }).unwrap()
}

/// One way to open an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) part: Option<(u64, u64)>,
    pub(crate) policy: FaultPolicy,
    pub(crate) access: Access,
}

pub(crate) const POLICIES: [FaultPolicy; 3] = [FaultPolicy::Trap, FaultPolicy::SystemCalls, FaultPolicy::Unguarded];

impl Case {
    /// Returns every source, whole and in part, under every policy, for reading and writing. Parts
    /// need [`size`](Case::size) bytes.
    pub(crate) fn all() -> Vec<Case> {
        let page = page_size() as u64;
        let parts = [None, Some((page + 13, 3 * page + 700)), Some((7, 2 * page + 8))];
        let mut cases = Vec::new();
        for kind in Kind::all() {
            for part in parts {
                for policy in POLICIES {
                    cases.push(Case { kind, part, policy, access: Access::ReadWrite });
                }
            }
        }
        cases
    }

    /// Returns a size that is no multiple of a page.
    pub(crate) fn size() -> usize {
        4 * page_size() + 1000
    }

    pub(crate) fn options(&self) -> MappingOptions {
        let options = Mapping::options().access(self.access).fault_policy(self.policy);
        match self.part {
            Some((from, to)) => options.part(from..to),
            None => options,
        }
    }

    pub(crate) fn make(self) -> Made {
        self.make_with(Case::size(), Mapping::options())
    }

    /// Creates an object of this size with the options `creation`, and opens it as the case asks.
    pub(crate) fn make_with(self, size: usize, creation: MappingOptions) -> Made {
        let creation = creation.size(size as u64);
        let inheritable = creation.clone().inheritable(true);
        let fresh = self.kind.fresh();
        let made = (|| match &fresh {
            Some((source, _)) => Ok((creation.create_new(source)?, self.options().open(source)?)),
            None if self.kind == Kind::Anonymous => {
                let view = self.options().size(size as u64).inheritable(true).anonymous()?;
                Ok((Mapping::options().from_handle(copied(&view))?, view))
            }
            None => {
                let whole = inheritable.anonymous()?;
                let view = self.options().from_handle(copied(&whole))?;
                Ok((whole, view))
            }
        })();
        let (whole, view) = made.unwrap_or_else(|error: mmf::Error| panic!("{self:?}: {error}"));
        let (source, dir) = fresh.map_or((None, None), |(source, dir)| (Some(source), dir));
        Made { whole, view, case: self, source, _dir: dir }
    }
}

/// Duplicates the handle of an object.
pub(crate) fn copied(map: &Mapping) -> OwnedHandle {
    map.handle().try_clone_to_owned().unwrap()
}

/// An object, and the mapping of it that is under test.
#[derive(Debug)]
pub(crate) struct Made {
    /// A mapping of the whole object.
    pub(crate) whole: Mapping,
    /// The mapping that the case asks for.
    pub(crate) view: Mapping,
    pub(crate) case: Case,
    source: Option<Source>,
    // After the mappings: Windows removes no file that is mapped.
    _dir: Option<TempDir>,
}

impl Made {
    /// Returns the offset of the view in the object.
    pub(crate) fn from(&self) -> usize {
        self.case.part.map_or(0, |(from, _)| usize::try_from(from).unwrap())
    }

    /// Starts another process, which opens the same bytes in the same way.
    pub(crate) fn remote(&self) -> Remote {
        Remote::open(&self.address(), &self.case)
    }

    /// Reads the bytes from the file, or returns `None` if the object is no file.
    pub(crate) fn file_bytes(&self) -> Option<Vec<u8>> {
        match &self.source {
            Some(Source::File(path)) => Some(fs::read(path).unwrap()),
            _ => None,
        }
    }

    /// Reads all bytes of the object through its other mapping.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.whole.read_to_vec(0, self.whole.len()).unwrap()
    }

    /// Returns the address by which another process opens the object.
    pub(crate) fn address(&self) -> String {
        match &self.source {
            Some(source) => source.to_string(),
            // The view is the inheritable mapping.
            None if self.case.kind == Kind::Anonymous => format!("handle:{}", raw(&self.view)),
            None => format!("handle:{}", raw(&self.whole)),
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(Source::Named(name)) = &self.source {
            // Other systems remove the name with the last handle.
            if name.scope() == Scope::Exact && cfg!(unix) {
                let _ = name.unlink();
            }
        }
    }
}

/// Parses what [`Made::address`] and [`Source`] display as; `None` for a handle.
pub(crate) fn source_of(address: &str) -> Option<Source> {
    let (prefix, rest) = address.split_once(':').unwrap();
    match prefix {
        "name" => Some(Name::local(rest).unwrap().into()),
        "global" => Some(Name::global(rest).unwrap().into()),
        "exact" => Some(Name::exact(rest).unwrap().into()),
        "file" => Some(PathBuf::from(rest).into()),
        _ => None,
    }
}

#[cfg(unix)]
fn raw(map: &Mapping) -> usize {
    usize::try_from(std::os::fd::AsRawFd::as_raw_fd(&map.handle())).unwrap()
}

#[cfg(windows)]
fn raw(map: &Mapping) -> usize {
    std::os::windows::io::AsRawHandle::as_raw_handle(&map.handle()).addr()
}

/// Takes over the handle that was inherited under this number.
pub(crate) fn inherited(number: &str) -> OwnedHandle {
    let number: usize = number.parse().unwrap();
    #[cfg(unix)]
    // SAFETY: the parent left this descriptor open for this process. No other code here uses it.
    let handle = unsafe { std::os::fd::FromRawFd::from_raw_fd(i32::try_from(number).unwrap()) };
    #[cfg(windows)]
    // SAFETY: as above, for a handle.
    let handle =
        unsafe { std::os::windows::io::FromRawHandle::from_raw_handle(std::ptr::without_provenance_mut(number)) };
    handle
}

/// Returns bytes that differ from their neighbours, from page to page, and between seeds.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(seed).wrapping_mul(0x2545_f491_4f6c_dd1d);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Returns the kind of the error that this result must be.
#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("it was to fail").kind().clone()
}

/// Fails unless the error's text holds all these parts.
#[track_caller]
pub(crate) fn assert_tells(error: &mmf::Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
