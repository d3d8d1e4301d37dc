//! What the figures belong to: the machine, the versions, the day.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Keeps this process on one core. Says whether that worked.
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: usize) -> bool {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_core: usize) -> bool {
    false
}

/// The second-level cache of the first core, in bytes; 1 MiB where the system does not tell.
pub(crate) fn second_level_cache() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").unwrap_or_default();
    let kilobytes = text.trim().strip_suffix('K').and_then(|number| number.parse::<usize>().ok());
    kilobytes.map_or(1 << 20, |kilobytes| kilobytes << 10)
}

/// The head of the report.
pub(crate) fn describe(pairs: usize, pinned: bool) -> String {
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let found = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).map(|(_, rest)| rest);
        found.and_then(|rest| rest.split('"').next()).unwrap_or("?").to_owned()
    };
    let lines = [
        format!("- Processor: {}, L2 {} KiB a core", processor(), second_level_cache() >> 10),
        format!("- System: {}", system()),
        format!(
            "- Built by {}; memmap2 {}, shared_memory {}, parking_lot {}, heed {}",
            env!("RUSTC_VERSION"),
            version("memmap2"),
            version("shared_memory"),
            version("parking_lot"),
            version("heed")
        ),
        format!("- mmf {}, {}", env!("CARGO_PKG_VERSION"), today()),
        format!("- Medians of {pairs} pairs, taken in turns within one run; ratios are medians of the pairs' ratios"),
        if pinned {
            "- The measuring process on core 0, its peer on core 1".to_owned()
        } else {
            "- Processes on whichever core the system chose".to_owned()
        },
    ];
    lines.join("\n") + "\n"
}

pub(crate) fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let name = field("model name").or_else(|| said("sysctl", &["-n", "machdep.cpu.brand_string"]));
    let name = name.or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok()).unwrap_or_else(|| "unknown".to_owned());
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    }
}

pub(crate) fn system() -> String {
    let name = said("uname", &["-srm"]).or_else(|| said("cmd", &["/c", "ver"]));
    let name = name.unwrap_or_else(|| std::env::consts::OS.to_owned());
    let virtual_machine = fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains(" hypervisor"));
    if virtual_machine { format!("{name}, a virtual machine") } else { name }
}

fn said(command: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(command).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The day, in UTC, by the civil calendar.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut days = seconds / 86_400;
    let mut year = 1970;
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}
