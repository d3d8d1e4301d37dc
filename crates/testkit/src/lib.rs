//! Child processes, watchdogs and unique names for the tests of mmf.
