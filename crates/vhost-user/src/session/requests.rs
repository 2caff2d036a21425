//! This module is the table of the requests that are served, one row each, and what they do.

use std::os::fd::OwnedFd;

use manifold_socket::{Answer, EventFd};

use super::state::Session;
use crate::codec::{
    InflightDescription, Malformed, Payload, RegionDescription, RingAddresses, reply,
};
use crate::inflight::Tracking;
use crate::memory::MAX_REGIONS;
use crate::refusal::Refusal;
use crate::ring::Kick;
use crate::spec::{self, protocol_feature as feature, request, status};

type Outcome = Result<(), Refusal>;

/// One request.
pub(super) struct Row {
    code: u32,
    pub(super) name: &'static str,
    /// Protocol feature that it needs, as a mask; 0 for none.
    feature: u64,
    handler: Handler,
}

/// The function that carries a request out. The variant says what the payload is, whether
/// descriptors come with it and whether it has a reply.
enum Handler {
    /// There is no payload; the reply is a number.
    GetNumber(fn(&Session) -> u64),
    /// The payload is a ring; the reply is its index and its base.
    GetRingBase(fn(&mut Session, u32) -> Result<u32, Refusal>),
    /// The payload is an inflight description; the reply is another, with a descriptor.
    GetInflight(fn(&mut Session, InflightDescription, &mut Answer) -> Outcome),
    /// The request has no payload.
    Act(fn(&mut Session) -> Outcome),
    /// The payload is a number.
    Number(fn(&mut Session, u64) -> Outcome),
    /// The payload is a ring and a number.
    RingState(fn(&mut Session, u32, u32) -> Outcome),
    /// The payload is a ring and the addresses of its parts.
    RingAddresses(fn(&mut Session, u32, RingAddresses) -> Outcome),
    /// The payload is a ring, with an eventfd if there is one.
    RingFd(fn(&mut Session, u32, Option<EventFd>) -> Outcome),
    /// The payload is memory regions, with a descriptor each.
    Regions(fn(&mut Session, Vec<(RegionDescription, OwnedFd)>) -> Outcome),
    /// The payload is a memory region, with its descriptor.
    AddRegion(fn(&mut Session, RegionDescription, OwnedFd) -> Outcome),
    /// The payload is a memory region. Old clients send a descriptor, to be ignored.
    RemoveRegion(fn(&mut Session, RegionDescription) -> Outcome),
    /// The payload is an inflight description, with its descriptor.
    SetInflight(fn(&mut Session, InflightDescription, OwnedFd) -> Outcome),
}

use Handler::{
    Act, AddRegion, GetInflight, GetNumber, GetRingBase, Number, Regions, RemoveRegion, RingFd,
    RingState, SetInflight,
};

const fn row(code: u32, name: &'static str, feature: u64, handler: Handler) -> Row {
    Row { code, name, feature, handler }
}

/// All requests that are served.
static REQUESTS: [Row; 26] = [
    row(request::GET_FEATURES, "GET_FEATURES", 0, GetNumber(Session::features_offered)),
    row(request::SET_FEATURES, "SET_FEATURES", 0, Number(Session::set_features)),
    // Nothing is left to do: one client has the device, and it is the owner.
    row(request::SET_OWNER, "SET_OWNER", 0, Act(|_| Ok(()))),
    // The specification says: "Back-ends should either ignore this message, or use it to disable
    // all rings."
    row(request::RESET_OWNER, "RESET_OWNER", 0, Act(Session::reset)),
    row(request::SET_MEM_TABLE, "SET_MEM_TABLE", 0, Regions(Session::set_memory)),
    row(request::SET_VRING_NUM, "SET_VRING_NUM", 0, RingState(Session::set_ring_size)),
    row(
        request::SET_VRING_ADDR,
        "SET_VRING_ADDR",
        0,
        Handler::RingAddresses(Session::set_ring_addresses),
    ),
    row(request::SET_VRING_BASE, "SET_VRING_BASE", 0, RingState(Session::set_ring_base)),
    row(request::GET_VRING_BASE, "GET_VRING_BASE", 0, GetRingBase(Session::stop)),
    row(request::SET_VRING_KICK, "SET_VRING_KICK", 0, RingFd(Session::set_kick)),
    row(request::SET_VRING_CALL, "SET_VRING_CALL", 0, RingFd(Session::set_call)),
    row(request::SET_VRING_ERR, "SET_VRING_ERR", 0, RingFd(Session::set_err)),
    row(
        request::GET_PROTOCOL_FEATURES,
        "GET_PROTOCOL_FEATURES",
        0,
        GetNumber(|session| session.protocol_offer),
    ),
    row(
        request::SET_PROTOCOL_FEATURES,
        "SET_PROTOCOL_FEATURES",
        0,
        Number(Session::set_protocol_features),
    ),
    row(
        request::GET_QUEUE_NUM,
        "GET_QUEUE_NUM",
        feature::MQ,
        GetNumber(|session| session.capabilities.rings.into()),
    ),
    row(request::SET_VRING_ENABLE, "SET_VRING_ENABLE", 0, RingState(Session::enable_ring)),
    row(request::SEND_RARP, "SEND_RARP", feature::RARP, Number(Session::announce)),
    row(request::NET_SET_MTU, "NET_SET_MTU", feature::NET_MTU, Number(Session::set_mtu)),
    row(
        request::GET_INFLIGHT_FD,
        "GET_INFLIGHT_FD",
        feature::INFLIGHT_SHMFD,
        GetInflight(Session::new_inflight),
    ),
    row(
        request::SET_INFLIGHT_FD,
        "SET_INFLIGHT_FD",
        feature::INFLIGHT_SHMFD,
        SetInflight(Session::set_inflight),
    ),
    row(request::RESET_DEVICE, "RESET_DEVICE", feature::RESET_DEVICE, Act(Session::reset)),
    row(
        request::GET_MAX_MEM_SLOTS,
        "GET_MAX_MEM_SLOTS",
        feature::CONFIGURE_MEM_SLOTS,
        GetNumber(|_| MAX_REGIONS as u64),
    ),
    row(
        request::ADD_MEM_REG,
        "ADD_MEM_REG",
        feature::CONFIGURE_MEM_SLOTS,
        AddRegion(Session::add_memory),
    ),
    row(
        request::REM_MEM_REG,
        "REM_MEM_REG",
        feature::CONFIGURE_MEM_SLOTS,
        RemoveRegion(Session::remove_memory),
    ),
    row(request::SET_STATUS, "SET_STATUS", feature::STATUS, Number(Session::set_status)),
    row(
        request::GET_STATUS,
        "GET_STATUS",
        feature::STATUS,
        GetNumber(|session| session.status.get().into()),
    ),
];

impl Row {
    /// Returns the row of a request, if it is served.
    pub(super) fn find(code: u32) -> Option<&'static Self> {
        REQUESTS.iter().find(|row| row.code == code)
    }

    /// Reports whether the request has a reply of its own; then there is no other.
    pub(super) fn has_reply(&self) -> bool {
        matches!(self.handler, GetNumber(_) | GetRingBase(_) | GetInflight(_))
    }

    /// Carries the request out. It does nothing before all of the payload has been read.
    pub(super) fn carry_out(
        &self,
        session: &mut Session,
        mut payload: Payload<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        if self.feature & !session.protocol_features != 0 {
            return Err(Refusal::NotNegotiated(self.feature));
        }
        let payload = &mut payload;
        match self.handler {
            GetNumber(get) => {
                payload.end()?;
                answer.bytes = reply(self.code, &get(session).to_ne_bytes());
                Ok(())
            }
            GetRingBase(stop) => {
                let ring = payload.read(Payload::ring_state)?.0;
                let base = stop(session, ring)?;
                answer.bytes = reply(self.code, &[ring, base].map(u32::to_ne_bytes).concat());
                Ok(())
            }
            GetInflight(make) => make(session, payload.read(Payload::inflight)?, answer),
            Act(act) => {
                payload.end()?;
                act(session)
            }
            Number(set) => set(session, payload.read(Payload::u64)?),
            RingState(set) => {
                let (ring, value) = payload.read(Payload::ring_state)?;
                set(session, ring, value)
            }
            Handler::RingAddresses(set) => {
                let (ring, addresses) = payload.read(Payload::ring_addresses)?;
                set(session, ring, addresses)
            }
            RingFd(set) => {
                let (ring, fd) = payload.read(Payload::ring_fd)?;
                let eventfd = fd.map(EventFd::new).transpose().map_err(Refusal::EventFd)?;
                set(session, ring, eventfd)
            }
            Regions(set) => set(session, payload.read(Payload::regions)?),
            AddRegion(add) => {
                let (region, fd) =
                    payload.read(|payload| Ok((payload.single_region()?, payload.fd()?)))?;
                add(session, region, fd)
            }
            RemoveRegion(remove) => {
                payload.close_fds();
                remove(session, payload.read(Payload::single_region)?)
            }
            SetInflight(set) => {
                let (description, fd) =
                    payload.read(|payload| Ok((payload.inflight()?, payload.fd()?)))?;
                set(session, description, fd)
            }
        }
    }
}

impl Session {
    fn features_offered(&self) -> u64 {
        self.capabilities.features | spec::F_PROTOCOL_FEATURES
    }

    fn set_features(&mut self, features: u64) -> Outcome {
        let unknown = features & !self.features_offered();
        if unknown != 0 {
            return Err(Refusal::Features(unknown));
        }
        // QEMU sets the features once per pair, while the first pairs run already.
        if self.rings.iter().any(|ring| ring.running) && self.features != Some(features) {
            return Err(Refusal::FeaturesInUse);
        }
        self.features = Some(features);
        self.status.set_features(features & self.capabilities.features);
        if features & spec::F_PROTOCOL_FEATURES == 0 {
            // The specification says: "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated,
            // the ring starts directly in the enabled state."
            for ring in &mut self.rings {
                ring.enabled = true;
            }
        }
        self.settle_all()
    }

    fn set_protocol_features(&mut self, features: u64) -> Outcome {
        let unknown = features & !self.protocol_offer;
        if unknown != 0 {
            return Err(Refusal::Features(unknown));
        }
        self.protocol_features = features;
        Ok(())
    }

    fn set_status(&mut self, value: u64) -> Outcome {
        let status =
            u8::try_from(value).map_err(|_| Malformed::Value { what: "device status", value })?;
        if status == 0 {
            return self.reset();
        }
        self.status.keep_needs_reset(status & !status::NEEDS_RESET);
        Ok(())
    }

    /// Sets the device to its state after power-on, but for what the client does not say again: its
    /// memory and the eventfds towards it.
    fn reset(&mut self) -> Outcome {
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
        Ok(())
    }

    fn announce(&mut self, mac: u64) -> Outcome {
        // The address is in the first six bytes in memory.
        let [a, b, c, d, e, f, ..] = mac.to_ne_bytes();
        self.device.announce([a, b, c, d, e, f]);
        Ok(())
    }

    fn set_mtu(&mut self, mtu: u64) -> Outcome {
        let failed = |source| Refusal::Mtu { mtu, source };
        let bytes = u16::try_from(mtu).map_err(|error| failed(error.into()))?;
        self.device.set_mtu(bytes).map_err(failed)
    }

    fn new_inflight(&mut self, asked: InflightDescription, answer: &mut Answer) -> Outcome {
        let part = |size| self.device.inflight_size(size, self.is_packed());
        let tracking = Tracking::new(&asked, part)?;
        answer.bytes = reply(request::GET_INFLIGHT_FD, &tracking.description().encode());
        answer.fds = vec![tracking.file()];
        self.tracking = Some(tracking);
        Ok(())
    }

    fn set_inflight(&mut self, description: InflightDescription, file: OwnedFd) -> Outcome {
        let part = |size| self.device.inflight_size(size, self.is_packed());
        self.tracking = Some(Tracking::of_client(&description, file, part)?);
        Ok(())
    }

    /// Replaces the whole memory table. Rings pause meanwhile. If it fails there is no memory, and
    /// they stay paused until there is.
    fn set_memory(&mut self, regions: Vec<(RegionDescription, OwnedFd)>) -> Outcome {
        self.pause();
        self.forget_memory();
        for (description, file) in regions {
            if let Err(refusal) = self.add_memory(description, file) {
                self.forget_memory();
                return Err(refusal);
            }
        }
        self.settle_all()
    }

    fn add_memory(&mut self, description: RegionDescription, file: OwnedFd) -> Outcome {
        let region = self.memory.check(&description)?;
        let (guest_address, size) = (region.guest_address, region.size);
        let failed = |source| Refusal::Map { guest_address, size, source };
        self.device.map(&region, file).map_err(failed)?;
        self.memory.add(region);
        Ok(())
    }

    fn remove_memory(&mut self, description: RegionDescription) -> Outcome {
        let region = self.memory.remove(&description)?;
        self.device.unmap(&region);
        Ok(())
    }
}
