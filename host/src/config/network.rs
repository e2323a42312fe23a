//! Networks of addresses: `10.0.0.0/8`, or one address alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many bits are the same.
    prefix: u8,
}

/// Why a text is no network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NetworkError {
    /// Neither an address nor an address with a prefix.
    #[error("must be an address or a network: 192.0.2.7 or 10.0.0.0/8")]
    Malformed,
    /// Bits behind the prefix are set.
    #[error("has bits behind its prefix: is one address meant, or the network?")]
    Host,
}

// === impl Network ===

impl Network {
    /// Whether an address belongs to it, in whichever notation it comes.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, bits) = spread(self.address);
        let (other, other_bits) = spread(address.to_canonical());
        bits == other_bits && masked(own, bits, self.prefix) == masked(other, bits, self.prefix)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let (value, bits) = spread(address);
        let prefix = match prefix {
            // `+8` is a number for the parser.
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Some(_) => None,
            None => Some(bits),
        };
        let prefix = prefix.filter(|prefix| *prefix <= bits).ok_or(NetworkError::Malformed)?;
        if address.to_canonical() != address {
            return Err(NetworkError::Malformed);
        }
        if masked(value, bits, prefix) == value {
            Ok(Self { address, prefix })
        } else {
            Err(NetworkError::Host)
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

/// An address as a number, and how many bits it has.
fn spread(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

/// The first `prefix` of `bits` bits.
fn masked(value: u128, bits: u8, prefix: u8) -> u128 {
    let behind = u32::from(bits.saturating_sub(prefix));
    value.checked_shr(behind).and_then(|kept| kept.checked_shl(behind)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Network, NetworkError};

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_alike_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.7", "::ffff:192.0.2.7", "::c000:207"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("fe80::1", "fe80::1", "fe80::2"),
            ("10.1.2.4/30", "10.1.2.7", "10.1.2.8"),
        ] {
            assert!(contains(network, inside), "{network} {inside}");
            assert!(!contains(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "10.0.0/8", "proxy", "::ffff:10.0.0.1"]
        {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Malformed), "{text}");
        }
        assert_eq!("10.0.0.1/8".parse::<Network>(), Err(NetworkError::Host));
    }
}
