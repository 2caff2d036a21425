//! These tests show the adapter's functions as pciutils decodes them: dumps in a file, read by
//! `lspci -F FILE -vvv`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use common::{extended_capability, function_spec, sriov_spec};
use manifold_pci::spec::{header, sriov};
use manifold_pci::{ConfigSpace, Passthrough, RoutingId, dump};

mod common;

const VFS: u16 = 256;

/// Software that knows configuration space by its registers alone.
struct Software<'a>(&'a mut ConfigSpace);

impl Software<'_> {
    fn read16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.0.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn read32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.0.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write16(&mut self, offset: u16, value: u16) {
        let _ = self.0.write(offset, &value.to_le_bytes());
    }

    fn write32(&mut self, offset: u16, value: u32) {
        let _ = self.0.write(offset, &value.to_le_bytes());
    }

    /// Takes the steps of Linux's `sriov_init` and `sriov_enable` (drivers/pci/iov.c) that touch
    /// registers, with its checks. Returns First VF Offset and VF Stride.
    fn enable_vfs(&mut self, ari: bool, num_vfs: u16) -> (u16, u16) {
        let cap = extended_capability(self.0, sriov::ID).expect("an SR-IOV capability");
        assert_eq!(self.read16(cap + sriov::CONTROL), 0);
        let mut control = if ari { sriov::CONTROL_ARI } else { 0 };
        self.write16(cap + sriov::CONTROL, control);
        let total = self.read16(cap + sriov::TOTAL_VFS);
        assert_eq!(total, VFS);
        let sizes = self.read32(cap + sriov::SUPPORTED_PAGE_SIZES);
        self.write32(cap + sriov::SYSTEM_PAGE_SIZE, sizes & sizes.wrapping_neg());

        // The BARs are sized and placed: the aperture of BAR 0 at 4 GiB, the one of BAR 2 behind
        // it.
        let mut aperture = 0x1_0000_0000_u64;
        for bar in [0, 2] {
            let at = cap + sriov::VF_BAR0 + bar * 4;
            self.write32(at, u32::MAX);
            self.write32(at + 4, u32::MAX);
            let (low, high) = (self.read32(at), self.read32(at + 4));
            assert_eq!(low & header::BAR_FLAGS, header::BAR_WIDTH64 | header::BAR_PREFETCHABLE);
            let size = !(u64::from(high) << 32 | u64::from(low & !header::BAR_FLAGS)) + 1;
            assert_eq!(size, 0x4000);
            self.write32(at, aperture as u32);
            self.write32(at + 4, (aperture >> 32) as u32);
            aperture += size * u64::from(total);
        }

        // This is compute_max_vf_buses: offset and stride are asked for every number of VFs.
        for number in (1..=total).rev() {
            self.write16(cap + sriov::NUM_VFS, number);
            assert_ne!(self.read16(cap + sriov::FIRST_VF_OFFSET), 0);
            assert_ne!(self.read16(cap + sriov::VF_STRIDE), 0);
        }
        self.write16(cap + sriov::NUM_VFS, 0);

        // This is sriov_enable.
        let initial = self.read16(cap + sriov::INITIAL_VFS);
        assert_eq!(initial, total, "without VF migration all VFs are there from the start");
        self.write16(cap + sriov::NUM_VFS, num_vfs);
        let layout =
            (self.read16(cap + sriov::FIRST_VF_OFFSET), self.read16(cap + sriov::VF_STRIDE));
        control |= sriov::CONTROL_VF_ENABLE | sriov::CONTROL_VF_MSE;
        self.write16(cap + sriov::CONTROL, control);
        assert_eq!(self.read16(cap + sriov::CONTROL), control);
        assert_eq!(self.read16(cap + sriov::NUM_VFS), num_vfs);
        layout
    }
}

/// Returns a PF that firmware and a driver brought up, with all VFs enabled.
fn enabled_pf(ari: bool) -> ConfigSpace {
    let mut pf = ConfigSpace::physical(&function_spec(), Some(&sriov_spec())).unwrap();
    let mut software = Software(&mut pf);
    software.write32(header::BAR0, 0xf000_0000);
    software.write32(header::BAR0 + 8, 0xf000_4000);
    software.write16(header::COMMAND, header::COMMAND_MEMORY | header::COMMAND_BUS_MASTER);
    let layout = software.enable_vfs(ari, VFS);
    assert_eq!(layout, if ari { (1, 1) } else { (256, 1) });
    pf
}

/// Runs `lspci -F FILE -vvv` and returns what it prints of each function. It fails on a machine
/// without lspci.
fn lspci(dump: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump");
    std::fs::write(&file, dump).unwrap();
    let output = Command::new("lspci")
        .arg("-F")
        .arg(&file)
        .arg("-vvv")
        // Debian has lspci where an ordinary user's PATH does not look.
        .env("PATH", format!("{}:/usr/sbin:/usr/bin", std::env::var("PATH").unwrap_or_default()))
        .output()
        .expect("this test needs lspci: install pciutils");
    let complaints = String::from_utf8_lossy(&output.stderr);
    // lspci looks for the kernel's modules, which a container lacks and the dump does not need.
    let complaints: Vec<_> = complaints.lines().filter(|line| !line.contains("libkmod")).collect();
    assert!(output.status.success() && complaints.is_empty(), "lspci: {complaints:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let functions: Vec<_> = text.split("\n\n").filter(|part| !part.trim().is_empty()).collect();
    functions.into_iter().map(str::to_owned).collect()
}

/// Checks that lspci could follow and decode everything.
///
/// `named`: the function has its Vendor ID, by which lspci decodes vendor-specific capabilities.
/// Even then pciutils does not know virtio's configuration access capability, which virtio 1.3
/// (section 4.1.4.9.1) requires of every device.
fn assert_decoded(text: &str, named: bool) {
    for line in text.lines() {
        let tolerated = line.ends_with("VirtIO: <unknown>")
            || !named && line.contains("Vendor Specific Information: Len=");
        let lower = line.to_lowercase();
        for complaint in
            ["chain broken", "unknown", "<?>", "!!!", "access denied", "illegal header"]
        {
            assert!(tolerated || !lower.contains(complaint), "{line:?} in\n{text}");
        }
    }
}

/// Returns the capabilities lspci lists, by what follows the offset, with the offset.
fn capabilities(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Capabilities: [")?.split_once("] "))
        .collect()
}

fn assert_capabilities(text: &str, expected: &[(&str, &str)]) {
    let found = capabilities(text);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((at, name), (expected_at, expected)) in found.iter().zip(expected) {
        assert!(at == expected_at && name.starts_with(expected), "[{at}] {name}: not {expected}");
    }
}

fn assert_lines(text: &str, expected: &[&str]) {
    for line in expected {
        assert!(text.lines().any(|found| found.trim() == *line), "no {line:?} in\n{text}");
    }
}

const PF: &str = "01:00.0";

fn rid(text: &str) -> RoutingId {
    text.parse().unwrap()
}

#[test]
fn the_pf_with_all_its_vfs() {
    for ari in [true, false] {
        let pf = enabled_pf(ari);
        let functions = lspci(&dump::lspci(rid(PF), "PF", &pf.to_bytes()));
        let [text] = &functions[..] else { panic!("{functions:?}") };
        assert_decoded(text, true);
        assert_capabilities(
            text,
            &[
                ("40", "Power Management version 3"),
                ("48", "MSI-X: Enable- Count=10 Masked-"),
                ("54", "Express (v2) Endpoint"),
                ("90", "Vendor Specific Information: VirtIO: CommonCfg"),
                ("a0", "Vendor Specific Information: VirtIO: Notify"),
                ("b4", "Vendor Specific Information: VirtIO: ISR"),
                ("c4", "Vendor Specific Information: VirtIO: DeviceCfg"),
                ("d4", "Vendor Specific Information: VirtIO: "),
                ("100 v2", "Advanced Error Reporting"),
                ("150 v1", "Device Serial Number 52-54-00-ff-fe-12-34-56"),
                ("160 v1", "Alternative Routing-ID Interpretation (ARI)"),
                ("170 v1", "Access Control Services"),
                ("180 v1", "Single Root I/O Virtualization (SR-IOV)"),
            ],
        );
        let hierarchy = if ari { '+' } else { '-' };
        let offset = if ari { 1 } else { 256 };
        assert_lines(
            text,
            &[
                "Region 0: Memory at f0000000 (64-bit, prefetchable)",
                "Region 2: Memory at f0004000 (64-bit, prefetchable)",
                "Vector table: BAR=2 offset=00000000",
                "PBA: BAR=2 offset=00002000",
                "ExtTag+ AttnBtn- AttnInd- PwrInd- RBE+ FLReset+ SlotPowerLimit 0W",
                "LnkSta:\tSpeed 5GT/s, Width x16",
                &format!(
                    "IOVCtl:\tEnable+ Migration- Interrupt- MSE+ ARIHierarchy{hierarchy} \
                     10BitTagReq-"
                ),
                "Initial VFs: 256, Total VFs: 256, Number of VFs: 256, \
                 Function Dependency Link: 00",
                &format!("VF offset: {offset}, stride: 1, Device ID: 1041"),
                "Supported Page Size: 00000553, System Page Size: 00000001",
                "Region 0: Memory at 0000000100000000 (64-bit, prefetchable)",
                "Region 2: Memory at 0000000100400000 (64-bit, prefetchable)",
            ],
        );
    }
}

/// Capabilities of a VF, on the bus and as Linux shows it.
const VF_CAPABILITIES: [(&str, &str); 10] = [
    ("40", "MSI-X: Enable- Count=10 Masked-"),
    ("4c", "Express (v2) Endpoint"),
    ("88", "Vendor Specific Information: "),
    ("98", "Vendor Specific Information: "),
    ("ac", "Vendor Specific Information: "),
    ("bc", "Vendor Specific Information: "),
    ("cc", "Vendor Specific Information: "),
    ("100 v2", "Advanced Error Reporting"),
    ("150 v1", "Alternative Routing-ID Interpretation (ARI)"),
    ("160 v1", "Access Control Services"),
];

#[test]
fn all_257_functions_as_linux_shows_them() {
    for ari in [true, false] {
        let pf = enabled_pf(ari);
        let view = pf.sriov().unwrap();
        let mut text = dump::lspci(rid(PF), "PF", &pf.to_bytes());
        for vf in 0..VFS {
            let space = ConfigSpace::virtual_function(&function_spec()).unwrap();
            let bytes = dump::vf_as_linux_shows(&space, &function_spec(), &view, vf);
            text += &dump::lspci(view.vf_routing_id(rid(PF), vf).unwrap(), "VF", &bytes);
        }
        let functions = lspci(&text);
        assert_eq!(functions.len(), 257);
        for (vf, text) in (0_u64..).zip(&functions[1..]) {
            assert_decoded(text, true);
            assert_capabilities(text, &VF_CAPABILITIES);
            let first = rid(if ari { "01:00.1" } else { "02:00.0" });
            let rid = first.checked_add(vf as u16).unwrap();
            let title = "Ethernet controller: Red Hat, Inc. Virtio 1.0 network device (rev 01)";
            assert_lines(
                text,
                &[
                    &format!("{rid} {title}"),
                    &format!(
                        "Region 0: Memory at {:x} (64-bit, prefetchable)",
                        0x1_0000_0000 + vf * 0x4000
                    ),
                    &format!(
                        "Region 2: Memory at {:x} (64-bit, prefetchable)",
                        0x1_0040_0000 + vf * 0x4000
                    ),
                    "LnkSta:\tSpeed 5GT/s, Width x16",
                ],
            );
            assert!(text.contains("Control: I/O- Mem+ BusMaster-"), "{text}");
        }
    }
}

#[test]
fn a_vf_on_the_bus() {
    let vf = ConfigSpace::virtual_function(&function_spec()).unwrap();
    for place in ["01:00.1", "02:00.0"] {
        let functions = lspci(&dump::lspci(rid(place), "VF", &vf.to_bytes()));
        let [text] = &functions[..] else { panic!("{functions:?}") };
        assert_decoded(text, false);
        assert_capabilities(text, &VF_CAPABILITIES);
        assert!(text.contains("Device ffff (rev 01)") && !text.contains("Region"), "{text}");
    }
}

#[test]
fn functions_as_a_vmm_sees_them() {
    let pf = enabled_pf(true);
    let vf = ConfigSpace::virtual_function(&function_spec()).unwrap();
    for (space, serial) in [(&pf, true), (&vf, false)] {
        let mut view = Passthrough::new(space, &function_spec());
        let functions = lspci(&dump::lspci(rid("00:05.0"), "VM", &view.to_bytes(space)));
        let [text] = &functions[..] else { panic!("{functions:?}") };
        assert_decoded(text, true);
        assert!(!text.contains("SR-IOV") && !text.contains("(ARI)"));
        let names: Vec<_> = capabilities(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), if serial { 11 } else { 9 }, "{names:?}");
        assert_eq!(names.last(), Some(&"Access Control Services"));
        assert_lines(text, &["Region 0: Memory at <unassigned> (64-bit, prefetchable)"]);

        let mut scratch = ConfigSpace::virtual_function(&function_spec()).unwrap();
        let _ = view.write(&mut scratch, header::BAR0, &0xfe00_0000_u32.to_le_bytes());
        let functions = lspci(&dump::lspci(rid("00:05.0"), "VM", &view.to_bytes(space)));
        assert_lines(&functions[0], &["Region 0: Memory at fe000000 (64-bit, prefetchable)"]);
    }
}
