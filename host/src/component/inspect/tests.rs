//! Every structure that the first look refuses, in text.

use super::*;

const MEMORY: usize = 32 * 1024 * 1024;

fn look(text: &str) -> Result<Structure, InspectError> {
    inspect(&wat::parse_str(text).unwrap(), MEMORY)
}

fn refused(text: &str) -> String {
    look(text).unwrap_err().to_string()
}

#[test]
fn what_a_component_is_made_of_is_told() {
    let structure = look(
        r#"(component
            (import "a:b/c@0.1.0" (instance))
            (core module $m (memory (export "m") 1) (func))
            (core instance (instantiate $m))
            (component $inner (core module))
            (instance $e)
            (export "d:e/f@0.1.0" (instance $e)))"#,
    )
    .unwrap();
    assert_eq!(structure.imports, ["a:b/c@0.1.0"]);
    assert_eq!(structure.exports, ["d:e/f@0.1.0"]);
    assert_eq!(
        (structure.components, structure.modules, structure.memories, structure.functions),
        (1, 2, 1, 1)
    );
    assert!(structure.nested_modules);
}

#[test]
fn a_core_module_is_no_component() {
    assert_eq!(refused("(module)"), "not a WebAssembly component");
    assert_eq!(inspect(b"hello", MEMORY), Err(InspectError::NotAComponent));
}

#[test]
fn more_bytes_than_allowed_are_not_even_parsed() {
    let bytes = vec![0; MAX_BYTES + 1];
    assert_eq!(inspect(&bytes, MEMORY), Err(InspectError::Size { size: MAX_BYTES + 1, limit: MAX_BYTES }));
}

#[test]
fn memories_that_are_too_large_shared_or_of_64_bits_are_refused() {
    assert_eq!(
        refused("(component (core module (memory 513)))"),
        "a memory starts with 33619968 bytes, more than 33554432"
    );
    assert_eq!(
        refused("(component (core module (memory 1 2 shared)))"),
        "the component uses shared memory, which is not allowed"
    );
    assert_eq!(
        refused("(component (core module (memory i64 1)))"),
        "the component uses 64-bit memory, which is not allowed"
    );
    assert_eq!(
        refused("(component (core module (memory 1) (memory 1) (memory 1) (memory 1) (memory 1)))"),
        "the component has 5 memories, more than 4"
    );
}

#[test]
fn tables_that_are_too_large_or_too_many_are_refused() {
    assert_eq!(
        refused("(component (core module (table 10001 funcref)))"),
        "the component has 10001 table elements, more than 10000"
    );
    let many = format!("(component (core module {}))", "(table 1 funcref)".repeat(9));
    assert_eq!(refused(&many), "the component has 9 tables, more than 8");
}

#[test]
fn nesting_is_limited() {
    let modules = format!("(component {})", "(core module)".repeat(49));
    assert_eq!(refused(&modules), "the component has 49 core modules, more than 48");
    let components = format!("(component {})", "(component)".repeat(17));
    assert_eq!(refused(&components), "the component has 17 nested components, more than 16");
    let instances = format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(65));
    assert_eq!(refused(&instances), "the component has 65 core instances, more than 64");
}

#[test]
fn functions_that_hurt_the_compiler_are_refused() {
    let locals = format!("(component (core module (func (local {}))))", "i32 ".repeat(10_001));
    assert_eq!(refused(&locals), "the component has 10001 locals in one function, more than 10000");
    let long =
        format!("(component (core module (func (param i32) {})))", "(drop (i32.const 7))".repeat(180_000));
    assert!(refused(&long).ends_with("bytes in one function, more than 524288"));
}

#[test]
fn features_that_are_off_are_refused() {
    let cases = [
        "(component (core module (func (param v128) (drop (i32x4.relaxed_trunc_f32x4_s (local.get 0))))))",
        "(component (core module (type (struct))))",
        "(component (core module (tag)))",
        "(component (core module (memory 1) (func (drop (i32.atomic.load (i32.const 0))))))",
    ];
    for text in cases {
        assert!(matches!(look(text), Err(InspectError::Invalid(_))), "{text}");
    }
}

#[test]
fn component_model_async_is_refused() {
    let text = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func (export "f") async (canon lift (core func $i "f") async)))"#;
    if let Ok(bytes) = wat::parse_str(text) {
        assert!(matches!(
            inspect(&bytes, MEMORY),
            Err(InspectError::Feature { .. } | InspectError::Invalid(_))
        ));
    }
    let text = "(component (core func (canon backpressure.inc)))";
    assert_eq!(refused(text), "the component uses component-model async, which is not allowed");
}

#[test]
fn imported_modules_are_refused() {
    assert_eq!(
        refused(r#"(component (import "m" (core module)))"#),
        "the component uses imported modules or components, which is not allowed"
    );
}
