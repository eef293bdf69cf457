"""What all features stand on: settings, database, storage, media, queue, logs, secrets, clock, outbound HTTP."""
