"""Jobs from source to manifest: what the command line runs, without a terminal."""
