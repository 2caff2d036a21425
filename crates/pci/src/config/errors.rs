//! Detecting an error: Device Status, AER and the message to the root complex.

use super::ConfigSpace;
use crate::capability::Role;
use crate::spec::{aer, express, header};

/// An uncorrectable error that a function can detect by itself (PCIe Base 6.0, section 7.8.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UncorrectableError {
    /// Poisoned TLP Received.
    PoisonedTlp,
    /// Completion Timeout.
    CompletionTimeout,
    /// Completer Abort.
    CompleterAbort,
    /// Unexpected Completion.
    UnexpectedCompletion,
    /// Unsupported Request.
    UnsupportedRequest,
    /// Uncorrectable Internal Error.
    Internal,
}

/// The error message a function sends to the root complex (section 2.2.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMessage {
    /// ERR_COR.
    Correctable,
    /// ERR_NONFATAL.
    NonFatal,
    /// ERR_FATAL.
    Fatal,
}

impl UncorrectableError {
    /// The error's bit in the registers of AER.
    fn bit(self) -> u32 {
        match self {
            Self::PoisonedTlp => aer::POISONED_TLP,
            Self::CompletionTimeout => aer::COMPLETION_TIMEOUT,
            Self::CompleterAbort => aer::COMPLETER_ABORT,
            Self::UnexpectedCompletion => aer::UNEXPECTED_COMPLETION,
            Self::UnsupportedRequest => aer::UNSUPPORTED_REQUEST,
            Self::Internal => aer::UNCORRECTABLE_INTERNAL,
        }
    }

    /// Whether the error, unless software made it fatal, is left to whoever sent the request, and
    /// only noted here as advisory (section 6.2.3.2.4): the requester learns of it from the
    /// completion, or nobody waits for the answer.
    fn advisory(self, tlp_header: [u32; 4]) -> bool {
        match self {
            Self::UnsupportedRequest | Self::CompleterAbort => !posted(tlp_header),
            Self::UnexpectedCompletion => true,
            Self::PoisonedTlp | Self::CompletionTimeout | Self::Internal => false,
        }
    }
}

/// Whether a request gets no completion: memory writes and messages (section 2.2.1.1). The first
/// byte of the header, Fmt and Type, is in bits 31:24.
fn posted(tlp_header: [u32; 4]) -> bool {
    let (format, kind) = (tlp_header[0] >> 29, tlp_header[0] >> 24 & 0x1f);
    let with_data = format & 0b010 != 0;
    with_data && kind == 0 || kind & 0b11000 == 0b10000
}

impl ConfigSpace {
    /// Records an error that the function detected, with the header of the offending TLP, as
    /// section 6.2.5 orders it: in Device Status, Status and AER. Returns the message that the
    /// function sends to the root complex. For a VF that is none: whether it sends one is for the
    /// PF's Device Control to say.
    pub fn record_error(
        &mut self,
        error: UncorrectableError,
        tlp_header: [u32; 4],
    ) -> Option<ErrorMessage> {
        let bit = error.bit();
        let capabilities = &mut self.capabilities;
        let fatal = capabilities.aer.fatal(bit);
        let reporting = capabilities.express.error_reporting();
        // Unsupported requests have an enable of their own besides their severity's.
        let unsupported_request = error == UncorrectableError::UnsupportedRequest;
        let reported = !unsupported_request || reporting.unsupported_request;
        if unsupported_request {
            capabilities.express.record(express::DEVICE_STATUS_UNSUPPORTED_REQUEST);
        }

        if !fatal && error.advisory(tlp_header) {
            capabilities.express.record(express::DEVICE_STATUS_CORRECTABLE);
            capabilities.aer.record_advisory();
            if capabilities.aer.advisory_masked() {
                return None;
            }
            let unmasked = capabilities.aer.record(bit, tlp_header);
            return (unmasked && reporting.correctable && reported)
                .then_some(ErrorMessage::Correctable);
        }

        match error {
            UncorrectableError::CompleterAbort => {
                self.header.record(header::STATUS_SIGNALED_TARGET_ABORT);
            }
            UncorrectableError::PoisonedTlp => {
                self.header.record(header::STATUS_DETECTED_PARITY_ERROR);
            }
            _ => {}
        }
        let (status, enabled, message) = if fatal {
            (express::DEVICE_STATUS_FATAL, reporting.fatal, ErrorMessage::Fatal)
        } else {
            (express::DEVICE_STATUS_NON_FATAL, reporting.non_fatal, ErrorMessage::NonFatal)
        };
        self.capabilities.express.record(status);
        let unmasked = self.capabilities.aer.record(bit, tlp_header);
        let serr = self.header.command(header::COMMAND_SERR);
        if !unmasked || self.role == Role::Virtual || !(enabled && reported || serr) {
            return None;
        }
        if serr {
            self.header.record(header::STATUS_SIGNALED_SYSTEM_ERROR);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_writes_and_messages_are_posted() {
        // Fmt and Type as in table 2-3.
        for (fmt_type, expected) in [
            (0b000_00000, false), // memory read
            (0b001_00000, false), // memory read, 64-bit
            (0b010_00000, true),  // memory write
            (0b011_00000, true),  // memory write, 64-bit
            (0b000_00100, false), // configuration read, type 0
            (0b010_00100, false), // configuration write, type 0
            (0b010_00101, false), // configuration write, type 1
            (0b001_10000, true),  // message
            (0b011_10100, true),  // message with data
            (0b010_01100, false), // fetch-and-add
        ] {
            assert_eq!(posted([fmt_type << 24, 0, 0, 0]), expected, "{fmt_type:#010b}");
        }
    }
}
