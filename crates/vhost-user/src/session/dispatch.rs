//! What each request does.

use std::os::fd::OwnedFd;

use super::{Answer, Refusal, Session};
use crate::codec::{Malformed, RegionDescription, Request};
use crate::inflight::Tracking;
use crate::memory::MAX_REGIONS;
use crate::ring::Kick;
use crate::spec::{self, protocol_feature, status};

impl Session {
    pub(super) fn dispatch(
        &mut self,
        code: u32,
        request: Request,
        answer: &mut Answer,
    ) -> Result<(), Refusal> {
        match request {
            Request::GetFeatures => answer.number(code, self.features_offered()),
            Request::SetFeatures(features) => return self.set_features(features),
            // One client has the device, and it is the owner.
            Request::SetOwner => {}
            // "Back-ends should either ignore this message, or use it to disable all rings."
            Request::ResetOwner => self.reset(),
            Request::GetProtocolFeatures => answer.number(code, self.protocol_offer),
            Request::SetProtocolFeatures(features) => {
                let unknown = features & !self.protocol_offer;
                if unknown != 0 {
                    return Err(Refusal::Features(unknown));
                }
                self.protocol_features = features;
            }
            Request::GetQueueNum => {
                self.needs(protocol_feature::MQ)?;
                answer.number(code, self.offer.rings.into());
            }
            Request::SetMemTable(regions) => return self.set_memory(regions),
            Request::GetMaxMemSlots => {
                self.needs(protocol_feature::CONFIGURE_MEM_SLOTS)?;
                answer.number(code, MAX_REGIONS as u64);
            }
            Request::AddMemRegion(region, file) => {
                self.needs(protocol_feature::CONFIGURE_MEM_SLOTS)?;
                return self.add_memory(&region, file);
            }
            Request::RemoveMemRegion(region) => {
                self.needs(protocol_feature::CONFIGURE_MEM_SLOTS)?;
                let region = self.memory.remove(&region)?;
                self.device.unmap(&region);
            }
            Request::SetStatus(value) => {
                self.needs(protocol_feature::STATUS)?;
                return self.set_status(value);
            }
            Request::GetStatus => {
                self.needs(protocol_feature::STATUS)?;
                answer.number(code, self.status.get().into());
            }
            Request::ResetDevice => {
                self.needs(protocol_feature::RESET_DEVICE)?;
                self.reset();
            }
            Request::SendRarp { mac } => {
                self.needs(protocol_feature::RARP)?;
                self.device.announce(mac);
            }
            Request::SetMtu(mtu) => {
                self.needs(protocol_feature::NET_MTU)?;
                let failed = |source| Refusal::Mtu { mtu, source };
                let bytes = u16::try_from(mtu).map_err(|error| failed(error.into()))?;
                self.device.set_mtu(bytes).map_err(failed)?;
            }
            Request::GetInflight(asked) => {
                self.needs(protocol_feature::INFLIGHT_SHMFD)?;
                let part = |size| self.device.inflight_size(size, self.is_packed());
                let tracking = Tracking::new(&asked, part)?;
                answer.reply(code, &tracking.description().encode());
                answer.fd = Some(tracking.file());
                self.tracking = Some(tracking);
            }
            Request::SetInflight(description, file) => {
                self.needs(protocol_feature::INFLIGHT_SHMFD)?;
                let part = |size| self.device.inflight_size(size, self.is_packed());
                self.tracking = Some(Tracking::of_client(&description, file, part)?);
            }
            ring => return self.ring_request(code, ring, answer),
        }
        Ok(())
    }

    fn ring_request(
        &mut self,
        code: u32,
        request: Request,
        answer: &mut Answer,
    ) -> Result<(), Refusal> {
        match request {
            Request::SetRingSize { ring, size } => {
                let max = self.offer.max_ring_size;
                let fits = u16::try_from(size).ok().filter(|size| (1..=max).contains(size));
                let size = fits.ok_or(Refusal::RingSize { size, max })?;
                let (index, ring) = self.stopped_ring(ring)?;
                ring.size = Some(size);
                self.settle(index)
            }
            Request::SetRingAddresses { ring, addresses } => {
                let (index, present) = self.ring(ring)?;
                if present.running && present.addresses == Some(addresses) {
                    return Ok(());
                }
                self.check_addresses(&addresses)?;
                let (_, ring) = self.stopped_ring(ring)?;
                ring.addresses = Some(addresses);
                self.settle(index)
            }
            Request::SetRingBase { ring, base } => {
                let (_, ring) = self.stopped_ring(ring)?;
                ring.base = Some(base);
                Ok(())
            }
            Request::GetRingBase { ring } => {
                let (index, _) = self.ring(ring)?;
                let base = self.stop(index)?;
                let payload = [u32::from(index), base].map(u32::to_ne_bytes).concat();
                answer.reply(code, &payload);
                Ok(())
            }
            Request::SetRingKick { ring, fd } => self.set_kick(ring, fd),
            Request::SetRingCall { ring, fd } => {
                let fd = eventfd(fd)?;
                let (_, ring) = self.ring(ring)?;
                ring.lines.set_call(fd, ring.running);
                Ok(())
            }
            Request::SetRingErr { ring, fd } => {
                let fd = eventfd(fd)?;
                let (_, ring) = self.ring(ring)?;
                ring.lines.set_err(fd);
                Ok(())
            }
            Request::SetRingEnable { ring, enable } => {
                let (index, ring) = self.ring(ring)?;
                ring.enabled = enable;
                self.settle(index)
            }
            // `dispatch` has all others.
            _ => Err(Malformed::Unknown(code).into()),
        }
    }

    fn features_offered(&self) -> u64 {
        self.offer.features | spec::F_PROTOCOL_FEATURES
    }

    fn set_features(&mut self, features: u64) -> Result<(), Refusal> {
        let unknown = features & !self.features_offered();
        if unknown != 0 {
            return Err(Refusal::Features(unknown));
        }
        // QEMU says it once per pair, while the first pairs run already.
        if self.rings.iter().any(|ring| ring.running) && self.features != Some(features) {
            return Err(Refusal::FeaturesInUse);
        }
        self.features = Some(features);
        self.status.set_features(features & self.offer.features);
        if features & spec::F_PROTOCOL_FEATURES == 0 {
            // "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the enabled state."
            for ring in &mut self.rings {
                ring.enabled = true;
            }
        }
        self.settle_all()
    }

    fn set_status(&mut self, value: u64) -> Result<(), Refusal> {
        let status =
            u8::try_from(value).map_err(|_| Malformed::Value { what: "device status", value })?;
        if status == 0 {
            self.reset();
        } else {
            self.status.keep_needs_reset(status & !status::NEEDS_RESET);
        }
        Ok(())
    }

    /// The device is as after power-on, but for what the client does not say again: its memory and the ways back to it.
    fn reset(&mut self) {
        self.stop_all();
        for ring in &mut self.rings {
            ring.size = None;
            ring.addresses = None;
            ring.base = None;
            ring.kick = Kick::Stopped;
            ring.enabled = false;
        }
        self.tracking = None;
        self.status.clear();
    }

    /// Replaces the whole memory table. Rings pause meanwhile; should it fail there is no memory, and they stay so until
    /// there is.
    fn set_memory(&mut self, regions: Vec<(RegionDescription, OwnedFd)>) -> Result<(), Refusal> {
        self.pause();
        self.forget_memory();
        for (description, file) in regions {
            if let Err(refusal) = self.add_memory(&description, file) {
                self.forget_memory();
                return Err(refusal);
            }
        }
        self.settle_all()
    }

    fn add_memory(
        &mut self,
        description: &RegionDescription,
        file: OwnedFd,
    ) -> Result<(), Refusal> {
        let region = self.memory.check(description)?;
        self.map(&region, file)?;
        self.memory.add(region);
        Ok(())
    }
}

pub(super) fn eventfd(fd: Option<OwnedFd>) -> Result<Option<manifold_socket::EventFd>, Refusal> {
    fd.map(manifold_socket::EventFd::new).transpose().map_err(Refusal::EventFd)
}
