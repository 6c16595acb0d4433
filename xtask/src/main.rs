//! The project's chores; one verb per file.
fn main() {}
