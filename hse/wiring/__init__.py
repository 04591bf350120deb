"""The composition root: settings -> adapters -> ports -> what runs. The only modules that see all; one a kind of process, so that
none waits for another's libraries."""
