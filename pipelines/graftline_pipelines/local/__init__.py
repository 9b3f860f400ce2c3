"""Runs on this machine, under KFP's local runner."""
