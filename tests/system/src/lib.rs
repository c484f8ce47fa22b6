//! Several tools together against real servers: see `tests/`.
