//! Replays recorded kernel traces.
