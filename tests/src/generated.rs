//! Components that nobody wrote: core modules of `wasm-smith`, shaped to the world of a kind, one for each number. What one of
//! them does is anybody's guess; that it is the same for the same number is not.

use std::ops::Range;

use arbitrary::{Arbitrary as _, Unstructured};
use sallyport_protocol::package::Kind;
use wasm_smith::{Config, Module};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use crate::hostile;

/// Stands in for what a generated guest rarely gets right, so that a call comes further than its first argument: memory for
/// the arguments, a configuration that is taken, and no code of its own before the first call.
const HONEST: &str = r#"(module
  (memory 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.load (i32.const 8)))
    (if (i32.eqz (local.get $at)) (then (local.set $at (i32.const 16384))))
    (local.set $at (i32.and (i32.add (local.get $at) (i32.const 15)) (i32.const -16)))
    (i32.store (i32.const 8) (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "sallyport:gateway/configurable@0.1.0#configure") (param i32 i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.const 1024))
  (func (export "_initialize")))"#;

/// Where the flattened arguments of `check` and `matches` hold the handle of the body.
const BODY_AT: u8 = 176;

/// How much of a guest is left to chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Everything, features that no guest may use too.
    Wild,
    /// Everything within the features that guests may use.
    Raw,
    /// All but memory for arguments and the configuration; what it borrowed is given back.
    Called,
    /// The same, and its answers lie within its memory.
    Answering,
}

/// A generated guest.
#[derive(Debug)]
pub struct Generated {
    /// Its number.
    pub seed: u64,
    /// Its kind.
    pub kind: Kind,
    /// What is left to chance.
    pub flavour: Flavour,
    /// The component; an error if the module fits no component at all.
    pub component: anyhow::Result<Vec<u8>>,
}

/// The guest of this number. Kinds and flavours take turns.
pub fn component(seed: u64) -> Generated {
    let turn = usize::try_from(seed % 20).expect("a small number");
    let kind = Kind::ALL[turn % 5];
    let flavour = [Flavour::Wild, Flavour::Raw, Flavour::Called, Flavour::Answering][turn / 5];
    let mut random = SplitMix(seed);
    let shape = with_memory(&hostile::outline(kind), random.next() % 64 + 1);
    let length = 1_024 << (random.next() % 5);
    let entropy: Vec<u8> =
        std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(length).collect();
    let mut entropy = Unstructured::new(&entropy);
    let config = config(flavour, shape, &mut entropy);
    let module = Module::new(config, &mut entropy).expect("entropy that runs out ends in zeroes").to_bytes();
    let module = match flavour {
        Flavour::Wild | Flavour::Raw => module,
        Flavour::Called | Flavour::Answering => patched(&module, kind, flavour),
    };
    Generated { seed, kind, flavour, component: hostile::try_componentise(kind, module) }
}

// === private helpers ===

/// The generator of Steele, Lea and Flood: numbers that stay the same whatever a library does.
#[derive(Debug)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn config(flavour: Flavour, shape: Vec<u8>, entropy: &mut Unstructured<'_>) -> Config {
    let mut config = Config::arbitrary(entropy).expect("entropy that runs out ends in zeroes");
    config.module_shape = Some(shape);
    if flavour == Flavour::Wild {
        return config;
    }
    config.max_memories = 1;
    config.max_tables = config.max_tables.min(4);
    config.max_table_elements = 5_000;
    config.table_max_size_required = true;
    config.gc_enabled = false;
    config.threads_enabled = false;
    config.memory64_enabled = false;
    config.exceptions_enabled = false;
    config.relaxed_simd_enabled = false;
    config.compact_imports_enabled = false;
    // They bring references to what the host holds, which count as garbage collection.
    config.reference_types_enabled = flavour == Flavour::Raw && entropy.ratio(1, 4).unwrap_or(false);
    config.allow_start_export = flavour == Flavour::Raw;
    config.disallow_traps = flavour == Flavour::Answering;
    config
}

/// The module with a memory of so many pages.
fn with_memory(module: &[u8], pages: u64) -> Vec<u8> {
    rebuilt(module, |id, _| (id == 5).then(|| [vec![1, 0], leb(pages)].concat()))
}

/// The module with [`HONEST`] code where it has a function of that name, and with its answers and borrows seen to.
fn patched(module: &[u8], kind: Kind, flavour: Flavour) -> Vec<u8> {
    let honest = wat::parse_str(HONEST).expect("the text is right");
    let (ours, theirs) = (Functions::of(&honest), Functions::of(module));
    let drop_body = theirs.imports.iter().position(|name| name == "[resource-drop]body");
    let mut bodies = vec![leb(theirs.bodies.len() as u64)];
    for (number, (range, code)) in theirs.bodies.iter().enumerate() {
        let names = theirs.names(number);
        let honest_one = ours.bodies.iter().enumerate().find(|(other, _)| {
            ours.names(*other).next().is_some_and(|wanted| names.clone().any(|name| name == wanted))
        });
        let body = if let Some((_, (range, _))) = honest_one {
            honest[range.clone()].to_vec()
        } else {
            let mut body = module[range.start..*code].to_vec();
            let called = |what: &str| {
                names.clone().any(|name| name.ends_with(what) && !name.starts_with("cabi_post_"))
            };
            let borrows = matches!(kind, Kind::Policy | Kind::Predicate);
            if borrows && (called("#check") || called("#matches")) {
                let index = drop_body.expect("the world gives it") as u64;
                // local.get 0, i32.load offset=BODY_AT, call $drop
                body.extend([&[0x20, 0, 0x28, 2][..], &leb(BODY_AT.into()), &[0x10], &leb(index)].concat());
            }
            body.extend(&module[*code..range.end - 1]);
            let answers = ["#check", "#scan", "#on-event", "#begin", "#next"].iter().any(|what| called(what));
            if flavour == Flavour::Answering && answers {
                // i32.const 0xfff8, i32.and
                body.extend([0x41, 0xf8, 0xff, 0x03, 0x71]);
            }
            body.push(0x0b);
            body
        };
        bodies.push(leb(body.len() as u64));
        bodies.push(body);
    }
    let code = bodies.concat();
    rebuilt(module, |id, _| (id == 10).then(|| code.clone()))
}

/// What a module says of its functions.
#[derive(Default)]
struct Functions {
    /// Names of those it imports.
    imports: Vec<String>,
    /// Names and numbers of those it exports.
    exports: Vec<(String, usize)>,
    /// Those it defines: the whole body, and where its code starts.
    bodies: Vec<(Range<usize>, usize)>,
}

impl Functions {
    fn of(module: &[u8]) -> Self {
        let mut found = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload.expect("the module can be read") {
                Payload::ImportSection(section) => {
                    for import in section.into_imports().map(|import| import.expect("an import")) {
                        if let TypeRef::Func(_) = import.ty {
                            found.imports.push(import.name.to_owned());
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section.into_iter().map(|export| export.expect("an export")) {
                        if export.kind == ExternalKind::Func {
                            let number = usize::try_from(export.index).expect("a small number");
                            found.exports.push((export.name.to_owned(), number));
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let code = body.get_operators_reader().expect("code").original_position();
                    found.bodies.push((body.range(), code));
                }
                _ => {}
            }
        }
        found
    }

    /// The names under which the defined function of this number is exported.
    fn names(&self, number: usize) -> impl Iterator<Item = &str> + Clone {
        let wanted = number + self.imports.len();
        self.exports.iter().filter(move |(_, index)| *index == wanted).map(|(name, _)| name.as_str())
    }
}

/// The module with other contents in some of its sections.
fn rebuilt(module: &[u8], change: impl Fn(u8, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = module[..8].to_vec();
    for payload in Parser::new(0).parse_all(module) {
        if let Some((id, range)) = payload.expect("the module can be read").as_section() {
            let content = change(id, &module[range.clone()]).unwrap_or_else(|| module[range].to_vec());
            bytes.push(id);
            bytes.extend(leb(content.len() as u64));
            bytes.extend(content);
        }
    }
    bytes
}

/// A number as WebAssembly writes it.
fn leb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
