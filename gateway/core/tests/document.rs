//! The example document reads, and errors name the field's path.

use gateway_core::parse_update;

const DOCUMENT: &str = include_str!("data/update.json");

#[test]
fn the_example_document_is_accepted() {
    let update = parse_update(DOCUMENT.as_bytes()).expect("accepted");
    assert_eq!(update.version, "42");
    assert_eq!(update.route_tables[0].virtual_hosts[0].routes.len(), 3);
}
