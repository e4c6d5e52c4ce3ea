"""The agents: polling cycles, their schedule, leader election, and the spool that keeps samples until the bus has confirmed them."""
