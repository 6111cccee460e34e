//! Config, telemetry, health, clock and shutdown: the frame of every service.
