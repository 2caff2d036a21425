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

    /// See [`Table::classify`].
    #[inline]
    pub fn classify(&mut self, header: &[u8], frame_len: usize) -> Decision<'t> {
        let Some(first) = header.first_chunk::<DECIDING>() else {
            return self.table.classify(self.source, header, frame_len);
        };
        if let Some(last) = &self.last
            && same(first, &last.header)
            && (DECIDING..=last.len).contains(&frame_len)
        {
            return last.decision;
        }
        self.ask(first, header, frame_len)
    }

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
    const UNTAGGED: usize = spec::HEADER_LEN;
    let tagged = one[UNTAGGED - 2..UNTAGGED] == spec::TPID_CVLAN.to_be_bytes();
    one[..UNTAGGED] == other[..UNTAGGED] && (!tagged || one[UNTAGGED..] == other[UNTAGGED..])
}
