//! A port on capture files.
