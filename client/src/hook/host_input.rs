//! Whether a host that reads its prompts from a stream will get another one.
//!
//! `claude -p --input-format stream-json` ends with its input, but first gives the hooks in the background half a minute; the
//! hook that tells of the end comes after that. So the waiting hook looks itself whether the input of the host is over. It
//! never takes a byte of it. Where the system does not tell, the answer is that it goes on.

/// Whether nothing more can come on the standard input of that process: the writer is gone and everything was read.
pub(super) fn is_over(pid: u32) -> bool {
    #[cfg(target_os = "linux")]
    return linux::is_over(pid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        false
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, OpenOptions};
    use std::io;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

    use rustix::event::{PollFd, PollFlags, Timespec};
    use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

    pub(super) fn is_over(pid: u32) -> bool {
        let link = format!("/proc/{pid}/fd/0");
        let target = match fs::read_link(&link) {
            Ok(target) => target.to_string_lossy().into_owned(),
            // Closed, or the host is gone.
            Err(error) => return error.kind() == io::ErrorKind::NotFound,
        };
        let over = if target.starts_with("pipe:") {
            pipe_is_over(&link)
        } else if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            inode.parse().map_err(io::Error::other).and_then(socket_is_over)
        } else {
            file_is_over(pid, &link)
        };
        over.unwrap_or(false)
    }

    /// A reader of our own sees whether writers are left, and takes nothing. To one that comes when they are all gone the
    /// system says so only after it has seen another one go, so one comes and goes; who reads there notices nothing.
    fn pipe_is_over(link: &str) -> io::Result<bool> {
        let open = |options: &mut OpenOptions| options.custom_flags(libc::O_NONBLOCK).open(link);
        let reader = open(OpenOptions::new().read(true))?;
        drop(open(OpenOptions::new().write(true))?);
        let mut look = [PollFd::new(&reader, PollFlags::IN)];
        rustix::event::poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let seen = look[0].revents();
        Ok(seen.contains(PollFlags::HUP) && !seen.contains(PollFlags::IN))
    }

    /// A file is over where the host's place in it is its end; what is no file never is, but for the null device.
    fn file_is_over(pid: u32, link: &str) -> io::Result<bool> {
        let meta = fs::metadata(link)?;
        if meta.file_type().is_char_device() {
            return Ok(meta.rdev() == rustix::fs::makedev(1, 3));
        }
        if !meta.is_file() {
            return Ok(false);
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/0"))?;
        let place = info.lines().find_map(|line| line.strip_prefix("pos:")).and_then(|place| place.trim().parse().ok());
        Ok(place.is_some_and(|place: u64| place >= meta.len()))
    }

    /// Node.js and others start programs with a pair of sockets in place of a pipe. Only the kernel's table of sockets says
    /// what their ends have done: `unix_diag_req` and `unix_diag_msg` of `linux/unix_diag.h`.
    fn socket_is_over(inode: u32) -> io::Result<bool> {
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(SOCK_DIAG))?;
        rustix::net::sendto(&socket, &request(inode), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 512];
        let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
        Ok(says_over(answer.get(..length).unwrap_or_default()))
    }

    const HEADER_BYTES: usize = 16;
    const REQUEST_BYTES: usize = 24;
    /// `SOCK_DIAG_BY_FAMILY`
    const BY_FAMILY: u16 = 20;

    fn request(inode: u32) -> Vec<u8> {
        const NLM_F_REQUEST: u16 = 1;
        const SHOW_QUEUES: u32 = 0x10;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
        bytes.extend(((HEADER_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
        bytes.extend(BY_FAMILY.to_ne_bytes());
        bytes.extend(NLM_F_REQUEST.to_ne_bytes());
        // Sequence and sender: the socket is ours alone.
        bytes.extend([0; 8]);
        bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
        bytes.extend(u32::MAX.to_ne_bytes());
        bytes.extend(inode.to_ne_bytes());
        bytes.extend(SHOW_QUEUES.to_ne_bytes());
        // No cookie.
        bytes.extend([0xff; 8]);
        bytes
    }

    /// The other end has shut its direction down and nothing is left in the queue.
    fn says_over(answer: &[u8]) -> bool {
        const MESSAGE_BYTES: usize = 16;
        const QUEUES: u16 = 4;
        const SHUTDOWN: u16 = 6;
        const NO_MORE_TO_READ: u8 = 1;
        let short = |at: usize| answer.get(at..at + 2).map(|two| u16::from_ne_bytes([two[0], two[1]]));
        if short(4) != Some(BY_FAMILY) {
            return false;
        }
        let (mut shut, mut empty) = (false, false);
        let mut at = HEADER_BYTES + MESSAGE_BYTES;
        while let (Some(length), Some(kind)) = (short(at).map(usize::from), short(at + 2)) {
            if length < 4 {
                break;
            }
            let value = answer.get(at + 4..at + length).unwrap_or_default();
            match kind {
                SHUTDOWN => shut = value.first().is_some_and(|bits| bits & NO_MORE_TO_READ != 0),
                QUEUES => empty = value.get(..4).is_some_and(|length| length.iter().all(|byte| *byte == 0)),
                _ => {}
            }
            at += length.next_multiple_of(4);
        }
        shut && empty
    }

    #[cfg(test)]
    mod tests {
        use std::fs::File;
        use std::io::Write;
        use std::os::fd::OwnedFd;
        use std::os::unix::net::UnixStream;
        use std::process::{Child, Command, Stdio};
        use std::time::{Duration, Instant};

        use super::*;

        /// A process that reads nothing.
        struct Reader(Child);

        impl Reader {
            fn start(stdin: impl Into<Stdio>) -> Self {
                Self(Command::new("sleep").arg("60").stdin(stdin).spawn().unwrap())
            }

            fn is_over(&self) -> bool {
                is_over(self.0.id())
            }

            /// Another test that starts a process at this moment lends it our end until it runs.
            fn gets_over(&self) -> bool {
                let deadline = Instant::now() + Duration::from_secs(10);
                while !self.is_over() && Instant::now() < deadline {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                self.is_over()
            }
        }

        impl Drop for Reader {
            fn drop(&mut self) {
                self.0.kill().unwrap();
                self.0.wait().unwrap();
            }
        }

        #[test]
        fn a_pipe_is_over_when_its_writer_is_gone_and_nothing_is_left() {
            let mut reader = Reader::start(Stdio::piped());
            assert!(!reader.is_over());
            drop(reader.0.stdin.take());
            assert!(reader.gets_over());
            let mut reader = Reader::start(Stdio::piped());
            reader.0.stdin.as_mut().unwrap().write_all(b"one more").unwrap();
            drop(reader.0.stdin.take());
            assert!(!reader.is_over(), "what was written is still to be read");
            assert!(!reader.is_over(), "looking takes nothing");
        }

        #[test]
        fn a_socket_is_over_when_its_other_end_is_shut_and_nothing_is_left() {
            let pair = || {
                let (ours, theirs) = UnixStream::pair().unwrap();
                (ours, Reader::start(OwnedFd::from(theirs)))
            };
            let (ours, reader) = pair();
            assert!(!reader.is_over());
            ours.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(reader.is_over());
            let (ours, reader) = pair();
            drop(ours);
            assert!(reader.gets_over());
            let (mut ours, reader) = pair();
            ours.write_all(b"one more").unwrap();
            drop(ours);
            assert!(!reader.is_over());
        }

        #[test]
        fn files_end_and_terminals_do_not() {
            assert!(Reader::start(Stdio::null()).is_over());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"a prompt").unwrap();
            assert!(Reader::start(file.try_clone().unwrap()).is_over());
            std::io::Seek::rewind(&mut file).unwrap();
            assert!(!Reader::start(file).is_over());
            let terminal = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
            assert!(!Reader::start(Stdio::from(File::from(terminal))).is_over());
            let mut gone = Command::new("true").spawn().unwrap();
            gone.wait().unwrap();
            assert!(is_over(gone.id()));
        }
    }
}
