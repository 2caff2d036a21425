//! Frame headers: parsing, checksums, segmentation, hashes. No I/O.

#![forbid(unsafe_code)]
