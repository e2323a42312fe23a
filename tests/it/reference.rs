//! The reference pages that are printed from the code say what the code says.

use std::path::{Path, PathBuf};

/// Stands above what is printed.
const MARK: &str = "<!-- What follows is written by `cargo xtask gen`. -->\n";

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/reference").join(name)
}

/// What stands below the mark of a reference page.
fn printed(name: &str) -> String {
    let text = std::fs::read_to_string(reference(name)).unwrap();
    text.split_once(MARK).unwrap().1.to_owned()
}

#[test]
fn the_page_of_limits_is_the_table_that_the_gateway_prints() {
    let limits = sallyport::limits::markdown(&sallyport::app::limits());
    assert!(printed("limits.md") == limits, "run `cargo xtask gen`: the page is older than the limits");
}

#[test]
fn the_page_of_the_audit_trail_has_the_words_that_rows_have() {
    let words = sallyport_protocol::audit::markdown();
    assert!(printed("audit.md") == words, "run `cargo xtask gen`: the page is older than the words");
}

#[test]
fn the_page_of_errors_has_the_codes_that_clients_and_rows_are_given() {
    let codes = sallyport_protocol::errors::markdown();
    assert!(printed("errors.md") == codes, "run `cargo xtask gen`: the page is older than the codes");
}

#[test]
fn the_page_of_the_configuration_is_what_the_gateway_prints() {
    let keys = sallyport::config::reference();
    assert!(printed("configuration.md") == keys, "run `cargo xtask gen`: the page is older than the keys");
}

#[test]
fn the_page_of_administration_has_the_endpoints_that_the_gateway_has() {
    let endpoints = sallyport::app::admin_reference();
    assert!(
        printed("admin-api.md") == endpoints,
        "run `cargo xtask gen`: the page is older than the endpoints"
    );
}

#[test]
fn the_document_of_administration_is_what_the_gateway_prints() {
    let document = std::fs::read_to_string(reference("admin-api.openapi.json")).unwrap();
    assert!(
        document == sallyport::app::admin_openapi(),
        "run `cargo xtask gen`: the document is older than the endpoints"
    );
}

#[test]
fn the_schema_of_the_configuration_is_what_the_gateway_prints() {
    let schema = std::fs::read_to_string(reference("sallyport.schema.json")).unwrap();
    assert!(
        schema == sallyport::config::schema(),
        "run `cargo xtask gen`: the schema is older than the keys"
    );
}
