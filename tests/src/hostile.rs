//! Hostile guests: core modules in text that speak the contract's ABI, made into components here, signed and packed, so
//! that each of them comes to the gateway the way a real component does.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use sallyport_protocol::id::TenantId;
use sallyport_protocol::package::{
    Digest, HookEvent, Kind, Limits, Name, Package, Publisher, Statement, Verified, World,
};
use time::OffsetDateTime;
use time::macros::datetime;
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, PackageId, Resolve};

/// As much of WASI as guests ask for.
const WASI: [(&str, &str); 4] = [
    (
        "random.wit",
        "package wasi:random@0.2.0; interface random { get-random-bytes: func(len: u64) -> list<u8>; }",
    ),
    (
        "io.wit",
        "package wasi:io@0.2.0;
         interface error { resource error; }
         interface streams {
           use error.{error};
           variant stream-error { last-operation-failed(error), closed }
           resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
         }",
    ),
    (
        "cli.wit",
        "package wasi:cli@0.2.0;
         interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }",
    ),
    (
        "clocks.wit",
        "package wasi:clocks@0.2.0;
         interface monotonic-clock { now: func() -> u64; resolution: func() -> u64; }
         interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }",
    ),
];

/// An interface with a resource, for guests that have one.
const FLOOD: &str = "test:hostile/flood";

/// When the guests are admitted.
pub const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

/// A guest's source by file name without ending, as a component; its first line says what it is.
pub fn component(name: &str) -> (Option<Kind>, Vec<u8>) {
    component_with(name, &[])
}

/// The same with blanks filled in: `{name}` is the text, as it stands in a string of the source, and `{name-length}` how many
/// bytes it has.
pub fn component_with(name: &str, blanks: &[(&str, &str)]) -> (Option<Kind>, Vec<u8>) {
    let path = sources().join(format!("{name}.wat"));
    let mut text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (blank, value) in blanks {
        let escaped = value.bytes().fold(String::new(), |text, byte| text + &format!("\\{byte:02x}"));
        text = text.replace(&format!("{{{blank}}}"), &escaped);
        text = text.replace(&format!("{{{blank}-length}}"), &value.len().to_string());
    }
    let kind = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix(";; kind: "))
        .expect("the first line names the kind");
    let binary = wat::parse_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match Kind::parse(kind) {
        Some(kind) => (Some(kind), componentise(kind, binary)),
        None => (None, binary),
    }
}

/// The guest, packed and signed by `key` under the name `hostile/<name>`, and verified.
pub fn verified(name: &str, key: &SigningKey) -> Verified {
    let (kind, component) = component(name);
    let package = package(statement(name, kind.unwrap_or(Kind::Policy)), key, &component);
    package
        .verify(&[publisher(key)], NOW, &semver::Version::new(0, 1, 0), None, None)
        .expect("the guest is signed properly")
}

/// The same, signed with a key that may sign for one tenant alone.
pub fn verified_for(name: &str, key: &SigningKey, tenant: &TenantId) -> Verified {
    let (kind, component) = component(name);
    let package = package(statement(name, kind.unwrap_or(Kind::Policy)), key, &component);
    let publisher = Publisher { tenant: Some(tenant.clone()), ..publisher(key) };
    package
        .verify(&[publisher], NOW, &semver::Version::new(0, 1, 0), Some(tenant), None)
        .expect("the guest is signed properly for its tenant")
}

/// What a publisher says about a guest.
pub fn statement(name: &str, kind: Kind) -> Statement {
    Statement {
        name: Name::parse(&format!("hostile/{name}")).expect("a file name is a name"),
        version: semver::Version::new(1, 0, 0),
        serial: 1,
        kind,
        world: World { name: kind.as_str().to_owned(), version: semver::Version::new(0, 1, 0) },
        digest: Digest::of(b""),
        size: 0,
        events: if kind == Kind::Hook { vec![HookEvent::PreToolUse] } else { Vec::new() },
        capabilities: Vec::new(),
        reads: None,
        limits: Limits::default(),
        upstream: None,
        credential: None,
        min_host: semver::Version::new(0, 1, 0),
        not_before: datetime!(2026-01-01 00:00 UTC),
        expires: datetime!(2036-01-01 00:00 UTC),
    }
}

/// A package as it comes over the wire.
pub fn package(statement: Statement, key: &SigningKey, component: &[u8]) -> Package {
    let bytes = Package::build(statement, key, component).expect("the package can be built");
    Package::parse(bytes).expect("what was built can be read")
}

/// Who may sign `hostile/...` for every tenant.
pub fn publisher(key: &SigningKey) -> Publisher {
    Publisher {
        key: key.verifying_key(),
        namespace: "hostile".to_owned(),
        kinds: Kind::ALL.to_vec(),
        tenant: None::<TenantId>,
        development: false,
        revoked: false,
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile-guests")
}

/// A core module that speaks the ABI of `kind`, as a component. It may import some of WASI besides what its world gives;
/// whether it gets it is the gateway's to say.
pub fn componentise(kind: Kind, module: Vec<u8>) -> Vec<u8> {
    try_componentise(kind, module).unwrap_or_else(|error| panic!("no component: {error:#}"))
}

/// The same for a module that may be none.
pub fn try_componentise(kind: Kind, mut module: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    for (name, wit) in WASI {
        resolve.push_str(name, wit).expect("the WIT is right");
    }
    push_gateway(&mut resolve);
    let kind = kind.as_str();
    // Some make resources of their own, which nobody asked for.
    let flood =
        if module.windows(FLOOD.len()).any(|it| it == FLOOD.as_bytes()) { "export flood;" } else { "" };
    let world = format!(
        "package test:hostile; interface flood {{ resource thing {{ constructor(); }} }} world guest {{ {flood} include sallyport:gateway/{kind}@0.1.0; import wasi:random/random@0.2.0; import wasi:cli/stderr@0.2.0; import wasi:clocks/monotonic-clock@0.2.0; import wasi:clocks/wall-clock@0.2.0; }}"
    );
    let package = resolve.push_str("guest.wit", &world).expect("the guest's world is right");
    let world = resolve.select_world(&[package], Some("guest")).expect("the guest's world is there");
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    ComponentEncoder::default().module(&module).and_then(|encoder| encoder.validate(true).encode())
}

/// An empty module with every import and export that the world of `kind` gives and asks for.
pub fn outline(kind: Kind) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = push_gateway(&mut resolve);
    let world = resolve.select_world(&[package], Some(kind.as_str())).expect("each kind has its world");
    wit_component::dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync))
}

fn push_gateway(resolve: &mut Resolve) -> PackageId {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    resolve.push_dir(wit).expect("the WIT of the gateway is right").0
}
