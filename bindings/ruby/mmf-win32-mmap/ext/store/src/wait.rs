//! For how long somebody waits, and how he is told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long one sleep is, after which a waiter looks whether it is to give up.
const SLICE: Duration = Duration::from_millis(20);

/// How long to wait for a lock.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    until: Until,
    cancel: Option<&'a AtomicBool>,
}

#[derive(Clone, Copy)]
enum Until {
    Now,
    At(Instant),
    Forever,
}

impl<'a> Wait<'a> {
    /// Not at all.
    pub const NOT: Wait<'static> = Wait { until: Until::Now, cancel: None };
    /// For as long as it takes.
    pub const FOREVER: Wait<'static> = Wait { until: Until::Forever, cancel: None };

    /// For this long.
    #[must_use]
    pub fn during(time: Duration) -> Wait<'static> {
        // What no clock reaches is for ever.
        let until = Instant::now().checked_add(time).map_or(Until::Forever, Until::At);
        Wait { until, cancel: None }
    }

    /// Until somebody sets this, which is noticed within [some milliseconds](Error::Cancelled).
    #[must_use]
    pub fn cancelled_by(self, cancel: &'a AtomicBool) -> Wait<'a> {
        Wait { cancel: Some(cancel), ..self }
    }

    /// At least this long from now on, for those who wait at all.
    pub(crate) fn at_least(self, time: Duration) -> Wait<'a> {
        match (self.until, Instant::now().checked_add(time)) {
            (Until::At(at), Some(least)) => Wait { until: Until::At(at.max(least)), ..self },
            _ => self,
        }
    }

    pub(crate) fn waits(&self) -> bool {
        !matches!(self.until, Until::Now)
    }

    /// How long to sleep now; nothing where a first look is all there is.
    pub(crate) fn slice(&self) -> Duration {
        match self.until {
            Until::Now => Duration::ZERO,
            Until::At(at) => at.saturating_duration_since(Instant::now()).min(SLICE),
            Until::Forever => SLICE,
        }
    }

    /// After a sleep that brought nothing.
    pub(crate) fn go_on(&self, holder: Option<u32>) -> Result<()> {
        if self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        match self.until {
            Until::Now => Err(Error::Timeout { holder }),
            Until::At(at) if Instant::now() >= at => Err(Error::Timeout { holder }),
            _ => Ok(()),
        }
    }
}
