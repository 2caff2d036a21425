use proptest::prelude::*;

use super::*;

#[test]
fn uplinks_are_read_as_they_are_written() {
    for text in ["none", "tap:tap0", "tap:a23456789012345"] {
        assert_eq!(text.parse::<Uplink>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_no_uplink_is_refused() {
    for text in ["", "tap", "tap0", "None", "none:", "af_xdp:eth0", " none"] {
        assert_eq!(text.parse::<Uplink>(), Err(UplinkError::Unknown(text.to_owned())), "{text}");
    }
    for name in ["", ".", "..", "a/b", "a b", "a:b", "a\tb", "a\0b", "a234567890123456"] {
        let text = format!("tap:{name}");
        assert_eq!(text.parse::<Uplink>(), Err(UplinkError::InterfaceName(name.to_owned())));
    }
}

#[test]
fn what_is_no_mac_address_is_refused() {
    for text in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "02:00:00:00:00:1",
        "02:00:00:00:00:001",
        "+2:00:00:00:00:01",
        "02-00-00-00-00-01",
        "0g:00:00:00:00:01",
        "02:00:00:00:00:01 ",
    ] {
        assert!(text.parse::<MacAddress>().is_err(), "{text}");
    }
}

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
    fn mac_addresses_are_read_as_they_are_written(bytes: [u8; 6]) {
        let mac = MacAddress(bytes);
        prop_assert_eq!(mac.to_string().parse::<MacAddress>(), Ok(mac));
    }

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
