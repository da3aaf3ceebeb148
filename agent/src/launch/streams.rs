//! How the standard streams of a command to be come from the agent to the launcher's server: each command is one
//! message, so that no two can mix.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// A message has to have a byte, or it would look like the end.
const BYTE: &[u8] = b"+";

/// What a launcher gets as its standard streams.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The launcher's end of the socket on which it hears its plan and answers.
    pub(crate) control: OwnedFd,
    /// The command's output.
    pub(crate) stdout: OwnedFd,
    /// The command's errors.
    pub(crate) stderr: OwnedFd,
}

/// The agent's end and the server's.
///
/// # Errors
/// The system's.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends all or nothing, at once.
///
/// # Errors
/// [`io::ErrorKind::BrokenPipe`] or [`io::ErrorKind::ConnectionReset`] when the server is gone, or the system's.
pub(crate) fn send(socket: BorrowedFd<'_>, streams: &Streams) -> io::Result<()> {
    let descriptors = [streams.control.as_fd(), streams.stdout.as_fd(), streams.stderr.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for three descriptors"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(BYTE)], &mut ancillary, flags)?;
    Ok(())
}

/// Waits for the next; `None` when the agent is gone or wants no more.
///
/// # Errors
/// The system's; above all when this process may not open so many.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Streams>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut received = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            received.extend(descriptors);
        }
    }
    let [control, stdout, stderr] =
        received.try_into().map_err(|_| io::Error::other("not the three descriptors of a command"))?;
    Ok(Some(Streams { control, stdout, stderr }))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn each_message_brings_its_own_three_and_the_last_is_followed_by_the_end() {
        let (ours, theirs) = pair().unwrap();
        let mut readers = Vec::new();
        for _ in 0..2 {
            let (reader, writer) = io::pipe().unwrap();
            let control = writer.try_clone().unwrap().into();
            let stderr = writer.try_clone().unwrap().into();
            send(ours.as_fd(), &Streams { control, stdout: writer.into(), stderr }).unwrap();
            readers.push(reader);
        }
        drop(ours);
        for (number, mut reader) in readers.into_iter().enumerate() {
            let streams = receive(theirs.as_fd()).unwrap().unwrap();
            for descriptor in [streams.control, streams.stdout, streams.stderr] {
                assert_eq!(rustix::io::write(&descriptor, &[u8::try_from(number).unwrap()]), Ok(1));
            }
            let mut heard = Vec::new();
            reader.read_to_end(&mut heard).unwrap();
            assert_eq!(heard, vec![u8::try_from(number).unwrap(); 3]);
        }
        assert!(receive(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_server_that_is_gone_takes_nothing() {
        let (ours, theirs) = pair().unwrap();
        drop(theirs);
        let streams = || OwnedFd::from(io::pipe().unwrap().1);
        let error = send(ours.as_fd(), &Streams { control: streams(), stdout: streams(), stderr: streams() });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
