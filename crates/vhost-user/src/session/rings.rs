//! This module starts and stops rings as the client sets them up.

use std::os::fd::AsFd;
use std::sync::Arc;

use manifold_socket::EventFd;
use manifold_virtio::ring::QueueState;

use super::state::Session;
use crate::codec::{Malformed, RingAddresses};
use crate::device::RingSetup;
use crate::refusal::Refusal;
use crate::ring::{Kick, Ring, from_base, to_base};
use crate::spec::{protocol_feature, status};

impl Session {
    /// Returns the ring of a client's index and its index, if there is such a ring.
    fn ring(&mut self, ring: u32) -> Result<(u16, &mut Ring), Refusal> {
        let rings = self.capabilities.rings;
        let missing = Refusal::NoRing { ring, rings };
        let Ok(index) = u16::try_from(ring) else { return Err(missing) };
        match self.rings.get_mut(usize::from(index)) {
            Some(ring) => Ok((index, ring)),
            None => Err(missing),
        }
    }

    /// Returns the ring of a client's index for a change that the ring must be stopped for.
    fn stopped_ring(&mut self, ring: u32) -> Result<(u16, &mut Ring), Refusal> {
        let (index, ring) = self.ring(ring)?;
        if ring.running { Err(Refusal::RingInUse(index)) } else { Ok((index, ring)) }
    }

    /// Checks that the addresses are in memory. Without memory the check passes, since memory may
    /// come later.
    fn check_addresses(&self, addresses: &RingAddresses) -> Result<(), Refusal> {
        if !self.memory.is_empty() {
            self.translate(addresses)?;
        }
        Ok(())
    }

    /// Returns the guest addresses of the descriptors, the driver's part and the device's part.
    fn translate(&self, addresses: &RingAddresses) -> Result<[u64; 3], Refusal> {
        let RingAddresses { descriptors, used, available } = *addresses;
        let guest = |at| self.memory.guest_address(at).ok_or(Refusal::Address(at));
        Ok([guest(descriptors)?, guest(available)?, guest(used)?])
    }

    pub(super) fn set_ring_size(&mut self, ring: u32, size: u32) -> Result<(), Refusal> {
        let max = self.capabilities.max_ring_size;
        let fits = u16::try_from(size).ok().filter(|size| (1..=max).contains(size));
        let size = fits.ok_or(Refusal::RingSize { size, max })?;
        let (index, ring) = self.stopped_ring(ring)?;
        ring.size = Some(size);
        self.settle(index)
    }

    pub(super) fn set_ring_addresses(
        &mut self,
        ring: u32,
        addresses: RingAddresses,
    ) -> Result<(), Refusal> {
        let (index, present) = self.ring(ring)?;
        if present.running && present.addresses == Some(addresses) {
            return Ok(());
        }
        self.check_addresses(&addresses)?;
        let (_, ring) = self.stopped_ring(ring)?;
        ring.addresses = Some(addresses);
        self.settle(index)
    }

    pub(super) fn set_ring_base(&mut self, ring: u32, base: u32) -> Result<(), Refusal> {
        let (_, ring) = self.stopped_ring(ring)?;
        ring.base = Some(base);
        Ok(())
    }

    pub(super) fn enable_ring(&mut self, ring: u32, enable: u32) -> Result<(), Refusal> {
        if enable > 1 {
            return Err(Malformed::Value { what: "enable", value: enable.into() }.into());
        }
        let (index, ring) = self.ring(ring)?;
        ring.enabled = enable == 1;
        self.settle(index)
    }

    pub(super) fn set_call(&mut self, ring: u32, fd: Option<EventFd>) -> Result<(), Refusal> {
        let (_, ring) = self.ring(ring)?;
        ring.fds.set_call(fd, ring.running);
        Ok(())
    }

    pub(super) fn set_err(&mut self, ring: u32, fd: Option<EventFd>) -> Result<(), Refusal> {
        let (_, ring) = self.ring(ring)?;
        ring.fds.set_err(fd);
        Ok(())
    }

    pub(super) fn set_kick(&mut self, ring: u32, fd: Option<EventFd>) -> Result<(), Refusal> {
        let (index, _) = self.ring(ring)?;
        let kick = match fd {
            Some(fd) => Kick::By(fd),
            // The device can poll here, because nobody waits for buffers to receive into.
            None if index.is_multiple_of(2) => Kick::Polled,
            None => return Err(Refusal::Polling(index)),
        };
        // A ring that is served continues with the new eventfd where it was.
        self.halt(index);
        if let Some(ring) = self.rings.get_mut(usize::from(index)) {
            ring.kick = kick;
        }
        self.settle(index)
    }

    /// Starts or stops a ring as the client wants it now.
    fn settle(&mut self, index: u16) -> Result<(), Refusal> {
        let wanted = self.rings.get(usize::from(index)).is_some_and(Ring::is_wanted);
        let result = if wanted {
            let started = self.start(index);
            self.use_pairs();
            started
        } else {
            // Frames are steered elsewhere before the ring stops.
            self.use_pairs();
            self.halt(index);
            Ok(())
        };
        self.derive_status();
        result
    }

    /// Starts or stops all rings as the client wants it now; the first refusal is reported.
    pub(super) fn settle_all(&mut self) -> Result<(), Refusal> {
        let results = (0..self.capabilities.rings).map(|index| self.settle(index));
        results.fold(Ok(()), Result::and)
    }

    /// Begins to serve a ring, if everything it takes is known.
    fn start(&mut self, index: u16) -> Result<(), Refusal> {
        let packed = self.is_packed();
        let Some(ring) = self.rings.get(usize::from(index)).filter(|ring| !ring.running) else {
            return Ok(());
        };
        let (Some(features), Some(size), Some(addresses)) =
            (self.features, ring.size, ring.addresses)
        else {
            return Ok(());
        };
        if self.memory.is_empty() {
            return Ok(());
        }
        let [descriptors, driver, device] = self.translate(&addresses)?;
        let position =
            ring.base.map_or_else(|| QueueState::start(packed), |base| from_base(base, packed));
        let kick = match &ring.kick {
            Kick::By(fd) => Some(fd.as_fd().try_clone_to_owned().map_err(Refusal::EventFd)?),
            Kick::Stopped | Kick::Polled => None,
        };
        let setup = RingSetup {
            size,
            descriptors,
            driver,
            device,
            features,
            position,
            kick,
            fds: Arc::clone(&ring.fds),
            inflight: self.tracking.as_ref().and_then(|tracking| tracking.part(index)),
        };
        self.device
            .start_ring(index, setup)
            .map_err(|source| Refusal::Start { ring: index, source })?;
        if let Some(ring) = self.rings.get_mut(usize::from(index)) {
            ring.running = true;
        }
        Ok(())
    }

    /// Ends serving a ring, which would later continue where it was.
    fn halt(&mut self, index: u16) {
        let packed = self.is_packed();
        if let Some(ring) = self.rings.get_mut(usize::from(index))
            && std::mem::replace(&mut ring.running, false)
        {
            ring.base = Some(to_base(self.device.stop_ring(index), packed));
        }
    }

    /// Stops a ring as the client asks, and returns the base where it was.
    pub(super) fn stop(&mut self, ring: u32) -> Result<u32, Refusal> {
        let (index, _) = self.ring(ring)?;
        if let Some(ring) = self.rings.get_mut(usize::from(index)) {
            ring.kick = Kick::Stopped;
        }
        self.settle(index)?;
        let base = self.rings.get(usize::from(index)).and_then(|ring| ring.base);
        Ok(base.unwrap_or_else(|| to_base(QueueState::start(self.is_packed()), self.is_packed())))
    }

    /// Ends serving all rings while the memory changes.
    pub(super) fn pause(&mut self) {
        for index in 0..self.capabilities.rings {
            self.halt(index);
        }
    }

    /// Stops all rings, because the client says so or is gone.
    pub(super) fn stop_all(&mut self) {
        self.pause();
        for ring in &mut self.rings {
            ring.kick = Kick::Stopped;
        }
        self.use_pairs();
    }

    /// Steers frames to the leading pairs that the client has started and enabled.
    fn use_pairs(&mut self) {
        let receive = self.rings.iter().step_by(2);
        let leading = receive.take_while(|ring| ring.is_wanted()).count();
        let pairs = u16::try_from(leading).unwrap_or(u16::MAX).max(1);
        if std::mem::replace(&mut self.pairs, pairs) != pairs {
            self.device.use_pairs(pairs);
        }
    }

    /// Sets the status register of a client that does not tell it to what its requests amount to.
    fn derive_status(&self) {
        if self.has(protocol_feature::STATUS) {
            return;
        }
        let running = self.rings.iter().any(|ring| ring.running);
        let value = match self.features {
            Some(_) if running => status::NEGOTIATED | status::DRIVER_OK,
            Some(_) => status::NEGOTIATED,
            None => 0,
        };
        self.status.keep_needs_reset(value);
    }
}
