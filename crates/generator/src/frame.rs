//! This module builds the frames, and checks that what arrives is what was sent.
//!
//! ```text
//!   virtio_net_hdr │ Ethernet │ IPv4 │ UDP or TCP │ flow, slot │ pattern …
//!   12               14         20     8 or 20      2     2
//! ```

use crate::config::{Frames, Mac};
use manifold_guest::virtio::offload::{fold, sum};
use manifold_guest::virtio::spec::{NET_HEADER, header};
use manifold_guest::{Error, Result};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const TCP: usize = 20;
/// Port of queue pair 0, for TCP or UDP.
const PORT: u16 = 0x4000;
/// Length of the largest frame in bytes, which holds an IPv4 packet of 65535 bytes.
const LARGEST: u32 = 65535 + ETHERNET as u32;
const SMALLEST: u32 = 60;
/// Frame sizes in bytes, in the proportion 7 to 4 to 1.
const IMIX: [u32; 12] = [60, 590, 60, 590, 60, 60, 1514, 60, 590, 60, 590, 60];

/// The contents that all frames of a flow have in common.
///
/// Both TCP or UDP ports are `0x4000` plus the queue pair, so that the opposite flow on the same
/// pair is the same conversation. A device that steers by it (virtio 1.3, 5.1.6.5.5.1) delivers
/// each on the pair that its receiver sends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Template {
    pub(crate) flow: u16,
    pub(crate) queue: u16,
    pub(crate) from: Mac,
    pub(crate) to: Mac,
}

impl Frames {
    /// Refuses frames that no packet fits.
    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Self::Imix => Ok(()),
            Self::Size(bytes) | Self::Tso { bytes, .. }
                if !(SMALLEST..=LARGEST).contains(&bytes) =>
            {
                Err(Error::Command(format!(
                    "frames of {bytes} bytes; {SMALLEST} to {LARGEST} are possible"
                )))
            }
            Self::Tso { mss: 0, .. } => Err(Error::Command("segments of 0 bytes".into())),
            _ => Ok(()),
        }
    }

    /// Returns the bytes of the largest frame.
    pub(crate) fn largest(&self) -> usize {
        match *self {
            Self::Size(bytes) | Self::Tso { bytes, .. } => bytes as usize,
            Self::Imix => IMIX.iter().copied().max().unwrap_or_default() as usize,
        }
    }

    /// Returns the bytes of the frame in a slot.
    pub(crate) fn bytes(&self, slot: u16) -> usize {
        match *self {
            Self::Size(bytes) | Self::Tso { bytes, .. } => bytes as usize,
            Self::Imix => IMIX.get(usize::from(slot) % IMIX.len()).copied().unwrap_or(60) as usize,
        }
    }

    /// Returns the bytes of a frame on average over `slots` slots.
    pub(crate) fn mean(&self, slots: u16) -> f64 {
        let sum: usize = (0..slots).map(|slot| self.bytes(slot)).sum();
        sum as f64 / f64::from(slots.max(1))
    }

    /// Builds the virtio-net header and the frame of a slot.
    pub(crate) fn build(&self, template: &Template, slot: u16) -> Vec<u8> {
        let len = self.bytes(slot);
        let tcp = matches!(self, Self::Tso { .. });
        let transport = if tcp { TCP } else { UDP };
        let payload = ETHERNET + IPV4 + transport;
        let mut frame = vec![0; len.max(payload + 4)];
        put(&mut frame, 0, &template.to.0);
        put(&mut frame, 6, &template.from.0);
        put(&mut frame, 12, &[0x08, 0x00]);
        let ip = (len - ETHERNET) as u16;
        let (from, to) = (address(template.from), address(template.to));
        let mut v4 = [0; IPV4];
        put(&mut v4, 0, &[0x45, 0]);
        put(&mut v4, 2, &ip.to_be_bytes());
        put(&mut v4, 8, &[64, if tcp { 6 } else { 17 }]);
        put(&mut v4, 12, &from);
        put(&mut v4, 16, &to);
        let check = !fold(sum(&v4));
        put(&mut v4, 10, &check.to_be_bytes());
        put(&mut frame, ETHERNET, &v4);
        let at = ETHERNET + IPV4;
        for end in [at, at + 2] {
            put(&mut frame, end, &(PORT | template.queue).to_be_bytes());
        }
        if tcp {
            // The fields are the header's length, ACK and PSH, and the window.
            put(&mut frame, at + 12, &[(TCP as u8 / 4) << 4, 0x18, 0xff, 0xff]);
            // This is the sum over the pseudo-header, from which the device completes the checksum.
            let pseudo = sum(&from) + sum(&to) + 6 + u64::from(ip) - IPV4 as u64;
            put(&mut frame, at + 16, &fold(pseudo).to_be_bytes());
        } else {
            // The checksum stays 0, which IPv4 allows.
            put(&mut frame, at + 4, &(ip - IPV4 as u16).to_be_bytes());
        }
        put(&mut frame, payload, &template.flow.to_be_bytes());
        put(&mut frame, payload + 2, &slot.to_be_bytes());
        for (n, byte) in (0usize..).zip(frame.iter_mut().skip(payload + 4)) {
            *byte = (n.wrapping_mul(31).wrapping_add(usize::from(slot))) as u8;
        }
        frame.truncate(len);
        let mut bytes = self.header(payload).to_vec();
        bytes.extend_from_slice(&frame);
        bytes
    }

    fn header(&self, headers: usize) -> [u8; NET_HEADER] {
        let mut bytes = [0; NET_HEADER];
        if let Self::Tso { mss, .. } = *self {
            put(&mut bytes, header::FLAGS, &[header::F_NEEDS_CSUM]);
            put(&mut bytes, header::GSO_TYPE, &[header::GSO_TCPV4]);
            put(&mut bytes, header::HDR_LEN, &(headers as u16).to_le_bytes());
            put(&mut bytes, header::GSO_SIZE, &mss.to_le_bytes());
            put(&mut bytes, header::CSUM_START, &((ETHERNET + IPV4) as u16).to_le_bytes());
            put(&mut bytes, header::CSUM_OFFSET, &16u16.to_le_bytes());
        }
        bytes
    }

    /// Checks that a received frame, without its virtio-net header, is byte for byte one that its
    /// flow sent. `template` returns a flow's template. Returns `None` if the frame comes from
    /// somebody else.
    pub(crate) fn verify(
        &self,
        frame: &[u8],
        template: impl Fn(u16) -> Option<Template>,
    ) -> Option<Result<()>> {
        let tcp = matches!(self, Self::Tso { .. });
        let payload = ETHERNET + IPV4 + if tcp { TCP } else { UDP };
        let number = |at: usize| {
            let bytes = frame.get(at..at + 2)?;
            Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
        };
        let (flow, slot) = (number(payload)?, number(payload + 2)?);
        let template = template(flow)?;
        if number(12)? != 0x0800 || number(ETHERNET + IPV4)? != PORT | template.queue {
            return None;
        }
        let sent = self.build(&template, slot);
        let sent = sent.get(NET_HEADER..)?;
        let differs = |n: &usize| {
            // A device may complete the checksum.
            let checksum = tcp && (ETHERNET + IPV4 + 16..ETHERNET + IPV4 + 18).contains(n);
            !checksum && sent.get(*n) != frame.get(*n)
        };
        let wrong = (0..sent.len().max(frame.len())).find(differs);
        Some(wrong.map_or(Ok(()), |n| {
            Err(Error::Device(format!(
                "byte {n} of frame {slot} of flow {flow} is {:02x?}, not {:02x?} \
                 ({} bytes, {} sent)",
                frame.get(n),
                sent.get(n),
                frame.len(),
                sent.len()
            )))
        }))
    }
}

/// Makes an IPv4 address from a MAC address.
fn address(mac: Mac) -> [u8; 4] {
    let [_, _, _, a, b, c] = mac.0;
    [10, a, b, c]
}

fn put(bytes: &mut [u8], at: usize, data: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + data.len()) {
        place.copy_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: Template =
        Template { flow: 3, queue: 1, from: Mac([2, 0, 0, 0, 0, 1]), to: Mac([2, 0, 0, 0, 0, 2]) };

    fn verify(frames: Frames, frame: &[u8]) -> Option<Result<()>> {
        frames.verify(frame, |flow| (flow == TEMPLATE.flow).then_some(TEMPLATE))
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let count = |size| IMIX.iter().filter(|bytes| **bytes == size).count();
        assert_eq!([count(60), count(590), count(1514)], [7, 4, 1]);
        assert_eq!(Frames::Imix.largest(), 1514);
    }

    #[test]
    fn an_address_checks_out() {
        for frames in [Frames::Size(60), Frames::Imix, Frames::Tso { bytes: 65549, mss: 1448 }] {
            frames.check().unwrap();
            let bytes = frames.build(&TEMPLATE, 6);
            assert_eq!(bytes.len(), NET_HEADER + frames.bytes(6));
            let ip = &bytes[NET_HEADER + ETHERNET..][..IPV4];
            assert_eq!(fold(sum(ip)), 0xffff, "the IPv4 header's checksum");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        for frames in [Frames::Size(60), Frames::Size(1514), Frames::Tso { bytes: 9000, mss: 536 }]
        {
            let frame = frames.build(&TEMPLATE, 200).split_off(NET_HEADER);
            assert!(matches!(verify(frames, &frame), Some(Ok(()))));
            for at in [0, 11, 20, frame.len() - 1] {
                let mut changed = frame.clone();
                changed[at] ^= 1;
                assert!(matches!(verify(frames, &changed), Some(Err(_))), "{at}");
            }
            assert!(matches!(verify(frames, &frame[..frame.len() - 1]), Some(Err(_))));
            assert!(verify(frames, &[0; 60]).is_none());
            assert!(verify(frames, &[]).is_none());
        }
    }

    #[test]
    fn impossible_frames_are_refused() {
        for frames in [Frames::Size(59), Frames::Size(65550), Frames::Tso { bytes: 65549, mss: 0 }]
        {
            assert!(frames.check().is_err());
        }
    }
}
