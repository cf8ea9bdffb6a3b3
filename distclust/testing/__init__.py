"""For authors of engines: the conformance suite, the steps it runs, and an engine that does its worst."""
