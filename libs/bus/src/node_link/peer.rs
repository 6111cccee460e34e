//! Who is at the other end of `node.sock`, as the kernel says it.

use std::io;

use nix::unistd::{getegid, geteuid};
use tokio::net::UnixStream;

/// Refuses a process that is neither root's, nor of our own user, nor of our own group. The file's mode says the same as
/// long as nobody changes it or puts another file in its place.
///
/// # Errors
/// `PermissionDenied` with who it is; whatever the kernel says when it does not know.
pub(super) fn check(stream: &UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (user, group) = (peer.uid(), peer.gid());
    if user == 0 || user == geteuid().as_raw() || group == getegid().as_raw() {
        return Ok(());
    }
    let text = format!(
        "process {} of user {user}, group {group}, is neither of our user nor group",
        peer.pid().unwrap_or(0)
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
