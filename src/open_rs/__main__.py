"""`python -m open_rs` is `open-rs`."""

from open_rs.cli import main

main()
