use crate::{Decision, Source, Table, spec};

/// Bytes of a header that decide, with a VLAN tag.
const DECIDING: usize = spec::HEADER_LEN + spec::VLAN_TAG_LEN;

/// Asks a table about the frames of one sender, one after the other, and remembers the last answer: frames that come
/// together mostly go to the same place.
///
/// It answers as [`Table::classify`] does, whatever was asked before.
#[derive(Clone, Copy, Debug)]
pub struct Recent<'t> {
    table: &'t Table,
    source: Source,
    last: Option<Answer<'t>>,
}

#[derive(Clone, Copy, Debug)]
struct Answer<'t> {
    header: [u8; DECIDING],
    /// Shorter frames get the same answer, down to the header's length.
    len: usize,
    decision: Decision<'t>,
}

impl<'t> Recent<'t> {
    /// Nothing remembered yet.
    pub fn new(table: &'t Table, source: Source) -> Self {
        Recent { table, source, last: None }
    }

    /// Whether the frame gets the same answer as the last one that [`Recent::classify`] was asked about; false says nothing.
    #[inline]
    pub fn repeats(&self, header: &[u8], frame_len: usize) -> bool {
        match (&self.last, header.first_chunk()) {
            (Some(last), Some(first)) => {
                same(first, &last.header) && (DECIDING..=last.len).contains(&frame_len)
            }
            _ => false,
        }
    }

    /// See [`Table::classify`].
    #[inline]
    pub fn classify(&mut self, header: &[u8], frame_len: usize) -> Decision<'t> {
        let Some(first) = header.first_chunk::<DECIDING>() else {
            return self.table.classify(self.source, header, frame_len);
        };
        match &self.last {
            Some(last) if self.repeats(header, frame_len) => last.decision,
            _ => self.ask(first, header, frame_len),
        }
    }

    #[inline(never)]
    fn ask(&mut self, first: &[u8; DECIDING], header: &[u8], frame_len: usize) -> Decision<'t> {
        let decision = self.table.classify(self.source, header, frame_len);
        // Why a frame is dropped may depend on its length.
        self.last = (!matches!(decision, Decision::Drop(_))).then_some(Answer {
            header: *first,
            len: frame_len,
            decision,
        });
        decision
    }
}

/// Whether two headers agree in what decides: the addresses, and the tag if there is one.
#[inline]
fn same(one: &[u8; DECIDING], other: &[u8; DECIDING]) -> bool {
    // Two words that overlap: the addresses and the type.
    let [start, end] = [0, spec::HEADER_LEN - 8].map(|at| word(one, at) ^ word(other, at));
    let tagged = word(one, spec::HEADER_LEN - 8) >> 48 == TAGGED;
    let tags = |header: &[u8; DECIDING]| header.last_chunk::<{ spec::VLAN_TAG_LEN }>().copied();
    start | end == 0 && (!tagged || tags(one) == tags(other))
}

/// The type of a tagged frame, as the word before its tag ends.
const TAGGED: u64 = spec::TPID_CVLAN.swap_bytes() as u64;

#[inline]
fn word(header: &[u8; DECIDING], at: usize) -> u64 {
    let bytes = header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}
