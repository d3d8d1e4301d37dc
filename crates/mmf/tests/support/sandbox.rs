//! Filters of system calls (`seccomp(2)`), as sandboxes install them.

use super::system::checked;

/// The system calls that open a file.
#[cfg(target_arch = "x86_64")]
pub(crate) const OPENS: [libc::c_long; 3] = [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const OPENS: [libc::c_long; 2] = [libc::SYS_openat, libc::SYS_openat2];

/// The effect of a forbidden call.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Error(libc::c_int),
    /// `SIGSYS` ends the process.
    Kill,
}

/// Forbids these calls for this thread and for the threads and processes that it starts.
pub(crate) fn enter(forbidden: &[libc::c_long], answer: Answer) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k };
    let answer = match answer {
        Answer::Error(errno) => libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap(),
        Answer::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    // The call's number is the first field of `seccomp_data`.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for call in forbidden {
        let number = u32::try_from(*call).unwrap();
        // Any other number jumps past the answer.
        filter.push(libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number) });
        filter.push(statement(libc::BPF_RET | libc::BPF_K, answer));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies the program, whose length is right.
    checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) });
}
