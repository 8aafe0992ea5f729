"""What is known of the keys of TRL, transformers, open-r1 and open-rs: when each existed, its defaults, its fate here."""
