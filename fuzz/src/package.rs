//! Signed packages: whatever is done to one, what verifies is what was signed, and its statement reads as others read it.

use std::sync::LazyLock;

use sallyport_protocol::package::{Package, Publisher, Statement};
use sallyport_protocol::signature::SigningKey;

const COMPONENT: &[u8] = b"\0asm, or what a vendor says is one";

/// A package as its publisher made it, and who made it.
struct Genuine {
    bytes: Vec<u8>,
    statement: Statement,
    publisher: Publisher,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let key = SigningKey::from_bytes(&[7; 32]);
    let statement = serde_json::json!({
        "name": "acme/no-secrets", "version": "1.2.3", "serial": 7, "kind": "policy", "world": "policy@0.1.0",
        "digest": format!("sha256:{}", "0".repeat(64)), "size": 0, "limits": {"cpu_ms": 5},
        "min_host": "0.1.0", "not_before": "2026-11-01T00:00:00Z", "expires": "2027-11-01T00:00:00Z",
    });
    let statement: Statement = serde_json::from_value(statement).expect("the statement is one");
    let bytes = Package::build(statement, &key, COMPONENT).expect("the package can be built");
    let statement = Package::parse(bytes.clone()).expect("it can be read again").statement().clone();
    let publisher = serde_json::json!({
        "key": sallyport_protocol::signature::public_key_text(&key.verifying_key()), "namespace": "acme", "kinds": ["policy"],
    });
    Genuine { bytes, statement, publisher: serde_json::from_value(publisher).expect("the publisher is one") }
});

/// Panics where something verifies that nobody signed. An odd first byte: what follows is a package. An even one: it is a list of
/// changes to a genuine package, each of a place (two bytes), what to do there, and a byte to do it with.
pub fn check(data: &[u8]) {
    let genuine = &*GENUINE;
    let Some((how, rest)) = data.split_first() else { return };
    let bytes = if how % 2 == 1 { rest.to_vec() } else { changed(&genuine.bytes, rest) };
    let Ok(package) = Package::parse(bytes) else { return };

    let payload = &package.envelope().payload;
    let lax: Statement =
        serde_json::from_slice(payload).expect("what is read strictly is read by others too");
    assert_eq!(&lax, package.statement(), "a statement has two readings");

    let said = package.statement();
    let publishers = std::slice::from_ref(&genuine.publisher);
    if let Ok(verified) = package.verify(publishers, said.not_before, &said.min_host, None, None) {
        assert_eq!(verified.component(), COMPONENT, "a component verifies that nobody signed");
        assert_eq!(verified.statement(), &genuine.statement, "a statement verifies that nobody signed");
    }
}

/// The genuine bytes with changes, four bytes each: place, what to do there, and a byte to do it with.
pub(crate) fn changed(genuine: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = genuine.to_vec();
    for change in changes.chunks_exact(4) {
        let [high, low, what, byte] = *change else { continue };
        let Some(at) = usize::from(u16::from_be_bytes([high, low])).checked_rem(bytes.len()) else {
            continue;
        };
        match what % 4 {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}
