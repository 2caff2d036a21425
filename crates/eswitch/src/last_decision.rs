use crate::decision::Decision;
use crate::spec;

/// Number of bytes of a header with a VLAN tag that decide where a frame goes.
const DECIDING: usize = spec::HEADER_LEN + spec::VLAN_TAG_LEN;

/// The last frame of one sender that went to a single place. Frames that come together mostly go to
/// the same place.
///
/// It is good for one table: whoever keeps it must begin anew, with nothing remembered, when that
/// changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastDecision {
    header: [u8; DECIDING],
    /// Length of the longest frame that gets the same answer; shorter ones get it down to the
    /// header's length. 0 if nothing is remembered.
    longest: usize,
}

impl LastDecision {
    /// Returns true if a frame of the same sender goes where the remembered one went. False says
    /// nothing.
    ///
    /// `header` and `frame_len` are as in [`Table::classify`](crate::Table::classify).
    #[inline]
    pub fn repeats(&self, header: &[u8], frame_len: usize) -> bool {
        (DECIDING..=self.longest).contains(&frame_len)
            && header.first_chunk().is_some_and(|first| same(first, &self.header))
    }

    /// Remembers a frame that was answered with `decision`, if others will get the same answer.
    pub fn remember(&mut self, header: &[u8], frame_len: usize, decision: &Decision<'_>) {
        // The reason why a frame is dropped may depend on its length, and a frame for many is
        // looked at each time.
        *self = match (decision, header.first_chunk()) {
            (Decision::Function(_) | Decision::Uplink, Some(first)) => {
                LastDecision { header: *first, longest: frame_len }
            }
            _ => LastDecision::default(),
        };
    }
}

/// Returns whether two headers agree in what decides: the addresses, and the tag if there is one.
#[inline]
fn same(one: &[u8; DECIDING], other: &[u8; DECIDING]) -> bool {
    // The addresses and the type are compared as two words that overlap.
    let [start, end] = [0, spec::HEADER_LEN - 8].map(|at| word(one, at) ^ word(other, at));
    let tagged = word(one, spec::HEADER_LEN - 8) >> 48 == TAGGED;
    let tags = |header: &[u8; DECIDING]| header.last_chunk::<{ spec::VLAN_TAG_LEN }>().copied();
    start | end == 0 && (!tagged || tags(one) == tags(other))
}

/// Type of a tagged frame, as the word before its tag ends.
const TAGGED: u64 = spec::TPID_CVLAN.swap_bytes() as u64;

#[inline]
fn word(header: &[u8; DECIDING], at: usize) -> u64 {
    let bytes = header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}
