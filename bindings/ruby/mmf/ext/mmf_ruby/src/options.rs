//! What Ruby asks for, in this library's words. The Ruby side has given every option a name and its default.

use std::time::{Duration, Instant};

use magnus::{Error, RHash, RString, Ruby, Symbol, TryConvert, Value};
use mmf::{Access, LargePages, Name, Permissions, Scope, Source};

use crate::error;

/// How an object is come by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It must exist.
    Open,
    /// It must not.
    Create,
    /// Either.
    Both,
}

impl TryConvert for How {
    fn try_convert(value: Value) -> Result<Self, Error> {
        Ok(match &*Symbol::try_convert(value)?.name()? {
            "create" => How::Create,
            "open_or_create" => How::Both,
            _ => How::Open,
        })
    }
}

/// The options of a call.
#[derive(Clone, Copy)]
pub(crate) struct Options(pub(crate) RHash);

impl Options {
    pub(crate) fn get<T: TryConvert>(self, ruby: &Ruby, name: &str) -> Result<Option<T>, Error> {
        self.0.lookup::<_, Option<T>>(ruby.to_symbol(name))
    }

    /// A name or a file; `None` where neither is given.
    pub(crate) fn source(self, ruby: &Ruby) -> Result<Option<Source>, Error> {
        for (option, scope) in [("name", Scope::Local), ("global", Scope::Global), ("exact", Scope::Exact)] {
            if let Some(name) = self.get::<String>(ruby, option)? {
                let name = Name::new(scope, name).map_err(|error| error::raise(ruby, error))?;
                return Ok(Some(name.into()));
            }
        }
        let path = self.get::<std::path::PathBuf>(ruby, "file")?;
        Ok(path.map(Source::from))
    }

    pub(crate) fn access(self, ruby: &Ruby) -> Result<Access, Error> {
        match self.word(ruby, "access")?.as_deref() {
            None | Some("read_write") => Ok(Access::ReadWrite),
            Some("read_only") => Ok(Access::ReadOnly),
            Some("copy_on_write") => Ok(Access::CopyOnWrite),
            Some(other) => Err(error::new(ruby, "InvalidArgumentError", format!("no access is called {other}"))),
        }
    }

    pub(crate) fn large_pages(self, ruby: &Ruby) -> Result<LargePages, Error> {
        match self.word(ruby, "large_pages")?.as_deref() {
            None | Some("never") => Ok(LargePages::Never),
            Some("prefer") => Ok(LargePages::Prefer),
            Some("require") => Ok(LargePages::Require),
            Some(other) => Err(error::new(ruby, "InvalidArgumentError", format!("no large pages are called {other}"))),
        }
    }

    /// `:user`, `:everyone`, a mode, or SDDL text.
    pub(crate) fn permissions(self, ruby: &Ruby) -> Result<Option<Permissions>, Error> {
        let Some(value) = self.get::<Value>(ruby, "permissions")? else { return Ok(None) };
        if let Some(text) = RString::from_value(value) {
            return Ok(Some(Permissions::Sddl(text.to_string()?)));
        }
        match self.word(ruby, "permissions") {
            Ok(Some(word)) if word == "user" => Ok(Some(Permissions::User)),
            Ok(Some(word)) if word == "everyone" => Ok(Some(Permissions::Everyone)),
            Ok(Some(other)) => {
                Err(error::new(ruby, "InvalidArgumentError", format!("no permissions are called {other}")))
            }
            _ => Ok(Some(Permissions::Mode(u32::try_convert(value)?))),
        }
    }

    /// `timeout:`, which may be nil.
    pub(crate) fn timeout(self, ruby: &Ruby) -> Result<Patience, Error> {
        self.seconds(ruby, "timeout", Patience::DEFAULT)
    }

    /// A number of seconds, or nil; the default if it is not given.
    pub(crate) fn seconds(self, ruby: &Ruby, name: &str, default: Patience) -> Result<Patience, Error> {
        self.0.get(ruby.to_symbol(name)).map_or(Ok(default), Patience::try_convert)
    }

    fn word(self, ruby: &Ruby, option: &str) -> Result<Option<String>, Error> {
        self.get::<Symbol>(ruby, option)?.map(|word| Ok(word.name()?.into_owned())).transpose()
    }
}

/// How long to wait: a number of seconds, or nil for ever.
#[derive(Clone, Copy)]
pub(crate) struct Patience(pub(crate) Option<f64>);

impl TryConvert for Patience {
    fn try_convert(value: Value) -> Result<Self, Error> {
        Ok(Patience(Option::try_convert(value)?))
    }
}

impl Patience {
    pub(crate) const DEFAULT: Patience = Patience(Some(10.0));

    /// How long that is; `None` is for ever.
    pub(crate) fn time(self) -> Option<Duration> {
        // What no clock reaches is for ever.
        self.0.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }

    /// It begins now.
    pub(crate) fn deadline(self) -> Deadline {
        Deadline(self.time().and_then(|time| Instant::now().checked_add(time)))
    }
}

/// Until when to wait, or for ever.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl TryConvert for Deadline {
    fn try_convert(value: Value) -> Result<Self, Error> {
        Patience::try_convert(value).map(Patience::deadline)
    }
}

/// How long one sleep is, after which whoever waits without Ruby's lock looks whether he is wanted.
const SLICE: Duration = Duration::from_millis(20);

impl Deadline {
    /// How long to sleep now.
    pub(crate) fn slice(self) -> Duration {
        self.0.map_or(SLICE, |at| at.saturating_duration_since(Instant::now()).min(SLICE))
    }

    pub(crate) fn is_over(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }
}
