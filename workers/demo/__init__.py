"""Runs the whole pipeline on one machine: embedded servers and stand-ins, for demo and tests."""
