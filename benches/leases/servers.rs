//! The servers, as the tests start them.

#[path = "../../tests/support/servers/certificates.rs"]
pub mod certificates;
#[path = "../../tests/support/servers/etcd.rs"]
pub mod etcd;
#[path = "../../tests/support/servers/mariadb.rs"]
pub mod mariadb;
#[path = "../../tests/support/servers/postgres.rs"]
pub mod postgres;
#[path = "../../tests/support/servers/process.rs"]
pub mod process;
