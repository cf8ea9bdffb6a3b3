"""The demonstration: real text that every Python machine has, from source files to named clusters."""
