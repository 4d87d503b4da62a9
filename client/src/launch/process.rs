//! Runs `claude` in our place: same terminal, same signals, same exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitStatus;

use crate::error::{CliError, ExitCode};

/// Puts the terminal back as it was, on every way out.
#[derive(Clone)]
pub struct TerminalGuard {
    #[cfg(unix)]
    saved: Option<rustix::termios::Termios>,
}

/// Puts the terminal back as it was when a signal ends us before the program runs: the questions have it in raw mode.
pub struct SignalGuard {
    #[cfg(unix)]
    watch: Option<(signal_hook::iterator::Handle, std::thread::JoinHandle<()>)>,
}

impl SignalGuard {
    /// Watches SIGTERM, SIGHUP, SIGINT and SIGQUIT from now until it is dropped. We end by the same signal, afterwards.
    ///
    /// # Errors
    /// Exit 8 when the system gives no handler.
    pub fn new() -> Result<Self, CliError> {
        #[cfg(unix)]
        {
            use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
            let terminal = TerminalGuard::new();
            let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT])
                .map_err(|error| CliError::internal(format!("Signals cannot be handled: {error}.")))?;
            let handle = signals.handle();
            let thread = std::thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    terminal.restore();
                    if io::stdout().is_terminal() {
                        let _ = io::stdout().write_all(b"\x1b[?25h\x1b[0m\r\n");
                    }
                    end_by(signal);
                }
            });
            Ok(Self { watch: Some((handle, thread)) })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some((handle, thread)) = self.watch.take() {
            handle.close();
            let _ = thread.join();
        }
    }
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The code a shell would report.
    pub code: u8,
    /// The signal that ended it.
    signal: Option<i32>,
}

impl Ended {
    /// Ends us as the program ended: its exit code, or by the same signal, so that anyone who started us sees the same.
    /// Called when everything is cleaned up.
    pub fn pass_on(self) -> u8 {
        #[cfg(unix)]
        if let Some(signal) = self.signal {
            use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
            // Others would write a core file of ours, which tells nothing.
            if matches!(signal, SIGHUP | SIGINT | SIGTERM | SIGKILL) {
                end_by(signal);
            }
        }
        self.code
    }
}

/// Ends this process by a signal, as if no one had handled it. Returns when the system does not do so.
#[cfg(unix)]
fn end_by(signal: i32) {
    if signal == signal_hook::consts::SIGKILL {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    } else {
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
}

impl TerminalGuard {
    /// Remembers the settings of the terminal on standard input, if there is one.
    pub fn new() -> Self {
        #[cfg(unix)]
        return Self { saved: rustix::termios::tcgetattr(io::stdin()).ok() };
        #[cfg(not(unix))]
        return Self {};
    }

    fn restore(&self) {
        #[cfg(unix)]
        if let Some(saved) = &self.saved {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, saved);
        }
    }

    /// Undoes what a program that was killed may have left on the screen: alternate screen, mouse reports, bracketed
    /// paste, hidden cursor, colours.
    fn reset_screen(&self) {
        if io::stdout().is_terminal() {
            let mut stdout = io::stdout();
            let sequence = "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m";
            let _ = stdout.write_all(sequence.as_bytes()).and_then(|()| stdout.flush());
        }
    }
}

impl Default for TerminalGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Runs the program to its end; `started` is told its process id.
///
/// SIGTERM and SIGHUP are passed on. SIGINT and SIGQUIT from the keyboard reach the program by themselves, because it
/// shares our terminal; they are passed on only when they were sent to us alone.
///
/// `before` guards until the program runs.
///
/// # Errors
/// Exit 9 when there is no such program, 10 when it cannot be started.
pub fn run(command: std::process::Command, before: SignalGuard, started: impl FnOnce(u32)) -> Result<Ended, CliError> {
    let guard = TerminalGuard::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::internal(format!("The runtime cannot be started: {error}.")))?;
    let status = runtime.block_on(supervise(command, before, started))?;
    if status.code().is_none() {
        guard.reset_screen();
    }
    Ok(ended(status))
}

#[cfg(unix)]
async fn supervise(
    command: std::process::Command,
    before: SignalGuard,
    started: impl FnOnce(u32),
) -> Result<ExitStatus, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen =
        |kind| signal(kind).map_err(|error| CliError::internal(format!("Signals cannot be handled: {error}.")));
    // Before the start: from here on no signal ends us while the program runs.
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    drop(before);
    let program = command.get_program().to_owned();
    let mut child = tokio::process::Command::from(command).spawn().map_err(|error| start_error(&program, &error))?;
    let pid = child.id();
    if let Some(pid) = pid {
        started(pid);
    }
    loop {
        use rustix::process::Signal;
        let (signal, from_keyboard) = tokio::select! {
            status = child.wait() => {
                return status.map_err(|error| CliError::internal(format!("Claude Code cannot be waited for: {error}.")));
            }
            _ = terminate.recv() => (Signal::TERM, false),
            _ = hang_up.recv() => (Signal::HUP, false),
            _ = interrupt.recv() => (Signal::INT, in_foreground()),
            _ = quit.recv() => (Signal::QUIT, in_foreground()),
        };
        let process = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(process) = process.filter(|_| !from_keyboard) {
            let _ = rustix::process::kill_process(process, signal);
        }
    }
}

#[cfg(not(unix))]
async fn supervise(
    command: std::process::Command,
    before: SignalGuard,
    started: impl FnOnce(u32),
) -> Result<ExitStatus, CliError> {
    drop(before);
    let program = command.get_program().to_owned();
    let mut child = tokio::process::Command::from(command).spawn().map_err(|error| start_error(&program, &error))?;
    if let Some(pid) = child.id() {
        started(pid);
    }
    loop {
        tokio::select! {
            status = child.wait() => {
                return status.map_err(|error| CliError::internal(format!("Claude Code cannot be waited for: {error}.")));
            }
            // The console sends it to the program as well.
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}

fn start_error(program: &std::ffi::OsStr, error: &io::Error) -> CliError {
    let program = program.to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound => {
            let message = format!("{program} is not there, or its interpreter is missing.");
            CliError::new(ExitCode::ClaudeMissing, "claude_missing", message).hint("Set CLAUDE_BIN to its path.")
        }
        _ => CliError::io(format!("{program} cannot be started: {error}.")),
    }
}

/// Whether keys pressed on our terminal go to our process group.
#[cfg(unix)]
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

fn ended(status: ExitStatus) -> Ended {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Ended { code: u8::try_from(128 + signal).unwrap_or(1), signal: Some(signal) };
    }
    let code = status.code().and_then(|code| u8::try_from(code & 0xff).ok()).unwrap_or(1);
    Ended { code, signal: None }
}
