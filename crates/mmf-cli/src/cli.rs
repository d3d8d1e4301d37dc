//! The command line, as `--help`, the completions and the man page tell it.

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
/// What has a name lives as long as some process holds it open, on every system; what has a file lives in the file.
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
/// The object must not exist yet. It is raw memory of zero bytes, all of them allocated, or with --region an empty
/// region: contents of any length up to a capacity, behind a lock; with --dict an empty dict: keys and values. This user
/// alone may open it unless --permissions says otherwise. A name goes when the last process that holds it ends; a file stays, and so does what
/// an `exact:` name means on Unix (until `mmf rm`).
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"), group = ArgGroup::new("segment"))]
#[group(skip)]
pub(crate) struct HoldArgs {
    /// The object to create
    #[arg(value_name = "NAME", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Bytes that it has; Windows rounds memory up to whole pages
    #[arg(long, value_name = "N", value_parser = size::parse, required_unless_present_any = ["segment", "capacity"])]
    pub(crate) size: Option<u64>,
    /// Make a region; its contents have the length of what was written, so it takes a capacity and no size
    #[arg(long, requires = "capacity", conflicts_with_all = ["size", "reserve", "large_pages", "prefault"])]
    #[arg(group = "segment")]
    pub(crate) region: bool,
    /// Make a dict, of which `mmf set`, `get` and so on are
    #[arg(long, requires = "capacity", conflicts_with_all = ["size", "reserve", "large_pages", "prefault"])]
    #[arg(group = "segment")]
    pub(crate) dict: bool,
    /// Bytes that a region's contents or a dict may grow to; they cost nothing until then
    #[arg(long, value_name = "N", value_parser = size::parse, requires = "segment")]
    pub(crate) capacity: Option<u64>,
    /// Bytes that raw memory may grow to; they cost nothing until then
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) reserve: Option<u64>,
    /// Hold it in the background: print that process's id and return once the object exists
    #[arg(long)]
    pub(crate) detach: bool,
    /// Who may open it: `user`, `everyone`, `mode:0640` (Unix) or `sddl:TEXT` (Windows)
    #[arg(long, value_name = "WHO", default_value = "user", value_parser = permissions)]
    pub(crate) permissions: Permissions,
    /// Whether it is made of large pages; `require` fails where there are none, and says what is missing
    #[arg(long, value_name = "WHEN", default_value = "never")]
    pub(crate) large_pages: LargePages,
    /// Bring all pages in before anybody can wait for them
    #[arg(long)]
    pub(crate) prefault: bool,
    /// This process is the background one; it reports to the one that started it
    #[arg(long, hide = true)]
    pub(crate) background: bool,
    /// A command to run meanwhile; it finds the object in the variable MMF_OBJECT, and its exit code is passed on
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// List the named objects that live now
///
/// Sizes are exact where the output is no terminal. The kind is `raw`, `region`, `dict`, `segment` for what another release of
/// mmf made, or `?` where this user may not look. What dead processes left is removed on the way.
#[derive(Args)]
pub(crate) struct LsArgs {
    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
    /// Print exact sizes also on a terminal
    #[arg(long)]
    pub(crate) bytes: bool,
}

/// Tell what is known of an object
///
/// Of a region also who takes part in it, and who has its lock. A process that died stays in the list until another one
/// wants a lock or a place, and only then the region is known to be poisoned. Of a dict how many keys it has; `mmf
/// stats` tells more.
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
/// A region gives its contents, copied under its lock. Those of a poisoned region, which a writer left half changed, are
/// given too, with a warning and the exit code 1. Where this user may only read, a region is copied without the lock
/// until no writer came between, and a poisoned one is refused. A dict has no such contents: see `mmf export`.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
pub(crate) struct ReadArgs {
    /// The object to read
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    #[command(flatten)]
    pub(crate) range: Range,
    /// The file to write to, which is replaced; standard output unless given
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Copy standard input or a file into an object
///
/// What does not fit is an error that tells how much does; raw memory and files are never made longer or shorter.
///
/// The contents of a region are replaced by what was given, under its lock, which is taken once all was read; with
/// --offset they are changed from there on, and lengthened if need be. Replacing the contents of a poisoned region, which
/// a writer left half changed, clears the poison; changing a part of them is refused. A segment that this release does
/// not know is written to with --raw only, and so is a dict.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
pub(crate) struct WriteArgs {
    /// The object to write to
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The first byte to write: 0 unless given, and of a region then all is replaced
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) offset: Option<u64>,
    /// The file to read from; standard input unless given
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Return only once the bytes of a file are on its disk
    #[arg(long)]
    pub(crate) flush: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Print a line for each change of a region or a dict as it comes
///
/// Of a region a line tells the time, the version and the length of the contents; changes that come faster than they are
/// printed share a line. Of a dict there is a line for each change, with the time, the version, what happened, the key and
/// the value that it has now, which may be a later one; where changes came faster than they are kept, a line says
/// `missed`. While it watches, this process holds the object too. The exit code is 0 once --count lines were printed,
/// and where no count was asked for once --timeout is over; 1 where that is over before; 130 after Ctrl-C.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct WatchArgs {
    /// The region or dict to watch
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The one key of a dict to watch
    pub(crate) key: Option<String>,
    /// Watch the keys of a dict that begin so
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
/// Lines that repeat the one before are shown as one `*`. A region shows its contents, as `mmf read` gives them.
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
/// A file that does not exist is created; one that is shorter grows; one that is longer is refused, since nothing is
/// cut off. A name must exist and be large enough: `mmf hold` makes it. Of a region the contents are copied, and those of
/// a region to copy to are replaced, each under its lock; a poisoned region is no source, and as a target is not poisoned
/// any more. Dicts are copied by `mmf export` and `mmf import`.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct CpArgs {
    /// What to copy
    #[arg(value_name = "SRC", value_parser = Object::parser())]
    pub(crate) source: Object,
    /// Where to
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

/// Remove what dead processes left, an `exact:` name, or an object that another user has linked
///
/// Other names cannot be removed: they go with the last process that holds them. A file is removed as every file is.
///
/// Another user who may write to a named object can give it a second name (a hard link, on Unix).
/// It is refused then under both. Its owner or root removes the second name as a file where it can
/// be reached, or gives the object up with `mmf rm` and its own name: no process opens it any more,
/// and the next creation makes a new one.
#[derive(Args)]
#[command(after_help = OBJECT_RULE, group = ArgGroup::new("what").required(true))]
#[group(skip)]
pub(crate) struct RmArgs {
    /// The `exact:` name, or the object with hard links, to remove; processes that hold it keep
    /// their memory
    #[arg(value_name = "OBJECT", group = "what", value_parser = Object::parser())]
    pub(crate) object: Option<Object>,
    /// Remove what dead processes left
    #[arg(long, group = "what")]
    pub(crate) stale: bool,
    /// Print what was met as a JSON array
    #[arg(long, requires = "stale")]
    pub(crate) json: bool,
}

/// Try on this machine what mmf promises, and tell what works
///
/// Each line is ok, FAILED, or not here, with the reason. Nothing is left behind.
#[derive(Args)]
pub(crate) struct SelftestArgs {
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// What this process does for the one that tests
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

/// Which bytes of an object are meant, and what may stand in the way.
#[derive(Args)]
pub(crate) struct Reach {
    /// Mean the bytes as they are, header and all and without a lock, where the object is a region or another segment
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) timeout_option: TimeoutOption,
    /// Accept a named object of another user
    #[arg(long)]
    pub(crate) any_owner: bool,
}

/// How long others are waited for.
#[derive(Args)]
pub(crate) struct TimeoutOption {
    /// Wait this long for the lock of a region or dict; the error names the process that has it
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = time::seconds)]
    pub(crate) timeout: Duration,
}

/// A run of an object's bytes.
#[derive(Args)]
pub(crate) struct Range {
    /// The first byte
    #[arg(long, value_name = "N", default_value = "0", value_parser = size::parse)]
    pub(crate) offset: u64,
    /// How many bytes; up to the end unless given
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) length: Option<u64>,
}

/// The library's words, for clap.
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
