"""Agents: polling cycles, their schedule, leader election, and the spool that holds samples until the bus confirms."""
