//! Tests of the sets, by rule and against a naive model.
