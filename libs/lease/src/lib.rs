//! The quorum lease: seat and holder machines, rules R1 to R13 (pure).
