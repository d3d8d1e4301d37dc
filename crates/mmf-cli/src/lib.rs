//! What the program `mmf` shares with the benchmarks of the repository: measuring, and the other
//! ways of bytes between processes.
//!
//! It is no public interface: any release may change it.

#![doc(hidden)]

pub mod measure;
pub mod pairs;
pub mod transport;
