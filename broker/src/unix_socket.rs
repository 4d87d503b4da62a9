//! Listening on a Unix socket: 0600 from its first moment on, never in the place of someone else's.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Marks requests that came over the Unix socket: from this machine and this user.
#[derive(Clone, Copy, Debug)]
pub struct OverUnixSocket;

/// The socket's file; removed on drop.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already: someone tidied up, which is as well.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens at `path`. A socket that a dead broker left there is replaced.
///
/// # Errors
/// `AddrInUse` when someone answers there, `AlreadyExists` when the file is no socket, otherwise what the system says (the
/// path is too long for it, for instance).
pub(crate) fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is no socket"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        _ => {}
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    // Beside it and then renamed over it, so that at no moment others may connect or a client finds half of it.
    let fresh = folder.join(format!(".{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let settled = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = settled {
        let _ = std::fs::remove_file(&fresh);
        return Err(error);
    }
    Ok((listener, SocketFile(path.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_or_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, file) = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(file);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }
}
