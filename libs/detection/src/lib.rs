//! Accrual failure detector, rise and fall counts, flap damping (pure).
