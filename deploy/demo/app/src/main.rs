//! The application of the demo: answers with its name, its zone and the request's headers.

fn main() {}
