//! The command line: its definitions are the source of `--help`, the completions and the man page.

mod dict;

pub(crate) use dict::{
    Changing, CheckArgs, DelArgs, ExportArgs, GetArgs, ImportArgs, IncrArgs, KeysArgs, Looking, Making, RepairArgs,
    SetArgs, StatsArgs,
};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use mmf::Permissions;

use crate::failure::EXIT_CODES;
use crate::object::{OBJECT_RULE, Object};
use crate::size::{self, SIZE_RULE};
use crate::verbs::selftest::Step;
use crate::{bench, demo, time};

/// Share memory between processes, by name or by file
///
/// A named object exists as long as a process holds it open, on every system. An object in a file
/// exists as long as the file.
#[derive(Parser)]
#[command(name = "mmf", version, arg_required_else_help = true)]
#[command(after_help = OBJECT_RULE, after_long_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Demo(demo::DemoArgs),
    Hold(HoldArgs),
    Ls(LsArgs),
    Info(InfoArgs),
    Read(ReadArgs),
    Write(WriteArgs),
    Set(SetArgs),
    Get(GetArgs),
    Del(DelArgs),
    Keys(KeysArgs),
    Incr(IncrArgs),
    Watch(WatchArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    Stats(StatsArgs),
    Check(CheckArgs),
    Repair(RepairArgs),
    Dump(DumpArgs),
    Cp(CpArgs),
    Rm(RmArgs),
    Bench(bench::BenchArgs),
    Selftest(SelftestArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Create an object and hold it until interrupted, or while a command runs
///
/// The object must not exist yet. By default it is raw memory, zeroed and allocated. With --region
/// it is an empty region: contents of any length up to a capacity, behind a lock. With --dict it is
/// an empty dict: keys and values. Only this user may open it unless --permissions says otherwise.
/// A named object ends with the last process that holds it. A file stays, and so does an `exact:`
/// object on Unix (until `mmf rm`).
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"), group = ArgGroup::new("segment"))]
#[group(skip)]
pub(crate) struct HoldArgs {
    /// The object to create
    #[arg(value_name = "NAME", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Size in bytes; Windows rounds memory up to whole pages
    #[arg(long, value_name = "N", value_parser = size::parse, required_unless_present_any = ["segment", "capacity"])]
    pub(crate) size: Option<u64>,
    /// Create a region; it takes a capacity instead of a size, because its contents can change
    /// length
    #[arg(long, requires = "capacity", conflicts_with_all = ["size", "reserve", "large_pages", "prefault"])]
    #[arg(group = "segment")]
    pub(crate) region: bool,
    /// Create a dict, for `mmf set`, `mmf get` and the other verbs of dicts
    #[arg(long, requires = "capacity", conflicts_with_all = ["size", "reserve", "large_pages", "prefault"])]
    #[arg(group = "segment")]
    pub(crate) dict: bool,
    /// Bytes that a region's contents or a dict may grow to; they take no memory until then
    #[arg(long, value_name = "N", value_parser = size::parse, requires = "segment")]
    pub(crate) capacity: Option<u64>,
    /// Bytes that raw memory may grow to; they take no memory until then
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) reserve: Option<u64>,
    /// Hold it in a background process: print its process id, and return once the object exists
    #[arg(long)]
    pub(crate) detach: bool,
    /// Users that may open it: `user`, `everyone`, `mode:0640` (Unix) or `sddl:TEXT` (Windows)
    #[arg(long, value_name = "USERS", default_value = "user", value_parser = permissions)]
    pub(crate) permissions: Permissions,
    /// Whether to use large pages; `require` fails if there are none, and names the missing setting
    #[arg(long, value_name = "WHEN", default_value = "never")]
    pub(crate) large_pages: LargePages,
    /// Load all pages into memory before the object is used
    #[arg(long)]
    pub(crate) prefault: bool,
    /// Run as the background process, and report to the process that started it
    #[arg(long, hide = true)]
    pub(crate) background: bool,
    /// Command to run while the object is held; MMF_OBJECT names the object, and `mmf` exits with
    /// the command's exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// List the living named objects
///
/// Sizes are exact if the output is not a terminal. The kind is `raw`, `region` or `dict`;
/// `segment` for an object that this release cannot use; `?` if this user may not open it. Objects
/// that dead processes left are removed first.
#[derive(Args)]
pub(crate) struct LsArgs {
    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
    /// Print exact sizes on a terminal too
    #[arg(long)]
    pub(crate) bytes: bool,
}

/// Show an object's metadata
///
/// For a region it also lists the participants, and which of them hold the lock; a process that
/// died stays in that list until another process needs its lock or its slot. For a dict it shows
/// the number of keys; `mmf stats` shows more.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct InfoArgs {
    /// The object to examine
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Accept a named object of another user
    #[arg(long)]
    pub(crate) any_owner: bool,
}

/// Copy an object's bytes to standard output or a file
///
/// The contents of a region are copied under its lock. Those of a poisoned region, in which a
/// writer died in the middle of a change, are copied too, with a warning and exit code 1. If this
/// user has read access only, a region is copied without the lock, again and again until no writer
/// interfered, and a poisoned region is refused. A dict has no such contents: see `mmf export`.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
pub(crate) struct ReadArgs {
    /// The object to read
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    #[command(flatten)]
    pub(crate) range: Range,
    /// File to write to, which is replaced [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Copy standard input or a file into an object
///
/// Input that does not fit is an error that names the available size; raw memory and files keep
/// their length.
///
/// The input replaces the contents of a region, under its lock, which is taken after all input was
/// read. With --offset it changes the contents from there on, and extends them if needed. Replacing
/// the contents of a poisoned region clears the poison; changing a part of them is refused. A dict,
/// or a segment that this release does not know, is written to with --raw only.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
pub(crate) struct WriteArgs {
    /// The object to write to
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// First byte to write; without it, writing starts at 0 and replaces all contents of a region
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) offset: Option<u64>,
    /// File to read from [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Return after the bytes of a file are on its disk
    #[arg(long)]
    pub(crate) flush: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Print a line for each change of a region or a dict
///
/// For a region, a line has the time, the version and the length of the contents; several changes
/// that come faster than they are printed share a line. For a dict, each change has a line with the
/// time, the version, the kind of change, the key and its present value, which may be newer than
/// the change; `missed` means that the change log was overwritten before it was read. While it
/// watches, this process holds the object. The exit code is 0 after --count lines, or after
/// --timeout without a count; 1 if --timeout ends before --count lines; 130 after Ctrl-C.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct WatchArgs {
    /// The region or dict to watch
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Key of a dict to watch, and no other
    pub(crate) key: Option<String>,
    /// Watch the keys of a dict that start with this text
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    pub(crate) prefix: Option<String>,
    /// End after this many lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = time::seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Print each line as a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Accept a named object of another user
    #[arg(long)]
    pub(crate) any_owner: bool,
}

/// Show an object's bytes in hexadecimal
///
/// Lines that repeat the previous line are shown as one `*`. A region shows its contents, as
/// `mmf read` copies them.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
pub(crate) struct DumpArgs {
    /// The object to show
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    #[command(flatten)]
    pub(crate) range: Range,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Copy an object or a file to an object or a file
///
/// A target file that does not exist is created; a shorter one grows; a longer one is refused,
/// because nothing is cut off. A target name must exist and be large enough: create it with
/// `mmf hold`. The contents of a source region are copied, and those of a target region replaced,
/// each under its lock. A poisoned region is refused as a source; as a target it loses the poison.
/// Dicts are copied by `mmf export` and `mmf import`.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct CpArgs {
    /// The object to copy from
    #[arg(value_name = "SRC", value_parser = Object::parser())]
    pub(crate) source: Object,
    /// The object to copy to
    #[arg(value_name = "DST", value_parser = Object::parser())]
    pub(crate) target: Object,
    /// Show no progress and no rate
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) timeout_option: TimeoutOption,
    /// Accept named objects of another user
    #[arg(long)]
    pub(crate) any_owner: bool,
}

/// Remove objects of dead processes, an `exact:` name, or an object that another user linked
///
/// Other names cannot be removed: they end with the last process that holds them. Remove a file
/// with the system's own tools.
///
/// On Unix, another user with write access to a named object can give it a second name (a hard
/// link). Then it is refused under both names. Its owner or root can remove the second name as a
/// file, or give up the object by `mmf rm` and its own name: no process opens it any more, and the
/// next creation makes a new object.
#[derive(Args)]
#[command(after_help = OBJECT_RULE, group = ArgGroup::new("what").required(true))]
#[group(skip)]
pub(crate) struct RmArgs {
    /// The `exact:` name, or the object with hard links, to remove; processes that hold it keep
    /// their memory
    #[arg(value_name = "OBJECT", group = "what", value_parser = Object::parser())]
    pub(crate) object: Option<Object>,
    /// Remove objects that dead processes left
    #[arg(long, group = "what")]
    pub(crate) stale: bool,
    /// Print the dead objects as a JSON array
    #[arg(long, requires = "stale")]
    pub(crate) json: bool,
}

/// Test on this machine which features of mmf work
///
/// Each line shows `ok`, `FAILED`, or `not here` with the reason. The test removes all that it
/// creates.
#[derive(Args)]
pub(crate) struct SelftestArgs {
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Step that this process runs for the testing process
    #[arg(long, hide = true, num_args = 1, requires = "object")]
    pub(crate) step: Option<Step>,
    #[arg(hide = true, requires = "step", value_parser = Object::parser())]
    pub(crate) object: Option<Object>,
}

/// Print a shell's completions
///
/// For bash: mmf completions bash > ~/.local/share/bash-completion/completions/mmf
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete for
    pub(crate) shell: Shell,
}

/// Print the manual page, or write a page for each verb
#[derive(Args)]
pub(crate) struct ManArgs {
    /// Write mmf.1, mmf-hold.1 and so on into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Options of verbs that read or write an object's bytes.
#[derive(Args)]
pub(crate) struct Reach {
    /// Use the raw bytes of a region, a dict or another segment: with the header, and without the
    /// lock
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) timeout_option: TimeoutOption,
    /// Accept a named object of another user
    #[arg(long)]
    pub(crate) any_owner: bool,
}

/// The timeout of locks.
#[derive(Args)]
pub(crate) struct TimeoutOption {
    /// Wait at most this long for the lock of a region or dict; the error names its holder
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = time::seconds)]
    pub(crate) timeout: Duration,
}

/// A range of an object's bytes.
#[derive(Args)]
pub(crate) struct Range {
    /// The first byte
    #[arg(long, value_name = "N", default_value = "0", value_parser = size::parse)]
    pub(crate) offset: u64,
    /// Number of bytes [default: up to the end]
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) length: Option<u64>,
}

/// The library's choices for large pages, for clap.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LargePages {
    Never,
    Prefer,
    Require,
}

impl From<LargePages> for mmf::LargePages {
    fn from(large_pages: LargePages) -> Self {
        match large_pages {
            LargePages::Never => mmf::LargePages::Never,
            LargePages::Prefer => mmf::LargePages::Prefer,
            LargePages::Require => mmf::LargePages::Require,
        }
    }
}

fn permissions(text: &str) -> Result<Permissions, String> {
    match text.split_once(':') {
        None if text == "user" => Ok(Permissions::User),
        None if text == "everyone" => Ok(Permissions::Everyone),
        Some(("mode", mode)) => match u32::from_str_radix(mode, 8) {
            Ok(bits) if bits <= 0o777 && !mode.starts_with('+') => Ok(Permissions::Mode(bits)),
            _ => Err("a mode has up to four octal digits, at most 0777".to_owned()),
        },
        Some(("sddl", text)) => Ok(Permissions::Sddl(text.to_owned())),
        _ => Err("it is one of `user`, `everyone`, `mode:0640` and `sddl:TEXT`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn permissions_are_words_or_the_system_s_own() {
        assert_eq!(permissions("user"), Ok(Permissions::User));
        assert_eq!(permissions("everyone"), Ok(Permissions::Everyone));
        assert_eq!(permissions("mode:0640"), Ok(Permissions::Mode(0o640)));
        assert_eq!(permissions("sddl:D:P(A;;GA;;;SY)"), Ok(Permissions::Sddl("D:P(A;;GA;;;SY)".to_owned())));
        for bad in ["", "me", "mode:", "mode:+7", "mode:9", "mode:7777777", "0640"] {
            assert!(permissions(bad).is_err(), "{bad}");
        }
    }
}
