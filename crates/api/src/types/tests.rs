//! These tests check the API's types.

use proptest::prelude::*;

use super::*;

#[test]
fn the_driver_state_follows_the_status_register() {
    let state = |status: u8| DriverStatus::from(status).state;
    assert_eq!(state(0), DriverState::Reset);
    assert_eq!(state(1), DriverState::Starting); // ACKNOWLEDGE
    assert_eq!(state(1 | 2 | 8), DriverState::Starting); // ... DRIVER, FEATURES_OK
    assert_eq!(state(1 | 2 | 8 | 4), DriverState::Running);
    assert_eq!(state(1 | 2 | 8 | 4 | 64), DriverState::NeedsReset);
    assert_eq!(state(1 | 2 | 128), DriverState::Failed);
}

fn config_space(bytes: Box<[u8; CONFIG_SIZE]>) -> ConfigSpace {
    let bdf = "01:00.1".parse().unwrap();
    ConfigSpace { id: FunctionId::Vf(0), bdf, view: View::Bus, bytes }
}

#[test]
fn a_configuration_space_of_another_length_or_alphabet_is_refused() {
    let good = serde_json::to_value(config_space(Box::new([0xa5; CONFIG_SIZE]))).unwrap();
    for bytes in ["".to_owned(), "a5".repeat(4095), "a5".repeat(4097), "g5".repeat(4096)] {
        let mut bad = good.clone();
        bad["bytes"] = bytes.into();
        assert!(serde_json::from_value::<ConfigSpace>(bad).is_err());
    }
    assert!(serde_json::from_value::<ConfigSpace>(good).is_ok());
}

proptest! {
    #[test]
    fn configuration_spaces_survive_json(seed: u8) {
        let mut bytes = Box::new([0; CONFIG_SIZE]);
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (index as u8).wrapping_mul(31) ^ seed;
        }
        let space = config_space(bytes);
        let json = serde_json::to_string(&space).unwrap();
        prop_assert_eq!(serde_json::from_str::<ConfigSpace>(&json).unwrap(), space);
    }
}
