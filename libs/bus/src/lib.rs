//! NATS client and the direct gRPC path: typed publish and subscribe.
