//! The protocol as a state machine.

use crate::Errno;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// The client closed it between two messages.
    Closed,
    /// The client closed it, or died, in the middle of a message.
    MidMessage,
    /// The client broke the protocol in a way that leaves the byte stream meaningless.
    Protocol(&'static str),
    /// The socket failed.
    Socket(Errno),
    /// This side ended it.
    Server,
    /// A method of the device panicked.
    DevicePanicked,
}
