//! Processes that must not outlive us: one file for this crate and for `xtask`, which does not depend on it.

use std::process::Command;

/// Asks the kernel to send the child a signal when the thread that starts it ends, however that happens.
#[expect(
    unsafe_code,
    reason = "pre_exec and prctl have no safe form; prctl is async-signal-safe and touches no memory"
)]
pub(crate) fn die_with_us(command: &mut Command, signal: i32) {
    use std::os::unix::process::CommandExt;
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

#[expect(unsafe_code, reason = "kill(2) has no safe form in std; the pid is that of our own unreaped child")]
pub(crate) fn signal(pid: u32, signal: i32) {
    if let Ok(pid) = i32::try_from(pid) {
        unsafe {
            libc::kill(pid, signal);
        }
    }
}

/// Whether we run as root.
#[expect(unsafe_code, reason = "geteuid(2) has no safe form in std and cannot fail")]
pub(crate) fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}
