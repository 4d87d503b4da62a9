//! The log files of this user's processes: `logs/<source>.log` in the config folder, each with one file of before (`.log.1`), so
//! that they stay bounded whatever happens.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::files::{self, FileLock};

pub mod cli;

/// A file that is longer is put aside: some thousand lines, enough for what happened lately.
const MAX_BYTES: u64 = 1024 * 1024;
/// How long a line waits for another process that puts the file aside.
const PATIENCE: Duration = Duration::from_millis(200);

/// Who writes a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Source {
    /// `claudemesh up`: the broker of this machine.
    Broker,
    /// The MCP servers of sessions.
    Mcp,
    /// Hooks; with CLAUDEMESH_HOOK_DEBUG=1 each step of theirs.
    Hooks,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Broker, Self::Mcp, Self::Hooks];

    /// The name of its file, and the word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Mcp => "mcp",
            Self::Hooks => "hooks",
        }
    }
}

/// One log file. Lines of several processes do not mix: each is one write at the end of the file.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
}

impl LogFile {
    /// The file of a source.
    pub fn of(config_dir: &Path, source: Source) -> Self {
        Self { path: config_dir.join("logs").join(format!("{}.log", source.as_str())) }
    }

    /// Where it is, there or not.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The one of before.
    pub fn before(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    /// Adds text that ends with a line end.
    ///
    /// # Errors
    /// What the system says; anyone who logs goes on without.
    pub fn append(&self, text: &[u8]) -> io::Result<()> {
        let mut file = match self.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files::create_private_dir(self.path.parent().unwrap_or(&self.path))?;
                self.open()?
            }
            other => other?,
        };
        if file.metadata()?.len() + text.len() as u64 > MAX_BYTES {
            self.put_aside(text.len() as u64)?;
            file = self.open()?;
        }
        file.write_all(text)
    }

    fn open(&self) -> io::Result<std::fs::File> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, files::PRIVATE_FILE);
        options.open(&self.path)
    }

    fn put_aside(&self, more: u64) -> io::Result<()> {
        let _lock = FileLock::take(&self.path.with_extension("lock"), PATIENCE)?;
        // Another process may have been faster.
        if std::fs::metadata(&self.path)?.len() + more > MAX_BYTES {
            std::fs::rename(&self.path, self.before())?;
        }
        Ok(())
    }
}

/// One line under way.
pub struct Line<'a>(&'a LogFile);

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        // A full disk must not end what is logged about.
        let _ = self.0.append(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_private_and_bounded_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::of(dir.path(), Source::Mcp);
        let line = |number: usize| format!("{number:08} {}\n", "x".repeat(990));
        let total = 3 * MAX_BYTES as usize / 1_000;
        for number in 0..total {
            log.append(line(number).as_bytes()).unwrap();
        }
        let (now, before) =
            (std::fs::read_to_string(log.path()).unwrap(), std::fs::read_to_string(log.before()).unwrap());
        assert!(now.len() as u64 <= MAX_BYTES && before.len() as u64 <= MAX_BYTES);
        assert!(now.ends_with(&line(total - 1)));
        let first: usize = before[..8].parse().unwrap();
        let both = format!("{before}{now}");
        assert_eq!(both.lines().count(), total - first, "no line between them is missing");
        assert_eq!(files::mode_of(log.path()), Some(0o600));
        assert_eq!(files::mode_of(log.path().parent().unwrap()), Some(0o700));
    }

    #[test]
    fn writers_at_once_lose_no_line_and_tear_none() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::of(dir.path(), Source::Broker);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..100 {
                        log.append(format!("{writer} {number:03} {}\n", "y".repeat(500)).as_bytes()).unwrap();
                    }
                });
            }
        });
        let text = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(text.lines().count(), 400);
        assert!(text.lines().all(|line| line.len() == 506), "a torn line");
    }
}
