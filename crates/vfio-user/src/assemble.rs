//! Messages of this protocol as they come out of a socket.

use manifold_socket::MAX_HEADER;

use crate::codec::Header;
use crate::spec;

pub(crate) type Assembler = manifold_socket::Assembler<Header>;
pub(crate) type Message<'a> = manifold_socket::Message<'a, Header>;
pub(crate) type Broken = manifold_socket::Broken<Header>;

impl manifold_socket::Header for Header {
    const SIZE: usize = spec::HEADER_SIZE;

    fn read(bytes: &[u8; MAX_HEADER]) -> Self {
        Self::decode(bytes)
    }

    fn payload_len(&self) -> Option<usize> {
        self.payload_size()
    }
}
