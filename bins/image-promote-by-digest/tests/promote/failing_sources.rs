//! Sources that break. Placeholder until the scripted registry is there.
