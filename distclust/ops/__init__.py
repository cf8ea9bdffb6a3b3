"""Distributed building blocks: profile, stage, sample, assign. Written once, over the engine protocol."""
