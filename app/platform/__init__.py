"""The foundation of all features: settings, database, storage, media, queue, logs, secrets, clock, outbound HTTP."""
