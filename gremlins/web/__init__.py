"""`gremlins board`: the fleet, the beads and the money on a page of this machine. The extra `web`."""
