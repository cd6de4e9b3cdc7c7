//! The systems that lockkeeper is measured against, each as its users write it.

pub mod by_hand;
pub mod group;
pub mod redb;
pub mod sqlite;
