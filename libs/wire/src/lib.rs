//! Protobuf types, newtypes, subjects and the event envelope.
