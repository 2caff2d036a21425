//! This module decides where a frame goes.

use manifold_offload::MacAddr;

use super::{Record, Table};
use crate::decision::{Decision, Destinations, Source};
use crate::drop_reason::DropReason;
use crate::spec;

/// The sender of a frame, with its record.
#[derive(Clone, Copy)]
enum Sender {
    Slot(u16),
    Uplink,
}

impl Table {
    /// Decides where a frame goes.
    ///
    /// `header` is the first bytes of the frame, from the destination address on; 18 suffice.
    /// `frame_len` is the frame's length in bytes without FCS; for a frame still to be segmented,
    /// that of its longest segment.
    #[inline]
    pub fn classify(&self, source: Source, header: &[u8], frame_len: usize) -> Decision<'_> {
        match self.decide(source, header, frame_len) {
            Ok(decision) => decision,
            Err(reason) => Decision::Drop(reason),
        }
    }

    #[inline]
    fn decide(
        &self,
        source: Source,
        header: &[u8],
        frame_len: usize,
    ) -> Result<Decision<'_>, DropReason> {
        let header = Header::parse(header)?;
        let sender = match source {
            Source::Uplink => Sender::Uplink,
            Source::Function(id) => {
                let record = self
                    .slot(id)
                    .and_then(|slot| self.record(slot))
                    .ok_or(DropReason::UnknownSource)?;
                if !record.link_up {
                    return Err(DropReason::SourceLinkDown);
                }
                if record.spoofchk && self.owners.get(header.source) != Some(record.slot) {
                    // An address nobody may use is called invalid, whoever uses it.
                    return Err(if header.source_is_valid() {
                        DropReason::Spoofed
                    } else {
                        DropReason::InvalidSource
                    });
                }
                Sender::Slot(record.slot)
            }
        };
        if !header.source_is_valid() {
            return Err(DropReason::InvalidSource);
        }
        if frame_len < header.len {
            return Err(DropReason::Runt);
        }
        if frame_len - header.tag_len() > self.max_frame_len as usize {
            return Err(DropReason::Oversize);
        }
        if header.destination & GROUP == 0 {
            self.unicast(sender, &header)
        } else {
            self.group(sender, &header)
        }
    }

    #[inline]
    fn unicast(&self, sender: Sender, header: &Header) -> Result<Decision<'_>, DropReason> {
        let owner = self.owners.get(header.destination).and_then(|slot| self.record(slot));
        let single = match owner {
            Some(owner) => match owner.refuses_unicast {
                _ if matches!(sender, Sender::Slot(slot) if slot == owner.slot) => {
                    Err(DropReason::ToSender)
                }
                Some(reason) => Err(reason),
                None if !owner.admits(header.vid) => Err(DropReason::VlanFiltered),
                None => Ok(Decision::Function(owner.id)),
            },
            None if self.uplink && matches!(sender, Sender::Slot(_)) => Ok(Decision::Uplink),
            None => Err(DropReason::UnknownUnicast),
        };
        if self.unicast_always.is_empty() {
            return single;
        }
        let members: &[u16] = match (&single, owner) {
            (Ok(Decision::Function(_)), Some(owner))
                if !self.unicast_always.contains(&owner.slot) =>
            {
                std::slice::from_ref(&owner.slot)
            }
            _ => &[],
        };
        let uplink = matches!(single, Ok(Decision::Uplink));
        let all = self.destinations(sender, header, &self.unicast_always, members, uplink);
        if all.records().next().is_some() { Ok(Decision::Multi(all)) } else { single }
    }

    #[inline]
    fn group(&self, sender: Sender, header: &Header) -> Result<Decision<'_>, DropReason> {
        let (always, members): (&[u16], &[u16]) = if header.destination == BROADCAST {
            (&self.broadcast, &[])
        } else if header.destination & !RESERVED_ANY == RESERVED {
            return Err(DropReason::LinkLocal);
        } else {
            (&self.multicast_always, self.subscribers(header.destination))
        };
        let uplink = self.uplink && matches!(sender, Sender::Slot(_));
        let all = self.destinations(sender, header, always, members, uplink);
        if all.records().next().is_some() {
            return Ok(Decision::Multi(all));
        }
        if uplink {
            return Ok(Decision::Uplink);
        }
        let any_vlan = Destinations { vid: None, ..all };
        Err(if any_vlan.records().next().is_some() {
            DropReason::VlanFiltered
        } else {
            DropReason::NoReceiver
        })
    }

    fn destinations<'a>(
        &'a self,
        sender: Sender,
        header: &Header,
        always: &'a [u16],
        members: &'a [u16],
        uplink: bool,
    ) -> Destinations<'a> {
        let source = match sender {
            Sender::Slot(slot) => slot,
            Sender::Uplink => Record::NONE,
        };
        Destinations { table: self, always, members, uplink, source, vid: header.vid }
    }

    fn subscribers(&self, destination: u64) -> &[u16] {
        self.group_index
            .get(destination)
            .and_then(|index| self.groups.get(usize::from(index)))
            .and_then(|group| self.members.get(group.start as usize..group.end as usize))
            .unwrap_or(&[])
    }
}

/// Group bit of an address as [`MacAddr::key`] has it.
const GROUP: u64 = spec::GROUP_BIT as u64;
const BROADCAST: u64 = MacAddr::BROADCAST.key();
const RESERVED: u64 = MacAddr(spec::RESERVED_FIRST).key();
/// Low nibble of the last octet.
const RESERVED_ANY: u64 = 0x0f << 40;

/// The fields of a header that decide where the frame goes.
struct Header {
    destination: u64,
    source: u64,
    /// Size of the Ethernet header with its VLAN tag in bytes.
    len: usize,
    /// The frame's VLAN; `None` for untagged and priority-tagged frames.
    vid: Option<u16>,
}

impl Header {
    #[inline]
    fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let Some(&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]) = bytes.first_chunk()
        else {
            return Err(DropReason::Runt);
        };
        let mut header = Self {
            destination: u64::from_le_bytes([d0, d1, d2, d3, d4, d5, 0, 0]),
            source: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, 0, 0]),
            len: spec::HEADER_LEN,
            vid: None,
        };
        if u16::from_be_bytes([t0, t1]) == spec::TPID_CVLAN {
            header.len += spec::VLAN_TAG_LEN;
            let Some(&[.., v0, v1, _, _]) =
                bytes.first_chunk::<{ spec::HEADER_LEN + spec::VLAN_TAG_LEN }>()
            else {
                return Err(DropReason::Runt);
            };
            let vid = u16::from_be_bytes([v0, v1]) & spec::VID_MASK;
            header.vid = (vid != spec::VID_PRIORITY).then_some(vid);
        }
        Ok(header)
    }

    #[inline]
    fn source_is_valid(&self) -> bool {
        self.source & GROUP == 0 && self.source != 0
    }

    #[inline]
    fn tag_len(&self) -> usize {
        self.len - spec::HEADER_LEN
    }
}
