"""What a run leaves on disk: run directory, lease, checkpoints, commits, model, manifest. See DESIGN.md."""
