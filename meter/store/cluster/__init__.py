"""A store that is spread over several servers by Citus: samples on its workers, everything else on its coordinator."""
