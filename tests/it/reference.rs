//! The reference pages that are printed from the code say what the code says.

use std::path::Path;

/// Stands above what is printed.
const MARK: &str = "<!-- What follows is written by `cargo xtask gen`. -->\n";

#[test]
fn the_page_of_limits_is_the_table_that_the_gateway_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/reference/limits.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, printed) = text.split_once(MARK).unwrap();
    assert!(
        printed == sallyport::limits::markdown(),
        "run `cargo xtask gen`: the page is older than the limits"
    );
}
