//! What std leaves out, once for each system.

#[cfg(unix)]
pub(crate) use unix::{End, allow_core_dump, dump_core, end_now};
#[cfg(windows)]
pub(crate) use windows::{End, allow_core_dump, dump_core, end_now};

/// The processor time of a process, of its children, and of theirs: zero where it cannot be read.
///
/// A child that ends takes its time along until its parent has waited for it.
#[cfg(target_os = "linux")]
pub(crate) fn processor_time(process: u32) -> std::time::Duration {
    // Each process with its parent and its ticks (proc_pid_stat(5)).
    let all: Vec<(u32, u32, u64)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // Behind the name, which may hold anything: the state, the parent, and so on.
            let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
            Some((id, fields.get(1)?.parse().ok()?, ticks))
        })
        .collect();
    let mut family = vec![process];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let children = all.iter().filter(|(id, of, _)| *of == parent && !family.contains(id)).map(|(id, ..)| *id);
        let children: Vec<u32> = children.collect();
        family.extend(children);
        next += 1;
    }
    let ticks: u64 = all.iter().filter(|(id, ..)| family.contains(id)).map(|(.., ticks)| ticks).sum();
    // The kernel tells user programs hundredths of a second on every processor (USER_HZ).
    std::time::Duration::from_millis(ticks * 10)
}

/// Elsewhere only what a process writes tells of its progress.
#[cfg(not(target_os = "linux"))]
pub(crate) fn processor_time(_process: u32) -> std::time::Duration {
    std::time::Duration::ZERO
}

#[cfg(unix)]
pub(crate) mod unix {
    use std::process::Child;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::process::{
        Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpid, kill_process, setrlimit, waitid,
    };

    pub(crate) fn pid(child: &Child) -> Pid {
        Pid::from_child(child)
    }

    /// What to wait at for a child's end.
    pub(crate) struct End(Pid);

    impl End {
        pub(crate) fn of(child: &Child) -> End {
            End(pid(child))
        }

        /// Whether the child ends in time. It stays unreaped, so that its id stays its own.
        pub(crate) fn wait(self, deadline: Duration) -> bool {
            let (done, ended) = mpsc::channel();
            // A thread of its own waits, since waitid(2) takes no deadline. It ends with the child, which its
            // owner kills at the latest when it is dropped.
            thread::spawn(move || {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while waitid(WaitId::Pid(self.0), options).is_err_and(|error| error == Errno::INTR) {}
                // Nobody listens any more when the deadline has passed.
                let _ = done.send(());
            });
            ended.recv_timeout(deadline).is_ok()
        }
    }

    pub(crate) fn stop(pid: Pid) {
        kill_process(pid, Signal::STOP).expect("SIGSTOP reaches a child that was not reaped");
        // SIGSTOP cannot be caught or blocked, so this ends at once: stopped or dead.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), options).is_err_and(|error| error == Errno::INTR) {}
    }

    pub(crate) fn cont(pid: Pid) {
        kill_process(pid, Signal::CONT).expect("SIGCONT reaches a child that was not reaped");
    }

    /// This process's death may be written to this directory, if the system is set up so.
    pub(crate) fn allow_core_dump(directory: &str) {
        std::env::set_current_dir(directory).expect("the directory for a core dump");
        setrlimit(Resource::Core, Rlimit { current: None, maximum: None }).expect("no limit to core dumps");
    }

    /// Ends a process in the way that writes a core dump.
    pub(crate) fn dump_core(pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::ABORT).expect("SIGABRT reaches a child that was not reaped");
    }

    /// Ends this process whatever its other threads do: no exit handler runs that one of them could block.
    pub(crate) fn end_now() -> ! {
        let _ = kill_process(getpid(), Signal::KILL);
        // Only a process 1 gets here: its own SIGKILL does not reach it.
        std::process::abort()
    }
}

#[cfg(windows)]
mod windows {
    use std::os::windows::io::{AsHandle, AsRawHandle, OwnedHandle};
    use std::process::Child;
    use std::time::Duration;

    use windows_sys::Win32::Foundation::WAIT_OBJECT_0;
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess, WaitForSingleObject};

    /// What to wait at for a child's end.
    pub(crate) struct End(OwnedHandle);

    impl End {
        pub(crate) fn of(child: &Child) -> End {
            End(child.as_handle().try_clone_to_owned().expect("a process handle can be duplicated"))
        }

        /// Whether the child ends in time.
        pub(crate) fn wait(self, deadline: Duration) -> bool {
            let milliseconds = u32::try_from(deadline.as_millis()).expect("a deadline of less than 49 days");
            // SAFETY: `self` owns the handle, which stays open during the call and has all the rights of the
            // one that std made.
            let outcome = unsafe { WaitForSingleObject(self.0.as_raw_handle(), milliseconds) };
            outcome == WAIT_OBJECT_0
        }
    }

    pub(crate) fn allow_core_dump(_directory: &str) {
        panic!("core dumps are for Unix");
    }

    pub(crate) fn dump_core(_pid: u32) {
        panic!("core dumps are for Unix");
    }

    /// Ends this process whatever its other threads do: `ExitProcess` would wait for the loader's lock.
    pub(crate) fn end_now() -> ! {
        // SAFETY: takes nothing and returns a constant, which needs no closing.
        let this = unsafe { GetCurrentProcess() };
        // SAFETY: a process may terminate itself; nothing of it runs on.
        unsafe { TerminateProcess(this, 86) };
        std::process::abort()
    }
}
