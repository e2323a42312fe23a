//! The first look at a component: size, structure and features, with a parser and nothing else. What does not pass here
//! never meets the compiler.

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentTypeRef, Encoding, FunctionBody, Parser, Payload, TypeRef,
    Validator, WasmFeatures,
};

use super::limits::{MEMORIES, TABLE_ELEMENTS, TABLES};

/// Bytes of a component.
pub(crate) const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Components within a component.
pub(crate) const MAX_COMPONENTS: u32 = 16;
/// Core modules within a component. Python's runtime with its stubs has 38.
pub(crate) const MAX_MODULES: u32 = 48;
/// Core instances that are made of them.
pub(crate) const MAX_INSTANCES: u32 = 64;
/// Bytes of one function: compile time grows faster than size.
pub(crate) const MAX_FUNCTION_BYTES: usize = 512 * 1024;
/// Locals of one function.
pub(crate) const MAX_FUNCTION_LOCALS: u64 = 10_000;
/// Functions of all core modules.
pub(crate) const MAX_FUNCTIONS: u64 = 100_000;
/// Imports and exports of the component, each.
const MAX_NAMES: usize = 256;

const WASM_PAGE: u64 = 65_536;

/// What a component looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Structure {
    /// Names of what it imports.
    pub imports: Vec<String>,
    /// Names of what it exports.
    pub exports: Vec<String>,
    /// Components nested in it.
    pub components: u32,
    /// Core modules in it.
    pub modules: u32,
    /// Linear memories defined in it.
    pub memories: usize,
    /// Functions defined in it.
    pub functions: u64,
    /// A core module lies in a nested component: such a component cannot be snapshotted.
    pub nested_modules: bool,
}

/// Why a component is refused at the first look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Too large.
    #[error("the component has {size} bytes, more than {limit}")]
    Size {
        /// Bytes it has.
        size: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// A core module, or no WebAssembly at all.
    #[error("not a WebAssembly component")]
    NotAComponent,
    /// More of something than is allowed.
    #[error("the component has {count} {what}, more than {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it has.
        count: u64,
        /// How many it may have.
        limit: u64,
    },
    /// Uses a feature that is switched off.
    #[error("the component uses {feature}, which is not allowed")]
    Feature {
        /// Which one.
        feature: &'static str,
    },
    /// Starts with more memory than it may ever have.
    #[error("a memory starts with {bytes} bytes, more than {limit}")]
    Memory {
        /// Bytes it starts with.
        bytes: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// Not valid WebAssembly, or valid only with features that are switched off.
    #[error("the component is not valid: {0}")]
    Invalid(String),
}

/// Looks at `bytes`, whose memories may have `memory` bytes.
pub fn inspect(bytes: &[u8], memory: usize) -> Result<Structure, InspectError> {
    if bytes.len() > MAX_BYTES {
        return Err(InspectError::Size { size: bytes.len(), limit: MAX_BYTES });
    }
    if !Parser::is_component(bytes) {
        return Err(InspectError::NotAComponent);
    }
    let structure = scan(bytes, u64::try_from(memory).unwrap_or(u64::MAX))?;
    Validator::new_with_features(features()).validate_all(bytes).map_err(|error| invalid(&error))?;
    Ok(structure)
}

/// What guests may be made of.
pub(crate) fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::FLOATS
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

// === private helpers ===

fn scan(bytes: &[u8], memory: u64) -> Result<Structure, InspectError> {
    let mut found = Structure::default();
    let mut instances = 0_u32;
    let mut tables = 0_usize;
    // One entry per level; true: a component, false: a core module.
    let mut levels: Vec<Encoding> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| invalid(&error))? {
            Payload::Version { encoding, .. } => levels.push(encoding),
            Payload::End(_) => {
                levels.pop();
            }
            Payload::ComponentSection { .. } => {
                count(&mut found.components, "nested components", MAX_COMPONENTS)?;
            }
            Payload::ModuleSection { .. } => {
                count(&mut found.modules, "core modules", MAX_MODULES)?;
                found.nested_modules |= levels.len() > 1;
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    if let wasmparser::Instance::Instantiate { .. } =
                        instance.map_err(|error| invalid(&error))?
                    {
                        count(&mut instances, "core instances", MAX_INSTANCES)?;
                    }
                }
            }
            Payload::MemorySection(section) => {
                for kind in section {
                    found.memories += 1;
                    check_memory(&kind.map_err(|error| invalid(&error))?, memory)?;
                }
                at_most(found.memories as u64, "memories", u64::from(MEMORIES))?;
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if let TypeRef::Memory(kind) = import.map_err(|error| invalid(&error))?.ty {
                        check_memory(&kind, memory)?;
                    }
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    tables += 1;
                    let table = table.map_err(|error| invalid(&error))?.ty;
                    if table.shared || table.table64 {
                        return Err(InspectError::Feature { feature: "64-bit or shared tables" });
                    }
                    at_most(table.initial, "table elements", TABLE_ELEMENTS as u64)?;
                }
                at_most(tables as u64, "tables", u64::from(TABLES))?;
            }
            Payload::CodeSectionEntry(body) => {
                found.functions += 1;
                at_most(found.functions, "functions", MAX_FUNCTIONS)?;
                check_function(&body)?;
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    check_canonical(&function.map_err(|error| invalid(&error))?)?;
                }
            }
            Payload::ComponentStartSection { .. } => {
                return Err(InspectError::Feature { feature: "component start functions" });
            }
            Payload::ComponentImportSection(section) if levels.len() == 1 => {
                for import in section {
                    let import = import.map_err(|error| invalid(&error))?;
                    if matches!(import.ty, ComponentTypeRef::Module(_) | ComponentTypeRef::Component(_)) {
                        return Err(InspectError::Feature { feature: "imported modules or components" });
                    }
                    found.imports.push(import.name.name.to_owned());
                    at_most(found.imports.len() as u64, "imports", MAX_NAMES as u64)?;
                }
            }
            Payload::ComponentExportSection(section) if levels.len() == 1 => {
                for export in section {
                    found.exports.push(export.map_err(|error| invalid(&error))?.name.name.to_owned());
                    at_most(found.exports.len() as u64, "exports", MAX_NAMES as u64)?;
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn check_memory(kind: &wasmparser::MemoryType, limit: u64) -> Result<(), InspectError> {
    if kind.memory64 {
        return Err(InspectError::Feature { feature: "64-bit memory" });
    }
    if kind.shared {
        return Err(InspectError::Feature { feature: "shared memory" });
    }
    if kind.page_size_log2.is_some() {
        return Err(InspectError::Feature { feature: "custom page sizes" });
    }
    let bytes = kind.initial.saturating_mul(WASM_PAGE);
    if bytes > limit { Err(InspectError::Memory { bytes, limit }) } else { Ok(()) }
}

fn check_function(body: &FunctionBody<'_>) -> Result<(), InspectError> {
    let size = body.range().len();
    at_most(size as u64, "bytes in one function", MAX_FUNCTION_BYTES as u64)?;
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(|error| invalid(&error))? {
        let (count, _) = group.map_err(|error| invalid(&error))?;
        locals = locals.saturating_add(u64::from(count));
        at_most(locals, "locals in one function", MAX_FUNCTION_LOCALS)?;
    }
    Ok(())
}

/// Only plain lifting, lowering and handles of resources; strings in UTF-8.
fn check_canonical(function: &CanonicalFunction) -> Result<(), InspectError> {
    let options = match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => options,
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => return Ok(()),
        CanonicalFunction::ThreadSpawnRef { .. }
        | CanonicalFunction::ThreadSpawnIndirect { .. }
        | CanonicalFunction::ThreadAvailableParallelism => {
            return Err(InspectError::Feature { feature: "threads" });
        }
        _ => return Err(InspectError::Feature { feature: "component-model async" }),
    };
    for option in options {
        let feature = match option {
            CanonicalOption::UTF8
            | CanonicalOption::Memory(_)
            | CanonicalOption::Realloc(_)
            | CanonicalOption::PostReturn(_) => continue,
            CanonicalOption::UTF16 | CanonicalOption::CompactUTF16 => "UTF-16 strings",
            CanonicalOption::Async | CanonicalOption::Callback(_) => "component-model async",
            CanonicalOption::CoreType(_) | CanonicalOption::Gc => "garbage collection",
        };
        return Err(InspectError::Feature { feature });
    }
    Ok(())
}

fn count(counter: &mut u32, what: &'static str, limit: u32) -> Result<(), InspectError> {
    *counter += 1;
    at_most(u64::from(*counter), what, u64::from(limit))
}

fn at_most(count: u64, what: &'static str, limit: u64) -> Result<(), InspectError> {
    if count > limit { Err(InspectError::TooMany { what, count, limit }) } else { Ok(()) }
}

fn invalid(error: &wasmparser::BinaryReaderError) -> InspectError {
    InspectError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests;
