"""Adapters: each turns one published head model into a `HeadModel`."""
