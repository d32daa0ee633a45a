//! Federation between global and zones, in both directions.
