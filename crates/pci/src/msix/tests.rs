use std::collections::BTreeSet;

use parking_lot::Mutex as Lock;
use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Inbox(Lock<Vec<(u64, u32)>>);

impl Inbox {
    fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl MsiSink for Inbox {
    fn deliver(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

/// Returns vectors that are programmed, enabled, unmasked, and deliver into one inbox.
fn ready(vectors: u16) -> (Msix, Arc<Inbox>) {
    let msix = Msix::new(vectors).unwrap();
    let inbox = Arc::new(Inbox::default());
    for number in 0..vectors {
        let mut entry = [0; 16];
        entry[..8].copy_from_slice(&(0xfee0_0000 + u64::from(number) * 4).to_le_bytes());
        entry[8..12].copy_from_slice(&u32::from(number).to_le_bytes());
        msix.table_write(u64::from(number) * 16, &entry);
        msix.vector(number).unwrap().set_sink(Some(inbox.clone()));
    }
    msix.set_control(true, false);
    (msix, inbox)
}

fn pba(msix: &Msix) -> u64 {
    let mut bits = [0; 8];
    msix.pba_read(0, &mut bits);
    u64::from_le_bytes(bits)
}

fn mask(msix: &Msix, number: u16, masked: bool) {
    msix.table_write(u64::from(number) * 16 + 12, &[u8::from(masked)]);
}

#[test]
fn impossible_tables_are_refused() {
    for vectors in [0, 2049, u16::MAX] {
        assert_eq!(Msix::new(vectors).unwrap_err(), Error::MsixVectors(vectors));
    }
    assert_eq!(Msix::new(2048).unwrap().vectors(), 2048);
    assert!(Msix::new(4).unwrap().vector(4).is_none());
}

#[test]
fn after_power_on_all_vectors_are_masked() {
    let msix = Msix::new(2).unwrap();
    let mut table = [0xaa; 36];
    msix.table_read(0, &mut table);
    let entry = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(table[..32], [entry, entry].concat());
    assert_eq!(table[32..], [0; 4], "outside the table");
}

#[test]
fn an_enabled_vector_sends_its_own_message() {
    let (msix, inbox) = ready(3);
    msix.vector(2).unwrap().raise();
    msix.vector(0).unwrap().raise();
    assert_eq!(inbox.take(), [(0xfee0_0008, 2), (0xfee0_0000, 0)]);
    assert_eq!(pba(&msix), 0);
}

#[test]
fn each_mask_holds_the_message_back_until_it_is_lifted() {
    type Step = fn(&Msix);
    let masks: [(&str, Step, Step); 4] = [
        ("vector", |msix| mask(msix, 1, true), |msix| mask(msix, 1, false)),
        ("function", |msix| msix.set_control(true, true), |msix| msix.set_control(true, false)),
        ("bus master", |msix| msix.set_bus_master(false), |msix| msix.set_bus_master(true)),
        (
            "host",
            |msix| msix.vector(1).unwrap().host_mask(),
            |msix| msix.vector(1).unwrap().host_unmask(),
        ),
    ];
    for (what, mask, unmask) in masks {
        let (msix, inbox) = ready(2);
        mask(&msix);
        msix.vector(1).unwrap().raise();
        msix.vector(1).unwrap().raise();
        assert_eq!((inbox.take().len(), pba(&msix)), (0, 0b10), "{what}");
        unmask(&msix);
        assert_eq!(inbox.take(), [(0xfee0_0004, 1)], "{what}: two raised, one sent");
        assert_eq!(pba(&msix), 0, "{what}");
    }
}

#[test]
fn a_disabled_function_says_nothing_then_or_later() {
    let (msix, inbox) = ready(1);
    msix.set_control(false, false);
    msix.vector(0).unwrap().raise();
    msix.set_control(true, false);
    assert_eq!((inbox.take().len(), pba(&msix)), (0, 0));

    mask(&msix, 0, true);
    msix.vector(0).unwrap().raise();
    msix.set_control(false, false);
    assert_eq!(pba(&msix), 0);
    msix.set_control(true, false);
    mask(&msix, 0, false);
    assert_eq!(inbox.take(), []);
}

#[test]
fn a_message_waits_for_its_sink() {
    let (msix, inbox) = ready(1);
    let vector = msix.vector(0).unwrap();
    vector.set_sink(None);
    vector.raise();
    assert!(vector.pending() && inbox.take().is_empty());
    vector.set_sink(Some(inbox.clone()));
    assert_eq!(inbox.take().len(), 1);
}

#[test]
fn a_host_needs_none_of_the_guests_registers() {
    let (msix, inbox) = ready(1);
    let vector = msix.vector(0).unwrap();
    msix.set_control(false, true);
    mask(&msix, 0, true);
    vector.host_unmask();
    vector.raise();
    assert_eq!(inbox.take().len(), 1);
    vector.host_mask();
    vector.raise();
    assert!(vector.pending());
    vector.host_release();
    assert!(!vector.pending(), "back under a disabled function");
    vector.raise();
    assert_eq!(inbox.take(), []);
}

#[test]
fn reset_leaves_the_hosts_side_alone() {
    let (msix, inbox) = ready(1);
    let vector = msix.vector(0).unwrap();
    vector.host_mask();
    vector.raise();
    msix.reset();
    assert!(!vector.pending());
    let mut entry = [0; 16];
    msix.table_read(0, &mut entry);
    assert_eq!(u128::from_le_bytes(entry), 1 << 96);
    vector.host_unmask();
    vector.raise();
    assert_eq!(inbox.take(), [(0, 0)]);
}

#[test]
fn pending_bits_beyond_the_first_byte() {
    let (msix, _inbox) = ready(70);
    msix.set_control(true, true);
    for number in [0, 9, 63, 64, 69] {
        msix.vector(number).unwrap().raise();
    }
    let mut bits = [0xff; 20];
    msix.pba_read(0, &mut bits);
    assert_eq!(bits[..9], [1, 2, 0, 0, 0, 0, 0, 0x80, 0x21]);
    assert_eq!(bits[9..], [0; 11]);
    let mut one = [0xff];
    msix.pba_read(1, &mut one);
    assert_eq!(one, [2]);
    msix.pba_read(u64::MAX, &mut one);
    assert_eq!(one, [0]);
}

/// Workers raise while another thread masks and unmasks: every burst of raises ends with a message
/// delivered after it, whatever the interleaving.
#[test]
fn no_interrupt_is_lost_between_threads() {
    let (msix, inbox) = ready(2);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let vector = msix.vector(number).unwrap();
            scope.spawn(move || (0..2000).for_each(|_| vector.raise()));
        }
        for _ in 0..500 {
            mask(&msix, 0, true);
            msix.set_control(true, true);
            mask(&msix, 0, false);
            msix.set_control(true, false);
        }
    });
    let senders: BTreeSet<u32> = inbox.take().into_iter().map(|(_, data)| data).collect();
    assert_eq!(senders, BTreeSet::from([0, 1]));
    assert_eq!(pba(&msix), 0, "nothing is left behind");
}

proptest! {
    /// The table is memory, but for the reserved bits, whatever the size and alignment of accesses.
    #[test]
    fn the_table_is_byte_accurate(
        writes in prop::collection::vec(
            (0_u64..80, prop::collection::vec(any::<u8>(), 0..24)),
            0..20,
        )
    ) {
        let msix = Msix::new(4).unwrap();
        let mut model = [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]; 4].concat();
        for (offset, data) in writes {
            msix.table_write(offset, &data);
            for (at, byte) in (offset..200).zip(data) {
                let reserved = match at % 16 {
                    0 => 0b11,
                    12 => 0xfe,
                    13.. => 0xff,
                    _ => 0,
                };
                if let Some(place) = model.get_mut(at as usize) {
                    *place = byte & !reserved;
                }
            }
            let mut table = vec![0; model.len()];
            msix.table_read(0, &mut table);
            prop_assert_eq!(&table, &model);
            let mut part = vec![0; model.len() - 5];
            msix.table_read(5, &mut part);
            prop_assert_eq!(&part, &model[5..]);
        }
    }

    #[test]
    fn any_offset_is_harmless(offset: u64, len in 0_usize..64) {
        let msix = Msix::new(1).unwrap();
        let mut data = vec![0; len];
        msix.table_write(offset, &data);
        msix.table_read(offset, &mut data);
        msix.pba_read(offset, &mut data);
    }
}
