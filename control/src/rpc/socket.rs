//! The daemon's socket: claimed at start, gone at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error(
        "{path}: another sluiced is listening there; stop it, or give this one another rpc.socket"
    )]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{path}: there is a file that is no socket; remove it, or choose another rpc.socket")]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: cannot listen there: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A listening socket. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// A socket's place in the file system, removed when dropped, unless somebody else's is there by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// The folders that were made for it, outermost first. They go with it, if nothing else is in them.
    made: Vec<PathBuf>,
}

impl Socket {
    /// Listens at `path` with access `mode`, in the place of a dead daemon's socket if there is one. Its folder is made if
    /// it is missing.
    pub fn claim(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let io = |error| SocketError::Io {
            path: path.to_owned(),
            error,
        };
        check_free(path)?;
        let made = make_folders(path).map_err(io)?;
        // Made under another name and moved, so that it is never there with other access than it should have.
        let mut own = path.as_os_str().to_owned();
        own.push(format!(".{}", std::process::id()));
        let own = PathBuf::from(own);
        let bind = || {
            match fs::remove_file(&own) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&own)?;
            fs::set_permissions(&own, fs::Permissions::from_mode(mode))?;
            let inode = fs::metadata(&own)?.ino();
            fs::rename(&own, path)?;
            Ok((listener, inode))
        };
        let (listener, inode) = bind().map_err(|error| {
            let _ = fs::remove_file(&own);
            remove_folders(&made);
            io(error)
        })?;
        let path = path.to_owned();
        Ok(Self {
            listener,
            file: SocketFile { path, inode, made },
        })
    }

    /// The socket, and the guard of its file.
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
            remove_folders(&self.made);
        }
    }
}

/// Makes the folders that `path` needs. Those that were made, outermost first.
fn make_folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folders = path.ancestors().skip(1);
    let missing = folders.take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let mut made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    made.reverse();
    if let Some(innermost) = made.last() {
        fs::create_dir_all(innermost)?;
    }
    Ok(made)
}

fn remove_folders(made: &[PathBuf]) {
    // Fails, as it should, where there is something else.
    for folder in made.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

/// Whether nobody listens at `path`, and a socket may be there.
pub(crate) fn check_free(path: &Path) -> Result<(), SocketError> {
    let io = |error| SocketError::Io {
        path: path.to_owned(),
        error,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("sluice-socket-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let folder = Folder::new("mode");
        let path = folder.0.join("sub/rpc.sock");
        let socket = Socket::claim(&path, 0o640).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!folder.0.join("sub").exists());

        let path = folder.0.join("a/b/rpc.sock");
        let socket = Socket::claim(&path, 0o640).unwrap();
        fs::write(folder.0.join("a/other"), "").unwrap();
        drop(socket);
        assert!(folder.0.join("a/other").exists() && !folder.0.join("a/b").exists());
    }

    #[test]
    fn a_living_daemon_keeps_its_socket_and_a_dead_one_loses_it() {
        let folder = Folder::new("stale");
        let path = folder.0.join("rpc.sock");
        let (listener, file) = Socket::claim(&path, 0o660).unwrap().into_parts();
        assert!(matches!(
            Socket::claim(&path, 0o660),
            Err(SocketError::InUse { .. })
        ));
        drop(listener);
        let second = Socket::claim(&path, 0o660).unwrap();
        // The first one's guard leaves the second one's file alone.
        drop(file);
        assert!(path.exists());
        drop(second);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = Folder::new("file");
        let path = folder.0.join("rpc.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Socket::claim(&path, 0o660),
            Err(SocketError::NotASocket { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
