//! The fuzz target's body: bytes in, everything done with them, what must hold asserted.
