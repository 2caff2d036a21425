//! Registers of the PCI Express Base Specification, revision 5.0, that software on the fabric uses.
