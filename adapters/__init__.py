"""What ties a hub to the world outside; each adapter uses public names alone, and none is known to the core."""
